"""The reservoir: bounded, fair, without text, safe beside scoring, and there again after a restart."""

import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from classifier.desk import secret
from classifier.desk.kept import restore, save
from classifier.desk.reservoir import HORIZON, Reservoir
from classifier.desk.sample import Group
from classifier.desk.secret import KEY_BYTES, KEY_FILE, desk_key, mark_of_text
from classifier.errors import InvalidSetting
from classifier.lexical import Terms
from classifier.policy import Calibration, Thresholds
from classifier.runtime import Runtime
from classifier.scorer import Labels, Model, Observed, Scorer
from classifier.verdict import Decision, Extent, Inspection, Verdict
from classifier.views import Prepared, View
from classifier.windows import Window, WindowPlan

KEY = b"k" * KEY_BYTES
DIMENSIONS = 4


class ConstantHead:
    """Gives every window the same logit."""

    def logits(self, features: Any, terms: Terms) -> Any:
        return np.ones((len(features), 1), np.float32)


class NoEncoder:
    """Only its form is asked for."""

    dimensions, fingerprint = DIMENSIONS, "none"


def made_model(version: str = "1") -> Model:
    return Model(
        version,
        NoEncoder(),  # type: ignore[arg-type]  # nothing is encoded
        ConstantHead(),
        Labels((), ()),
        (Calibration(1.0, 0.0),),
        Thresholds(0.5, 0.9),
        WindowPlan(),
    )


def batch(texts: list[str], decision: Decision = Decision.ALLOW, windows: int = 1) -> Observed:
    """A scored batch whose embeddings tell the prompts apart."""
    cuts = tuple(Window(n, n + 1) for n in range(windows))
    prompts = [Prepared(text, (View(text, None, cuts),)) for text in texts]  # type: ignore[arg-type]  # no tokens
    rows = np.repeat(np.arange(len(texts), dtype=np.float32), windows)
    features = np.stack([rows] * (DIMENSIONS + 8), axis=1)
    inspected = Inspection(Extent.FULL, 1, 1, windows, (0, 1))
    verdict = Verdict(decision, 0.1, -2.0, (), (), (), (), inspected)
    return Observed(
        prompts, features, np.full(len(rows), 3.0, np.float32), np.zeros(len(rows), np.float32), [verdict] * len(texts)
    )


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as seen:
        yield seen


def test_it_holds_no_more_prompts_than_allowed_and_counts_all_it_saw() -> None:
    reservoir = Reservoir(made_model(), KEY, prompts=40, seed=1)
    for start in range(0, 1_000, 50):
        reservoir.observe(batch([f"prompt {n}" for n in range(start, start + 50)]))
        reservoir.observe(batch([f"attack {n}" for n in range(start, start + 50)], Decision.FLAG))
    allowed, caught = reservoir.sample(Group.ALLOWED), reservoir.sample(Group.CAUGHT)
    assert (len(allowed.entries), allowed.seen) == (40, 1_000)
    assert (len(caught.entries), caught.seen) == (10, 1_000)


def test_every_prompt_is_as_likely_to_be_kept_as_any_other() -> None:
    counts = np.zeros(200)
    marks = {mark_of_text(f"prompt {n}", KEY): n for n in range(200)}
    for seed in range(300):
        reservoir = Reservoir(made_model(), KEY, prompts=20, seed=seed)
        for start in range(0, 200, 20):
            reservoir.observe(batch([f"prompt {n}" for n in range(start, start + 20)]))
        for entry in reservoir.sample(Group.ALLOWED).entries:
            counts[marks[entry.mark]] += 1
    expected = 300 * 20 / 200
    assert ((counts - expected) ** 2 / expected).sum() < 270  # chi-square, 199 degrees of freedom: p = 0.0006
    assert abs(counts[:100].sum() - counts[100:].sum()) < 300


def test_beyond_the_horizon_old_prompts_fade_out() -> None:
    reservoir = Reservoir(made_model(), KEY, prompts=4, seed=3)
    reservoir.observe(batch([f"old {n}" for n in range(4)]))
    for start in range(0, 10 * HORIZON * 4, 100):
        reservoir.observe(batch([f"new {n}" for n in range(start, start + 100)]))
    marks = {entry.mark for entry in reservoir.sample(Group.ALLOWED).entries}
    recent = {mark_of_text(f"new {n}", KEY) for n in range(5 * HORIZON * 4, 10 * HORIZON * 4)}
    assert not marks & {mark_of_text(f"old {n}", KEY) for n in range(4)}
    assert marks <= recent


def test_a_seed_draws_the_same_sample_again() -> None:
    drawn = []
    for _ in range(2):
        reservoir = Reservoir(made_model(), KEY, prompts=5, seed=7)
        reservoir.observe(batch([f"prompt {n}" for n in range(100)]))
        drawn.append([entry.mark for entry in reservoir.sample(Group.ALLOWED).entries])
    assert drawn[0] == drawn[1]


def test_equal_prompts_are_kept_once() -> None:
    reservoir = Reservoir(made_model(), KEY, prompts=50, seed=1)
    reservoir.observe(batch(["again", "again", "other"]))
    reservoir.observe(batch(["again"]))
    sample = reservoir.sample(Group.ALLOWED)
    assert sorted(e.mark for e in sample.entries) == sorted(mark_of_text(t, KEY) for t in ("again", "other"))
    assert sample.seen == 4


def test_what_was_not_judged_is_not_kept() -> None:
    reservoir = Reservoir(made_model(), KEY, seed=1)
    reservoir.observe(batch(["foreign"], Decision.ABSTAIN))
    assert all(not reservoir.sample(group).entries for group in Group)


def test_long_prompts_make_room_by_pushing_others_out_and_a_giant_is_passed_over() -> None:
    reservoir = Reservoir(made_model(), KEY, prompts=100, seed=1)
    _, room = reservoir.limits[Group.ALLOWED]
    for n in range(60):
        reservoir.observe(batch([f"long {n}"], windows=room // 16))
    sample = reservoir.sample(Group.ALLOWED)
    assert len(sample.words) <= room
    assert 10 <= len(sample.entries) <= 16
    before = {entry.mark for entry in sample.entries}
    reservoir.observe(batch(["giant"], windows=room // 16 + 1))
    assert {entry.mark for entry in reservoir.sample(Group.ALLOWED).entries} == before


def test_a_window_keeps_its_own_embedding_and_what_its_words_add() -> None:
    reservoir = Reservoir(made_model(), KEY, seed=1)
    reservoir.observe(batch(["zero", "one", "two"], windows=2))
    sample = reservoir.sample(Group.ALLOWED)
    for number, entry in enumerate(sample.entries):
        own = slice(sample.starts[number], sample.starts[number + 1])
        expected = [mark_of_text(text, KEY) for text in ("zero", "one", "two")].index(entry.mark)
        assert (sample.embeddings[own] == expected).all()
        assert sample.words[own].tolist() == [2.0, 2.0]


def test_a_failing_observation_is_logged_once_and_does_not_reach_the_scorer(lines: list[Any]) -> None:
    reservoir = Reservoir(made_model(), KEY, seed=1)
    broken = batch(["quagga"])
    for _ in range(3):
        reservoir.observe(replace(broken, features=None))  # type: ignore[arg-type]  # that is what is broken
    assert [line["log_level"] for line in lines] == ["warning"]
    assert "quagga" not in str(lines)
    reservoir.observe(broken)
    assert len(reservoir.sample(Group.ALLOWED).entries) == 1


def test_many_threads_may_observe_while_others_read() -> None:
    reservoir = Reservoir(made_model(), KEY, prompts=30, seed=1)

    def observe(name: int) -> None:
        for n in range(100):
            reservoir.observe(batch([f"{name}-{n}-{k}" for k in range(5)], windows=1 + n % 3))

    threads = [threading.Thread(target=observe, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        sample = reservoir.sample(Group.ALLOWED)
        assert len(sample.entries) <= 30
        assert sample.starts[-1] == len(sample.words) == len(sample.embeddings)
    for thread in threads:
        thread.join()
    assert reservoir.sample(Group.ALLOWED).seen == 4 * 100 * 5


def test_an_observed_scorer_gives_the_verdicts_of_one_that_is_not(runtime: Runtime) -> None:
    texts = ["How do I sort a list?", "Write 20 diverse instructions as JSON lines.", "word " * 600]
    reservoir = Reservoir(runtime.scorer.model, KEY, seed=1)
    observed = Scorer(runtime.scorer.model, lambda: runtime.scorer.snapshot, observer=reservoir.observe)
    assert observed.score(texts).verdicts == runtime.scorer.score(texts).verdicts
    assert sum(len(reservoir.sample(group).entries) for group in Group) == 3
    assert observed.score([]).verdicts == ()


# Its file.


def filled(seed: int = 1) -> Reservoir:
    reservoir = Reservoir(made_model(), KEY, prompts=20, seed=seed)
    reservoir.observe(batch([f"quagga {n}" for n in range(30)], windows=3))
    reservoir.observe(batch([f"okapi {n}" for n in range(3)], Decision.REVIEW))
    return reservoir


def test_a_restart_keeps_the_sample(tmp_path: Path) -> None:
    before, after = filled(), Reservoir(made_model(), KEY, prompts=20)
    path = tmp_path / "reservoir.bin"
    save(before, path)
    assert restore(after, path)
    for group in Group:
        old, new = before.sample(group), after.sample(group)
        assert new.seen == old.seen
        assert [entry.mark for entry in new.entries] == [entry.mark for entry in old.entries]
        assert [entry.views for entry in new.entries] == [entry.views for entry in old.entries]
        np.testing.assert_array_equal(new.embeddings, old.embeddings)
        np.testing.assert_array_equal(new.words, old.words)


def test_the_file_is_its_owners_alone_and_holds_no_text_and_no_plain_hash(tmp_path: Path) -> None:
    path = tmp_path / "reservoir.bin"
    save(filled(), path)
    data = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"quagga" not in data
    assert mark_of_text("quagga 1", KEY) != mark_of_text("quagga 1", b"l" * KEY_BYTES)
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_reservoir_is_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "reservoir.bin"
    save(Reservoir(made_model(), KEY), path)
    assert restore(Reservoir(made_model(), KEY), path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "longer"])
def test_a_damaged_file_is_dropped_with_a_warning(damage: str, tmp_path: Path, lines: list[Any]) -> None:
    path = tmp_path / "reservoir.bin"
    save(filled(), path)
    data = path.read_bytes()
    middle = len(data) // 2
    wrong = {
        "cut": data[:middle],
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "empty": b"",
        "text": b"no reservoir",
        "longer": data + b"\0" * 2**20,
    }
    path.write_bytes(wrong[damage])
    reservoir = Reservoir(made_model(), KEY, prompts=20)
    assert not restore(reservoir, path)
    assert not reservoir.sample(Group.ALLOWED).entries
    assert [line["log_level"] for line in lines] == ["warning"]


@pytest.mark.parametrize(
    ("model", "key", "why"),
    [(made_model("2"), KEY, "another bundle"), (made_model(), b"x" * KEY_BYTES, "another home")],
)
def test_a_file_of_another_bundle_or_home_is_dropped(
    model: Model, key: bytes, why: str, tmp_path: Path, lines: list[Any]
) -> None:
    path = tmp_path / "reservoir.bin"
    save(filled(), path)
    assert not restore(Reservoir(model, key, prompts=20), path)
    assert why in lines[0]["why"]


def test_no_file_is_no_fault(tmp_path: Path, lines: list[Any]) -> None:
    assert not restore(Reservoir(made_model(), KEY), tmp_path / "none")
    assert not lines


def test_a_smaller_reservoir_takes_no_more_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "reservoir.bin"
    save(filled(), path)
    small = Reservoir(made_model(), KEY, prompts=10)
    assert restore(small, path)
    assert len(small.sample(Group.ALLOWED).entries) == 10


# The home's key.


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    first = desk_key(tmp_path)
    assert len(first) == KEY_BYTES
    assert desk_key(tmp_path) == first
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_of_two_processes_that_make_the_key_at_once_both_get_one(tmp_path: Path) -> None:
    secret._publish_once(tmp_path / KEY_FILE, b"a" * KEY_BYTES)
    secret._publish_once(tmp_path / KEY_FILE, b"b" * KEY_BYTES)
    assert desk_key(tmp_path) == b"a" * KEY_BYTES


def test_a_key_of_another_length_or_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(InvalidSetting, match="remove it"):
        desk_key(tmp_path)
    with pytest.raises(InvalidSetting, match="rights"):
        desk_key(tmp_path / "missing")
