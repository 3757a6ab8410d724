"""The command line's verbs that change examples which are there, and that show what became of them."""

import getpass
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classifier.console import console, fail, read_settings, say
from classifier.options import JsonOption, ServerCommand, ServerOption

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from stillwatch.v1 import examples_pb2, review_pb2

    from classifier.client import Client
    from classifier.local_examples import LocalExamples

_PAGE = 200
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="The examples' ids.")]
LabelOption = Annotated[str, typer.Option(help="extraction or benign.")]
TechniqueOption = Annotated[str, typer.Option(help="The technique of an extraction example.")]
CapabilityOption = Annotated[list[str] | None, typer.Option(help="A capability that it targets; may be repeated.")]
ReasonOption = Annotated[str, typer.Option(help="Why, in free words; it stands in the history.")]
ActorOption = Annotated[
    str | None, typer.Option(help="Who does it; else this machine's login name. A token's name goes before it.")
]


def add_verbs(app: typer.Typer) -> None:
    """Give the group of the example verbs those of this module."""
    for verb in (show, history, accept, reject, revoke, restore, relabel, supersede, impact):
        app.command(cls=ServerCommand)(verb)


def show(
    id: Annotated[str, typer.Argument(help="The example's id.")], server: ServerOption = None, json: JsonOption = False
) -> None:
    """Show one example with its whole text, in whatever state."""
    from classifier.terminal_examples import print_example

    with _client(server) as client:
        found = client.get_example(id).example
    _show(found, lambda: print_example(console(), found), json=json)


def history(
    id: Annotated[str | None, typer.Argument(help="One example's id; without it, the changes of all.")] = None,
    after: Annotated[int, typer.Option(help="Only changes with a higher number.", min=0)] = 0,
    limit: Annotated[int, typer.Option(help="How many at most, of all examples.", min=1)] = 50,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Show what was done to an example, or to all, by whom and why; oldest first."""
    from classifier.terminal_examples import print_changes

    with _client(server) as client:
        if id is not None:
            found = [change for change in client.get_example(id, with_history=True).history if change.number > after]
        else:
            found = _changes(client, after, limit)
    if json:
        for change in found:
            _show(change, lambda: None, json=True)
    else:
        print_changes(console(), found)


def accept(
    ids: Ids,
    reason: ReasonOption = "",
    actor: ActorOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Make pending examples active. What attack examples would change is shown first, and asked about."""
    with _client(server) as client:
        _confirm(client, ids, yes=yes)
        _done(client.accept_examples(ids, reason=reason, actor=_actor(actor)), json=json)


def reject(
    ids: Ids,
    reason: ReasonOption = "",
    actor: ActorOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Make pending examples revoked."""
    with _client(server) as client:
        _done(client.reject_examples(ids, reason=reason, actor=_actor(actor)), json=json)


def revoke(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="The examples' ids.")] = None,
    source: Annotated[str, typer.Option(help="Take back every example of this source, as one act.")] = "",
    reason: ReasonOption = "",
    actor: ActorOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Take examples back, by their ids or by their source; they are kept, and can be restored."""
    if bool(ids) == bool(source):
        raise typer.BadParameter("give ids, or --source", param_hint="ID...")
    with _client(server) as client:
        if ids:
            _done(client.revoke_examples(ids, reason=reason, actor=_actor(actor)), json=json)
            return
        answer = client.revoke_source(source, reason=reason, actor=_actor(actor))
    _show(answer, lambda: typer.echo(f"{answer.count:,} examples are revoked, revision {answer.revision}"), json=json)


def restore(
    ids: Ids,
    active: Annotated[bool, typer.Option("--active", help="At once as active ones; else pending.")] = False,
    reason: ReasonOption = "",
    actor: ActorOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Bring revoked examples back."""
    from stillwatch.v1 import examples_pb2

    state = examples_pb2.EXAMPLE_STATE_ACTIVE if active else examples_pb2.EXAMPLE_STATE_PENDING
    with _client(server) as client:
        _done(client.restore_examples(ids, state=state, reason=reason, actor=_actor(actor)), json=json)


def relabel(
    ids: Ids,
    label: LabelOption,
    technique: TechniqueOption = "",
    capability: CapabilityOption = None,
    reason: ReasonOption = "",
    actor: ActorOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Give examples other labels, in place of all that they had; their state stays."""
    from stillwatch.v1 import examples_pb2

    given = {"label": label_number(label), "technique": technique, "capabilities": capability or []}
    relabels = [examples_pb2.Relabel(id=id, **given) for id in ids]  # type: ignore[arg-type]  # as the message has them
    with _client(server) as client:
        _done(client.relabel_examples(relabels, reason=reason, actor=_actor(actor)), json=json)


def supersede(
    id: Annotated[str, typer.Argument(help="The id of the example that is revoked.")],
    text: Annotated[str, typer.Argument(help="The prompt that takes its place.")],
    label: LabelOption,
    technique: TechniqueOption = "",
    capability: CapabilityOption = None,
    source: Annotated[str, typer.Option(help="Where the prompt comes from; anything but seed.")] = "",
    note: Annotated[str, typer.Option(help="Free text.")] = "",
    reason: ReasonOption = "",
    actor: ActorOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Put another example in the place of one, in one step."""
    from classifier.curation import example_row

    row: dict[str, object] = {"text": text, "label": label, "technique": technique, "capabilities": capability or []}
    new = example_row(row | {"source": source, "note": note, "author": _actor(actor)})
    with _client(server) as client:
        answer = client.supersede_example(id, new, reason=reason, actor=_actor(actor))
    _show(answer, lambda: _print([answer.example], answer.revision), json=json)


def impact(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="Stored examples, such as pending ones.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="A prompt that is not stored yet.")] = None,
    label: LabelOption = "extraction",
    technique: TechniqueOption = "",
    revoked: Annotated[
        list[str] | None, typer.Option("--revoke", help="An active example that would be taken back.")
    ] = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Show what examples would change in recent traffic if they were active; nothing is stored."""
    from classifier.curation import example_row
    from classifier.terminal_examples import print_impact

    row: dict[str, object] = {"text": text, "label": label, "technique": technique}
    given = [] if text is None else [example_row(row)]
    with _client(server) as client:
        found = client.preview_impact(given, ids or [], revoked or [])
    _show(found, lambda: print_impact(console(), found), json=json)


def label_number(name: str) -> "examples_pb2.Label.ValueType":
    """The wire's number of a label that was typed; another word is wrong usage."""
    from stillwatch.v1 import examples_pb2

    if name not in ("extraction", "benign"):
        raise typer.BadParameter("must be extraction or benign", param_hint="--label")
    return examples_pb2.Label.Value(f"LABEL_{name.upper()}")


@contextmanager
def _client(server: str | None) -> "Iterator[Client | LocalExamples]":
    from classifier.local_examples import open_client

    with open_client(read_settings(), server) as client:
        yield client


def _actor(given: str | None) -> str:
    """Who acts: the name that is given, or the login name."""
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""


def _confirm(client: "Client | LocalExamples", ids: Sequence[str], *, yes: bool) -> None:
    """Show what attack examples would change, and ask."""
    from stillwatch.v1 import examples_pb2

    from classifier.errors import InvalidRequest, ServiceFailed
    from classifier.terminal_examples import print_impact

    attacks = [id for id in ids if client.get_example(id).example.label == examples_pb2.LABEL_EXTRACTION]
    if not attacks:
        return
    try:
        print_impact(console(stderr=True), client.preview_impact(ids=attacks))
    except (InvalidRequest, ServiceFailed) as error:
        say(f"what this would change is not known: {error}")
    if yes:
        return
    if not sys.stdin.isatty():
        fail("nobody is there to confirm: look at the impact, then give --yes")
    if not typer.confirm(f"accept {len(attacks)} attack examples?", err=True):
        fail("nothing was accepted")


def _changes(client: "Client | LocalExamples", after: int, limit: int) -> "list[examples_pb2.Change]":
    found: list[examples_pb2.Change] = []
    token = ""
    while len(found) < limit:
        page = client.list_changes(min(_PAGE, limit - len(found)), token, after=after)
        found += page.changes
        token = page.next_page_token
        if not token:
            break
    return found


def _done(answer: Any, *, json: bool) -> None:
    _show(answer, lambda: _print(answer.examples, answer.revision), json=json)


def _print(examples: "Sequence[examples_pb2.Example]", revision: int) -> None:
    from classifier.terminal_examples import print_examples

    print_examples(console(), examples)
    typer.echo(f"in force at revision {revision}")


def _show(message: "Message | review_pb2.PreviewImpactResponse", show: Callable[[], None], *, json: bool) -> None:
    from classifier.terminal import as_json

    if json:
        typer.echo(as_json(message))
    else:
        show()
