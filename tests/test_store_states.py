"""The contract of every example store: states, labels, and what a source holds."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from states import ACTIVE, BOB, NOBODY, PENDING, REVOKED, of_source, one_of_each, pending
from stores import ACT, SECRET, benign, extraction, texts_of

from index.change import Act, Action
from index.contract import ExampleStore, Filter, Relabel
from index.errors import ExampleConflict, ExampleNotFound, InvalidExample, NotAllowed
from index.example import Example, Label, State


def states(store: ExampleStore) -> dict[str, State]:
    """Every example's state, by its text."""
    return {example.text: example.state for example in store.page(1_000)[0]}


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


# Vectors of revoked examples


def test_a_revoked_example_needs_no_embedding(store: ExampleStore) -> None:
    waits, is_active, _ = one_of_each(store)
    assert store.unembedded("encoder") == {waits, is_active}
