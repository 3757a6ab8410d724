"""What is found of new examples at entry: conflicts, near duplicates, and nothing of anybody's text."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from classifier.desk.entry import Code, Finding, check_entry, pending_vectors
from classifier.desk.sample import Floats
from index.change import Act
from index.contract import ExampleStore
from index.example import Example, Label, State
from index.live import Snapshot, empty_snapshot
from index.store import open_store

ACT = Act("ada")
NOTHING = np.zeros((0, 3), np.float32)


def at(*cosines: float) -> Floats:
    """Unit rows with these cosines to (1, 0, 0)."""
    return np.array([[c, np.sqrt(1 - c * c), 0] for c in cosines], np.float32).reshape(-1, 3)


def attack(text: str, technique: str = "self_chat", state: State = State.ACTIVE) -> Example:
    return Example(text, Label.EXTRACTION, technique, state=state)


def benign(text: str) -> Example:
    return Example(text, Label.BENIGN)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExampleStore]:
    opened = open_store(tmp_path / "examples.db")
    yield opened
    opened.close()


def known(store: ExampleStore, examples: list[Example], rows: Floats) -> Snapshot:
    """Examples that are stored, active and searched."""
    stored = store.add(examples, ACT)
    return empty_snapshot(3).extended(stored, rows, store.revision())


def found(findings: list[Finding]) -> list[tuple[int, Code, str]]:
    return [(finding.candidate, finding.code, finding.other.text) for finding in findings]


def test_the_same_text_with_other_labels_is_a_conflict(store: ExampleStore) -> None:
    snapshot = known(store, [attack("one"), attack("two")], at(0.6, -0.6))
    candidates = [benign("one"), attack("two", "rubric_grading"), benign("three")]
    findings = check_entry(candidates, np.eye(3, dtype=np.float32), store, snapshot)
    assert found(findings) == [
        (0, Code.SAME_TEXT_OTHER_LABELS, "one"),
        (1, Code.SAME_TEXT_OTHER_LABELS, "two"),
    ]
    assert all(finding.conflict for finding in findings)
    assert findings[0].other.id in findings[0].message


def test_the_same_text_with_the_same_labels_and_a_revoked_one_are_told_apart(store: ExampleStore) -> None:
    snapshot = known(store, [attack("one"), attack("two")], at(0.1, -0.5))
    store.revoke([attack("two").id], ACT)
    findings = check_entry([attack("one"), attack("two")], at(0.9, -0.9), store, empty_snapshot(3))
    assert [finding.code for finding in findings] == [Code.SAME_TEXT_KNOWN, Code.SAME_TEXT_REVOKED]
    assert [finding.conflict for finding in findings] == [False, True]
    assert snapshot.revision == 1


@pytest.mark.parametrize(
    ("cosine", "other", "code"),
    [
        (0.86, benign("other"), Code.NEAR_OTHER_LABEL),
        (0.84, benign("other"), None),
        (0.96, attack("other"), Code.NEAR_DUPLICATE),
        (0.94, attack("other"), None),
        (0.96, attack("other", "rubric_grading"), Code.NEAR_DUPLICATE),
    ],
)
def test_near_examples_are_found_from_their_cosines(
    cosine: float, other: Example, code: Code | None, store: ExampleStore
) -> None:
    snapshot = known(store, [other, attack("far")], at(cosine, 0.1))
    findings = check_entry([attack("new")], at(1.0), store, snapshot)
    assert found(findings) == ([] if code is None else [(0, code, "other")])
    for finding in findings:
        assert finding.cosine == pytest.approx(cosine, abs=1e-5)
        assert finding.stored
        assert ("another technique" in finding.message) == (other.technique == "rubric_grading")


def test_conflicts_come_first_and_then_the_nearest(store: ExampleStore) -> None:
    snapshot = known(
        store, [attack("near"), benign("opposite"), attack("nearer"), benign("more so")], at(0.96, 0.87, 0.99, 0.93)
    )
    findings = check_entry([attack("new")], at(1.0), store, snapshot)
    assert [finding.other.text for finding in findings] == ["more so", "opposite", "nearer", "near"]


def test_new_examples_are_held_against_each_other(store: ExampleStore) -> None:
    candidates = [attack("one"), benign("two"), attack("three")]
    findings = check_entry(candidates, at(1.0, 0.9, 0.99), store, empty_snapshot(3))
    assert (0, Code.NEAR_OTHER_LABEL, "two") in found(findings)
    assert (1, Code.NEAR_OTHER_LABEL, "one") in found(findings)
    assert (2, Code.NEAR_DUPLICATE, "one") in found(findings)
    assert not any(finding.stored for finding in findings)
    assert all("new as well" in finding.message for finding in findings)


def test_pending_examples_are_compared_when_their_vectors_are_given(store: ExampleStore) -> None:
    (waiting,) = store.add([replace(benign("waiting"), state=State.PENDING)], ACT)
    store.keep_vectors("encoder", {waiting.id: at(0.9)[0]})
    candidates = [attack("new")]
    assert check_entry(candidates, at(1.0), store, empty_snapshot(3)) == []
    findings = check_entry(candidates, at(1.0), store, empty_snapshot(3), pending_vectors(store, "encoder"))
    assert found(findings) == [(0, Code.NEAR_OTHER_LABEL, "waiting")]
    assert "pending" in findings[0].message
    assert pending_vectors(store, "another") == {}


def test_a_pending_example_that_is_about_to_be_accepted_is_not_held_against_itself(store: ExampleStore) -> None:
    (waiting,) = store.add([attack("waiting", state=State.PENDING)], ACT)
    store.keep_vectors("encoder", {waiting.id: at(1.0)[0]})
    held = pending_vectors(store, "encoder")
    assert check_entry([store.get(waiting.id)], at(1.0), store, empty_snapshot(3), held) == []


def test_no_finding_holds_any_text(store: ExampleStore) -> None:
    snapshot = known(store, [benign("quagga one"), attack("quagga two"), attack("quagga three")], at(0.9, 0.99, 0.1))
    findings = check_entry([attack("quagga new"), benign("quagga three")], at(1.0, -1.0), store, snapshot)
    assert len(findings) >= 3
    assert not any("quagga" in finding.message for finding in findings)


def test_no_candidates_have_no_findings(store: ExampleStore) -> None:
    assert check_entry([], NOTHING, store, empty_snapshot(3)) == []
