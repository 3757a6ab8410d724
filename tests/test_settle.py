"""Settling: what was loaded stays, what is made later is still collected."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from classifier.serve.settle import settle


class Link:
    """Something that can hold itself."""

    def __init__(self) -> None:
        self.held: Link | None = None


@pytest.fixture
def settled() -> Iterator[None]:
    """A process that was loaded without collections and then settled."""
    gc.disable()
    settle()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("settled")
def test_circles_that_are_made_later_are_still_collected() -> None:
    assert gc.isenabled()
    link = Link()
    link.held = link
    gone = weakref.ref(link)
    del link
    gc.collect()
    assert gone() is None


def test_what_was_loaded_still_goes_with_its_last_holder() -> None:
    loaded = Link()
    gone = weakref.ref(loaded)
    settle()
    try:
        assert gc.get_freeze_count() > 0
        del loaded
        assert gone() is None
    finally:
        gc.unfreeze()
