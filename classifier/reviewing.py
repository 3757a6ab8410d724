"""The command line's verb for reviews: prompts of logs or pending examples, one key for each decision."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from classifier.acting import ActorOption, actor_of, open_verbs, state_of
from classifier.console import console, say
from classifier.options import ServerCommand, ServerOption
from index.example import State

if TYPE_CHECKING:
    from classifier.desk.queue import Item, Means
    from classifier.desk.review import Judgement
    from classifier.local_examples import Verbs
    from classifier.policy import Thresholds
    from classifier.review_session import Session

_INTERRUPTED = 130
_PAGE = 200


def add_verbs(app: typer.Typer) -> None:
    """Give the command line the verb of this module."""
    app.command(cls=ServerCommand)(review)


def review(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN_DIR | FILE.jsonl]", help="A re-scoring run, or prompts; else pending examples."),
    ] = None,
    limit: Annotated[int, typer.Option(help="How many prompts at most.", min=1, max=1_000)] = 40,
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 0,
    state: Annotated[
        str | None, typer.Option(help="pending or active, of what is accepted; else the settings decide.")
    ] = None,
    actor: ActorOption = None,
    server: ServerOption = None,
) -> None:
    """Review prompts in this terminal: uncertain, diverse and random ones of a log, or the examples that are pending."""
    from classifier.keyboard import keyboard

    wanted = None if state is None else state_of(state, State.PENDING, State.ACTIVE)
    with keyboard() as keys, _opened(source, limit, seed, wanted, actor_of(actor), server) as session:
        try:
            if session.review.items:
                session.run(console(), keys)
        except KeyboardInterrupt:
            say("stopped: the last decision is not kept, those before it are")
            raise typer.Exit(_INTERRUPTED) from None
    if not session.review.items:
        say("there is nothing to review: everything is decided or known already")
        return
    counts = ", ".join(f"{number} {choice.value}" for choice, number in session.decided.items())
    typer.echo(f"{session.review.committed} of {len(session.review.items)} decided: {counts or 'none'}")


@contextmanager
def _opened(
    source: Path | None, limit: int, seed: int, state: State | None, actor: str, server: str | None
) -> "Iterator[Session]":
    """The session of what is to be reviewed; in its course decisions are written where the examples are."""
    from classifier.desk.review import Review, write_to
    from classifier.review_session import Session
    from classifier.review_writer import ClientWriter, accept_pending, weigh

    with open_verbs(server) as client:
        thresholds, techniques, means = _means(client, server)
        say("choosing what to review ...")
        if source is None:
            items, ids = _pending(client, means, limit)
            commit: Callable[[Judgement], object] = accept_pending(client, ids, actor)
        else:
            items = _queue(source, limit, seed, thresholds, means)
            commit = write_to(ClientWriter(client, state), actor, state or State.ACTIVE)
        yield Session(Review(items, commit), techniques, lambda item, labelling: weigh(client, item, labelling))


def _means(client: "Verbs", server: str | None) -> "tuple[Thresholds, Sequence[str], Means]":
    from classifier.client import Client
    from classifier.desk.queue import means_of
    from classifier.server_means import known_by, server_means

    if isinstance(client, Client):
        assert server is not None
        return *known_by(server), server_means(client, server)
    model = client.runtime.scorer.model
    return model.thresholds, sorted(model.labels.techniques), means_of(client.runtime.scorer, client.runtime.store)


def _queue(source: Path, limit: int, seed: int, thresholds: "Thresholds", means: "Means") -> "list[Item]":
    from classifier.conversation import body_text
    from classifier.desk.choosing import Chooser
    from classifier.desk.queue import make_queue, queue_of_run, seen_of
    from classifier.errors import DataRejected, InvalidPrompt
    from classifier.prompts import NamedPrompt, read_prompts

    chooser = Chooser(limit, thresholds, seed=seed)
    if source.is_dir():
        return queue_of_run(source, chooser, means)
    if not source.name.endswith((".jsonl", ".jsonl.gz")):
        raise DataRejected(f"{source.name} is neither a run's folder nor a .jsonl file: name one of them")

    def texts(prompts: Iterator[NamedPrompt]) -> Iterator[str]:
        for prompt in prompts:
            try:
                yield prompt.content if isinstance(prompt.content, str) else body_text(prompt.content)
            except InvalidPrompt:
                continue  # it cannot be scored, and so not be reviewed

    prompts = read_prompts(None, source, None, lines=True)  # type: ignore[arg-type]  # a file is given
    return make_queue(seen_of(texts(prompts), means), chooser, means)


def _pending(client: "Verbs", means: "Means", limit: int) -> "tuple[list[Item], dict[str, str]]":
    """The oldest pending examples as items, and their ids by their content hashes."""
    from stillwatch.v1 import examples_pb2

    from classifier.review_writer import pending_item

    found: list[examples_pb2.Example] = []
    token = ""
    while len(found) < limit:
        page = client.list_examples(min(_PAGE, limit - len(found)), token, state=examples_pb2.EXAMPLE_STATE_PENDING)
        found += page.examples
        token = page.next_page_token
        if not token:
            break
    verdicts = means.judge([example.text for example in found]) if found else []
    items = [pending_item(example, verdict) for example, verdict in zip(found, verdicts, strict=True)]
    return items, {example.content_hash: example.id for example in found}
