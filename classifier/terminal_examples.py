"""What the command line prints of examples: lists, one in full, its history, what it would change."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from classifier.visible import excerpt, visible

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from stillwatch.v1 import examples_pb2, review_pb2

    from classifier.train.suspects import Suspect

_EXCERPT = 80
_MOVES = 5
_STATES = {"pending": "yellow", "active": "green", "revoked": "dim"}


def print_examples(console: Console, examples: "Sequence[examples_pb2.Example]") -> None:
    """A table of examples, each text cut to a short one; without texts, where none is known."""
    texts = any(example.text for example in examples)
    table = _table(["id", "state", "label", "technique", "capabilities", "source", *(["text"] if texts else [])])
    for example in examples:
        state = state_name(example.state)
        cells = [
            Text(visible(example.id)),
            Text(state, _STATES[state]),
            Text(label_name(example.label)),
            Text(visible(example.technique)),
            Text(visible(", ".join(example.capabilities))),
            Text(visible(example.source)),
        ]
        table.add_row(*cells, *([Text(excerpt(example.text, _EXCERPT))] if texts else []))
    console.print(table)


def print_suspects(console: Console, suspects: "Sequence[Suspect]") -> None:
    """A table of examples whose label is doubted, each with the example nearest to it."""
    table = _table(["id", "label", "confidence", "nearest", "its label", "cosine", "text"])
    for suspect in suspects:
        example, nearest = suspect.example, suspect.nearest
        table.add_row(
            Text(example.id),
            Text(example.label.value),
            Text(f"{suspect.confidence:.3f}"),
            Text(nearest.id if nearest else ""),
            Text(nearest.label.value if nearest else ""),
            Text(f"{suspect.cosine:.3f}"),
            Text(excerpt(example.text, _EXCERPT)),
        )
    console.print(table)


def print_example(console: Console, example: "examples_pb2.Example") -> None:
    """One example with all that is known of it."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    state = state_name(example.state)
    rows = (
        ("id", example.id),
        ("label", " ".join(filter(None, (label_name(example.label), example.technique)))),
        ("capabilities", ", ".join(example.capabilities)),
        ("language", example.language),
        ("source", example.source),
        ("licence", example.licence),
        ("author", example.author),
        ("note", example.note),
        ("added", f"{moment(example.create_time)}, revision {example.revision}"),
        ("last change", f"revision {example.change_revision}"),
        ("SHA-256", example.content_hash),
        ("text", example.text),
    )
    table.add_row("state", Text(state, _STATES[state]))
    for name, value in rows:
        if value:
            table.add_row(name, Text(visible(value)))
    console.print(table)


def print_changes(console: Console, changes: "Iterable[examples_pb2.Change]") -> None:
    """A table of changes, oldest first."""
    from stillwatch.v1 import examples_pb2

    table = _table(["revision", "when", "who", "action", "id", "state", "label", "technique", "why"])
    for change in changes:
        state = state_name(change.state)
        action = examples_pb2.ChangeAction.Name(change.action).removeprefix("CHANGE_ACTION_").lower()
        why = " ".join(filter(None, (change.reason, change.replacement_id and f"by {change.replacement_id}")))
        table.add_row(
            str(change.revision),
            moment(change.create_time),
            Text(visible(change.actor)),
            action,
            Text(visible(change.example_id)),
            Text(state, _STATES[state]),
            label_name(change.label),
            Text(visible(change.technique)),
            Text(visible(why)),
        )
    console.print(table)


def print_impact(console: Console, found: "review_pb2.PreviewImpactResponse") -> None:
    """What candidates would change, and what speaks against them."""
    for sentence in found.sentences:
        console.print(Text(sentence, "bold red" if found.newly_flagged else "bold"))
    for move in found.moves[:_MOVES]:
        before, after = (decision_name(number) for number in (move.decision_before, move.decision_after))
        if before != after:
            numbers = f"{move.probability_before:.3f} to {move.probability_after:.3f}"
            console.print(Text(f"  prompt {move.mark[:8]}: {before} to {after}, {numbers}", "dim"))
    for finding in found.findings:
        console.print(Text(f"note: {visible(finding.text)}", "yellow"))


def label_name(number: int) -> str:
    """A label's name, as people write it."""
    from stillwatch.v1 import examples_pb2

    return examples_pb2.Label.Name(number).removeprefix("LABEL_").lower()  # type: ignore[arg-type]  # of the wire


def state_name(number: int) -> str:
    """A state's name, as people write it."""
    from stillwatch.v1 import examples_pb2

    return examples_pb2.ExampleState.Name(number).removeprefix("EXAMPLE_STATE_").lower()  # type: ignore[arg-type]  # of the wire


def decision_name(number: int) -> str:
    """A decision's name, as people write it."""
    from stillwatch.v1 import verdict_pb2

    return verdict_pb2.Decision.Name(number).removeprefix("DECISION_").lower()  # type: ignore[arg-type]  # of the wire


def moment(stamp: "Timestamp") -> str:
    """A moment in UTC, to the second."""
    return f"{stamp.ToDatetime():%Y-%m-%d %H:%M:%S}Z"


def _table(names: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(
            name, no_wrap=name in ("id", "when"), overflow="fold", min_width=24 if name == "text" else None
        )
    return table
