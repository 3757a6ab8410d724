"""The output's columns: one row for each scored request, one for each that could not be scored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from classifier.batch.record import Record, Reject
from classifier.batch.scoring import Outcome

FORMAT_VERSION = 2
"""Counts the forms of these tables; parts of different forms are never mixed."""
EMBEDDINGS = ("float16", "float32")
_FIRST, _END = -62_135_596_800_000_000, 253_402_300_800_000_000
"""Microseconds since 1970 of the years 1 and 10000."""
_PLACE = [
    pa.field("file", pa.string(), nullable=False),
    pa.field("row", pa.int64(), nullable=False),
    pa.field("item", pa.int32(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
]
REJECTS = pa.schema([*_PLACE, pa.field("reason", pa.string(), nullable=False), pa.field("detail", pa.string())])
"""Where a row stands that could not be scored, and why."""


@dataclass(frozen=True, slots=True)
class Row:
    """A scored request.

    Attributes:
        record: What was read.
        outcome: What the scorer said of its text.
        span: The strongest window in this request's own text.
        repeat: Whether it was scored for an earlier request of the same text.
    """

    record: Record
    outcome: Outcome
    span: tuple[int, int]
    repeat: bool

    @property
    def time(self) -> int | None:
        """The time that readers of the table can name; one outside the years 1 to 9999 is some program's mark for none."""
        time = self.record.time
        return time if time is not None and _FIRST <= time < _END else None


@dataclass(frozen=True, slots=True)
class Columns:
    """What the scores' table holds in one run.

    Attributes:
        capabilities: The capabilities, in the bundle's order.
        bundle_version: The bundle's.
        index_revision: The example store's.
        dimensions: How long an embedding is.
        embeddings: One of EMBEDDINGS, or None: none are written.
        prompts: Whether the prompts are written.
    """

    capabilities: tuple[str, ...]
    bundle_version: str
    index_revision: int
    dimensions: int
    embeddings: str | None = None
    prompts: bool = False

    @property
    def schema(self) -> pa.Schema:
        """The columns of the scores' table."""
        scores = pa.struct([pa.field(name, pa.float32(), nullable=False) for name in self.capabilities])
        inspected = pa.struct(
            [
                pa.field("extent", pa.string()),
                pa.field("tokens_read", pa.int32()),
                pa.field("tokens_total", pa.int32()),
                pa.field("windows", pa.int32()),
                pa.field("span_start", pa.int32()),
                pa.field("span_end", pa.int32()),
            ]
        )
        fields = [
            *_PLACE,
            pa.field("account", pa.string(), nullable=False),
            pa.field("key", pa.string(), nullable=False),
            pa.field("request_id", pa.string(), nullable=False),
            pa.field("time", pa.timestamp("us", "UTC")),
            pa.field("decision", pa.string(), nullable=False),
            # Thresholds are held against float64, so a decision can be made again from what is written.
            pa.field("extraction_probability", pa.float64(), nullable=False),
            pa.field("extraction_logit", pa.float64(), nullable=False),
            pa.field("technique", pa.string(), nullable=False),
            pa.field("technique_probability", pa.float32(), nullable=False),
            pa.field("capabilities", scores, nullable=False),
            pa.field("nearest_ids", pa.list_(pa.string()), nullable=False),
            pa.field("nearest_labels", pa.list_(pa.string()), nullable=False),
            pa.field("nearest_similarities", pa.list_(pa.float32()), nullable=False),
            pa.field("inspected", inspected, nullable=False),
            pa.field("abstention", pa.string()),
            pa.field("reasons", pa.list_(pa.string()), nullable=False),
            pa.field("disguises", pa.list_(pa.string()), nullable=False),
            pa.field("template", pa.string(), nullable=False),
            pa.field("repeat", pa.bool_(), nullable=False),
            pa.field("bundle_version", pa.string(), nullable=False),
            pa.field("index_revision", pa.int64(), nullable=False),
        ]
        if self.embeddings:
            fields.append(pa.field("embedding", self._vector, nullable=False))
        if self.prompts:
            fields.append(pa.field("prompt", pa.string(), nullable=False))
        return pa.schema(fields)

    @property
    def _vector(self) -> pa.DataType:
        return pa.list_(pa.float16() if self.embeddings == "float16" else pa.float32(), self.dimensions)

    def table(self, rows: Sequence[Row]) -> pa.Table:
        """Scored requests as a table.

        Args:
            rows: The requests, in the order of their input.

        Returns:
            One row for each.
        """
        records = [row.record for row in rows]
        outcomes = [row.outcome for row in rows]
        columns: dict[str, object] = {
            **_places(records),
            "account": [record.account for record in records],
            "key": [record.key for record in records],
            "request_id": [record.request_id for record in records],
            "time": [row.time for row in rows],
            "decision": [outcome.decision for outcome in outcomes],
            "extraction_probability": [outcome.probability for outcome in outcomes],
            "extraction_logit": [outcome.logit for outcome in outcomes],
            "technique": [outcome.technique for outcome in outcomes],
            "technique_probability": [outcome.technique_probability for outcome in outcomes],
            "capabilities": [dict(zip(self.capabilities, outcome.capabilities, strict=True)) for outcome in outcomes],
            "nearest_ids": [[name for name, _, _ in outcome.nearest] for outcome in outcomes],
            "nearest_labels": [[label for _, label, _ in outcome.nearest] for outcome in outcomes],
            "nearest_similarities": [[cosine for _, _, cosine in outcome.nearest] for outcome in outcomes],
            "inspected": [_inspected(row) for row in rows],
            "abstention": [outcome.abstention for outcome in outcomes],
            "reasons": [outcome.reasons for outcome in outcomes],
            "disguises": [outcome.disguises for outcome in outcomes],
            "template": [outcome.template for outcome in outcomes],
            "repeat": [row.repeat for row in rows],
            "bundle_version": [self.bundle_version] * len(rows),
            "index_revision": [self.index_revision] * len(rows),
        }
        if self.prompts:
            columns["prompt"] = [record.prompt for record in records]
        schema = self.schema
        arrays = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
        if self.embeddings:
            vectors = np.array([outcome.embedding for outcome in outcomes], self.embeddings)
            flat = pa.array(vectors.reshape(-1), self._vector.value_type)
            arrays["embedding"] = pa.FixedSizeListArray.from_arrays(flat, type=self._vector)
        return pa.table([arrays[name] for name in schema.names], schema=schema)


def reject_table(rejects: Sequence[Reject]) -> pa.Table:
    """Rows that could not be scored as a table.

    Args:
        rejects: The rows, in the order of their input.

    Returns:
        One row for each.
    """
    columns = {
        **_places(rejects),
        "reason": [str(reject.reason) for reject in rejects],
        "detail": [reject.detail for reject in rejects],
    }
    return pa.table(columns, schema=REJECTS)


def _places(rows: Sequence[Record | Reject]) -> dict[str, object]:
    # A file's name may hold bytes that are not UTF-8.
    names = [row.place.file.encode("utf-8", "surrogateescape").decode(errors="replace") for row in rows]
    return {
        "file": names,
        "row": [row.place.row for row in rows],
        "item": [row.place.item for row in rows],
        "offset": [row.place.offset for row in rows],
    }


def _inspected(row: Row) -> dict[str, object]:
    outcome = row.outcome
    return {
        "extent": outcome.extent,
        "tokens_read": outcome.tokens_read,
        "tokens_total": outcome.tokens_total,
        "windows": outcome.windows,
        "span_start": row.span[0],
        "span_end": row.span[1],
    }
