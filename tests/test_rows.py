"""Files of rows, and prompts as the command line takes them."""

import contextlib
import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier import rows
from classifier.conversation import body_text
from classifier.errors import DataRejected, NotUnicode
from classifier.prompts import NamedPrompt, read_prompts
from classifier.rows import parse_rows, read_rows

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
OBJECTS = st.dictionaries(st.text(max_size=5), SCALARS | st.lists(SCALARS, max_size=3), max_size=4)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def lines_of(values: Iterable[object]) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def parsed(data: bytes) -> list[tuple[int, dict[str, object]]]:
    return list(parse_rows(io.BytesIO(data), "rows.jsonl"))


def prompts_of(
    text: str | None = None, file: Path | None = None, stdin: bytes = b"", *, lines: bool = False
) -> list[NamedPrompt]:
    return list(read_prompts(text, file, io.BytesIO(stdin), lines=lines))


# Rows.


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.gz"])
def test_plain_and_gzip_files_give_the_same_numbered_rows(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, b'{"a": 1}\n{"b": "\xc3\xbc"}\n')
    assert list(read_rows(path)) == [(1, {"a": 1}), (2, {"b": "\u00fc"})]


def test_empty_lines_are_passed_over_but_counted() -> None:
    assert parsed(b'\n{"a": 1}\n  \t\r\n\n{"b": 2}') == [(2, {"a": 1}), (5, {"b": 2})]


def test_windows_line_ends_are_read() -> None:
    assert parsed(b'{"a": 1}\r\n{"b": 2}\r\n') == [(1, {"a": 1}), (2, {"b": 2})]


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert list(read_rows(written(tmp_path / "rows.jsonl", b""))) == []
    assert list(read_rows(written(tmp_path / "rows.jsonl.gz", b""))) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(OBJECTS, max_size=5))
def test_what_was_written_is_read(values: list[dict[str, object]]) -> None:
    assert parsed(lines_of(values)) == list(enumerate(values, 1))


@pytest.mark.parametrize("bad", [b"{", b"secret", b'{"a": 1} {"a": 2}', b"{'a': 1}", b"[" * 100_000])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_line_that_is_no_json_is_named_by_its_number_after_the_good_ones(
    tmp_path: Path, name: str, bad: bytes
) -> None:
    found = read_rows(written(tmp_path / name, b'{"a": 1}\n\n' + bad + b'\n{"a": 2}\n'))
    assert next(found) == (1, {"a": 1})
    with pytest.raises(DataRejected, match=rf"^{name}, line 3: not valid JSON") as refusal:
        next(found)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("value", [b"[]", b'"secret"', b"3", b"null", b"true"])
def test_a_line_that_is_no_object_is_named_by_its_number(value: bytes) -> None:
    with pytest.raises(DataRejected, match=r"^rows.jsonl, line 2: must be a JSON object$"):
        parsed(b'{"a": 1}\n' + value + b"\n")


@pytest.mark.parametrize("bad", [b'{"a": "\xff"}', b'{"a": "\xc3"}', b'{"a": "\xf5\x80\x80\x80"}', b'\xfc{"a": 1}'])
def test_a_line_that_is_not_utf8_is_named_by_its_number(bad: bytes) -> None:
    with pytest.raises(DataRejected, match=r"^rows.jsonl, line 2: not valid JSON in UTF-8"):
        parsed(b'{"a": 1}\n' + bad + b"\n")


@pytest.mark.parametrize("kept", [1, 9, 15, 40, -1])
def test_a_truncated_gzip_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(lines_of({"number": number} for number in range(100)))[:kept])
    with pytest.raises(DataRejected, match=r"rows\.jsonl\.gz cannot be read"):
        list(read_rows(path))


def test_a_file_that_only_claims_to_be_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(b'{"a": 1}\n')
    with pytest.raises(DataRejected, match="cannot be read"):
        list(read_rows(path))


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.jsonl.gz"])
def test_a_missing_file_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataRejected, match=rf"{name} cannot be read \(FileNotFoundError\)"):
        list(read_rows(tmp_path / name))


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match="cannot be read"):
        list(read_rows(tmp_path))


def test_a_line_over_the_limit_is_refused_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 20)
    within = b'{"a": "xxxxxxxxxx"}\n'
    assert len(within) == 20
    assert parsed(within * 2) == [(1, {"a": "x" * 10}), (2, {"a": "x" * 10})]
    with pytest.raises(DataRejected, match=r"^rows.jsonl, line 2: over 20 bytes"):
        parsed(within + b'{"a": "xxxxxxxxxxxx"}\n')


def test_an_endless_line_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 20)
    file = io.BytesIO(b" " * 1_000)
    with pytest.raises(DataRejected, match="line 1: over 20 bytes"):
        list(parse_rows(file, "rows.jsonl"))
    assert file.tell() <= 21


def test_a_small_gzip_file_that_unpacks_to_more_than_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_BYTES", 10_000)
    path = written(tmp_path / "rows.jsonl.gz", b'{"a": 1}\n' * 100_000)
    assert path.stat().st_size < 10_000
    found = read_rows(path)
    assert sum(1 for _ in zip(range(10_000 // 9), found, strict=False)) == 10_000 // 9
    with pytest.raises(DataRejected, match=r"line 1112: .*file: 10000"):
        list(found)


# Prompts.


def test_a_text_argument_is_one_prompt_and_nothing_else_is_read(tmp_path: Path) -> None:
    assert prompts_of("Hello", tmp_path / "absent", b"other", lines=True) == [NamedPrompt("1", "Hello")]


def test_an_empty_text_argument_is_still_the_prompt() -> None:
    assert prompts_of("", None, b"other") == [NamedPrompt("1", "")]


def test_a_text_file_is_one_prompt_under_its_name(tmp_path: Path) -> None:
    path = written(tmp_path / "prompt.txt", "Gr\u00fc\u00dfe\n\nand more\n".encode())
    assert prompts_of(file=path, stdin=b"other") == [NamedPrompt("prompt.txt", "Gr\u00fc\u00dfe\n\nand more\n")]


@pytest.mark.parametrize("name", ["prompts.jsonl", "prompts.jsonl.gz"])
def test_a_file_of_lines_gives_a_prompt_for_each_row(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, b'{"text": "one"}\n\n{"prompt": "two", "id": "p2"}\n')
    assert prompts_of(file=path) == [NamedPrompt("1", "one"), NamedPrompt("p2", "two")]


def test_a_file_of_another_name_is_read_as_lines_when_asked(tmp_path: Path) -> None:
    path = written(tmp_path / "prompts.txt", b'{"text": "one"}\n')
    assert prompts_of(file=path, lines=True) == [NamedPrompt("1", "one")]
    assert prompts_of(file=path) == [NamedPrompt("prompts.txt", '{"text": "one"}\n')]


def test_standard_input_is_one_prompt() -> None:
    assert prompts_of(stdin="Gr\u00fc\u00dfe\nand more".encode()) == [NamedPrompt("1", "Gr\u00fc\u00dfe\nand more")]


def test_standard_input_is_read_as_lines_when_asked() -> None:
    assert prompts_of(stdin=b'{"text": "one"}\n{"text": "two"}\n', lines=True) == [
        NamedPrompt("1", "one"),
        NamedPrompt("2", "two"),
    ]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"id": "a", "request_id": "b"}, "a"),
        ({"request_id": "b"}, "b"),
        ({"id": None, "request_id": "b"}, "b"),
        ({"id": 7}, "7"),
        ({"id": ""}, "1"),
        ({}, "1"),
    ],
)
def test_a_prompt_is_named_by_its_id_or_its_line(row: dict[str, object], name: str) -> None:
    assert prompts_of(stdin=lines_of([{**row, "text": "one"}]), lines=True) == [NamedPrompt(name, "one")]


def test_text_comes_before_prompt_and_only_strings_count() -> None:
    data = lines_of([{"prompt": "p", "text": "t"}, {"text": 3, "prompt": "p"}, {"text": ""}])
    assert [prompt.content for prompt in prompts_of(stdin=data, lines=True)] == ["t", "p", ""]


def test_any_other_row_is_a_request_body() -> None:
    row = {"id": "r1", "messages": [{"role": "user", "content": "Gr\u00fc\u00dfe"}]}
    (prompt,) = prompts_of(stdin=lines_of([row]), lines=True)
    assert prompt.name == "r1"
    assert isinstance(prompt.content, bytes)
    assert json.loads(prompt.content) == row
    assert body_text(prompt.content) == "Gr\u00fc\u00dfe"


def test_a_request_body_with_an_unpaired_surrogate_is_left_for_the_scorer_to_refuse() -> None:
    data = b'{"messages": [{"role": "user", "content": "\\ud800"}]}\n{"text": "next"}\n'
    body, following = prompts_of(stdin=data, lines=True)
    assert isinstance(body.content, bytes)
    with pytest.raises(NotUnicode):
        body_text(body.content)
    assert following == NamedPrompt("2", "next")


def test_prompts_that_are_not_utf8_are_refused_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match=r"^standard input is not UTF-8 \(byte 6\)"):
        prompts_of(stdin=b"secret\xff")
    with pytest.raises(DataRejected, match=r"^prompt.txt is not UTF-8 \(byte 6\)"):
        prompts_of(file=written(tmp_path / "prompt.txt", b"secret\xff"))


def test_a_prompt_file_that_is_missing_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match=r"absent\.txt cannot be read \(No such file or directory\)"):
        prompts_of(file=tmp_path / "absent.txt")
    with pytest.raises(DataRejected, match=r"absent\.jsonl cannot be read"):
        prompts_of(file=tmp_path / "absent.jsonl")


def test_a_broken_line_of_standard_input_is_named_after_the_good_ones() -> None:
    found = read_prompts(None, None, io.BytesIO(b'{"text": "one"}\n{\n'), lines=True)
    assert next(found) == NamedPrompt("1", "one")
    with pytest.raises(DataRejected, match=r"^standard input, line 2: "):
        next(found)


def test_lines_are_read_as_they_are_asked_for() -> None:
    stdin = io.BytesIO(b'{"text": "one"}\n{"text": "two"}\n')
    next(read_prompts(None, None, stdin, lines=True))
    assert stdin.tell() == len(b'{"text": "one"}\n')


def test_damaged_gzip_files_are_always_refused_in_our_own_words(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"text": "hello"}\n' * 50)
    path = tmp_path / "rows.jsonl.gz"
    for bit in range(80, len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with contextlib.suppress(DataRejected):
            list(read_rows(path))


@pytest.mark.parametrize("line", ['{"text": "a"}'.encode("utf-16"), b'{"text": "\xed\xa0\x80"}'])
def test_rows_in_another_encoding_are_refused(line: bytes) -> None:
    with pytest.raises(DataRejected, match="line 1"):
        list(parse_rows(io.BytesIO(line), "rows"))


def test_a_row_with_the_id_zero_keeps_it() -> None:
    (prompt,) = read_prompts(None, None, io.BytesIO(b'{"id": 0, "text": "a"}'), lines=True)
    assert prompt.name == "0"
