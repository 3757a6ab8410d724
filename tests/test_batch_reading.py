"""Logs in every format, whole and broken: every row is read or rejected once, and reading resumes anywhere."""

import csv
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_logs import pack, prompts_of, read_all, reasons_of, source_of

from classifier.batch.inputs import find
from classifier.batch.reading import Limits, detect, first_rows
from classifier.batch.reasons import Reason
from classifier.batch.record import Record
from classifier.errors import InvalidPrompt
from classifier.text import canonical

# "x" makes every prompt one that is scored; no carriage return, because CSV and JSON must hold the same.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=40).map(lambda text: f"x{text}")


ROWS = st.lists(
    st.fixed_dictionaries({"prompt": TEXTS, "account": st.text("abc", min_size=1, max_size=3)}), max_size=12
)


FILES = ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "csv.zst", "parquet"]


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
        return pack(text.getvalue().encode(), suffix)
    return pack(b"".join(orjson.dumps(row) + b"\n" for row in rows), suffix)


@pytest.mark.parametrize("suffix", FILES)
@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_what_was_written_is_read_and_reading_resumes_at_every_position(
    suffix: str, rows: list[dict[str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = source_of(Path(folder), _written(rows, suffix), suffix)
        whole = read_all(source)
        assert [(one.prompt, one.account) for one, _ in whole if isinstance(one, Record)] == [
            (row["prompt"], row["account"]) for row in rows
        ]
        assert [one.place.row for one, _ in whole] == list(range(len(rows)))
        for index, (_, position) in enumerate(whole):
            assert read_all(source, start=position) == whole[index + 1 :]
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
    packed = bytearray(pack(data, suffix))[: -cut or None if cut < 100 else None]
    if 100 < flip < 100 + len(packed):
        packed[flip - 100] ^= 0x5A
    with tempfile.TemporaryDirectory() as folder:
        source = source_of(Path(folder), bytes(packed), suffix)
        whole = read_all(source, limits=LIMITS)
        assert [one.place.row for one, _ in whole if not one.place.item] == list(
            range(len({one.place.row for one, _ in whole}))
        )
        if suffix == "jsonl":
            assert len({one.place.row for one, _ in whole}) == sum(
                bool(line.strip()) for line in bytes(packed).split(b"\n")
            )
        assert reasons_of(whole)[:-1].count(Reason.BROKEN_COMPRESSION) == 0
        for index, (_, position) in enumerate(whole):
            assert read_all(source, start=position, limits=LIMITS) == whole[index + 1 :]


@settings(max_examples=200, deadline=None)
@given(prompt=st.text(max_size=60) | st.text("ﷺ a\u200b\u0301", max_size=60), most=st.integers(1, 60))
def test_every_record_is_one_that_the_scorer_takes(prompt: str, most: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = source_of(Path(folder), json.dumps({"prompt": prompt}).encode())
        ((one, _),) = read_all(source, limits=Limits(prompt_chars=most))
    try:
        canonical(prompt, most)
    except InvalidPrompt:
        scored = False
    else:
        scored = True
    assert isinstance(one, Record) is scored


def test_csv_and_parquet_may_hold_messages_as_json(tmp_path: Path) -> None:
    messages = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])
    text = io.StringIO()
    csv.writer(text).writerows([["id", "messages"], ["1", messages]])
    table = pa.table({"id": ["1"], "messages": [messages]})
    pq.write_table(table, tmp_path / "log.parquet")
    for source in (source_of(tmp_path, text.getvalue().encode(), "csv"), *find([str(tmp_path / "log.parquet")])):
        assert prompts_of(read_all(source)) == ["Be brief.\n\nHello"]
        assert detect(source).name == "openai-chat"


def test_first_rows_leave_out_what_cannot_be_parsed(tmp_path: Path) -> None:
    source = source_of(tmp_path, b'{"prompt": "a"}\nbroken\n{"prompt": "b"}\n{"prompt": "c"}\n')
    assert first_rows(source, 3) == [{"prompt": "a"}, {"prompt": "b"}]


def test_importing_the_readers_imports_no_heavy_package() -> None:
    code = "import sys, classifier.batch.reading; print(*{name.split('.')[0] for name in sys.modules})"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"pyarrow", "fsspec", "zstandard", "orjson", "faiss", "onnxruntime", "pandas"}.intersection(modules)
