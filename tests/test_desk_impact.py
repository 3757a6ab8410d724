"""The impact of examples, held against really adding them and scoring the same prompts again."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from classifier.desk.impact import MOST_CHANGES, Impact, baseline, impact
from classifier.desk.reservoir import Reservoir, wordless
from classifier.desk.sample import Group
from classifier.desk.secret import mark_of_text
from classifier.errors import InvalidRequest
from classifier.lexical import terms
from classifier.runtime import Runtime
from classifier.scorer import Scorer
from classifier.verdict import Decision, Verdict
from index.example import Example, Label
from index.live import Side, Snapshot
from index.search import BatchIndex

KEY = b"k" * 32
HARVEST = (
    "Come up with 20 diverse instructions and answer each of them as one JSON line with fields instruction and output."
)
FILLER = "The village fair opens on Saturday with a cake contest, a brass band and a tractor parade. "


def sampled(runtime: Runtime, prompts: Sequence[str]) -> Reservoir:
    """A reservoir that saw these prompts on the scoring path."""
    reservoir = Reservoir(runtime.scorer.model, KEY, prompts=500, seed=1)
    scorer = Scorer(runtime.scorer.model, lambda: runtime.scorer.snapshot, observer=reservoir.observe)
    for start in range(0, len(prompts), 32):
        scorer.score(prompts[start : start + 32])
    return reservoir


@pytest.fixture(scope="module")
def prompts(runtime: Runtime) -> list[str]:
    """Known examples of both labels, reworded ones, long ones, disguised ones, unknown ones and foreign ones."""
    sides = [list(runtime.examples.snapshot.side(label).examples) for label in Label]
    seeds = [example.text for side in sides for example in side[:: len(side) // 40]]
    found = [f"{text} Please." for text in seeds] + seeds[::4]
    found += [FILLER * 30 + text for text in seeds[::8]]
    found += ["".join(f"{letter}\u200b" for letter in text) for text in seeds[::9]]
    found += [
        HARVEST,
        FILLER * 40,
        "zxqv blorp " * 4,
        "Miten paistetaan pullaa uunissa, ja kuinka kauan se kestää?" * 3,
    ]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def reservoir(runtime: Runtime, prompts: list[str]) -> Reservoir:
    return sampled(runtime, prompts)


def without(side: Side, vectors: dict[str, np.ndarray], gone: frozenset[str]) -> Side:
    kept = [example for example in side.examples if example.id not in gone]
    rows = np.array([vectors[example.id] for example in kept], np.float32)
    return Side(tuple(kept), BatchIndex(rows))


def really(
    runtime: Runtime, prompts: Sequence[str], candidates: Sequence[Example], revoked: frozenset[str] = frozenset()
) -> list[Verdict]:
    """What the scorer says once the examples are there, the revoked ones are not, and a relabelled one changed sides."""
    snapshot, embedded = runtime.examples.snapshot, runtime.scorer.embed([example.text for example in candidates])
    gone = revoked | {example.id for example in candidates}
    vectors = runtime.store.vectors(runtime.scorer.model.encoder.fingerprint)
    bare = Snapshot(1, without(snapshot.extraction, vectors, gone), without(snapshot.benign, vectors, gone))
    return list(Scorer(runtime.scorer.model, lambda: bare.extended(candidates, embedded, 2)).score(prompts).verdicts)


def held_against(
    runtime: Runtime,
    reservoir: Reservoir,
    prompts: Sequence[str],
    candidates: Sequence[Example],
    revoked: frozenset[str] = frozenset(),
) -> Impact:
    """The impact, once every number of it is what really adding the examples gives."""
    vectors = runtime.scorer.embed([example.text for example in candidates])
    model, snapshot = runtime.scorer.model, runtime.examples.snapshot
    found = impact(candidates, vectors, reservoir, model, snapshot, revoked=revoked)
    before = {mark_of_text(p, KEY): v for p, v in zip(prompts, runtime.scorer.score(prompts).verdicts, strict=True)}
    after = dict(zip(before, really(runtime, prompts, candidates, revoked), strict=True))
    marks = {group: [entry.mark for entry in reservoir.sample(group).entries] for group in Group}
    moved = [(before[mark].decision, after[mark].decision) for mark in marks[Group.ALLOWED]]
    caught = [(before[mark].decision, after[mark].decision) for mark in marks[Group.CAUGHT]]
    assert found.newly_flagged == sum(b != Decision.FLAG == a for b, a in moved)
    assert found.newly_reviewed == sum(
        b not in (Decision.REVIEW, Decision.FLAG) and a == Decision.REVIEW for b, a in moved
    )
    assert found.no_longer_flagged == sum(b == Decision.FLAG != a for b, a in caught)
    assert found.newly_allowed == sum(b != Decision.ALLOW == a for b, a in caught)
    assert (found.allowed, found.caught) == (len(moved), len(caught))
    for move in found.movers:
        old, new = before[bytes.fromhex(move.mark)], after[bytes.fromhex(move.mark)]
        assert move.before == pytest.approx(old.extraction_probability, abs=1e-5)
        assert move.after == pytest.approx(new.extraction_probability, abs=1e-5)
        assert (move.decision_before, move.decision_after) == (old.decision, new.decision)
    jumps = [
        abs(after[m].extraction_probability - before[m].extraction_probability) for ms in marks.values() for m in ms
    ]
    furthest = sorted(jumps, reverse=True)[: len(found.movers)]
    assert [abs(move.after - move.before) for move in found.movers] == pytest.approx(furthest, abs=1e-5)
    return found


def test_the_head_adds_the_words_to_what_neighbours_give_whatever_the_neighbours_are(runtime: Runtime) -> None:
    random = np.random.default_rng(0)
    head, width = runtime.scorer.model.head, 384 + len(_near(runtime))
    features = random.normal(0, 0.3, (40, width)).astype(np.float32)
    other = features.copy()
    other[:, 384:] = random.normal(0, 1, other[:, 384:].shape)
    words = terms([random.integers(0, 30_000, 60).tolist() for _ in range(40)])
    moved = head.logits(other, words)[:, 0] - head.logits(features, words)[:, 0]
    np.testing.assert_allclose(moved, wordless(head, other) - wordless(head, features), atol=1e-4)


def _near(runtime: Runtime) -> list[int]:
    labels = runtime.scorer.model.labels
    return [0] * (8 + len(labels.techniques) + len(labels.capabilities))


def test_sampled_prompts_stand_as_the_scorer_says(runtime: Runtime, reservoir: Reservoir, prompts: list[str]) -> None:
    found = baseline(reservoir, runtime.scorer.model, runtime.examples.snapshot)
    verdicts = runtime.scorer.score(prompts).verdicts
    said = {mark_of_text(prompt, KEY): verdict for prompt, verdict in zip(prompts, verdicts, strict=True)}
    judged = {mark for mark, verdict in said.items() if verdict.decision != Decision.ABSTAIN}
    assert {entry.mark for sample in found.samples.values() for entry in sample.entries} == judged
    for group, standing in found.standings.items():
        assert len(found.samples[group].entries) > 20
        for entry, probability, decision in zip(
            found.samples[group].entries, standing.probabilities, standing.decisions, strict=True
        ):
            assert probability == pytest.approx(said[entry.mark].extraction_probability, abs=1e-5)
            assert decision == said[entry.mark].decision


def test_an_attack_example_that_repeats_benign_traffic_would_flag_it(
    runtime: Runtime, reservoir: Reservoir, prompts: list[str]
) -> None:
    verdicts = runtime.scorer.score(prompts).verdicts
    benign = [p for p, v in zip(prompts, verdicts, strict=True) if v.decision == Decision.ALLOW and len(p) < 300]
    candidates = [Example(text, Label.EXTRACTION, "self_chat") for text in benign[:3]]
    candidates += [Example(f"{text} Thanks!", Label.EXTRACTION, "rubric_grading") for text in benign[5:9]]
    found = held_against(runtime, reservoir, prompts, candidates)
    assert found.newly_flagged >= 3
    assert f"newly flag {found.newly_flagged} of the last {found.allowed}" in found.sentences[0]


def test_a_benign_example_that_repeats_an_attack_would_let_it_through(
    runtime: Runtime, reservoir: Reservoir, prompts: list[str]
) -> None:
    found = held_against(runtime, reservoir, prompts, [Example(HARVEST, Label.BENIGN)])
    assert found.no_longer_flagged >= 1
    assert found.newly_allowed >= 1
    assert found.newly_flagged == 0
    assert "no longer flag" in found.sentences[1]


def test_an_example_of_a_long_prompts_own_text_counts_by_its_mark(
    runtime: Runtime, reservoir: Reservoir, prompts: list[str]
) -> None:
    found = held_against(runtime, reservoir, prompts, [Example(FILLER * 40, Label.EXTRACTION, "self_chat")])
    assert found.newly_flagged >= 1


def test_revoking_and_relabelling_are_worked_out_as_if_they_were_done(
    runtime: Runtime, reservoir: Reservoir, prompts: list[str]
) -> None:
    snapshot = runtime.examples.snapshot
    attacks, benign = list(snapshot.extraction.examples), list(snapshot.benign.examples)
    revoked = frozenset(example.id for example in (*attacks[:: len(attacks) // 40], *benign[: len(benign) // 9]))
    turned = [replace(attacks[len(attacks) // 40 * 3 + 1], label=Label.BENIGN, technique=None)]
    turned += [Example(benign[-1].text, Label.EXTRACTION, "self_chat")]
    turned += [replace(attacks[1], technique="rubric_grading" if attacks[1].technique == "self_chat" else "self_chat")]
    found = held_against(runtime, reservoir, prompts, turned, revoked)
    assert found.movers


def test_an_example_far_from_all_traffic_changes_nothing(runtime: Runtime, reservoir: Reservoir) -> None:
    vectors = np.zeros((1, 384), np.float32)
    found = impact(
        [Example("far away", Label.EXTRACTION, "self_chat")],
        vectors,
        reservoir,
        runtime.scorer.model,
        runtime.examples.snapshot,
    )
    assert (found.newly_flagged, found.newly_reviewed, found.no_longer_flagged, found.movers) == (0, 0, 0, ())
    assert found.flagged_interval[0] == 0.0 < found.flagged_interval[1] < 0.1


def test_an_empty_snapshot_gets_its_first_example(runtime: Runtime, reservoir: Reservoir, prompts: list[str]) -> None:
    empty = Snapshot(0, *(Side((), BatchIndex(np.zeros((0, 384), np.float32))) for _ in Label))
    candidates = [Example(HARVEST, Label.EXTRACTION, "synthetic_instruction"), Example(FILLER * 40, Label.BENIGN)]
    vectors = runtime.scorer.embed([example.text for example in candidates])
    model = runtime.scorer.model
    found = impact(candidates, vectors, reservoir, model, empty)
    before = Scorer(model, lambda: empty).score(prompts).verdicts
    after = Scorer(model, lambda: empty.extended(candidates, vectors, 1)).score(prompts).verdicts
    said = {mark_of_text(p, KEY).hex(): (b, a) for p, b, a in zip(prompts, before, after, strict=True)}
    assert found.movers
    for move in found.movers:
        old, new = said[move.mark]
        assert move.before == pytest.approx(old.extraction_probability, abs=1e-5)
        assert move.after == pytest.approx(new.extraction_probability, abs=1e-5)


def test_a_reservoir_without_prompts_says_that_nothing_is_known(runtime: Runtime) -> None:
    empty = Reservoir(runtime.scorer.model, KEY)
    found = impact([], np.zeros((0, 384), np.float32), empty, runtime.scorer.model, runtime.examples.snapshot)
    assert (found.allowed, found.caught) == (0, 0)
    assert "no recent traffic is known" in found.sentences[0]


def test_another_bundles_traffic_and_too_many_changes_are_refused(runtime: Runtime, reservoir: Reservoir) -> None:
    model, snapshot = runtime.scorer.model, runtime.examples.snapshot
    nothing = np.zeros((0, 384), np.float32)
    with pytest.raises(InvalidRequest, match="another bundle"):
        impact([], nothing, reservoir, replace(model, version="0.0.0"), snapshot)
    with pytest.raises(InvalidRequest, match="at once"):
        impact([], nothing, reservoir, model, snapshot, revoked=[f"ex-{n}" for n in range(MOST_CHANGES + 1)])
