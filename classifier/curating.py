"""The command line's verbs for labelled examples: examples add, list, suspects; the others are in files of their own."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from classifier import deciding, exchanging
from classifier.acting import (
    CapabilityOption,
    LabelOption,
    ReasonOption,
    TechniqueOption,
    actor_of,
    label_of,
    open_verbs,
    state_of,
)
from classifier.console import console, read_settings, say
from classifier.options import JsonOption, ServerCommand, ServerOption
from index.example import State

if TYPE_CHECKING:
    from stillwatch.v1 import examples_pb2

    from classifier.local_examples import Verbs

_PAGE = 50
examples_app = typer.Typer(help="Keep labelled examples: add, list, accept, revoke and the like.", no_args_is_help=True)


def add_verbs(app: typer.Typer) -> None:
    """Give the command line the verbs of this module."""
    deciding.add_verbs(examples_app)
    exchanging.add_verbs(examples_app)
    app.add_typer(examples_app, name="examples")


@examples_app.command("add", cls=ServerCommand)
def examples_add(
    text: Annotated[str, typer.Argument(help="The prompt.")],
    label: LabelOption,
    technique: TechniqueOption = "",
    capability: CapabilityOption = None,
    language: Annotated[str, typer.Option(help='A language code such as "en".')] = "",
    source: Annotated[str, typer.Option(help="Where the prompt comes from; anything but seed.")] = "",
    author: Annotated[str | None, typer.Option(help="Who adds it; else this machine's login name.")] = None,
    note: Annotated[str, typer.Option(help="Free text.")] = "",
    licence: Annotated[str, typer.Option(help="Under which terms the text may be kept.")] = "",
    state: Annotated[str | None, typer.Option(help="pending or active; else the settings decide.")] = None,
    reason: ReasonOption = "",
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Add one example. Name the running server, if there is one: it then knows the example at once."""
    from classifier.curation import example_row
    from classifier.transfer.messages import state_number

    row: dict[str, object] = {"text": text, "label": label, "technique": technique or None, "source": source}
    row |= {"capabilities": capability or [], "language": language, "note": note, "author": actor_of(author)}
    example = example_row(row | {"licence": licence})
    if state is not None:
        example.state = state_number(state_of(state, State.PENDING, State.ACTIVE))
    with open_verbs(server) as client:
        _say_findings(client, example)
        answer = client.add_examples([example], reason=reason, actor=actor_of(author))
    _show_examples(answer.examples, json=json)


@examples_app.command("list", cls=ServerCommand)
def examples_list(
    label: Annotated[str | None, typer.Option(help="Only extraction or benign examples.")] = None,
    source: Annotated[str, typer.Option(help="Only examples of this source.")] = "",
    state: Annotated[str, typer.Option(help="pending, active, revoked or any.")] = "active",
    as_of: Annotated[int | None, typer.Option(help="As they were at this revision.", min=0)] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 50,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """List examples, oldest first: active ones, unless another state is named."""
    from classifier.transfer.messages import label_number, state_number

    wanted = None if state == "any" else state_of(state, *State)
    number = label_number(None if label is None else label_of(label))
    found: list[examples_pb2.Example] = []
    token = ""
    with open_verbs(server) as client:
        while len(found) < limit:
            page = client.list_examples(
                min(_PAGE, limit - len(found)),
                token,
                number,
                source,
                state=state_number(wanted),
                any_state=wanted is None,
                as_of=as_of,
            )
            found += page.examples
            token = page.next_page_token
            if not token:
                break
    _show_examples(found, json=json)


@examples_app.command("suspects")
def examples_suspects(
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Of the cross-validation's folds.")] = 0,
    json: JsonOption = False,
) -> None:
    """Rank active examples whose label contradicts what is learnt of the others (needs the evaluate extra)."""
    from json import dumps

    from classifier.terminal_examples import print_suspects
    from classifier.train.command import doubtful

    found = doubtful(read_settings(), seed=seed)
    if json:
        for suspect in found[:limit]:
            row = {"id": suspect.example.id, "label": suspect.example.label, "confidence": suspect.confidence}
            nearest = suspect.nearest.id if suspect.nearest else None
            typer.echo(dumps(row | {"margin": suspect.margin, "nearest": nearest, "cosine": suspect.cosine}))
        return
    say(f"{len(found):,} examples are doubted; look at each and relabel or revoke what is wrong")
    print_suspects(console(), found[:limit])


def _say_findings(client: "Verbs", example: "examples_pb2.Example") -> None:
    """Say what speaks against an example that is about to be added; a writer who may not read is told nothing."""
    from classifier.errors import ServiceFailed

    with suppress(ServiceFailed):
        for finding in client.preview_impact([example], findings_only=True).findings:
            say(f"note: {finding.text}")


def _show_examples(examples: "Sequence[examples_pb2.Example]", *, json: bool) -> None:
    from classifier.terminal import as_json
    from classifier.terminal_examples import print_examples

    if json:
        for example in examples:
            typer.echo(as_json(example))
    else:
        print_examples(console(), examples)
