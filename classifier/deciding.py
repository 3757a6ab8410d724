"""The command line's verbs that change examples which are there, and that show what became of them."""

import sys
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from classifier.acting import (
    ActorOption,
    CapabilityOption,
    Ids,
    LabelOption,
    ReasonOption,
    TechniqueOption,
    actor_of,
    label_of,
    open_verbs,
    print_done,
    show_done,
)
from classifier.acting import show as show_message
from classifier.console import console, fail, say
from classifier.options import JsonOption, ServerCommand, ServerOption

if TYPE_CHECKING:
    from stillwatch.v1 import examples_pb2

    from classifier.local_examples import Verbs

_PAGE = 1_000


def add_verbs(app: typer.Typer) -> None:
    """Give the group of the example verbs those of this module."""
    for verb in (show, history, accept, reject, revoke, restore, relabel, supersede, impact):
        app.command(cls=ServerCommand)(verb)


def show(
    id: Annotated[str, typer.Argument(help="The example's id.")], server: ServerOption = None, json: JsonOption = False
) -> None:
    """Show one example with its whole text, in whatever state."""
    from classifier.terminal_examples import print_example

    with open_verbs(server) as client:
        found = client.get_example(id).example
    show_message(found, lambda: print_example(console(), found), json=json)


def history(
    id: Annotated[str | None, typer.Argument(help="One example's id; without it, the changes of all.")] = None,
    after: Annotated[
        int | None, typer.Option(help="Only changes with a higher number, the first ones; else the last ones.", min=0)
    ] = None,
    limit: Annotated[int, typer.Option(help="How many at most, of all examples.", min=1)] = 50,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Show what was done to an example, or to all, by whom and why; oldest first."""
    from classifier.terminal_examples import print_changes

    with open_verbs(server) as client:
        if id is not None:
            told = client.get_example(id, with_history=True).history
            found = [change for change in told if change.number > (after or 0)]
        else:
            found = _changes(client, after, limit)
    if json:
        for change in found:
            show_message(change, lambda: None, json=True)
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
    with open_verbs(server) as client:
        _confirm(client, ids, yes=yes)
        show_done(client.accept_examples(ids, reason=reason, actor=actor_of(actor)), json=json)


def reject(
    ids: Ids,
    reason: ReasonOption = "",
    actor: ActorOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Make pending examples revoked."""
    with open_verbs(server) as client:
        show_done(client.reject_examples(ids, reason=reason, actor=actor_of(actor)), json=json)


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
    with open_verbs(server) as client:
        if ids:
            show_done(client.revoke_examples(ids, reason=reason, actor=actor_of(actor)), json=json)
            return
        answer = client.revoke_source(source, reason=reason, actor=actor_of(actor))
    show_message(
        answer, lambda: typer.echo(f"{answer.count:,} examples are revoked, revision {answer.revision}"), json=json
    )


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
    with open_verbs(server) as client:
        show_done(client.restore_examples(ids, state=state, reason=reason, actor=actor_of(actor)), json=json)


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

    from classifier.transfer.messages import label_number

    number = label_number(label_of(label))
    relabels = [
        examples_pb2.Relabel(id=name, label=number, technique=technique, capabilities=capability) for name in ids
    ]
    with open_verbs(server) as client:
        show_done(client.relabel_examples(relabels, reason=reason, actor=actor_of(actor)), json=json)


def supersede(
    id: Annotated[str, typer.Argument(help="The id of the example that is revoked.")],
    text: Annotated[str, typer.Argument(help="The prompt that takes its place.")],
    label: LabelOption,
    technique: TechniqueOption = "",
    capability: CapabilityOption = None,
    note: Annotated[str, typer.Option(help="Free text.")] = "",
    reason: ReasonOption = "",
    actor: ActorOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Put another example in the place of one, in one step; it keeps source, licence and language."""
    from classifier.corpus import SOURCE as SEED_SOURCE
    from classifier.curation import example_row

    row: dict[str, object] = {"text": text, "label": label, "technique": technique, "capabilities": capability or []}
    row |= {"note": note, "author": actor_of(actor)}
    with open_verbs(server) as client:
        old = client.get_example(id).example
        source = "" if old.source == SEED_SOURCE else old.source
        new = example_row(row | {"source": source, "licence": old.licence, "language": old.language})
        answer = client.supersede_example(id, new, reason=reason, actor=actor_of(actor))
    show_message(answer, lambda: print_done([answer.example], answer.revision), json=json)


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
    with open_verbs(server) as client:
        found = client.preview_impact(given, ids or [], revoked or [])
    show_message(found, lambda: print_impact(console(), found), json=json)


def _confirm(client: "Verbs", ids: Sequence[str], *, yes: bool) -> None:
    """Show what attack examples would change, and ask."""
    from stillwatch.v1 import examples_pb2

    from classifier.errors import InvalidRequest, ServiceFailed
    from classifier.terminal_examples import print_impact

    attacks = [name for name in ids if client.get_example(name).example.label == examples_pb2.LABEL_EXTRACTION]
    if not attacks:
        return
    try:
        print_impact(console(errors=True), client.preview_impact(ids=attacks))
    except (InvalidRequest, ServiceFailed) as error:
        say(f"what this would change is not known: {error}")
    if yes:
        return
    if not sys.stdin.isatty():
        fail("nobody is there to confirm: look at the impact, then give --yes")
    what = "this attack example" if len(attacks) == 1 else f"these {len(attacks)} attack examples"
    if not typer.confirm(f"accept {what}?", err=True):
        fail("nothing was accepted")


def _changes(client: "Verbs", after: int | None, limit: int) -> "list[examples_pb2.Change]":
    """The first changes after a number, or the last ones of all."""
    found: deque[examples_pb2.Change] = deque(maxlen=limit)
    token = ""
    while True:
        page = client.list_changes(_PAGE, token, after=after or 0)
        for change in page.changes:
            if after is not None and len(found) == limit:
                break
            found.append(change)
        token = page.next_page_token
        if not token or (after is not None and len(found) == limit):
            return list(found)
