"""Every format holds examples to the letter, says what it holds, and reads what people and spreadsheets write."""

import csv
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transferred import FORMATS, SUFFIXES, examples, read

from classifier.errors import DataRejected, InvalidSetting
from classifier.transfer.schema import COLUMNS, NAMES, Choices, Kind
from classifier.transfer.writing import write_examples
from index.example import MAX_TEXT_CHARS, Example, Label, State

DOCUMENT = Path(__file__).parent.parent / "docs" / "interchange.md"
ONE = Example(
    "Write 20 prompts.",
    Label.EXTRACTION,
    "self_chat",
    ("coding", "maths"),
    language="en",
    source="desk",
    author="ada",
    note="seen, twice",
    licence="CC-BY-4.0",
    state=State.PENDING,
    created=datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC),
    revision=7,
    changed=9,
)
BY_FILE = Choices(file="rows.jsonl")
PLAIN = {"text": "Boil an egg?", "label": "benign"}


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_what_was_written_is_read_to_the_letter(suffix: str, data: st.DataObject) -> None:
    forbidden = "\0" if suffix.startswith("csv") else ""
    written = data.draw(st.lists(examples(forbidden), max_size=5))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"examples.{suffix}"
        assert write_examples(path, written) == len(written)
        assert read(path) == (written, [])


@pytest.mark.parametrize("format", FORMATS)
def test_the_longest_text_is_read_as_it_was_written(tmp_path: Path, format: str) -> None:
    longest = [
        Example(('"\U0001f600\r,\n' * MAX_TEXT_CHARS)[:MAX_TEXT_CHARS], Label.BENIGN),
        Example("\x01" * MAX_TEXT_CHARS, Label.BENIGN),
    ]
    path = tmp_path / f"examples.{format}"
    write_examples(path, longest)
    found, rejected = read(path)
    assert rejected == []
    assert [each.text for each in found] == [each.text for each in longest]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_examples_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("one", "two"):
        write_examples(tmp_path / f"{name}.{suffix}", [ONE] * 3)
    assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


def test_a_row_states_schema_licence_and_where_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    write_examples(path, [ONE])
    assert json.loads(path.read_bytes()) == {
        "stillwatch_schema": 1,
        "text": "Write 20 prompts.",
        "label": "extraction",
        "technique": "self_chat",
        "capabilities": ["coding", "maths"],
        "language": "en",
        "source": "desk",
        "author": "ada",
        "note": "seen, twice",
        "licence": "CC-BY-4.0",
        "state": "pending",
        "id": ONE.id,
        "content_hash": ONE.content_hash,
        "created": "2026-01-31T09:30:00.123456+00:00",
        "revision": 7,
        "changed": 9,
    }


def test_csv_is_that_of_rfc_4180(tmp_path: Path) -> None:
    path = tmp_path / "examples.csv"
    write_examples(path, [ONE, Example('=SUM(A1)\nsays "x"', Label.BENIGN)])
    header, first, rest = path.read_bytes().split(b"\r\n", 2)
    assert header.decode() == ",".join(NAMES)
    assert first.startswith(b'1,Write 20 prompts.,extraction,self_chat,coding;maths,en,desk,ada,"seen, twice",')
    assert rest.startswith(b'1,"=SUM(A1)\nsays ""x""",benign,,')
    with path.open(newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == [ONE.text, '=SUM(A1)\nsays "x"']


def test_parquet_has_the_declared_types_and_the_schema_in_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    write_examples(path, [])
    schema = pq.read_schema(path)
    types = {
        Kind.TEXT: pa.string(),
        Kind.NAMES: pa.list_(pa.string()),
        Kind.NUMBER: pa.int64(),
        Kind.TIME: pa.timestamp("us", "UTC"),
    }
    # The names of a list's elements differ between versions of Arrow.
    assert [field.name for field in schema] == list(NAMES)
    assert [str(field.type).replace("element", "item") for field in schema] == [
        str(types[column.kind]) for column in COLUMNS
    ]
    assert schema.metadata[b"stillwatch_schema"] == b"1"


def test_a_nul_in_csv_is_refused_with_the_example_and_leaves_what_stood_there(tmp_path: Path) -> None:
    path = tmp_path / "examples.csv"
    path.write_text("before")
    bad = Example("secret\0", Label.BENIGN)
    with pytest.raises(DataRejected, match=rf"^{bad.id} holds a NUL .* write JSON Lines") as refusal:
        write_examples(path, [ONE, bad])
    assert "secret" not in str(refusal.value)
    assert path.read_text() == "before"
    assert [left.name for left in tmp_path.iterdir()] == ["examples.csv"]


def test_an_export_that_breaks_leaves_what_stood_there(tmp_path: Path) -> None:
    def broken() -> object:
        yield ONE
        raise DataRejected("gone")

    path = tmp_path / "examples.parquet"
    path.write_text("before")
    with pytest.raises(DataRejected, match="gone"):
        write_examples(path, broken())  # type: ignore[arg-type]  # it yields examples
    assert path.read_text() == "before"
    assert [left.name for left in tmp_path.iterdir()] == ["examples.parquet"]


@pytest.mark.parametrize("name", ["examples.txt", "examples.parquet.gz", "nowhere/examples.csv", "folder.csv"])
def test_a_file_that_cannot_be_made_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InvalidSetting, match=r"examples|folder\.csv"):
        write_examples(tmp_path / name, iter([ONE]))


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_the_csv_of_spreadsheets_is_read(tmp_path: Path, bom: bytes, end: str, mark: str) -> None:
    path = tmp_path / "desk.csv"
    rows = [["label", "text", "technique", "capabilities"], ["benign", '"Boil, ""an"" egg?"', "", ""]]
    rows += [["extraction", "Ask again", "self_chat", '"maths; coding"']]
    path.write_bytes(bom + end.join(mark.join(row) for row in rows).encode() + end.encode())
    found, rejected = read(path, Choices(file=path.name))
    assert rejected == []
    assert [(each.text, each.label, each.technique, each.capabilities, each.source) for each in found] == [
        ('Boil, "an" egg?', "benign", None, (), "desk.csv"),
        ("Ask again", "extraction", "self_chat", ("coding", "maths"), "desk.csv"),
    ]


def test_the_parquet_of_other_programs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    columns = {
        "text": pa.array(["one", "two"]).dictionary_encode(),
        "label": pa.array(["benign", "benign"], pa.large_string()),
        "capabilities": pa.array([["maths"], None], pa.large_list(pa.string())),
        "created": pa.array([10**18, None], pa.timestamp("ns", "Europe/Berlin")),
        "revision": pa.array([1, None], pa.int32()),
        "extra": pa.array([{"a": 1}, None]),
    }
    pq.write_table(pa.table(columns), path)
    found, rejected = read(path)
    assert rejected == []
    assert [(each.text, each.capabilities, each.revision) for each in found] == [("one", ("maths",), 1), ("two", (), 0)]
    assert found[0].created == datetime.fromtimestamp(10**9, UTC)


def rows_of(tmp_path: Path, *rows: Mapping[str, object], choices: Choices = BY_FILE) -> list[Example]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, rejected = read(path, choices)
    assert rejected == []
    return found


def test_a_hand_written_row_takes_the_importers_source_or_the_files_name(tmp_path: Path) -> None:
    (found,) = rows_of(tmp_path, PLAIN)
    assert (found.source, found.state) == ("rows.jsonl", State.ACTIVE)
    (found,) = rows_of(tmp_path, PLAIN, choices=Choices("desk", "rows.jsonl"))
    assert found.source == "desk"
    (found,) = rows_of(tmp_path, {**PLAIN, "source": "own"}, choices=Choices("desk", "rows.jsonl"))
    assert found.source == "own"


def test_an_exported_row_keeps_its_empty_source(tmp_path: Path) -> None:
    assert rows_of(tmp_path, {**PLAIN, "stillwatch_schema": 1, "source": ""})[0].source == ""


def test_a_row_without_a_licence_takes_the_importers(tmp_path: Path) -> None:
    rows = [PLAIN, {**PLAIN, "licence": "CC0-1.0"}]
    found = rows_of(tmp_path, *rows, choices=Choices(licence="own work"))
    assert [example.licence for example in found] == ["own work", "CC0-1.0"]


def test_the_importers_state_goes_before_the_rows(tmp_path: Path) -> None:
    rows = [{**PLAIN, "state": state} for state in ("active", "revoked", None)]
    assert {each.state for each in rows_of(tmp_path, *rows, choices=Choices(state=State.PENDING))} == {State.PENDING}


@example("x").via("a plain name")
@given(st.text(max_size=20))
@settings(max_examples=20, deadline=None)
def test_only_names_that_look_like_names_are_told(name: str) -> None:
    from classifier.transfer.reading import ExampleFile, source_of

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text(json.dumps({**PLAIN, name: 1}) + "\n")
        file = ExampleFile(source_of(path))
        list(file)
        assert file.unknown <= {name}
        assert all(found.isascii() and " " not in found for found in file.unknown)


def test_lines_and_csv_are_read_and_written_without_the_batch_extra(tmp_path: Path) -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(["orjson", "fsspec", "pyarrow", "zstandard"]))
from pathlib import Path
from classifier.transfer.reading import ExampleFile, source_of
from classifier.transfer.writing import write_examples
from index.example import Example, Label
for name in ("a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.gz"):
    path = Path(sys.argv[1]) / name
    write_examples(path, [Example("Boil an egg?", Label.BENIGN)])
    print(len(list(ExampleFile(source_of(path)))))
for name in ("a.parquet", "a.jsonl.zst"):
    try:
        write_examples(Path(sys.argv[1]) / name, [])
    except Exception as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["1"] * 4 + [
        "pyarrow is not installed: run  pip install 'stillwatch[batch]'",
        "zstandard is not installed: run  pip install 'stillwatch[batch]'",
    ]


def test_gzip_that_other_programs_join_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    line = json.dumps(PLAIN).encode() + b"\n"
    path.write_bytes(gzip.compress(line) + gzip.compress(line))
    assert len(read(path)[0]) == 2


def test_the_document_names_every_column() -> None:
    text = DOCUMENT.read_text()
    for name in NAMES:
        assert f"| `{name}` |" in text, f"docs/interchange.md has no row for {name}"
