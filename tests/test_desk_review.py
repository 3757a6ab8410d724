"""A review: one step can be taken back, nothing is written twice, and what is written is what was decided."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from classifier.desk.choosing import Why
from classifier.desk.queue import Item
from classifier.desk.review import Judgement, Labelling, Review, may_accept, state_of, write_to
from classifier.verdict import Decision as Verdict
from index.change import Act, Action, Change, Choice
from index.contract import ExampleStore
from index.errors import ExampleConflict, InvalidExample, NotAllowed, StoreUnavailable
from index.example import Example, Label, State, content_hash, example_id
from index.store import open_store


def item(prompt: str, label: Label = Label.EXTRACTION) -> Item:
    return Item(
        prompt, content_hash(prompt), Why.UNCERTAIN, "why", Verdict.REVIEW, 0.8, label, "self_chat", ("tool_use",), ()
    )


ITEMS = [item("one"), item("two", Label.BENIGN), item("three")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExampleStore]:
    opened = open_store(tmp_path / "examples.db")
    yield opened
    opened.close()


def texts(written: Sequence[Judgement]) -> list[str]:
    return [judgement.item.prompt for judgement in written]


def test_a_decision_is_written_when_the_next_one_is_made_and_the_last_one_at_the_end() -> None:
    written: list[Judgement] = []
    review = Review(ITEMS, written.append)
    assert (review.current, review.place) == (ITEMS[0], 0)
    review.decide(Choice.ACCEPT)
    assert texts(written) == []
    review.decide(Choice.REJECT)
    assert texts(written) == ["one"]
    review.decide(Choice.IGNORE)
    assert review.current is None
    review.flush()
    review.flush()
    assert texts(written) == ["one", "two", "three"]
    assert review.committed == 3
    with pytest.raises(ValueError, match="end"):
        review.decide(Choice.IGNORE)


def test_the_last_decision_can_be_taken_back_once() -> None:
    written: list[Judgement] = []
    review = Review(ITEMS, written.append)
    assert not review.back()
    review.decide(Choice.ACCEPT)
    review.decide(Choice.ACCEPT)
    assert review.held is not None
    assert review.back()
    assert review.current == ITEMS[1]
    assert not review.back()
    review.decide(Choice.REJECT)
    review.flush()
    assert [(judgement.item.prompt, judgement.choice) for judgement in written] == [
        ("one", Choice.ACCEPT),
        ("two", Choice.REJECT),
    ]


def test_what_is_accepted_takes_the_suggested_labels_or_the_reviewers_own() -> None:
    review = Review(ITEMS, lambda judgement: None)
    assert review.decide(Choice.ACCEPT).labelling == Labelling(Label.EXTRACTION, "self_chat", ("tool_use",))
    assert review.decide(Choice.ACCEPT).labelling == Labelling(Label.BENIGN, None, ("tool_use",))
    own = Labelling(Label.EXTRACTION, "rubric_grading")
    assert review.decide(Choice.ACCEPT, own).labelling == own
    assert review.back()
    assert review.decide(Choice.REJECT, own).labelling is None


def test_labels_that_do_not_fit_are_refused_before_anything_changes() -> None:
    written: list[Judgement] = []
    review = Review(ITEMS, written.append)
    review.decide(Choice.IGNORE)
    with pytest.raises(InvalidExample):
        review.decide(Choice.ACCEPT, Labelling(Label.EXTRACTION, None))
    assert (review.place, texts(written)) == (1, [])


def test_a_write_that_fails_is_tried_again_or_taken_back() -> None:
    written: list[Judgement] = []
    broken = [True]

    def commit(judgement: Judgement) -> None:
        if broken[0]:
            raise StoreUnavailable("the disk is full")
        written.append(judgement)

    review = Review(ITEMS, commit)
    review.decide(Choice.ACCEPT)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            review.decide(Choice.REJECT)
    assert (review.place, review.committed) == (1, 0)
    broken[0] = False
    review.decide(Choice.REJECT)
    assert texts(written) == ["one"]


def test_an_accepted_prompt_becomes_an_example_and_every_decision_is_kept(store: ExampleStore) -> None:
    review = Review(ITEMS, write_to(store, "ada", State.PENDING))
    review.decide(Choice.ACCEPT, reason="a campaign")
    review.decide(Choice.REJECT)
    review.decide(Choice.IGNORE)
    review.flush()
    stored = store.get(example_id(content_hash("one")))
    assert (stored.state, stored.label, stored.technique) == (State.PENDING, Label.EXTRACTION, "self_chat")
    assert (stored.author, stored.source, stored.note) == ("ada", "review", "a campaign")
    decided = store.decided([item.content_hash for item in ITEMS])
    assert [decided[item.content_hash].choice for item in ITEMS] == [Choice.ACCEPT, Choice.REJECT, Choice.IGNORE]
    assert decided[ITEMS[0].content_hash].example_id == stored.id
    assert decided[ITEMS[1].content_hash].example_id == ""
    assert store.revision() == 1


def test_a_commit_that_was_cut_short_is_finished_by_trying_again(store: ExampleStore) -> None:
    commit = write_to(store, "ada", State.ACTIVE)
    judgement = Judgement(ITEMS[0], Choice.ACCEPT, Labelling(Label.EXTRACTION, "self_chat"))
    first = commit(judgement)
    assert commit(judgement) == first
    assert store.revision() == 1


def test_a_prompt_that_somebody_stored_otherwise_meanwhile_is_a_conflict(store: ExampleStore) -> None:
    store.add([Example("one", Label.BENIGN)], Act("bob"))
    review = Review(ITEMS, write_to(store, "ada", State.ACTIVE))
    review.decide(Choice.ACCEPT)
    with pytest.raises(ExampleConflict):
        review.decide(Choice.ACCEPT)
    assert review.back()
    assert review.current == ITEMS[0]


def test_where_two_must_agree_nobodys_own_word_makes_an_example_count() -> None:
    states = {(a, b): state_of(pending_by_default=a, two_person_rule=b) for a in (False, True) for b in (False, True)}
    assert states.pop((False, False)) is State.ACTIVE
    assert set(states.values()) == {State.PENDING}


def change(action: Action, actor: str) -> Change:
    return Change(
        1, 1, "ex-1", action, State.PENDING, Label.BENIGN, None, (), actor, "", datetime(2026, 1, 1, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("history", "barred"),
    [
        ([(Action.ADD, "ada")], {"ada"}),
        ([(Action.ADD, "ada"), (Action.RELABEL, "bob")], {"ada", "bob"}),
        ([(Action.ADD, "ada"), (Action.RELABEL, "bob"), (Action.RELABEL, "eve")], {"ada", "eve"}),
        ([(Action.ADD, "ada"), (Action.REVOKE, "bob"), (Action.RESTORE, "eve")], {"ada", "eve"}),
    ],
)
def test_the_rule_of_two_bars_who_proposed_or_last_relabelled(
    history: list[tuple[Action, str]], barred: set[str]
) -> None:
    changes = [change(action, actor) for action, actor in history]
    assert {actor for actor in ("ada", "bob", "eve", "joe") if not may_accept(changes, actor)} == barred


def test_the_store_bars_whom_the_rule_of_two_bars(store: ExampleStore) -> None:
    (added,) = store.add([Example("one", Label.BENIGN, state=State.PENDING)], Act("ada"))
    for actor in ("ada", "bob"):
        if may_accept(store.history(added.id), actor):
            store.accept([added.id], Act(actor), by_another=True)
        else:
            with pytest.raises(NotAllowed):
                store.accept([added.id], Act(actor), by_another=True)
    assert store.get(added.id).state is State.ACTIVE
