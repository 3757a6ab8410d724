"""What the live index finds: which examples are nearest to a text, and which techniques and capabilities they carry."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_indexes import SEED, WORDS, benign, carried, embed, extraction, indexes_over, seeded_store

from index.example import Example, Label
from index.live import ExampleIndex, Match, Side, Snapshot, merged
from index.search import ExactIndex, FaissIndex, Hits

sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)


@pytest.fixture(params=[ExactIndex, FaissIndex])
def live(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ExampleIndex]:
    """An index over a store of one example."""
    with indexes_over(seeded_store(tmp_path), embed) as opens:
        yield opens(make_index=request.param)


def side_of(*examples: Example) -> Side:
    """A side of these examples, indexed by the oracle."""
    return Side(examples, ExactIndex(embed([example.text for example in examples])))


def hits_of(*rows: Sequence[tuple[int, float]]) -> Hits:
    """Hits of (position, cosine) pairs."""
    return Hits(
        np.array([[cosine for _, cosine in row] for row in rows], np.float32),
        np.array([[position for position, _ in row] for row in rows], np.int64),
    )


def test_membership_tells_which_example_carries_which_technique_or_capability() -> None:
    side = side_of(
        extraction("harvest", "self_chat", "code", "math"), extraction("teach", "tool_use_harvest"), benign("poem")
    )
    assert carried(side, "math", "tool_use_harvest", "unknown", "self_chat", "code") == [
        [True, False, False, True, True],
        [False, True, False, False, False],
        [False, False, False, False, False],
        [False, False, False, False, False],
    ]
    assert side.membership(("math",))[np.zeros((2, 3), np.int64)].dtype == bool


def test_membership_follows_the_order_of_the_names_asked_for() -> None:
    side = side_of(extraction("harvest", "self_chat", "code"))
    assert carried(side, "code", "other") == [[True, False], [False, False]]
    assert carried(side, "other", "code") == [[False, True], [False, False]]
    assert carried(side, "code", "other") == [[True, False], [False, False]]


def test_position_minus_one_carries_nothing() -> None:
    side = side_of(extraction("harvest", "self_chat"), extraction("teach", "self_chat"))
    hits = side.index.search(embed(["harvest"]), 4)
    carried = side.membership(("self_chat",))[hits.positions[0]]
    assert carried.ravel().tolist() == [True, True, False, False]


def test_membership_of_no_examples_or_no_names_has_its_shape() -> None:
    empty = Side((), ExactIndex(np.zeros((0, 4), np.float32)))
    assert carried(empty, "code", "math") == [[False, False]]
    assert side_of(benign("poem"), benign("letter")).membership(())[np.zeros((2, 3), np.int64)].shape == (2, 3, 0)


def test_membership_of_an_extended_side_includes_the_new_examples() -> None:
    side = side_of(extraction("harvest", "self_chat"))
    longer = side.extended([extraction("teach", "self_chat", "code")], embed(["teach"]))
    assert carried(longer, "code") == [[False], [True], [False]]
    assert carried(side, "code") == [[False], [False]]


def test_a_side_with_more_examples_than_vectors_or_fewer_is_refused() -> None:
    index = ExactIndex(embed(["harvest", "teach"]))
    for examples in ((benign("harvest"),), (benign("a"), benign("b"), benign("c"))):
        with pytest.raises(ValueError, match=f"{len(examples)} examples, but 2 vectors"):
            Side(examples, index)


def test_merged_hits_come_highest_cosine_first_over_all_sides() -> None:
    one, other = side_of(extraction("a"), extraction("b")), side_of(benign("c"), benign("d"))
    found = [(one, hits_of([(1, 0.75), (0, 0.25)])), (other, hits_of([(0, 0.5), (1, -0.5)]))]
    matches = merged(found, 0, 10)
    assert [(match.example.text, match.cosine) for match in matches] == [
        ("b", 0.75),
        ("c", 0.5),
        ("a", 0.25),
        ("d", -0.5),
    ]
    assert all(type(match.cosine) is float for match in matches)


def test_merged_hits_are_cut_at_the_limit_after_ordering() -> None:
    one, other = side_of(extraction("a"), extraction("b")), side_of(benign("c"))
    found = [(one, hits_of([(0, 0.5), (1, 0.25)])), (other, hits_of([(0, 0.75), (-1, -1.0)]))]
    assert [match.example.text for match in merged(found, 0, 2)] == ["c", "a"]
    assert merged(found, 0, 0) == []


def test_of_equal_cosines_the_lower_example_id_comes_first_whatever_its_side() -> None:
    examples = [extraction("a"), extraction("b"), benign("c"), benign("d")]
    one, other = side_of(*examples[:2]), side_of(*examples[2:])
    expected = sorted(example.id for example in examples)
    equal = hits_of([(0, 0.5), (1, 0.5)])
    for found in ([(one, equal), (other, equal)], [(other, equal), (one, equal)]):
        assert [match.example.id for match in merged(found, 0, 4)] == expected
        assert [match.example.id for match in merged(found, 0, 1)] == expected[:1]


def test_merging_takes_the_asked_query_and_leaves_out_padding() -> None:
    side = side_of(extraction("a"), extraction("b"))
    hits = hits_of([(0, 0.5), (1, 0.25)], [(1, -1.0), (-1, -1.0)])
    assert merged([(side, hits)], 1, 5) == [Match(side.examples[1], -1.0)]
    assert merged([], 0, 5) == []


@given(
    extractions=st.lists(sentences, max_size=6, unique=True),
    benigns=st.lists(sentences, max_size=6, unique=True),
    query=sentences,
    limit=st.integers(1, 15),
    label=st.sampled_from([None, *Label]),
)
@settings(deadline=None)
def test_nearest_finds_the_highest_cosines_of_the_asked_label(
    extractions: list[str], benigns: list[str], query: str, limit: int, label: Label | None
) -> None:
    examples = {
        Label.EXTRACTION: [extraction(text) for text in extractions],
        Label.BENIGN: [benign(text) for text in benigns],
    }
    sides = {
        name: Side(tuple(held), FaissIndex(embed([example.text for example in held])))
        for name, held in examples.items()
    }
    snapshot = Snapshot(1, sides[Label.EXTRACTION], sides[Label.BENIGN])
    vector = embed([query])[0]
    asked = [example for name in ([label] if label else Label) for example in examples[name]]
    cosines = sorted((float(row @ vector) for row in embed([e.text for e in asked])), reverse=True)

    matches = snapshot.nearest(vector, limit, label)

    assert [match.cosine for match in matches] == pytest.approx(cosines[:limit], abs=1e-5)
    assert [match.cosine for match in matches] == sorted((match.cosine for match in matches), reverse=True)
    assert len({(match.example.label, match.example.id) for match in matches}) == len(matches)
    for match in matches:
        assert match.example in asked
        assert match.cosine == pytest.approx(float(embed([match.example.text])[0] @ vector), abs=1e-5)


def test_nearest_with_a_label_returns_that_label_even_when_the_other_is_nearer(live: ExampleIndex) -> None:
    live.add([extraction("harvest the answers"), benign("harvest the garden")])
    query = embed(["harvest the answers"])[0]
    assert [m.example.text for m in live.snapshot.nearest(query, 5, Label.EXTRACTION)] == ["harvest the answers"]
    assert [m.example.text for m in live.snapshot.nearest(query, 1, Label.BENIGN)] == ["harvest the garden"]
    assert [m.example.text for m in live.snapshot.nearest(query, 2)] == ["harvest the answers", "harvest the garden"]


def test_nearest_returns_everything_when_the_limit_is_larger(live: ExampleIndex) -> None:
    live.add([extraction("harvest the answers")])
    assert len(live.snapshot.nearest(embed(["harvest"])[0], 100)) == 2


def test_nearest_of_a_label_without_examples_finds_nothing(live: ExampleIndex) -> None:
    assert live.snapshot.nearest(embed([SEED])[0], 5, Label.EXTRACTION) == []
    assert live.snapshot.nearest(embed([SEED])[0], 0) == []


def test_every_label_has_its_side(live: ExampleIndex) -> None:
    assert live.snapshot.side(Label.EXTRACTION) is live.snapshot.extraction
    assert live.snapshot.side(Label.BENIGN) is live.snapshot.benign
