"""Examples in every state, for the tests of the stores."""

from stores import ACT, benign

from index.change import Act
from index.contract import ExampleStore
from index.example import Example, Label, State

PENDING, ACTIVE, REVOKED = State
NOBODY = "ex-00000000000000000000"
BOB = Act("bob", "he saw it")


def pending(*texts: str) -> list[Example]:
    """Pending benign examples of these texts."""
    return [Example(text, Label.BENIGN, state=PENDING) for text in texts]


def of_source(source: str, *texts: str) -> list[Example]:
    """Active benign examples of a source."""
    return [Example(text, Label.BENIGN, source=source) for text in texts]


def one_of_each(store: ExampleStore) -> tuple[str, str, str]:
    """The ids of a pending, an active and a revoked example."""
    waits, is_active, gone = store.add([*pending("waits"), *benign("is active", "gone")], ACT)
    store.revoke([gone.id], ACT)
    return waits.id, is_active.id, gone.id


def id_of(text: str) -> str:
    """The id of the example with this text."""
    return Example(text, Label.BENIGN).id
