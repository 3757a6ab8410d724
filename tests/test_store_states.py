"""The contract of every example store: states, labels, history, what was at a revision, and repeated requests."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import ACT, SECRET, benign, extraction, texts_of

from index.change import Act, Action, Choice, Decision
from index.contract import ExampleStore, Filter, Relabel
from index.errors import ExampleConflict, ExampleNotFound, InvalidExample, NotAllowed
from index.example import Example, Label, State, content_hash

PENDING, ACTIVE, REVOKED = State
NOBODY = "ex-00000000000000000000"
BOB = Act("bob", "he saw it")


def pending(*texts: str) -> list[Example]:
    """Pending benign examples of these texts."""
    return [Example(text, Label.BENIGN, state=PENDING) for text in texts]


def of_source(source: str, *texts: str) -> list[Example]:
    """Active benign examples of a source."""
    return [Example(text, Label.BENIGN, source=source) for text in texts]


def states(store: ExampleStore) -> dict[str, State]:
    """Every example's state, by its text."""
    return {example.text: example.state for example in store.page(1_000)[0]}


def one_of_each(store: ExampleStore) -> tuple[str, str, str]:
    """The ids of a pending, an active and a revoked example."""
    waits, is_active, gone = store.add([*pending("waits"), *benign("is active", "gone")], ACT)
    store.revoke([gone.id], ACT)
    return waits.id, is_active.id, gone.id


def test_an_example_is_kept_in_the_state_in_which_it_was_added(store: ExampleStore) -> None:
    store.add([*pending("waits"), *benign("is active")], ACT)
    assert states(store) == {"waits": PENDING, "is active": ACTIVE}


def test_an_example_cannot_be_added_as_a_revoked_one(store: ExampleStore) -> None:
    with pytest.raises(InvalidExample, match="revoked"):
        store.add([*benign("new"), Example("gone", Label.BENIGN, state=REVOKED)], ACT)
    assert (store.since(0), store.revision()) == ([], 0)


def test_a_licence_comes_back_as_it_was_given(store: ExampleStore) -> None:
    (stored,) = store.add([Example("text", Label.BENIGN, licence="CC-BY-4.0")], ACT)
    assert store.get(stored.id).licence == "CC-BY-4.0"


Move = Callable[[ExampleStore, Sequence[str], Act], list[Example]]
MOVES: dict[str, Move] = {
    "accept": lambda store, ids, act: store.accept(ids, act),
    "reject": lambda store, ids, act: store.reject(ids, act),
    "revoke": lambda store, ids, act: store.revoke(ids, act),
    "restore": lambda store, ids, act: store.restore(ids, act),
    "restore at once": lambda store, ids, act: store.restore(ids, act, ACTIVE),
}
ALLOWED = {
    ("accept", PENDING): ACTIVE,
    ("accept", ACTIVE): ACTIVE,
    ("reject", PENDING): REVOKED,
    ("reject", REVOKED): REVOKED,
    ("revoke", PENDING): REVOKED,
    ("revoke", ACTIVE): REVOKED,
    ("revoke", REVOKED): REVOKED,
    ("restore", REVOKED): PENDING,
    ("restore", PENDING): PENDING,
    ("restore at once", REVOKED): ACTIVE,
    ("restore at once", ACTIVE): ACTIVE,
}


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("origin", State)
def test_a_move_is_made_from_the_states_that_allow_it_and_refused_from_the_others(
    store: ExampleStore, name: str, origin: State
) -> None:
    ids = dict(zip((PENDING, ACTIVE, REVOKED), one_of_each(store), strict=True))
    before, revision = states(store), store.revision()
    to = ALLOWED.get((name, origin))
    if to is None:
        with pytest.raises(ExampleConflict, match=f"{ids[origin]} is {origin}"):
            MOVES[name](store, [ids[origin]], BOB)
        assert (states(store), store.revision()) == (before, revision)
        return
    (moved,) = MOVES[name](store, [ids[origin]], BOB)
    assert moved == store.get(ids[origin])
    assert (moved.state, moved.changed) == (to, revision + 1 if to is not origin else moved.changed)
    assert store.revision() == revision + (to is not origin)


@pytest.mark.parametrize("name", MOVES)
def test_a_move_that_one_example_forbids_moves_none(store: ExampleStore, name: str) -> None:
    ids = one_of_each(store)
    before = store.page(10)
    with pytest.raises(ExampleNotFound, match=NOBODY):
        MOVES[name](store, [*ids, NOBODY], BOB)
    assert (store.page(10), store.revision()) == (before, 2)


def test_what_is_no_id_is_not_repeated_in_the_error(store: ExampleStore) -> None:
    with pytest.raises(ExampleNotFound) as caught:
        store.accept([SECRET], ACT)
    assert SECRET not in str(caught.value)


def test_an_id_given_twice_is_moved_once_and_returned_twice(store: ExampleStore) -> None:
    (example,) = store.add(pending("waits"), ACT)
    first, second = store.accept([example.id, example.id], ACT)
    assert first == second == store.get(example.id)
    assert [change.action for change in store.history(example.id)] == [Action.ADD, Action.ACCEPT]


def test_a_text_that_was_revoked_is_not_added_again(store: ExampleStore) -> None:
    _, _, gone = one_of_each(store)
    with pytest.raises(ExampleConflict, match=f"{gone}.*restore"):
        store.add(benign("new", "gone"), ACT)
    assert states(store) == {"waits": PENDING, "is active": ACTIVE, "gone": REVOKED}


def test_a_text_that_waits_is_returned_as_it_is_when_it_is_added_as_an_active_one(store: ExampleStore) -> None:
    (waits,) = store.add(pending("waits"), ACT)
    assert store.add(benign("waits"), ACT) == [waits]
    assert store.revision() == 1


def test_nobody_accepts_what_he_proposed_himself_where_another_must(store: ExampleStore) -> None:
    (example,) = store.add(pending("waits"), ACT)
    with pytest.raises(NotAllowed, match=example.id):
        store.accept([example.id], ACT, by_another=True)
    assert states(store) == {"waits": PENDING}
    store.accept([example.id], BOB, by_another=True)
    assert states(store) == {"waits": ACTIVE}


def test_without_the_rule_anybody_accepts(store: ExampleStore) -> None:
    (example,) = store.add(pending("waits"), ACT)
    assert store.accept([example.id], ACT)[0].state is ACTIVE


def test_nobody_accepts_what_he_relabelled_last_or_restored_where_another_must(store: ExampleStore) -> None:
    relabelled, restored = store.add(pending("relabelled", "restored"), ACT)
    store.relabel([Relabel(relabelled.id, Label.EXTRACTION, "self_chat", ())], BOB)
    store.reject([restored.id], ACT)
    store.restore([restored.id], BOB)
    for example in (relabelled, restored):
        for act in (ACT, BOB):
            with pytest.raises(NotAllowed, match=example.id):
                store.accept([example.id], act, by_another=True)
        assert store.accept([example.id], Act("cleo"), by_another=True)[0].state is ACTIVE


def test_only_the_last_who_relabelled_may_not_accept(store: ExampleStore) -> None:
    (example,) = store.add(pending("waits"), ACT)
    store.relabel([Relabel(example.id, Label.EXTRACTION, "self_chat", ())], BOB)
    store.relabel([Relabel(example.id, Label.EXTRACTION, "other", ())], Act("cleo"))
    with pytest.raises(NotAllowed):
        store.accept([example.id], Act("cleo"), by_another=True)
    assert store.accept([example.id], BOB, by_another=True)[0].state is ACTIVE


def test_the_rule_of_two_lets_nobody_through_for_the_sake_of_others_examples(store: ExampleStore) -> None:
    (mine,), (his,) = store.add(pending("mine"), ACT), store.add(pending("his"), BOB)
    with pytest.raises(NotAllowed, match=mine.id):
        store.accept([his.id, mine.id], ACT, by_another=True)
    assert set(states(store).values()) == {PENDING}


def test_relabelling_changes_labels_and_nothing_else(store: ExampleStore) -> None:
    (example,) = store.add([Example("text", Label.BENIGN, source="desk", note="n", state=PENDING)], ACT)
    (changed,) = store.relabel([Relabel(example.id, Label.EXTRACTION, "self_chat", ("math", "code"))], BOB)
    expected = replace(example, label=Label.EXTRACTION, technique="self_chat", capabilities=("code", "math"), changed=2)
    assert changed == expected == store.get(example.id)
    assert changed.revision == 1


def test_relabelling_with_the_same_labels_changes_nothing(store: ExampleStore) -> None:
    (example,) = store.add([extraction("text")], ACT)
    assert store.relabel([Relabel(example.id, Label.EXTRACTION, "self_chat", ())], BOB) == [example]
    assert (store.revision(), len(store.history(example.id))) == (1, 1)


@pytest.mark.parametrize(
    "wrong", [(Label.BENIGN, "self_chat", ()), (Label.EXTRACTION, None, ()), (Label.BENIGN, None, ("Not a name",))]
)
def test_labels_that_are_not_allowed_relabel_nothing(
    store: ExampleStore, wrong: tuple[Label, str | None, tuple[str, ...]]
) -> None:
    one, other = store.add(benign("one", "other"), ACT)
    with pytest.raises(InvalidExample):
        store.relabel([Relabel(one.id, Label.EXTRACTION, "self_chat", ()), Relabel(other.id, *wrong)], BOB)
    assert store.since(0) == [one, other]


def test_two_different_labels_for_one_example_are_refused(store: ExampleStore) -> None:
    (example,) = store.add(benign("text"), ACT)
    wanted = [Relabel(example.id, Label.EXTRACTION, name, ()) for name in ("one", "other")]
    with pytest.raises(InvalidExample, match="two different labels"):
        store.relabel(wanted, BOB)
    assert store.since(0) == [example]


def test_a_superseded_example_is_revoked_and_names_its_replacement_in_the_same_revision(store: ExampleStore) -> None:
    (old,) = store.add(benign("old"), ACT)
    new = store.supersede(old.id, extraction("new"), BOB)
    assert (new, new.revision) == (store.get(new.id), 2)
    assert states(store) == {"old": REVOKED, "new": ACTIVE}
    last = store.history(old.id)[-1]
    assert (last.action, last.replacement, last.revision) == (Action.SUPERSEDE, new.id, 2)
    assert [change.action for change in store.history(new.id)] == [Action.ADD]


def test_what_cannot_be_superseded_is_left_alone(store: ExampleStore) -> None:
    waits, is_active, gone = one_of_each(store)
    before = store.page(10)
    for example_id, replacement, error in (
        (NOBODY, benign("new")[0], ExampleNotFound),
        (gone, benign("new")[0], ExampleConflict),
        (is_active, extraction("waits"), ExampleConflict),
        (is_active, benign("gone")[0], ExampleConflict),
        (waits, extraction("waits"), InvalidExample),
    ):
        with pytest.raises(error):
            store.supersede(example_id, replacement, BOB)
        assert (store.page(10), store.revision()) == (before, 2)


def test_revoking_a_source_is_one_revision_and_leaves_the_others(store: ExampleStore) -> None:
    store.add([*of_source("bad", "a", "b"), *of_source("good", "c"), replace(pending("d")[0], source="bad")], ACT)
    gone = store.revoke_source("bad", BOB)
    assert (texts_of(gone), store.revision()) == (["a", "b", "d"], 2)
    assert states(store) == {"a": REVOKED, "b": REVOKED, "c": ACTIVE, "d": REVOKED}
    assert store.revoke_source("bad", BOB) == store.revoke_source("unknown", BOB) == []
    assert store.revision() == 2


def test_revoking_the_source_without_a_name_is_refused(store: ExampleStore) -> None:
    store.add(benign("a"), ACT)
    with pytest.raises(InvalidExample, match="source"):
        store.revoke_source("", ACT)
    assert states(store) == {"a": ACTIVE}


def test_restoring_to_revoked_is_refused(store: ExampleStore) -> None:
    with pytest.raises(InvalidExample, match="revoked"):
        store.restore([one_of_each(store)[2]], ACT, REVOKED)


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


# Repeated requests

named = Act("ann", "why", "request")
WRITES: dict[str, Callable[[ExampleStore, Act], object]] = {
    "add": lambda store, act: store.add([*benign("new"), *pending("waits")], act),
    "accept": lambda store, act: store.accept([id_of("waits")], act),
    "reject": lambda store, act: store.reject([id_of("waits")], act),
    "revoke": lambda store, act: store.revoke([id_of("is active"), id_of("gone")], act),
    "revoke source": lambda store, act: store.revoke_source("desk", act),
    "restore": lambda store, act: store.restore([id_of("gone")], act),
    "restore at once": lambda store, act: store.restore([id_of("gone")], act, ACTIVE),
    "relabel": lambda store, act: store.relabel([Relabel(id_of("waits"), Label.EXTRACTION, "self_chat", ())], act),
    "supersede": lambda store, act: store.supersede(id_of("is active"), extraction("new"), act),
    "replace source": lambda store, act: store.replace_source("desk", of_source("desk", "new"), act),
}


def id_of(text: str) -> str:
    """The id of the example with this text."""
    return Example(text, Label.BENIGN).id


@pytest.fixture
def filled(store: ExampleStore) -> ExampleStore:
    """A store of a pending, an active and a revoked example, and two of a source."""
    one_of_each(store)
    store.add(of_source("desk", "desk 1", "desk 2"), ACT)
    return store


@pytest.mark.parametrize("name", WRITES)
def test_a_write_that_comes_again_returns_what_it_returned_whatever_came_between(
    filled: ExampleStore, name: str
) -> None:
    returned = WRITES[name](filled, named)
    assert filled.revision() == 4
    filled.revoke([e.id for e in filled.since(0) if e.text != "between"], BOB)
    filled.add(benign("between"), BOB)
    before = filled.page(100), filled.revision()
    assert WRITES[name](filled, named) == returned
    assert (filled.page(100), filled.revision()) == before


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("other", WRITES)
def test_a_request_id_serves_one_write_only(filled: ExampleStore, name: str, other: str) -> None:
    if name == other:
        return
    WRITES[name](filled, named)
    before = filled.page(100), filled.revision()
    with pytest.raises(InvalidExample, match="request_id"):
        WRITES[other](filled, named)
    assert (filled.page(100), filled.revision()) == before


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("other", [Act("bob", "why", "request"), Act("ann", "another", "request")])
def test_a_request_id_serves_one_actor_and_one_reason(filled: ExampleStore, name: str, other: Act) -> None:
    WRITES[name](filled, named)
    with pytest.raises(InvalidExample, match="request_id"):
        WRITES[name](filled, other)


@pytest.mark.parametrize("field", ["source", "note", "author", "licence"])
def test_a_request_id_is_refused_for_another_word_about_the_same_text(store: ExampleStore, field: str) -> None:
    store.add(benign("text"), named)
    changes: dict[str, Any] = {field: "other"}
    with pytest.raises(InvalidExample, match="request_id"):
        store.add([replace(benign("text")[0], **changes)], named)


def test_the_time_at_which_an_example_was_made_is_no_part_of_the_request(store: ExampleStore) -> None:
    example = Example("text", Label.BENIGN, created=datetime(2024, 1, 1, tzinfo=UTC))
    stored = store.add([example], named)
    assert store.add([replace(example, created=example.created + timedelta(1))], named) == stored


# Sources


def replaced(store: ExampleStore, *examples: Example) -> list[str]:
    """Make the seed exactly these; its active texts after it."""
    store.replace_source("seed", examples, Act("stillwatch", "the seed"))
    return sorted(texts_of(store.page(100, wanted=Filter(state=ACTIVE, source="seed"))[0]))


def test_what_a_source_no_longer_holds_is_revoked_and_restored_when_it_is_wanted_again(store: ExampleStore) -> None:
    a, b = of_source("seed", "a", "b")
    assert replaced(store, a, b) == ["a", "b"]
    assert replaced(store, a) == ["a"]
    assert replaced(store, a, b) == ["a", "b"]
    assert [change.action for change in store.history(b.id)] == [Action.ADD, Action.REVOKE, Action.RESTORE]
    assert store.revision() == 3


def test_what_came_back_with_other_labels_is_relabelled_in_the_same_revision(store: ExampleStore) -> None:
    a, b = of_source("seed", "a", "b")
    other = Example("b", Label.EXTRACTION, "self_chat", source="seed")
    replaced(store, a, b)
    replaced(store, a)
    assert replaced(store, a, other) == ["a", "b"]
    assert (store.get(b.id).label, store.revision()) == (Label.EXTRACTION, 3)
    assert store.get(b.id).changed == 3


def test_what_an_analyst_did_to_a_seed_example_outlives_every_restart(store: ExampleStore) -> None:
    examples = of_source("seed", "kept", "revoked", "relabelled", "restored", "unwanted")
    ids = {example.text: example.id for example in examples}
    replaced(store, *examples)
    replaced(store, *(e for e in examples if e.text != "restored"))
    store.revoke([ids["revoked"]], ACT)
    store.relabel([Relabel(ids["relabelled"], Label.EXTRACTION, "self_chat", ())], ACT)
    store.restore([ids["restored"]], ACT, ACTIVE)
    before = store.revision()
    wanted = [e for e in examples if e.text != "unwanted"]
    assert replaced(store, *wanted) == ["kept", "relabelled", "restored"]
    assert store.get(ids["relabelled"]).label is Label.EXTRACTION
    assert replaced(store, *wanted) == ["kept", "relabelled", "restored"]
    assert store.revision() == before + 1


def test_texts_of_other_sources_stay_as_they_are_in_whatever_state(store: ExampleStore) -> None:
    one_of_each(store)
    before = store.page(10)[0]
    assert replaced(store, *of_source("seed", "waits", "is active", "gone", "new")) == ["new"]
    assert store.page(10)[0][:3] == before


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


# Vectors of revoked examples


def test_a_revoked_example_needs_no_embedding(store: ExampleStore) -> None:
    waits, is_active, _ = one_of_each(store)
    assert store.unembedded("encoder") == {waits, is_active}


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
