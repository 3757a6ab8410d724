"""The contract of every example store: a write that comes again is answered as before, and its request id serves no other."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from states import ACTIVE, BOB, id_of, of_source, one_of_each, pending
from stores import ACT, benign, extraction

from index.change import Act
from index.contract import ExampleStore, Relabel
from index.errors import InvalidExample
from index.example import Example, Label

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
