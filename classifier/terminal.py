"""What the command line prints: verdicts and explanations as tables or JSON."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from classifier.visible import excerpt, visible

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from stillwatch.v1 import classifier_pb2, verdict_pb2

    from classifier.explain import Explanation

_EXCERPT = 80
_STYLES = {"ALLOW": "green", "REVIEW": "yellow", "FLAG": "bold red", "ABSTAIN": "magenta"}


def as_json(message: "Message") -> str:
    """A wire message as one line of JSON, with the field names of the .proto files and defaults spelled out."""
    from google.protobuf.json_format import MessageToDict

    fields = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return json.dumps(fields, ensure_ascii=False)


def print_results(console: Console, results: "Iterable[classifier_pb2.BatchResult]") -> None:
    """A table with one line for each scored prompt."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, right in (
        ("prompt", False),
        ("decision", False),
        ("extraction", True),
        ("technique", False),
        ("capabilities", False),
        ("nearest example", False),
        ("read", False),
    ):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for result in results:
        if result.WhichOneof("outcome") == "status":
            table.add_row(Text(visible(result.id)), "[red]not scored[/]", "", Text(result.status.message), "", "", "")
        else:
            table.add_row(Text(visible(result.id)), *_cells(result))
    console.print(table)


def print_verdict(console: Console, result: "classifier_pb2.BatchResult") -> None:
    """One prompt's verdict, with all of its evidence."""
    from stillwatch.v1 import verdict_pb2

    verdict, origin = result.verdict, result.provenance
    decision = verdict_pb2.Decision.Name(verdict.decision).removeprefix("DECISION_")
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("decision", f"[{_STYLES[decision]}]{decision}[/]")
    table.add_row("extraction", _extraction(verdict))
    for reason in verdict.reasons:
        table.add_row("because", reason.text)
    if decision in ("REVIEW", "FLAG"):
        table.add_row("techniques", ", ".join(f"{t.name} {t.probability:.2f}" for t in verdict.techniques[:3]))
    table.add_row("capabilities", ", ".join(f"{c.name} {c.probability:.2f}" for c in verdict.capabilities))
    for near in verdict.nearest_examples[:3]:
        table.add_row("nearest", f"{near.example_id}  cosine {near.cosine:.2f}  {near.technique or near.label}")
    seen = verdict.inspected
    span = seen.strongest_window
    table.add_row(
        "read",
        f"{seen.tokens_inspected} of {seen.tokens_total} tokens in {seen.windows} windows; "
        f"strongest at characters {span.start_char} to {span.end_char}",
    )
    table.add_row("by", f"bundle {origin.bundle_version}, index revision {origin.index_revision}")
    console.print(table)


def print_explanation(console: Console, found: "Explanation") -> None:
    """Why a prompt scored as it did, for whoever has the prompt."""
    verdict = found.verdict
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    decision = verdict.decision.upper()
    table.add_row("decision", f"[{_STYLES[decision]}]{decision}[/]")
    if verdict.abstention is None:
        table.add_row("extraction", f"{verdict.extraction_probability:.3f}")
    for reason in verdict.reasons:
        table.add_row("because", Text(reason.text))
    if verdict.abstention is None:
        table.add_row("techniques", ", ".join(f"{t.name} {t.probability:.2f}" for t in verdict.techniques[:3]))
        table.add_row("words", Text(", ".join(f"“{visible(word.text)}” {word.effect:+.2f}" for word in found.words)))
    table.add_row("build", ", ".join(f"{count} {name}" for name, count in found.marks) or "plain text")
    first, last = verdict.inspected.strongest_window
    table.add_row(f"characters {first} to {last}", Text(visible(" ".join(found.excerpt.split()))))
    for near in found.nearest:
        about = f"{near.example.id}, {near.example.technique or near.example.label}, cosine {near.cosine:.2f}: "
        table.add_row("nearest", Text(about + excerpt(near.example.text, _EXCERPT)))
    console.print(table)


def _cells(result: "classifier_pb2.BatchResult") -> tuple[str, ...]:
    from stillwatch.v1 import verdict_pb2

    verdict = result.verdict
    decision = verdict_pb2.Decision.Name(verdict.decision).removeprefix("DECISION_")
    nearest = verdict.nearest_examples[0] if verdict.nearest_examples else None
    technique = verdict.techniques[0].name if verdict.techniques and decision != "ALLOW" else ""
    return (
        f"[{_STYLES[decision]}]{decision}[/]",
        _extraction(verdict),
        technique,
        ", ".join(c.name for c in verdict.capabilities if c.probability >= 0.5),
        f"{nearest.example_id} {nearest.cosine:.2f}" if nearest else "",
        verdict_pb2.Extent.Name(verdict.inspected.extent).removeprefix("EXTENT_").lower(),
    )


def _extraction(verdict: "verdict_pb2.Verdict") -> str:
    return "not judged" if verdict.HasField("abstention") else f"{verdict.extraction_probability:.3f}"
