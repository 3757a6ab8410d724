"""Files that were made to harm: they give rejected rows or one clear error, in bounded memory."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from transferred import read

from classifier.errors import DataRejected
from classifier.transfer.reading import source_of

GOOD = b'{"text": "Boil an egg?", "label": "benign"}\n'
LONG = b'{"text": "' + b"x" * 10_000_000 + b'", "label": "benign"}\n'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (LONG, "line_too_long"),
        (b"\xff\xfe\n", "broken_utf8"),
        (b'{"text": "\xed\xa0\x80", "label": "benign"}\n', "broken_utf8"),
        (b'{"text": ' + b"[" * 100_000 + b"\n", "nested_too_deep"),
        (b'{"text": "a", "label": "benign", "note": ' + b"[" * 900 + b"]" * 900 + b"}\n", "wrong_type"),
        (b"[" * 1_100_000 + b"\n", "too_many_values"),
        (b'{"text": "a"\n', "broken_json"),
        (b'"text"\n', "not_an_object"),
        (b'{"text": NaN, "label": "benign"}\n', "wrong_type"),
        (b'{"text": "a", "label": "benign", "revision": ' + b"9" * 100_000 + b"}\n", "wrong_type"),
    ],
)
def test_a_bad_line_is_rejected_and_its_neighbours_are_read(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + line + GOOD)
    found, rejected = read(path)
    assert len(found) == 2
    assert [(each.row, each.reason) for each in rejected] == [(2, reason)]
    assert all(len(each.detail) < 200 for each in rejected)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'"a\0b",benign,\n', "broken_csv"),
        (b"a,benign,c,d\n", "broken_csv"),
        (b"\xff,benign,\n", "broken_utf8"),
        (b'"' + b"x" * 10_000_000 + b'",benign,\n', "line_too_long"),
        (b"a\rb,benign,\n", "broken_csv"),
        (b"a,benign,yesterday\n", "wrong_type"),
    ],
)
def test_a_bad_record_is_rejected_and_its_neighbours_are_read(tmp_path: Path, record: bytes, reason: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label,created\nBoil an egg?,benign,\n" + record + b"Bake bread?,benign,\n")
    found, rejected = read(path)
    assert [each.text for each in found] == ["Boil an egg?", "Bake bread?"]
    assert [(each.row, each.reason) for each in rejected] == [(2, reason)]


def test_a_quote_that_is_never_closed_rejects_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,label\na,benign\n"b,benign\nc,benign\n')
    found, rejected = read(path)
    assert ([each.text for each in found], [each.reason for each in rejected]) == (["a"], ["broken_csv"])


def test_a_csv_without_its_header_is_refused_without_its_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("secret prompt,benign\nanother,benign\n")
    with pytest.raises(DataRejected, match=r"rows\.csv has no column text") as refusal:
        read(path)
    assert "secret" not in str(refusal.value)


def test_a_csv_with_two_columns_of_one_name_is_no_source_of_examples(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label,text\na,benign,b\n")
    found, rejected = read(path)
    assert found == []
    assert [each.reason for each in rejected] == ["broken_csv"]


def nested(values: list[Any], type: pa.DataType | None = None) -> pa.Array:
    return pa.array(values, type)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"text": nested([{"a": "b"}])}, "wrong_type"),
        ({"text": nested([["a"]])}, "wrong_type"),
        ({"text": nested([b"\xff"], pa.binary())}, "wrong_type"),
        ({"text": nested([1.5])}, "wrong_type"),
        ({"text": nested([None], pa.string())}, "missing_field"),
        ({"text": nested(["a"]), "capabilities": nested([[["a"]]])}, "wrong_type"),
        ({"text": nested(["a"]), "capabilities": nested([[None]], pa.list_(pa.string()))}, "wrong_type"),
        ({"text": nested(["a"]), "created": nested([5], pa.timestamp("us"))}, "wrong_type"),
    ],
)
def test_columns_of_other_types_are_rejected_row_by_row(
    tmp_path: Path, columns: dict[str, pa.Array], reason: str
) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({**columns, "label": ["benign"]}), path)
    found, rejected = read(path)
    assert (found, [(each.row, each.reason) for each in rejected]) == ([], [(1, reason)])


def test_text_in_parquet_that_is_no_utf8_is_rejected_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    broken = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": broken, "label": ["benign"] * 3}), path)
    found, rejected = read(path)
    assert [each.text for each in found] == ["good", "fine"]
    assert [(each.row, each.reason) for each in rejected] == [(2, "broken_utf8")]


def test_a_parquet_without_the_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "label": ["benign"]}), path)
    with pytest.raises(DataRejected, match="has no column text"):
        read(path)


@pytest.mark.parametrize("cut", [4, 100, -20])
def test_a_damaged_parquet_is_rejected(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": ["benign"]}), path)
    path.write_bytes(path.read_bytes()[:cut])
    found, rejected = read(path)
    assert (found, [each.reason for each in rejected]) == ([], ["broken_parquet"])


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zstandard.ZstdCompressor().compress)])
def test_a_file_that_is_cut_off_gives_what_it_held(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"rows.jsonl.{suffix}"
    lines = b"".join(json.dumps({"text": os.urandom(20).hex(), "label": "benign"}).encode() + b"\n" for _ in range(500))
    whole = compress(lines)
    path.write_bytes(whole[: len(whole) // 2])
    found, rejected = read(path)
    assert len(found) < 500
    assert [each.reason for each in rejected] == ["broken_compression"]


@pytest.mark.parametrize(
    "name", ["absent.jsonl", "rows.txt", "folder.jsonl", "pipe.jsonl", "loop.jsonl", "a.parquet.gz"]
)
def test_what_is_no_file_of_examples_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "rows.txt").touch()
    (tmp_path / "a.parquet.gz").touch()
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataRejected, match=name):
        source_of(tmp_path / name)


@pytest.mark.parametrize("piece", [b"x", b"\n", b"[]\n"])
def test_a_bomb_stays_small_in_memory(tmp_path: Path, piece: bytes) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    megabyte = piece * (2**20 // len(piece))
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(512 if piece == b"x" else 4):
            file.write(megabyte)
        file.write(b"\n" + GOOD)
    code = """
import resource, sys
from pathlib import Path
from classifier.transfer.reading import Entry, ExampleFile, source_of
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = [0, 0]
for each in ExampleFile(source_of(Path(sys.argv[1]))):
    found[isinstance(each, Entry)] += 1
print(*found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    bad, good, kilobytes = map(int, run.stdout.split())
    assert good == 1
    assert bad == {b"x": 1, b"\n": 0}.get(piece, bad)
    assert kilobytes < 100_000
