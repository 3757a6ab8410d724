"""Parquet: its types, its damage, and the memory that reading it takes."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_logs import AUTO, measured, prompts_of, read_all, reasons_of

from classifier.batch.inputs import find
from classifier.batch.reading import Position, detect, read
from classifier.batch.reasons import Reason
from classifier.batch.record import Record
from classifier.batch.shapes import Shape
from classifier.errors import DataRejected


def test_parquet_takes_structs_maps_binary_and_times(tmp_path: Path) -> None:
    at = datetime(2026, 1, 5, 12, 0, 0, 123456, UTC)
    message = pa.struct({"role": pa.string(), "content": pa.string(), "tool_calls": pa.list_(pa.string())})
    table = pa.table({
        "messages": pa.array([[{"role": "user", "content": "Hello", "tool_calls": None}], None, None], pa.list_(message)),
        "prompt": pa.array([None, b"Bytes", None], pa.large_binary()),
        "SpanAttributes": pa.array([None, None, [("gen_ai.prompt", "Span"), ("user.id", "u")]], pa.map_(pa.string(), pa.string())),
        "account_id": pa.array([7, None, None], pa.int64()),
        "ts": pa.array([at.replace(microsecond=0)] * 3, pa.timestamp("ns", "UTC")).cast(pa.int64()).cast(pa.timestamp("ns", "UTC")),
    })  # fmt: skip
    nanos = pa.compute.add(table["ts"].cast(pa.int64()), 123_456_789).cast(pa.timestamp("ns", "UTC"))
    pq.write_table(table.set_column(4, "ts", nanos), tmp_path / "log.parquet")
    (source,) = find([str(tmp_path / "log.parquet")])
    found = [one for one, _ in read(source, AUTO)]
    assert prompts_of([(one, Position()) for one in found]) == ["Hello", "Bytes", "Span"]
    first, _, span = found
    assert isinstance(first, Record)
    assert isinstance(span, Record)
    assert (first.account, first.time) == ("7", int(at.timestamp()) * 10**6 + 123_456)
    assert span.account == "u"


def test_parquet_with_cells_that_are_not_utf8_rejects_only_their_rows(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"\xff", b"also good"], pa.binary())
    table = pa.table({"prompt": pa.Array.from_buffers(pa.string(), 3, raw.buffers())})
    pq.write_table(table, tmp_path / "log.parquet")
    (source,) = find([str(tmp_path / "log.parquet")])
    assert reasons_of(read_all(source)) == ["", Reason.BROKEN_UTF8, ""]


def _parquet(folder: Path, rows: int = 4_000, group: int = 1_000) -> Path:
    path = folder / "log.parquet"
    prompts = [f"{index} {os.urandom(20).hex()}" for index in range(rows)]
    table = pa.table({"prompt": prompts, "answer": ["y" * 1_000] * rows})
    pq.write_table(table, path, row_group_size=group, use_dictionary=False)
    return path


def test_a_damaged_row_group_rejects_its_own_rows_and_no_others(tmp_path: Path) -> None:
    path = _parquet(tmp_path)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    (source,) = find([str(path)])
    reasons = reasons_of(read_all(source))
    assert reasons == [""] * 1_000 + [Reason.BROKEN_PARQUET] * 1_000 + [""] * 2_000


def test_a_parquet_file_without_its_footer_is_one_reject(tmp_path: Path) -> None:
    path = _parquet(tmp_path, 10)
    path.write_bytes(path.read_bytes()[:-20])
    (source,) = find([str(path)])
    found = read_all(source)
    assert reasons_of(found) == [Reason.BROKEN_PARQUET]
    assert read_all(source, start=found[0][1]) == []


def test_parquet_reads_only_the_columns_and_row_groups_that_are_needed(tmp_path: Path) -> None:
    path = _parquet(tmp_path)
    metadata = pq.ParquetFile(path).metadata
    data = bytearray(path.read_bytes())
    for group in range(4):
        answer = metadata.row_group(group).column(1)
        data[answer.data_page_offset : answer.data_page_offset + 20] = b"\xff" * 20
    skipped = metadata.row_group(0).column(0)
    data[skipped.data_page_offset : skipped.data_page_offset + 20] = b"\xff" * 20
    path.write_bytes(data)
    (source,) = find([str(path)])
    assert reasons_of(read_all(source, start=Position(1_500, -1))) == [""] * 2_500


def test_parquet_without_a_needed_column_still_counts_its_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["a"] * 5}), tmp_path / "log.parquet", row_group_size=2)
    (source,) = find([str(tmp_path / "log.parquet")])
    assert (
        reasons_of(read_all(source, Shape.named("plain"))) == [Reason.UNKNOWN_SHAPE] * 5
        or reasons_of(read_all(source, Shape.named("plain"))) == [Reason.NO_PROMPT] * 5
    )
    with pytest.raises(DataRejected, match="question"):
        detect(source)


def test_large_cells_of_parquet_are_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    text = "x" * 10**6
    with pq.ParquetWriter(path, pa.schema({"prompt": pa.string()}), use_dictionary=False) as writer:
        writer.write_table(pa.table({"prompt": [f"{index}{text}" for index in range(600)]}))
    found, grown = measured(path)
    assert found == ["prompt_too_long"] * 600
    assert grown < 250
