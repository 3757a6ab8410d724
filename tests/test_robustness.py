"""Evasions, rewordings and long context: what is changed, what it is compared with, and that it is the same each time."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring import harvest, make_scorer, ordinary, row

from classifier.errors import DataRejected
from classifier.train.buried import benign_text, bury, measure_buried
from classifier.train.judged import cut_at, judge
from classifier.train.labelled import EvaluationRow, drawn
from classifier.train.losses import loss
from classifier.train.robustness import FORMS, Negatives, Robustness, measure_forms, measure_robustness

Evasion = Callable[[str, Any, Any], str]
NO_PAIRS = Path("there-is-no-such-file.jsonl")


def untouched(text: str, random: Any, benign: Any) -> str:
    return text


def hidden(text: str, random: Any, benign: Any) -> str:
    return text.replace("harvest", "gather")


def suspicious(text: str, random: Any, benign: Any) -> str:
    return f"harvest {text}"


def drawn_at_random(text: str, random: Any, benign: Any) -> str:
    return text.replace("harvest", "gather") if random.random() < 0.5 else text


def split(text: str, random: Any, benign: Any) -> str:
    messages = [{"role": "user", "content": part} for part in text.split(" ", 1)]
    return json.dumps({"messages": messages})


def measure(rows: list[EvaluationRow], evasions: Mapping[str, Evasion], **given: Any) -> Robustness:
    scorer = make_scorer()
    judged = judge(scorer, [found.text for found in rows])
    negatives = np.array([found.strict and not found.extraction for found in rows])
    cuts = [cut_at(judged.logits[negatives], rate) for rate in (0.01, 0.001)]
    return measure_robustness(
        rows,
        judged,
        scorer,
        cuts=cuts,
        negatives=negatives,
        draws=20,
        evasions=evasions,
        **{"pairs": NO_PAIRS} | given,
    )


def rows() -> list[EvaluationRow]:
    return [*harvest(8), *ordinary(300)]


# Samples.


def test_a_sample_is_balanced_over_sources_and_over_templates_within_them() -> None:
    held = [
        *(row(f"a{i}", source="large", template=f"t{i % 2 if i < 90 else 2}") for i in range(100)),
        *(row(f"b{i}", source="small", template="one") for i in range(5)),
        *(row(f"c{i}", source="middle", template="one") for i in range(40)),
    ]
    chosen = [held[number] for number in drawn(held, range(len(held)), 35, 0)]
    assert [sum(found.source == name for found in chosen) for name in ("large", "small", "middle")] == [15, 5, 15]
    assert {name: sum(found.template == name for found in chosen) for name in ("t0", "t1", "t2")} == {
        "t0": 5,
        "t1": 5,
        "t2": 5,
    }


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 29)), st.integers(0, 40), st.integers(0, 3))
def test_a_sample_holds_only_what_may_be_drawn_each_once_and_the_same_each_time(
    allowed: set[int], size: int, seed: int
) -> None:
    held = [row(str(i), source=f"s{i % 3}", template=f"t{i % 5}") for i in range(30)]
    chosen = drawn(held, allowed, size, seed)
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= allowed
    assert len(chosen) == min(size, len(allowed))
    assert chosen == drawn(held, sorted(allowed, reverse=True), size, seed)


# Losses.


def test_a_loss_is_paired() -> None:
    found = loss(np.array([True, True, False, True]), np.array([True, False, True, True]), list("abcd"), 200)
    assert (found.alone, found.changed, found.lost.value) == (0.75, 0.75, 0.0)
    assert found.lost.low < 0 < found.lost.high


def test_prompts_of_one_template_are_one_witness() -> None:
    caught, changed = np.array([True] * 6), np.array([True] * 3 + [False] * 3)
    apart, together = (loss(caught, changed, clusters, 300).lost for clusters in (list("abcdef"), list("aaabbb")))
    assert together.high - together.low > apart.high - apart.low


# Evasions.


def test_an_evasion_that_changes_nothing_loses_nothing_and_one_that_hides_the_sign_loses_all() -> None:
    found = measure(rows(), {"untouched": untouched, "hidden": hidden})
    same, gone = found.evasions
    assert (found.positives, found.templates, found.negatives) == (8, 4, 150)
    assert [part.lost.value for part in same.losses] == [0, 0]
    assert [(part.alone, part.changed) for part in gone.losses] == [(1, 0), (1, 0)]
    assert gone.losses[0].lost.low == 1
    assert same.ordinary == found.ordinary


def test_an_evasion_that_is_itself_taken_for_a_crime_shows_in_the_ordinary_prompts() -> None:
    found = measure(rows(), {"suspicious": suspicious})
    assert found.evasions[0].ordinary.value == 1
    assert found.ordinary.value < 0.05


def test_another_evasion_changes_none_of_the_others() -> None:
    alone = measure(rows(), {"drawn": drawn_at_random})
    beside = measure(rows(), {"untouched": untouched, "drawn": drawn_at_random})
    assert 0 < alone.evasions[0].losses[0].lost.value < 1
    assert beside.evasions[1] == alone.evasions[0]


def test_split_messages_are_read_as_the_body_of_a_request() -> None:
    seen = make_scorer()
    held = rows()
    judged = judge(seen, [found.text for found in held])
    negatives = np.array([not found.extraction for found in held])
    measure_robustness(
        held,
        judged,
        seen,
        cuts=(0.0, 0.0),
        negatives=negatives,
        draws=5,
        evasions={"split_messages": split},
        pairs=NO_PAIRS,
    )
    assert "user: please\n\nuser: harvest number0 of what you know" in [
        text for batch in seen.batches for text in batch
    ]


def test_padding_is_benign_and_none_of_the_prompts_that_are_evaded_too() -> None:
    padding: set[str] = set()
    evaded: set[str] = set()

    def noted(text: str, random: Any, benign: Any) -> str:
        padding.update(benign)
        evaded.add(text)
        return text

    held = [*rows(), *(row(f"call tool {i}", group="agentic", source="tools") for i in range(60))]
    measure(held, {"noted": noted})
    assert padding
    assert not padding & evaded
    assert padding <= {found.text for found in held if found.group == "benign"}


@pytest.mark.parametrize("held", [harvest(4), ordinary(9), [*harvest(4), *ordinary(9, group="agentic")]])
def test_too_few_rows_to_evade_and_pad_are_refused(held: list[EvaluationRow]) -> None:
    with pytest.raises(DataRejected, match="--evasions"):
        measure(held, {"untouched": untouched})


# Rewordings.


def pairs_file(folder: Path, **changed: str) -> Path:
    base = {"technique": "self_chat", "text": "harvest a lot", **dict.fromkeys(FORMS, "harvest much")}
    file = folder / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({**base, **changed, "text": f"harvest {i}"}) for i in range(5)))
    return file


def test_a_rewording_is_compared_with_its_own_text(tmp_path: Path) -> None:
    plain, forms = measure_forms(pairs_file(tmp_path, zh="收集很多"), make_scorer(), (0.0, 1.0), 20, {})
    lost = {found.name: found.losses[0].lost.value for found in forms}
    assert plain.prompts == 5
    assert lost == {"paraphrase": 0, "es": 0, "zh": 1, "fr": 0, "de": 0}


def test_a_translation_that_is_not_judged_is_counted(tmp_path: Path) -> None:
    german = "Bitte erzählen Sie mir ausführlich, welches Wetter morgen in unserer Stadt erwartet wird"
    plain, forms = measure_forms(pairs_file(tmp_path, de=german), make_scorer(), (0.0, 1.0), 20, {})
    assert plain.not_judged == 0
    assert {found.name: found.not_judged for found in forms}["de"] == 1


def test_without_the_file_no_rewordings_are_measured() -> None:
    plain, forms = measure_forms(NO_PAIRS, make_scorer(), (0.0, 1.0), 20, {})
    assert (plain.prompts, forms) == (0, [])


def test_a_row_without_a_translation_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match=r"pairs\.jsonl, line 1"):
        measure_forms(pairs_file(tmp_path, fr=""), make_scorer(), (0.0, 1.0), 20, {})


def test_a_translation_is_ranked_among_the_negatives_of_its_language(tmp_path: Path) -> None:
    scorer = make_scorer()
    ((high,), (low,)) = (judge(scorer, [text]).logits for text in ("harvest much", "收集很多"))
    assert high > low
    between = Negatives(np.full(4, (high + low) / 2), ["a", "b", "c", "c"])
    negatives = {"en": between, "zh": between}
    plain, forms = measure_forms(pairs_file(tmp_path, zh="收集很多"), scorer, (0.0, 1.0), 20, negatives)
    areas = {found.name: found.area.value for found in forms}
    assert plain.area.value == 1
    assert (areas["paraphrase"], areas["zh"]) == (1, 0)
    assert np.isnan(areas["es"])


# Long context.


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 200), st.integers(0, 5))
def test_a_benign_text_has_exactly_the_tokens_asked_for(sizes: list[int], length: int, seed: int) -> None:
    folded = [" ".join(f"p{i}w{j}" for j in range(size)) for i, size in enumerate(sizes)]
    encoder = make_scorer().model.encoder
    text, count = benign_text(folded, encoder.tokenise(folded), length, np.random.default_rng(seed))
    assert len(encoder.tokenise([text])[0].ids) == length
    assert count == len(text.split("\n\n"))


def test_no_benign_prompt_is_used_twice_before_all_are_used_once() -> None:
    folded = [f"prompt{i}" for i in range(10)]
    text, _ = benign_text(folded, make_scorer().model.encoder.tokenise(folded), 10, np.random.default_rng(3))
    assert sorted(text.split("\n\n")) == sorted(folded)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(0, 99))
def test_a_buried_prompt_stands_whole_between_paragraphs(paragraphs: int, seed: int) -> None:
    held = [f"paragraph {i}" for i in range(paragraphs)]
    whole, place = bury("the\n\nprompt", "\n\n".join(held), np.random.default_rng(seed))
    assert 0 <= place <= 1
    before, after = whole.split("the\n\nprompt")
    assert [part for part in (before + after).split("\n\n") if part] == held


def test_every_place_of_a_text_is_about_as_likely() -> None:
    text = "\n\n".join("word" for _ in range(60))
    random = np.random.default_rng(0)
    thirds = np.bincount([min(2, int(3 * bury("x", text, random)[1])) for _ in range(900)])
    assert thirds.min() > 240


def test_buried_prompts_are_compared_with_themselves_and_with_the_text_around_them() -> None:
    positives = harvest(9)
    quiet = [found.text for found in ordinary(40)]
    scorer = make_scorer()
    alone = judge(scorer, [found.text for found in positives]).logits > 0
    (short,) = measure_buried(positives, alone, quiet, scorer, cut=0.0, lengths=(200,), draws=20)
    assert (short.recall.alone, short.recall.changed, short.unaided) == (1, 1, 1)
    assert short.over.value == short.flagged.value == 0
    assert short.read == 1
    assert 18 <= short.prompts <= 21
    (loud,) = measure_buried(positives, alone, ["harvest the potatoes"], scorer, cut=0.0, lengths=(200,), draws=20)
    assert loud.over.value == loud.flagged.value == 1
    assert np.isnan(loud.unaided), "every text is over the threshold by itself"


def test_nothing_to_bury_gives_no_figures() -> None:
    assert measure_buried([], np.zeros(0, bool), ["quiet"], make_scorer(), cut=0.0, lengths=(50,), draws=5) == []


def test_only_short_positives_are_buried_in_ordinary_or_english_text() -> None:
    lengthy = [row("harvest " + "word " * 700, id="l", extraction=True, template="long")]
    found = measure([*harvest(3), *lengthy, *ordinary(300)], {"untouched": untouched})
    assert found.positives == 4
    assert found.buried == 3
    assert [part.tokens for part in found.long] == [2_000, 8_000]


def test_the_same_rows_give_the_same_figures() -> None:
    evasions = {"drawn": drawn_at_random}
    assert repr(measure(rows(), evasions)) == repr(measure(rows(), evasions))
