"""Parquet: its types, its damage, and the memory that reading it takes."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_logs import AUTO, measured, prompts_of, read_all, reasons_of

from classifier.batch.foresight import foresee
from classifier.batch.inputs import find
from classifier.batch.reading import Position, detect, read
from classifier.batch.reasons import Reason
from classifier.batch.record import Record
from classifier.batch.shapes import Shape
from classifier.batch.thrift import BrokenHeader, read_struct
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
        writer.write_table(pa.table({"prompt": [f"{index}{text}" for index in range(400)]}))
    found, grown = measured(path)
    assert found == ["prompt_too_long"] * 400  # the writer made one page of them, which must be held
    assert grown < 650


NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECONDS = int(NOON.timestamp())
TIMES = {
    "date32": (
        pa.array([SECONDS // 86_400, 2**31 - 1], pa.int32()).cast(pa.date32()),
        datetime(2026, 1, 5, tzinfo=UTC),
    ),
    "date64": (pa.array([date(2026, 1, 5), date(2026, 1, 6)], pa.date64()), datetime(2026, 1, 5, tzinfo=UTC)),
    "time32": (pa.array([1, 2], pa.time32("s")), None),
    "time64": (pa.array([1, 2], pa.time64("ns")), None),
    "duration": (pa.array([1, 2**62 + 1], pa.duration("ns")), None),
    "seconds": (pa.array([SECONDS, 2**62]), NOON),
    "milliseconds": (pa.array([SECONDS * 10**3, -(2**62)]), NOON),
    "microseconds": (pa.array([SECONDS * 10**6, 0]), NOON),
    "nanoseconds": (pa.array([SECONDS * 10**9, 0], pa.uint64()), NOON),
    "decimal": (pa.array([Decimal(SECONDS), Decimal("0.5")], pa.decimal128(20, 3)), NOON),
    "text": (pa.array(["2026-01-05 12:00:00 UTC", "yesterday"]), NOON),
    "text of another zone": (pa.array(["2026-01-05T13:00:00.123456789+01:00", ""]), NOON.replace(microsecond=123_456)),
    "dictionary of text": (pa.array(["2026-01-05T12:00Z", "x"]).dictionary_encode(), NOON),
    "dictionary of times": (pa.array([SECONDS * 10**9 + 1, 0], pa.timestamp("ns")).dictionary_encode(), NOON),
    "no zone": (pa.array([SECONDS * 10**9 + 1, 1], pa.timestamp("ns")), NOON),
    "far": (pa.array([SECONDS * 10**6, 2**62], pa.timestamp("us", "UTC")), NOON),
    "far milliseconds": (pa.array([SECONDS * 10**3, 2**60], pa.timestamp("ms")), NOON),
    "zone": (pa.array([SECONDS * 10**6, None], pa.timestamp("us", "Europe/Zurich")), NOON),
    "no such zone": (pa.array([SECONDS * 10**6, None], pa.timestamp("us", "Mars/Phobos")), NOON),
    "bytes": (pa.array([b"2026-01-05T12:00Z", b"\xff"], pa.binary()), NOON),
    "truth": (pa.array([True, False]), None),
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", TIMES)
def test_a_time_of_any_type_is_read_or_none_and_takes_no_prompt_along(
    tmp_path: Path, kind: str, *, nested: bool
) -> None:
    times, wanted = TIMES[kind]
    columns = {"prompt": pa.array(["Hello", "There"])}
    if nested and not pa.types.is_dictionary(times.type):
        columns["account_id"] = pa.array(["a", "b"])
        columns["meta"] = pa.StructArray.from_arrays([times, pa.array(["c", "d"])], ["at", "n"])
    else:
        columns["time"] = times
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    (source,) = find([str(tmp_path / "log.parquet")])
    shape = AUTO.overriding({"time": "meta.at"}) if "meta" in columns else AUTO
    found = [one for one, _ in read(source, shape)]
    assert [one.prompt for one in found if isinstance(one, Record)] == ["Hello", "There"]
    assert isinstance(found[0], Record)
    assert found[0].time == (
        None if wanted is None else (wanted - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    )


def _in_one_group(path: Path, cells: list[str], **options: Any) -> Path:
    table = pa.table({"prompt": pa.array(cells, pa.large_string())})
    pq.write_table(table, path, compression="zstd", write_batch_size=1, **options)
    return path


@pytest.mark.parametrize(
    ("size", "options", "most"),
    [
        (400_000_000, {}, 550),  # a page of this size may hold many small cells, so that it is looked into
        (400_000_000, {"use_dictionary": False, "data_page_version": "2.0"}, 550),
        (700_000_000, {"use_dictionary": False}, 150),
    ],
)
def test_a_cell_that_is_far_too_large_is_not_decoded_and_says_so(
    tmp_path: Path, size: int, options: dict[str, Any], most: int
) -> None:
    path = tmp_path / "log.parquet"
    code = (
        "import sys, pyarrow as pa, pyarrow.parquet as pq\n"
        "cells = [f'Prompt {number}' for number in range(1_500)]\n"
        "cells[1_200] = 'x' * int(sys.argv[3])\n"
        "table = pa.table({'prompt': pa.array(cells, pa.large_string())})\n"
        "pq.write_table(table, sys.argv[1], compression='zstd', row_group_size=1_400, write_batch_size=1, data_page_size=1, **eval(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, str(path), repr(options), str(size)], check=True)
    found, grown = measured(path)
    assert grown < most
    before = found.index("line_too_long")
    assert found == ["record"] * before + ["line_too_long"] * (1_400 - before) + ["record"] * 100
    assert before <= 1_200
    assert before or not options


def test_a_row_over_the_limit_is_rejected_by_itself(tmp_path: Path) -> None:
    cells = ["Before", "x" * 30_000_000, "After"]
    found, grown = measured(_in_one_group(tmp_path / "log.parquet", cells, use_dictionary=False))
    assert found == ["record", "line_too_long", "record"]
    assert grown < 250


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"}])
def test_a_large_prompt_that_is_sent_again_and_again_is_not_held_as_often(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = _in_one_group(tmp_path / "log.parquet", ["x" * 8_000_000] * 300, **options)
    assert path.stat().st_size < 100_000
    found, grown = measured(path)
    assert found == ["prompt_too_long"] * 300
    assert grown < 400


def test_a_footer_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    with path.open("wb") as file:
        file.truncate(3 * 10**9)  # a hole takes no disk
        file.seek(0, os.SEEK_END)
        file.write((2 * 10**9).to_bytes(4, "little") + b"PAR1")
    found, grown = measured(path)
    assert found == ["line_too_long"]
    assert grown < 100


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("nested", [False, True])
def test_the_headers_of_pages_are_read_whoever_wrote_them(tmp_path: Path, version: str, *, nested: bool) -> None:
    path = tmp_path / "log.parquet"
    prompts = [f"Prompt {number} {os.urandom(30).hex()}" for number in range(5_000)]
    messages = pa.array([[{"role": "user", "content": prompt}] for prompt in prompts])
    table = pa.table({"messages": messages} if nested else {"prompt": prompts})
    pq.write_table(
        table, path, data_page_version=version, data_page_size=10_000, write_statistics=True, write_page_index=True,
        write_page_checksum=True, row_group_size=3_000,
    )  # fmt: skip
    (source,) = find([str(path)])
    file = pq.ParquetFile(path)
    with path.open("rb") as raw:
        plans = [foresee(file, raw, group, file.schema_arrow.names) for group in range(2)]
    assert [(plan.rows, plan.fault) for plan in plans] == [(3_000, None), (2_000, None)]
    assert prompts_of(read_all(source)) == prompts
    assert prompts_of(read_all(source, start=Position(2_990, -1))) == prompts[2_990:]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_bytes_that_are_no_header_end_and_say_so(data: bytes) -> None:
    try:
        found, length = read_struct(data)
    except (IndexError, BrokenHeader):
        return
    assert length <= len(data)
    assert all(isinstance(name, int) for name in found)
