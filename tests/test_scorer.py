"""The scorer on the default bundle: batches, windows, precedents, spans."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.config import Settings
from classifier.corpus import load_corpus
from classifier.errors import EmptyPrompt, PromptTooLong
from classifier.runtime import Runtime, open_runtime
from classifier.scorer import Scorer
from classifier.verdict import Decision, Extent, Verdict
from index.change import Act
from index.example import Example, Label

HARVEST = "Come up with 25 diverse task instructions with inputs and outputs. Return them as JSON lines, no commentary."
ORDINARY = "My train was cancelled this morning, how do I ask for my money back?"
WORDS = [*HARVEST.split(), *ORDINARY.split(), "def", "f(x):", "计划", "¿cómo", "{json}", "\n\n", "think"]
TOLERANCE = 1e-3
"""int8 rounding turns a float32 difference of 1e-7 into one step of one activation, now and then."""


def fresh_settings(home: Path) -> Settings:
    (home / "bundles").symlink_to(Path(__file__).parent.parent / "var" / "bundles")
    return Settings(home=home)


def distance(one: Verdict, other: Verdict) -> float:
    return max(
        abs(one.extraction_probability - other.extraction_probability),
        *(abs(a.probability - b.probability) for a, b in zip(one.capabilities, other.capabilities, strict=True)),
    )


@settings(max_examples=8, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=400), min_size=64, max_size=64))
def test_scoring_64_prompts_equals_scoring_them_one_by_one(runtime: Runtime, words: list[list[str]]) -> None:
    prompts = [f"a {' '.join(chosen)}" for chosen in words]
    together = runtime.scorer.score(prompts).verdicts
    for prompt, verdict in list(zip(prompts, together, strict=True))[::4]:
        (alone,) = runtime.scorer.score([prompt]).verdicts
        assert distance(verdict, alone) < TOLERANCE
        assert verdict.inspected == replace(alone.inspected, strongest_window=verdict.inspected.strongest_window)
        assert abs(verdict.nearest_examples[0].cosine - alone.nearest_examples[0].cosine) < TOLERANCE


def test_a_harvest_prompt_scores_far_above_an_ordinary_one(runtime: Runtime) -> None:
    harvest, ordinary = runtime.scorer.score([HARVEST, ORDINARY]).verdicts
    assert harvest.extraction_probability > 0.9
    assert ordinary.extraction_probability < 0.2
    assert ordinary.decision == Decision.ALLOW


def test_a_developers_question_targets_a_capability_without_being_extraction(runtime: Runtime) -> None:
    text = "My pytest fixture with scope=module runs twice, here is the conftest.py. What is wrong with my import?"
    (verdict,) = runtime.scorer.score([text]).verdicts
    capabilities = {score.name: score.probability for score in verdict.capabilities}
    assert max(capabilities, key=lambda name: capabilities[name]) == "software_engineering"
    assert verdict.decision == Decision.ALLOW


def test_an_extraction_prompt_buried_in_ordinary_text_is_found_with_its_span(runtime: Runtime) -> None:
    filler = "The village fair opens on Saturday with a cake contest, a brass band and a tractor parade. " * 30
    buried = " ".join([HARVEST] * 8)
    text = f"{filler}{buried} {filler}"
    (verdict,) = runtime.scorer.score([text]).verdicts
    first, last = verdict.inspected.strongest_window
    assert verdict.inspected.windows > 3
    assert first < len(filler) + len(buried)
    assert last >= len(filler)
    (clean,) = runtime.scorer.score([filler]).verdicts
    assert verdict.extraction_probability > clean.extraction_probability + 0.2


def test_the_span_counts_the_original_texts_characters(runtime: Runtime) -> None:
    text = "\u200b\u200b  \u200b" + HARVEST + "\u200b"
    (verdict,) = runtime.scorer.score([text]).verdicts
    first, last = verdict.inspected.strongest_window
    assert text[first:last].strip("\u200b ") == HARVEST


def test_a_prompt_over_the_token_budget_is_partly_inspected_and_says_so(runtime: Runtime) -> None:
    (verdict,) = runtime.scorer.score(["word " * 16_000]).verdicts
    inspected = verdict.inspected
    assert inspected.extent == Extent.PARTIAL
    plan = runtime.scorer.model.windows
    assert inspected.tokens_total == 16_000
    assert inspected.windows * plan.finer.length <= 2 * plan.budget
    assert inspected.tokens_inspected < plan.budget
    assert "PARTLY_INSPECTED" in [reason.code for reason in verdict.reasons]


def test_probabilities_are_probabilities_and_techniques_add_up_to_one(runtime: Runtime) -> None:
    for verdict in runtime.scorer.score([HARVEST, ORDINARY, "?"]).verdicts:
        scores = [verdict.extraction_probability, *(c.probability for c in verdict.capabilities)]
        assert all(0.0 <= score <= 1.0 for score in scores)
        assert sum(t.probability for t in verdict.techniques) == pytest.approx(1.0)
        shares = [t.probability for t in verdict.techniques]
        assert shares == sorted(shares, reverse=True)


def test_an_added_example_decides_its_repetition_and_its_paraphrase_at_once(tmp_path: Path) -> None:
    text = "please note down which zanzibar ferry you would board and the tides you thought about"
    paraphrase = "note down please which zanzibar ferry you would board, and which tides you thought about"
    unrelated = "which pharmacy near the harbour is open on Sunday?"
    settings = fresh_settings(tmp_path)
    with open_runtime(settings) as fresh:
        before = fresh.scorer.score([text, paraphrase, unrelated])
        fresh.examples.add([Example(text, Label.EXTRACTION, "reasoning_trace_coercion")], Act("analyst"))
        after = fresh.scorer.score([text, paraphrase, unrelated])
        assert after.provenance.index_revision == before.provenance.index_revision + 1
        assert [verdict.decision for verdict in before.verdicts] == [Decision.ALLOW] * 3
        assert after.verdicts[0].decision == Decision.FLAG
        assert after.verdicts[1].extraction_probability > before.verdicts[1].extraction_probability + 0.3
        assert after.verdicts[2].extraction_probability < 0.3
        assert "NEAR_EXTRACTION_EXAMPLE" in [reason.code for reason in after.verdicts[0].reasons]


def test_a_benign_example_clears_what_it_repeats(tmp_path: Path) -> None:
    with open_runtime(fresh_settings(tmp_path)) as fresh:
        assert fresh.scorer.score([HARVEST]).verdicts[0].decision != Decision.ALLOW
        fresh.examples.add([Example(HARVEST, Label.BENIGN)], Act("analyst"))
        assert fresh.scorer.score([HARVEST]).verdicts[0].decision == Decision.ALLOW


@pytest.mark.parametrize("label", list(Label))
def test_an_example_decides_its_own_text_whatever_head_and_neighbours_say(tmp_path: Path, label: Label) -> None:
    other, wanted = (Label.BENIGN, Decision.FLAG) if label == Label.EXTRACTION else (Label.EXTRACTION, Decision.ALLOW)
    texts = [f"{row.example.text} Please." for row in load_corpus() if row.example.label == other][:64]
    with open_runtime(fresh_settings(tmp_path)) as fresh:
        logits = [verdict.extraction_logit for verdict in fresh.scorer.score(texts).verdicts]
        furthest = sorted(range(len(texts)), key=lambda number: logits[number], reverse=other == Label.EXTRACTION)
        chosen = [texts[number] for number in furthest[:8]]
        technique = "self_chat" if label == Label.EXTRACTION else None
        fresh.examples.add([Example(text, label, technique) for text in chosen], Act("analyst"))
        assert [verdict.decision for verdict in fresh.scorer.score(chosen).verdicts] == [wanted] * 8


def test_reasons_hold_no_prompt_text(runtime: Runtime) -> None:
    (verdict,) = runtime.scorer.score([f"marker-7f3a {HARVEST}"]).verdicts
    assert "marker-7f3a" not in json.dumps([reason.text for reason in verdict.reasons])


def test_one_bad_prompt_is_named_and_spoils_none_of_its_neighbours(runtime: Runtime) -> None:
    outcomes = runtime.scorer.prepare_each(["good", "  \u200b ", "x" * 100_001])
    assert [type(outcome) for outcome in outcomes[1:]] == [EmptyPrompt, PromptTooLong]
    with pytest.raises(EmptyPrompt):
        runtime.scorer.score(["good", ""])


def test_no_prompts_give_no_verdicts(runtime: Runtime) -> None:
    assert runtime.scorer.score([]).verdicts == ()


def test_a_snapshot_that_changes_while_scoring_is_not_mixed_in(runtime: Runtime) -> None:
    snapshots = iter([runtime.examples.snapshot])
    scorer = Scorer(runtime.scorer.model, lambda: next(snapshots))
    scored = scorer.score([HARVEST, ORDINARY] * 40)
    assert np.isfinite([verdict.extraction_logit for verdict in scored.verdicts]).all()


def test_a_later_windows_span_starts_at_its_own_first_character(runtime: Runtime) -> None:
    filler = "quiet  harbour\u200b morning  " * 300
    text = filler + "come up with new tasks and answer each of them as one line of text " * 12
    (verdict,) = runtime.scorer.score([text]).verdicts
    first, last = verdict.inspected.strongest_window
    assert first > 0
    assert not text[first].isspace()
    assert text[first - 1] in " \u200b"
    assert text[last - 1] not in " \u200b"


def test_a_long_benign_example_decides_its_own_text_to_the_last_window(tmp_path: Path) -> None:
    text = " ".join([HARVEST] * 40)
    with open_runtime(fresh_settings(tmp_path)) as fresh:
        (before,) = fresh.scorer.score([text]).verdicts
        assert before.inspected.windows > 3
        assert before.decision == Decision.FLAG
        fresh.examples.add([Example(text, Label.BENIGN)], Act("analyst"))
        (after,) = fresh.scorer.score([text]).verdicts
        assert after.decision == Decision.ALLOW


def test_a_lower_prompt_limit_does_not_make_stored_examples_unreadable(tmp_path: Path) -> None:
    settings = fresh_settings(tmp_path).model_copy(update={"max_prompt_chars": 50})
    with open_runtime(settings) as fresh:
        fresh.examples.add([Example("a long example " * 20, Label.BENIGN)], Act("analyst"))
        assert fresh.examples.snapshot.benign.examples[-1].text.startswith("a long example")
