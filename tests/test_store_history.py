"""The contract of every example store: who did and decided what, and what was at a revision."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from states import ACTIVE, BOB, NOBODY, PENDING, REVOKED, id_of, of_source, pending
from stores import ACT, benign, texts_of

from index.change import Act, Action, Choice, Decision
from index.contract import ExampleStore, Filter, Relabel
from index.errors import ExampleConflict, ExampleNotFound, InvalidExample
from index.example import Example, Label, content_hash


def test_the_history_says_who_did_what_when_and_why(store: ExampleStore) -> None:
    began = datetime.now(UTC)
    (example,) = store.add(pending("text"), Act("ann", "it looks odd", "first request"))
    store.relabel([Relabel(example.id, Label.EXTRACTION, "self_chat", ("code",))], BOB)
    store.add(benign("another"), ACT)
    store.accept([example.id], Act("cleo", request_id="last"))
    added, relabelled, accepted = store.history(example.id)
    assert [(c.number, c.revision, c.action, c.state) for c in (added, relabelled, accepted)] == [
        (1, 1, Action.ADD, PENDING),
        (2, 2, Action.RELABEL, PENDING),
        (4, 4, Action.ACCEPT, ACTIVE),
    ]
    assert (added.actor, added.reason, added.request_id) == ("ann", "it looks odd", "first request")
    assert (accepted.actor, accepted.reason, accepted.request_id) == ("cleo", "", "last")
    assert (added.label, added.technique, added.capabilities) == (Label.BENIGN, None, ())
    assert (accepted.label, accepted.technique, accepted.capabilities) == (Label.EXTRACTION, "self_chat", ("code",))
    assert began <= added.at <= relabelled.at <= accepted.at <= datetime.now(UTC)
    with pytest.raises(ExampleNotFound, match=NOBODY):
        store.history(NOBODY)


def test_all_changes_are_read_in_pieces_in_their_order(store: ExampleStore) -> None:
    store.add(benign(*map(str, range(5))), ACT)
    store.revoke([example.id for example in store.since(0)], BOB)
    found, after = [], 0
    while some := store.changes(after, 3):
        assert len(some) <= 3
        found += some
        after = some[-1].number
    assert [change.number for change in found] == list(range(1, 11))
    assert [change.action for change in found] == [Action.ADD] * 5 + [Action.REVOKE] * 5


def test_words_with_any_letter_come_back_in_the_history(store: ExampleStore) -> None:
    act = Act("a\0nn\x1a", "\x1a0\x1a1\0why\N{GRINNING FACE}", "\0\x1a")
    (example,) = store.add(benign("text \0\x1a0"), act)
    (change,) = store.history(example.id)
    assert (change.actor, change.reason, change.request_id) == (act.actor, act.reason, act.request_id)
    assert store.add(benign("text \0\x1a0"), act) == [example]


def test_since_tells_of_changed_examples_in_the_order_of_change_and_of_revoked_ones(store: ExampleStore) -> None:
    a, b, c = store.add(benign("a", "b", "c"), ACT)
    store.relabel([Relabel(b.id, Label.EXTRACTION, "self_chat", ())], ACT)
    store.revoke([a.id], ACT)
    assert [(e.text, e.state) for e in store.since(1)] == [("b", ACTIVE), ("a", REVOKED)]
    assert [e.text for e in store.since(2)] == ["a"]
    assert [e.text for e in store.since(0)] == ["c", "b"]
    assert store.since(0)[0] == c


def test_a_page_shows_what_is_wanted_as_it_is_and_as_it_was(store: ExampleStore) -> None:
    store.add([*of_source("one", "a", "b"), *of_source("other", "c")], ACT)
    store.add(pending("d"), ACT)
    a, b = (e.id for e in store.page(2)[0])
    store.revoke([a], ACT)
    store.relabel([Relabel(b, Label.EXTRACTION, "self_chat", ())], ACT)

    def shown(**wanted: object) -> list[str]:
        return texts_of(store.page(10, wanted=Filter(**wanted))[0])  # type: ignore[arg-type]  # a test's own words

    assert shown() == ["a", "b", "c", "d"]
    assert shown(state=ACTIVE) == ["b", "c"]
    assert shown(state=REVOKED) == ["a"]
    assert shown(label=Label.EXTRACTION) == ["b"]
    assert shown(source="one", state=ACTIVE) == ["b"]
    assert shown(as_of=0) == []
    assert shown(as_of=1) == ["a", "b", "c"]
    assert shown(as_of=2, state=ACTIVE) == ["a", "b", "c"]
    assert shown(as_of=3, state=REVOKED) == ["a"]
    assert shown(as_of=3, label=Label.EXTRACTION) == []
    assert shown(as_of=4, label=Label.EXTRACTION) == ["b"]


def test_pages_of_a_revision_do_not_change_while_others_write(store: ExampleStore) -> None:
    stored = store.add(benign("a", "b", "c"), ACT)
    first, token = store.page(2, wanted=Filter(as_of=1))
    store.revoke([stored[2].id], ACT)
    store.add(benign("d"), ACT)
    assert [*first, *store.page(2, token, Filter(as_of=1))[0]] == stored


# Decisions


def decision(text: str, choice: Choice = Choice.ACCEPT, **more: str) -> Decision:
    """A decision about a prompt."""
    return Decision(content_hash(text), choice, "ann", "why", datetime(2025, 1, 1, tzinfo=UTC), **more)


def test_the_last_decision_on_a_prompt_counts(store: ExampleStore) -> None:
    store.decide([decision("a"), decision("b", Choice.IGNORE)])
    store.decide([decision("a", Choice.REJECT), decision("c", example_id=NOBODY)])
    hashes = [content_hash(text) for text in "abcd"]
    assert store.decided(hashes) == {
        content_hash("a"): decision("a", Choice.REJECT),
        content_hash("b"): decision("b", Choice.IGNORE),
        content_hash("c"): decision("c", example_id=NOBODY),
    }
    assert store.decided([]) == store.decided(hashes[3:]) == {}
    assert store.revision() == 0


def test_of_two_decisions_of_one_call_the_last_counts_and_none_is_no_write(store: ExampleStore) -> None:
    store.decide([decision("a", Choice.IGNORE), decision("a")])
    store.decide([])
    assert store.decided({content_hash("a")})[content_hash("a")].choice is Choice.ACCEPT


def test_many_prompts_are_looked_up_at_once(store: ExampleStore) -> None:
    store.decide([decision(f"text {number}") for number in range(0, 1_300, 2)])
    assert len(store.decided([content_hash(f"text {number}") for number in range(1_300)])) == 650


# Everything at once


@given(st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_revision_is_read_as_it_was(store: ExampleStore, data: st.DataObject) -> None:
    texts = [f"{store.revision()} {number}" for number in range(5)]
    began = store.revision()
    seen: dict[int, dict[str, Example]] = {}
    for _ in range(data.draw(st.integers(1, 12))):
        text, state = data.draw(st.sampled_from(texts)), data.draw(st.sampled_from([PENDING, ACTIVE]))
        label, technique = data.draw(st.sampled_from([(Label.BENIGN, None), (Label.EXTRACTION, "self_chat")]))
        example = Example(text, label, technique, state=state)
        writes: list[Callable[[], object]] = [
            partial(store.add, [example], ACT),
            partial(store.accept, [example.id], ACT),
            partial(store.revoke, [example.id], ACT),
            partial(store.restore, [example.id], ACT, state),
            partial(store.relabel, [Relabel(example.id, label, technique, ())], ACT),
            partial(store.supersede, id_of(texts[0]), example, ACT),
        ]
        before = store.revision()
        try:
            data.draw(st.sampled_from(writes))()
        except (ExampleConflict, ExampleNotFound, InvalidExample):
            assert store.revision() == before
        seen[store.revision()] = {e.id: e for e in store.page(1_000)[0]}
    for revision, examples in seen.items():
        assert {e.id: e for e in store.page(1_000, wanted=Filter(as_of=revision))[0]} == examples
        assert store.at_revision(revision) == [e for e in examples.values() if e.state is ACTIVE]
        changed = {e.id for e in store.page(1_000)[0] if e.changed > revision}
        if revision:
            assert {e.id for e in store.since(revision)} == changed
    assert [c.revision for c in store.changes(0, 1_000)] == sorted(c.revision for c in store.changes(0, 1_000))
    assert {c.revision for c in store.changes(0, 1_000)} == set(range(1, store.revision() + 1))
    assert store.revision() >= began
