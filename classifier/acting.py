"""What the example verbs share: their options, who acts, where the examples are, and how an answer is shown."""

import getpass
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classifier.console import console, read_settings
from index.example import Label, State

if TYPE_CHECKING:
    from stillwatch.v1 import examples_pb2

    from classifier.local_examples import Verbs

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="The examples' ids.")]
LabelOption = Annotated[str, typer.Option(help="extraction or benign.")]
TechniqueOption = Annotated[str, typer.Option(help="The technique of an extraction example.")]
CapabilityOption = Annotated[list[str] | None, typer.Option(help="A capability that it targets; may be repeated.")]
ReasonOption = Annotated[str, typer.Option(help="Why, in free words; it stands in the history.")]
ActorOption = Annotated[
    str | None, typer.Option(help="Who does it; else this machine's login name. A token's name goes before it.")
]


@contextmanager
def open_verbs(server: str | None) -> "Iterator[Verbs]":
    """The examples of a server, or those of the local store."""
    import structlog

    from classifier.local_examples import open_client

    # What a library part logs is no part of the output. Asked for at each line, as the stream may be replaced.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    with open_client(read_settings(), server) as client:
        yield client


def actor_of(given: str | None) -> str:
    """Who acts: the name that is given, or the login name."""
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""


def label_of(name: str) -> Label:
    """A label that was typed; another word is wrong usage."""
    if name not in set(Label):
        raise typer.BadParameter("must be extraction or benign", param_hint="--label")
    return Label(name)


def state_of(name: str, *allowed: State) -> State:
    """A state that was typed; another word is wrong usage."""
    if name not in allowed:
        raise typer.BadParameter(f"must be {' or '.join(allowed)}", param_hint="--state")
    return State(name)


def show(message: Any, printed: Callable[[], None], *, json: bool) -> None:
    """Print a wire message as a line of JSON, or as it is printed for people."""
    from classifier.terminal import as_json

    if json:
        typer.echo(as_json(message))
    else:
        printed()


def show_done(answer: Any, *, json: bool) -> None:
    """Show the answer of a write: its examples, and the revision from which it is in force."""
    show(answer, lambda: print_done(answer.examples, answer.revision), json=json)


def print_done(examples: "Sequence[examples_pb2.Example]", revision: int) -> None:
    """Print the examples of a write."""
    from classifier.terminal_examples import print_examples

    print_examples(console(), examples)
    typer.echo(f"in force at revision {revision}")
