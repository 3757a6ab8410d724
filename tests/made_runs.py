"""Runs whose rows a test chooses: real parts and a real manifest, as the runner writes them, without a scorer."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from classifier.batch.inputs import Source
from classifier.batch.manifest import Input, RunManifest, Session, counted, write_manifest
from classifier.batch.output import fingerprint
from classifier.batch.parts import REJECTED, SCORES, PartWriter, read_parts
from classifier.batch.reading import Position
from classifier.batch.record import Place, Record, Reject
from classifier.batch.scoring import Outcome
from classifier.batch.tables import Columns, Row

CAPABILITIES = ("agentic_reasoning", "reasoning_trace")
REVIEW, FLAG = 0.5, 0.9
START = 1_767_571_200_000_000
"""2026-01-05 in microseconds."""
IDENTITY: dict[str, object] = {
    "format": 1,
    "template": 1,
    "bundle": "0.1.0+aaaa",
    "index_revision": 1,
    "examples": "one",
    "review_threshold": REVIEW,
    "flag_threshold": FLAG,
    "shape": "detected",
    "sample": 1.0,
    "seed": None,
    "where": [],
}


@dataclass(frozen=True, slots=True)
class Scored:
    """A request of a made run, and what its scorer said."""

    row: int
    probability: float
    item: int = 0
    account: str = "acct"
    template: str = "00000000000000aa"
    technique: str = "self_chat"
    time: int | None = START
    request_id: str = ""
    abstention: str | None = None
    capabilities: tuple[float, ...] = (0.1, 0.9)
    nearest: tuple[tuple[str, str, float], ...] = (("ex-1", "extraction", 0.9),)
    prompt: str = "quagga"
    flag_from: float = FLAG

    @property
    def decision(self) -> str:
        if self.abstention:
            return "abstain"
        return "allow" if self.probability < REVIEW else "review" if self.probability < self.flag_from else "flag"

    def written(self, file: str) -> Row:
        place = Place(file, self.row, 10 * self.row, self.item)
        record = Record(place, self.prompt, self.account, "", self.request_id, self.time)
        outcome = Outcome(
            decision=self.decision,
            probability=self.probability,
            logit=self.probability,
            technique=self.technique,
            technique_probability=0.7,
            capabilities=self.capabilities,
            nearest=self.nearest,
            reasons=(),
            extent="full",
            tokens_read=3,
            tokens_total=3,
            windows=1,
            span=(0, 3),
            abstention=self.abstention,
            disguises=(),
            template=self.template,
        )
        return Row(record, outcome, (0, 3), repeat=False)


def write_run(
    folder: Path,
    inputs: Mapping[str, Sequence[Scored]],
    *,
    rows_per_part: int = 100,
    rejects: Sequence[Reject] = (),
    prompts: bool = False,
    stamp: str = "1-1",
    identity: Mapping[str, object] | None = None,
    **manifest: Any,
) -> Path:
    """Write a run over inputs whose rows were scored so; the rejects go to the first input's first part."""
    said = {**IDENTITY, **(identity or {})}
    mark = fingerprint(said)
    for name in (SCORES, REJECTED):
        (folder / name).mkdir(parents=True)
    columns = Columns(CAPABILITIES, str(said["bundle"]), 1, 384, prompts=prompts)
    listed = []
    left = list(rejects)
    for name, rows in inputs.items():
        source = Source(name, name, 1, "jsonl", "", stamp)
        cuts = list(range(0, max(1, len(rows)), rows_per_part))
        for number, start in enumerate(cuts):
            own = rows[start : start + rows_per_part]
            writer = PartWriter(folder, columns, source, mark, number)
            writer.add([one.written(name) for one in own], left, 0)
            left = []
            after = Position(own[-1].row + 1 if own else 0, 0)
            first = Position(own[0].row if own else 0, 0)
            writer.finish(first, after, last=number == len(cuts) - 1)
        counts = counted(part for part in read_parts(folder) if part.source == name)
        shown = name.encode("utf-8", "surrogateescape").decode(errors="replace")
        listed.append(
            Input(name=shown, size=1, stamp=stamp, rows=len(rows), parts=len(cuts), finished=True, counts=counts)
        )
    moment = datetime(2026, 1, 6, tzinfo=UTC)
    facts: dict[str, Any] = {
        "stillwatch": "0.1.0",
        "state": "done",
        "fingerprint": mark,
        "identity": said,
        "bundle_version": said["bundle"],
        "index_revision": said["index_revision"],
        "thresholds": {"review": REVIEW, "flag": FLAG},
        "counts": counted(read_parts(folder)),
        "inputs": listed,
        "sessions": [Session(started=moment, ended=moment, state="done", read=1, rate=1.0)],
    }
    write_manifest(folder, RunManifest(**{**facts, **manifest}))
    return folder


def some_rows(count: int, seed: int, accounts: Sequence[str] = ("a", "b", "c", "")) -> list[Scored]:
    """Rows of all kinds, drawn from a seed, some of them of one line."""
    chance = random.Random(seed)
    rows = []
    row = item = 0
    for number in range(count):
        row, item = (row, item + 1) if chance.random() < 0.1 else (row + chance.randint(1, 3), 0)
        rows.append(
            Scored(
                row,
                chance.random(),
                item,
                account=chance.choice(accounts),
                template=f"{chance.randrange(12):016x}",
                technique=chance.choice(["self_chat", "code_corpus"]),
                time=None if chance.random() < 0.1 else START + chance.randrange(14 * 86_400) * 10**6,
                request_id=f"req-{seed}-{number}",
                abstention="UNSUPPORTED_LANGUAGE" if chance.random() < 0.1 else None,
                capabilities=(chance.random(), chance.random()),
                nearest=((f"ex-{chance.randrange(4)}", "benign", 0.5),) if chance.random() < 0.9 else (),
            )
        )
    return rows


def rescored(rows: Sequence[Scored], seed: int) -> list[Scored]:
    """The same requests under another bundle: some scores move, a few requests are not there."""
    chance = random.Random(seed)
    moved = []
    for one in rows:
        if chance.random() < 0.05:
            continue
        if chance.random() < 0.4:
            probability = min(1.0, max(0.0, one.probability + chance.uniform(-0.5, 0.5)))
            technique = chance.choice(["self_chat", "policy_rewrite"])
            nearest = (("ex-new", "extraction", 0.9), *one.nearest) if chance.random() < 0.5 else one.nearest
            moved.append(replace(one, probability=probability, technique=technique, nearest=nearest))
        else:
            moved.append(one)
    return moved
