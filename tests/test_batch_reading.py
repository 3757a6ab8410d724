"""Logs in every format, whole and broken: every row is read or rejected once, and reading resumes anywhere."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.batch.inputs import Source, find
from classifier.batch.lines import lines
from classifier.batch.reading import Limits, Position, detect, first_rows, read
from classifier.batch.reasons import Reason
from classifier.batch.record import Place, Record, Reject
from classifier.batch.shapes import Shape
from classifier.batch.streams import pieces
from classifier.errors import DataRejected, InvalidPrompt, InvalidSetting
from classifier.text import canonical

AUTO = Shape.named("auto")
MARK = "XSECRETX"
Read = list[tuple[Record | Reject, Position]]

# "x" makes every prompt one that is scored; no carriage return, because CSV and JSON must hold the same.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=40).map(lambda text: f"x{text}")
ROWS = st.lists(
    st.fixed_dictionaries({"prompt": TEXTS, "account": st.text("abc", min_size=1, max_size=3)}), max_size=12
)
FILES = ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "csv.zst", "parquet"]


def _packed(data: bytes, suffix: str) -> bytes:
    if suffix.endswith(".gz"):
        return gzip.compress(data)
    return zstandard.compress(data) if suffix.endswith(".zst") else data


def _written(rows: list[dict[str, Any]], suffix: str) -> bytes:
    if suffix == "parquet":
        sink = io.BytesIO()
        schema = pa.schema({"prompt": pa.string(), "account": pa.string()})
        pq.write_table(pa.Table.from_pylist(rows, schema), sink, row_group_size=3)
        return sink.getvalue()
    if suffix.startswith("csv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, ["prompt", "account"])
        writer.writeheader()
        writer.writerows(rows)
        return _packed(text.getvalue().encode(), suffix)
    return _packed(b"".join(orjson.dumps(row) + b"\n" for row in rows), suffix)


def _source(folder: Path, data: bytes, suffix: str = "jsonl") -> Source:
    path = folder / f"log.{suffix}"
    path.write_bytes(data)
    (source,) = find([str(path)])
    return source


def _read(source: Source, shape: Shape = AUTO, **arguments: Any) -> Read:
    return list(read(source, shape, **arguments))


def _reasons(found: Read) -> list[str]:
    return ["" if isinstance(one, Record) else one.reason for one, _ in found]


def _prompts(found: Read) -> list[str]:
    return [one.prompt for one, _ in found if isinstance(one, Record)]


@pytest.mark.parametrize("suffix", FILES)
@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_what_was_written_is_read_and_reading_resumes_at_every_position(
    suffix: str, rows: list[dict[str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = _source(Path(folder), _written(rows, suffix), suffix)
        whole = _read(source)
        assert [(one.prompt, one.account) for one, _ in whole if isinstance(one, Record)] == [
            (row["prompt"], row["account"]) for row in rows
        ]
        assert [one.place.row for one, _ in whole] == list(range(len(rows)))
        for index, (_, position) in enumerate(whole):
            assert _read(source, start=position) == whole[index + 1 :]
        assert all(isinstance(one, Record) for one, _ in whole)


LINES = st.one_of(
    st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")),
    st.sampled_from([
        b"", b"  ", b"\r", b'{"prompt": "Hello"}', b'{"prompt": "Hello"}\r', b'{"prompt": null}', b"[1]", b"{}", b'{"prompt": "\\ud800"}', b'{"prompt": "\xff"}',
        b'{"prompt": NaN}', b'"', b'a,"b', b'"a,b"', b'{"prompt": "' + b"x" * 100 + b'"}', b"\0" * 20, b"\xef\xbb\xbf{}",
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": {"gen_ai.prompt": "a"}}, {"attributes": {"gen_ai.prompt": "b"}}, {"name": "gen_ai.x"}]}]}]}',
    ]),
)  # fmt: skip
LIMITS = Limits(line_bytes=200, prompt_chars=50)


@pytest.mark.parametrize("suffix", FILES[:6])
@settings(max_examples=60, deadline=None)
@given(data=st.lists(LINES, max_size=8).map(b"\n".join), cut=st.integers(0, 400), flip=st.integers(0, 400))
def test_counts_add_up_for_any_bytes_cut_and_damaged_anywhere(suffix: str, data: bytes, cut: int, flip: int) -> None:
    packed = bytearray(_packed(data, suffix))[: -cut or None if cut < 100 else None]
    if 100 < flip < 100 + len(packed):
        packed[flip - 100] ^= 0x5A
    with tempfile.TemporaryDirectory() as folder:
        source = _source(Path(folder), bytes(packed), suffix)
        whole = _read(source, limits=LIMITS)
        assert [one.place.row for one, _ in whole if not one.place.item] == list(
            range(len({one.place.row for one, _ in whole}))
        )
        if suffix == "jsonl":
            assert len({one.place.row for one, _ in whole}) == sum(
                bool(line.strip()) for line in bytes(packed).split(b"\n")
            )
        assert _reasons(whole)[:-1].count(Reason.BROKEN_COMPRESSION) == 0
        for index, (_, position) in enumerate(whole):
            assert _read(source, start=position, limits=LIMITS) == whole[index + 1 :]


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst"])
@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), level=st.integers(1, 9))
def test_a_cut_stream_gives_all_rows_before_the_cut_and_one_reject(suffix: str, share: float, level: int) -> None:
    rows = [orjson.dumps({"prompt": f"Prompt {index} {index**7:x}"}) for index in range(200)]
    data = b"\n".join(rows)
    packed = gzip.compress(data, level) if suffix.endswith("gz") else zstandard.compress(data, level)
    packed = packed[: int(share * len(packed))]
    with tempfile.TemporaryDirectory() as folder:
        found = _read(_source(Path(folder), packed, suffix))
    whole = zlib.decompressobj(31).decompress(packed) if suffix.endswith("gz") else None
    *before, broken = found
    assert isinstance(broken[0], Reject)
    assert broken[0].reason == Reason.BROKEN_COMPRESSION
    assert all(isinstance(one, Record) for one, _ in before)
    if whole is not None:
        assert len(before) == whole.count(b"\n")
        assert broken[0].place.offset == whole.rfind(b"\n") + 1


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst"])
def test_damage_in_the_middle_loses_no_row_before_it(tmp_path: Path, suffix: str) -> None:
    rows = b"".join(orjson.dumps({"prompt": f"{index} {os.urandom(40).hex()}"}) + b"\n" for index in range(20_000))
    packed = bytearray(_packed(rows, suffix))
    packed[len(packed) // 2 :] = b"\xff" * (len(packed) // 2)
    inflater = zlib.decompressobj(31) if suffix.endswith("gz") else zstandard.ZstdDecompressor().decompressobj()
    reference = bytearray()
    try:
        for byte in packed:
            reference += inflater.decompress(bytes([byte]))
    except (zlib.error, zstandard.ZstdError):
        pass
    source = _source(tmp_path, bytes(packed), suffix)
    found = _read(source)
    assert found[-1][0].place.row == reference.count(b"\n") > 5_000
    assert _reasons(found[-1:]) == [Reason.BROKEN_COMPRESSION]
    assert _read(source, start=found[-2][1]) == found[-1:]
    assert _read(source, start=found[-1][1]) == []


def test_members_frames_and_padding_follow_one_another(tmp_path: Path) -> None:
    line = b'{"prompt": "Hello"}\n'
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    files = {
        "jsonl.gz": gzip.compress(line) + gzip.compress(b"") + gzip.compress(line) + b"\0" * 512,
        "jsonl.zst": zstandard.compress(line) + skippable + zstandard.compress(b"") + zstandard.compress(line),
    }
    for suffix, data in files.items():
        assert _reasons(_read(_source(tmp_path, data, suffix))) == ["", ""]
    assert _reasons(_read(_source(tmp_path, gzip.compress(line) + b"garbage", "jsonl.gz"))) == [
        "",
        Reason.BROKEN_COMPRESSION,
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "Hello"', Reason.BROKEN_JSON),
        (b"Hello", Reason.BROKEN_JSON),
        (b'\0\0{"prompt": "Hello"}', Reason.BROKEN_JSON),
        (b'{"prompt": "a\0b"}', Reason.BROKEN_JSON),
        (b'{"prompt": "\xff"}', Reason.BROKEN_UTF8),
        (b'{"prompt": "\xed\xa0\x80"}', Reason.BROKEN_UTF8),
        ('{"prompt": "Hello"}'.encode("utf-16"), Reason.BROKEN_UTF8),
        (b'{"prompt": "\\ud800"}', Reason.LONE_SURROGATE),
        (b'{"prompt": "Hello", "account": "\\ud800"}', Reason.LONE_SURROGATE),
        (b'{"prompt": "Hello", "answer": "\\ud800"}', ""),
        (b'{"prompt": "Hello", "cost": NaN, "rate": -Infinity}', ""),
        (b'{"prompt": NaN}', Reason.WRONG_TYPE),
        (b'{"prompt": "Hello", "n": ' + b"9" * 5000 + b"}", ""),
        (b'{"prompt": "Hello", "account": ' + b"9" * 30 + b"}", Reason.WRONG_TYPE),
        (b'{"prompt": 1, "prompt": "Hello"}', ""),
        (b'\xef\xbb\xbf{"prompt": "Hello"}', ""),
        (b'{"prompt": "Hello"}\r', ""),
        (b"[" * 100_000 + b"]" * 100_000, Reason.NESTED_TOO_DEEP),
        (b'{"a": ' * 1_000_000, Reason.NESTED_TOO_DEEP),
        (b'{"messages": [{"role": "user", "content": ' + b"[" * 900 + b"]" * 900 + b"}]}", Reason.WRONG_TYPE),
        (b'["Hello"]', Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (b'{"who": "me"}', Reason.UNKNOWN_SHAPE),
        (b'{"prompt": null}', Reason.NO_PROMPT),
        (b'{"prompt": ""}', Reason.EMPTY_PROMPT),
        (b'{"prompt": " \\n\\u200b\\u3164"}', Reason.EMPTY_PROMPT),
        (b'{"messages": []}', Reason.EMPTY_PROMPT),
        (b'{"prompt": "' + b"x" * 100_000 + b'"}', ""),
        (b'{"prompt": "' + b"x" * 100_001 + b'"}', Reason.PROMPT_TOO_LONG),
        ('{"prompt": "' + "\ufdfa" * 6_000 + '"}', Reason.PROMPT_TOO_LONG),
    ],
)  # fmt: skip
def test_a_bad_line_says_what_is_wrong_and_takes_no_neighbour_along(
    tmp_path: Path, line: bytes | str, reason: str
) -> None:
    line = line.encode() if isinstance(line, str) else line
    good = b'{"prompt": "Neighbour"}\n'
    found = _read(_source(tmp_path, good + line.replace(b"\n", b" ") + b"\n" + good))
    assert _reasons(found) == ["", reason, ""]
    assert found[1][0].place == Place(str(tmp_path / "log.jsonl"), 1, len(good))


def test_no_reject_holds_the_rows_text(tmp_path: Path) -> None:
    rows = [
        f'{{"prompt": "{MARK}"', f'["{MARK}"]', f'{{"{MARK}": 1}}', f'{{"prompt": "{MARK}\\ud800"}}', f'{{"messages": "{MARK}"}}',
        f'{{"messages": [{{"role": 1, "content": "{MARK}"}}]}}', f'{{"prompt": {{"x": "{MARK}"}}}}',
    ]  # fmt: skip
    found = _read(_source(tmp_path, "\n".join(rows).encode()))
    assert len(found) == len(rows)
    assert all(isinstance(one, Reject) for one, _ in found)
    assert MARK not in repr(found)


@settings(max_examples=200, deadline=None)
@given(prompt=st.text(max_size=60) | st.text("ﷺ a\u200b\u0301", max_size=60), most=st.integers(1, 60))
def test_every_record_is_one_that_the_scorer_takes(prompt: str, most: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = _source(Path(folder), json.dumps({"prompt": prompt}).encode())
        ((one, _),) = _read(source, limits=Limits(prompt_chars=most))
    try:
        canonical(prompt, most)
    except InvalidPrompt:
        scored = False
    else:
        scored = True
    assert isinstance(one, Record) is scored


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    source = _source(tmp_path, b'\n \r\n{"prompt": "a"}\n\n\t\n{"prompt": "b"}\n\n')
    found = _read(source)
    assert [(one.place.row, one.place.offset) for one, _ in found] == [(0, 4), (1, 23)]
    assert _read(source, start=found[-1][1]) == []


def test_a_line_over_the_limit_is_passed_over_and_the_next_is_read(tmp_path: Path) -> None:
    limits = Limits(line_bytes=30)
    rows = [b'{"prompt": "' + b"x" * size + b'"}' for size in (10, 16, 17, 3_000_000, 10)]
    found = _read(_source(tmp_path, b"\n".join(rows)), limits=limits)
    assert _reasons(found) == ["", "", Reason.LINE_TOO_LONG, Reason.LINE_TOO_LONG, ""]
    assert found[4][0].place.offset == sum(len(row) + 1 for row in rows[:4])


MEASURE = """
import resource, sys
from classifier.batch.inputs import find
from classifier.batch.reading import read
from classifier.batch.shapes import Shape
(source,) = find([sys.argv[1]])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = [getattr(one, "reason", "record") for one, _ in read(source, Shape.named("auto"))]
print(*found, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def _measured(path: Path) -> tuple[list[str], int]:
    """What a process of its own reads, and by how many MiB its memory grows."""
    command = [sys.executable, "-c", MEASURE, str(path)]
    *found, grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return found, int(grown)


def test_a_line_of_five_gigabytes_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(5 * 10**9)  # a hole: it is read as zeros and takes no disk
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"prompt": "Hello"}\n')
    found, grown = _measured(path)
    assert found == ["line_too_long", "record"]
    assert grown < 100


def test_a_line_of_millions_of_values_is_not_parsed(tmp_path: Path) -> None:
    line = b'{"prompt": "a", "x": [' + b"{}," * 5_000_000 + b"{}]}\n"
    path = tmp_path / "values.jsonl"
    path.write_bytes(line + b'{"prompt": "Hello"}\n')
    found, grown = _measured(path)
    assert found == ["too_many_values", "record"]
    assert grown < 150


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_bomb_is_not_held(tmp_path: Path, suffix: str) -> None:
    packer: Any = zlib.compressobj(9, wbits=31) if suffix == "gz" else zstandard.ZstdCompressor(level=19).compressobj()
    path = tmp_path / f"bomb.csv.{suffix}"
    with path.open("wb") as file:
        file.write(packer.compress(b'prompt\n"'))
        for _ in range(1_000):
            file.write(packer.compress(b"\0" * 10**6))
        file.write(packer.compress(b'"\nHello\n') + packer.flush())
    assert path.stat().st_size < 2 * 10**6
    found, grown = _measured(path)
    assert found == ["line_too_long", "record"]
    assert grown < 200


def test_a_zstd_window_over_the_usual_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(b'{"prompt": "Hello"}\n') + packer.flush()
    assert _reasons(_read(_source(tmp_path, packed, "jsonl.zst"))) == [Reason.BROKEN_COMPRESSION]


def test_csv_takes_quoted_line_breaks_stray_quotes_and_other_delimiters(tmp_path: Path) -> None:
    data = '\ufeffid;prompt;n\r\n1;"two\r\n\r\nlines ""quoted"" ; here";x\r\n\r\n2;5" pipes;x\r\n3;;x\r\n4;a;b;c\r\n5;"open;x\r\n'
    source = _source(tmp_path, data.encode(), "csv")
    found = _read(source)
    assert _prompts(found) == ['two\r\n\r\nlines "quoted" ; here', '5" pipes']
    assert _reasons(found) == ["", "", Reason.NO_PROMPT, Reason.BROKEN_CSV, Reason.BROKEN_CSV]
    for index, (_, position) in enumerate(found):
        assert _read(source, start=position) == found[index + 1 :]


def test_csv_over_the_limit_is_passed_over_with_its_quoted_line_breaks(tmp_path: Path) -> None:
    data = b'prompt,n\n"' + b"x\n" * 200 + b'",1\n"' + b"y" * 300 + b'\n",2\n"z\n",3\n'
    source = _source(tmp_path, data, "csv")
    found = _read(source, limits=Limits(line_bytes=100))
    assert _reasons(found) == [Reason.LINE_TOO_LONG, Reason.LINE_TOO_LONG, ""]
    assert _prompts(found) == ["z\n"]


def test_a_csv_cell_may_hold_more_than_the_librarys_own_limit(tmp_path: Path) -> None:
    source = _source(tmp_path, b'prompt,answer\nHi,"' + b"x" * 500_000 + b'"\n', "csv")
    assert _prompts(_read(source)) == ["Hi"]


@pytest.mark.parametrize("data", [b'prompt,"open\nHello\n', b"\xff\xfe,prompt\nHello,a\n"])
def test_csv_without_a_header_that_can_be_read_is_one_reject(tmp_path: Path, data: bytes) -> None:
    source = _source(tmp_path, data, "csv")
    found = _read(source)
    assert len(found) == 1
    assert isinstance(found[0][0], Reject)
    assert _read(source, start=found[0][1]) == []


def test_csv_and_parquet_may_hold_messages_as_json(tmp_path: Path) -> None:
    messages = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])
    text = io.StringIO()
    csv.writer(text).writerows([["id", "messages"], ["1", messages]])
    table = pa.table({"id": ["1"], "messages": [messages]})
    pq.write_table(table, tmp_path / "log.parquet")
    for source in (_source(tmp_path, text.getvalue().encode(), "csv"), *find([str(tmp_path / "log.parquet")])):
        assert _prompts(_read(source)) == ["Be brief.\n\nHello"]
        assert detect(source).name == "openai-chat"


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
    assert _prompts([(one, Position()) for one in found]) == ["Hello", "Bytes", "Span"]
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
    assert _reasons(_read(source)) == ["", Reason.BROKEN_UTF8, ""]


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
    reasons = _reasons(_read(source))
    assert reasons == [""] * 1_000 + [Reason.BROKEN_PARQUET] * 1_000 + [""] * 2_000


def test_a_parquet_file_without_its_footer_is_one_reject(tmp_path: Path) -> None:
    path = _parquet(tmp_path, 10)
    path.write_bytes(path.read_bytes()[:-20])
    (source,) = find([str(path)])
    found = _read(source)
    assert _reasons(found) == [Reason.BROKEN_PARQUET]
    assert _read(source, start=found[0][1]) == []


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
    assert _reasons(_read(source, start=Position(1_500, -1))) == [""] * 2_500


def test_parquet_without_a_needed_column_still_counts_its_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["a"] * 5}), tmp_path / "log.parquet", row_group_size=2)
    (source,) = find([str(tmp_path / "log.parquet")])
    assert (
        _reasons(_read(source, Shape.named("plain"))) == [Reason.UNKNOWN_SHAPE] * 5
        or _reasons(_read(source, Shape.named("plain"))) == [Reason.NO_PROMPT] * 5
    )
    with pytest.raises(DataRejected, match="question"):
        detect(source)


def test_large_cells_of_parquet_are_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    text = "x" * 10**6
    with pq.ParquetWriter(path, pa.schema({"prompt": pa.string()}), use_dictionary=False) as writer:
        writer.write_table(pa.table({"prompt": [f"{index}{text}" for index in range(600)]}))
    found, grown = _measured(path)
    assert found == ["prompt_too_long"] * 600
    assert grown < 250


def test_an_otlp_line_resumes_between_two_of_its_requests(tmp_path: Path) -> None:
    spans = [{"spanId": str(index), "attributes": {"gen_ai.prompt": f"Prompt {index}"}} for index in range(3)]
    line = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
    source = _source(tmp_path, line + b"\n" + line + b"\n", "jsonl")
    found = _read(source)
    assert [(one.place.row, one.place.item) for one, _ in found] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for index, (_, position) in enumerate(found):
        assert _read(source, start=position) == found[index + 1 :]


def test_first_rows_leave_out_what_cannot_be_parsed(tmp_path: Path) -> None:
    source = _source(tmp_path, b'{"prompt": "a"}\nbroken\n{"prompt": "b"}\n{"prompt": "c"}\n')
    assert first_rows(source, 3) == [{"prompt": "a"}, {"prompt": "b"}]


@given(st.lists(st.binary(max_size=6), max_size=8), st.integers(0, 8))
def test_lines_are_the_same_however_the_bytes_are_cut(cuts: list[bytes], most: int) -> None:
    data = b"".join(cuts)
    whole = [
        (begin, after, line if isinstance(line, bytes) else None) for begin, after, line in lines(iter([data]), 0, most)
    ]
    in_pieces = [
        (begin, after, line if isinstance(line, bytes) else None) for begin, after, line in lines(iter(cuts), 0, most)
    ]
    assert in_pieces == whole
    assert [data[begin:after].rstrip(b"\n") for begin, after, line in whole if line is not None] == [
        line.rstrip(b"\n") for _, _, line in whole if line is not None
    ]
    assert sum(after - begin for begin, after, _ in whole) == len(data)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder as logs lie in."""
    for name in (
        "b/2.jsonl",
        "b/10.jsonl.gz",
        "a.csv",
        "c.parquet",
        "notes.txt",
        ".hidden.jsonl",
        "_delta_log/0.json",
        "b/UPPER.JSONL.ZST",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "latest.jsonl").symlink_to(tmp_path / "b" / "2.jsonl")
    return tmp_path


def test_a_directory_gives_known_files_by_name_once(tree: Path) -> None:
    found = find([str(tree)])
    names = [os.path.relpath(source.name, tree) for source in found]
    assert names == ["a.csv", "b/10.jsonl.gz", "b/2.jsonl", "b/UPPER.JSONL.ZST", "c.parquet"]
    kinds = [(source.format, source.compression) for source in found]
    assert kinds == [("csv", ""), ("jsonl", "gz"), ("jsonl", ""), ("jsonl", "zst"), ("parquet", "")]
    assert find([str(tree), str(tree / "b" / "*"), str(tree / "latest.jsonl")]) == found


def test_globs_files_and_urls_keep_the_order_in_which_they_are_given(tree: Path) -> None:
    found = find([str(tree / "c.parquet"), str(tree / "**" / "*.jsonl"), f"file://{tree}/a.csv"])
    assert [Path(source.url).name for source in found] == ["c.parquet", "2.jsonl", "a.csv"]


def test_a_file_whose_name_has_marks_of_globs_is_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "log[1]::x?.jsonl"
    path.write_bytes(b'{"prompt": "Hello"}')
    (source,) = find([str(path)])
    assert _prompts(_read(source)) == ["Hello"]


def test_relative_names_stay_relative(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert [source.name for source in find(["b/2.jsonl", "a.csv"])] == ["b/2.jsonl", "a.csv"]


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's store in memory, emptied afterwards."""
    store = fsspec.filesystem("memory")
    yield store
    store.store.clear()
    store.pseudo_dirs[:] = [""]


def test_urls_are_listed_and_read_like_files(memory: Any) -> None:
    memory.pipe("/logs/b.jsonl.gz", gzip.compress(b'{"prompt": "Hello"}\n'))
    memory.pipe("/logs/day=1/a.jsonl", b'{"prompt": "There"}\n')
    found = find(["memory://logs"])
    assert [source.name.rpartition("logs/")[2] for source in found] == ["b.jsonl.gz", "day=1/a.jsonl"]
    assert all(source.name.startswith("memory://") for source in found)
    assert [prompt for source in found for prompt in _prompts(_read(source))] == ["Hello", "There"]
    assert find(["memory://logs/*.gz", "memory://logs/b.jsonl.gz"]) == found[:1]


def test_the_stamp_changes_with_the_file(tmp_path: Path) -> None:
    first = _source(tmp_path, b"a")
    assert find([first.url])[0].stamp == first.stamp
    longer = _source(tmp_path, b"ab")
    os.utime(first.url, ns=(1, 10**9))
    assert len({first.stamp, longer.stamp, find([first.url])[0].stamp}) == 3


@pytest.mark.parametrize("given_format", [None, "csv"])
def test_an_unknown_suffix_needs_a_format(tree: Path, given_format: str | None) -> None:
    if given_format:
        (source,) = find([str(tree / "notes.txt")], format=given_format)
        assert source.format == "csv"
        return
    with pytest.raises(DataRejected, match=r"\.jsonl.*\.parquet.*\.zst"):
        find([str(tree / "notes.txt")])


def test_what_cannot_be_found_or_is_no_file_is_named(tree: Path) -> None:
    os.mkfifo(tree / "pipe.jsonl")
    (tree / "empty").mkdir()
    for given_input in (tree / "gone.jsonl", tree / "*.gone", tree / "empty", tree / "pipe.jsonl"):
        with pytest.raises(DataRejected, match=given_input.name.replace("*", r"\*")):
            find([str(given_input)])
    with pytest.raises(DataRejected):
        find([])
    with pytest.raises(InvalidSetting, match="jsonl"):
        find([str(tree)], format="xml")
    with pytest.raises(InvalidSetting, match="nosuch"):
        find(["nosuch://bucket/key"])


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    source = _source(tmp_path, gzip.compress(b"{}\n"), "jsonl.gz")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[2].split(',')))\n"
        "from classifier.batch.inputs import find\nfrom classifier.batch.reading import read\nfrom classifier.batch.shapes import Shape\n"
        "list(read(find([sys.argv[1]])[0], Shape.named('auto')))"
    )
    for package, path, message in [
        ("s3fs", "s3://bucket/log.jsonl", "pip install s3fs"),
        ("orjson", source.url, "pip install 'stillwatch[batch]'"),
        ("fsspec", source.url, "pip install 'stillwatch[batch]'"),
    ]:
        failed = subprocess.run(
            [sys.executable, "-c", code, path, package], capture_output=True, text=True, check=False
        )
        assert failed.returncode == 1
        assert message in failed.stderr.splitlines()[-1]


def test_importing_the_readers_imports_no_heavy_package() -> None:
    code = "import sys, classifier.batch.reading; print(*{name.split('.')[0] for name in sys.modules})"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"pyarrow", "fsspec", "zstandard", "orjson", "faiss", "onnxruntime", "pandas"}.intersection(modules)


def test_a_file_that_vanishes_is_an_error_and_no_reject(tmp_path: Path) -> None:
    source = _source(tmp_path, b"{}")
    Path(source.url).unlink()
    with pytest.raises(DataRejected, match=r"log\.jsonl"):
        _read(source)


def test_credentials_do_not_come_into_messages(memory: Any) -> None:
    with pytest.raises(DataRejected, match=r"memory://host/gone\.jsonl") as caught:
        find(["memory://user:secret@host/gone.jsonl?signature=secret"])
    assert "secret" not in str(caught.value)
    assert memory.ls("/") == []


def test_a_link_is_read_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "2026.data").write_bytes(b'{"prompt": "Hello"}')
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "latest.jsonl").symlink_to(tmp_path / "kept" / "2026.data")
    for given_input in (tmp_path / "logs", tmp_path / "logs" / "*", tmp_path / "logs" / "latest.jsonl"):
        (source,) = find([str(given_input)])
        assert (Path(source.name).name, source.size) == ("latest.jsonl", 19)
        assert _prompts(_read(source)) == ["Hello"]


def test_skipping_to_an_offset_gives_the_rest(tmp_path: Path) -> None:
    data = os.urandom(3 * 2**20)
    for suffix in ("jsonl", "jsonl.gz", "jsonl.zst"):
        source = _source(tmp_path, _packed(data, suffix), suffix)
        for offset in (0, 1, 2**20, len(data) - 1, len(data), len(data) + 1):
            assert b"".join(pieces(source, offset)) == data[offset:]
