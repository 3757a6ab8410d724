"""JSON Lines: what a bad, blank, long or hostile line is made of, and that it takes no neighbour along."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_logs import measured, read_all, reasons_of, source_of

from classifier.batch.lines import lines
from classifier.batch.reading import Limits
from classifier.batch.reasons import Reason
from classifier.batch.record import Place, Reject

MARK = "XSECRETX"


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
    found = read_all(source_of(tmp_path, good + line.replace(b"\n", b" ") + b"\n" + good))
    assert reasons_of(found) == ["", reason, ""]
    assert found[1][0].place == Place(str(tmp_path / "log.jsonl"), 1, len(good))


def test_no_reject_holds_the_rows_text(tmp_path: Path) -> None:
    rows = [
        f'{{"prompt": "{MARK}"', f'["{MARK}"]', f'{{"{MARK}": 1}}', f'{{"prompt": "{MARK}\\ud800"}}', f'{{"messages": "{MARK}"}}',
        f'{{"messages": [{{"role": 1, "content": "{MARK}"}}]}}', f'{{"prompt": {{"x": "{MARK}"}}}}',
    ]  # fmt: skip
    found = read_all(source_of(tmp_path, "\n".join(rows).encode()))
    assert len(found) == len(rows)
    assert all(isinstance(one, Reject) for one, _ in found)
    assert MARK not in repr(found)


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    source = source_of(tmp_path, b'\n \r\n{"prompt": "a"}\n\n\t\n{"prompt": "b"}\n\n')
    found = read_all(source)
    assert [(one.place.row, one.place.offset) for one, _ in found] == [(0, 4), (1, 23)]
    assert read_all(source, start=found[-1][1]) == []


def test_a_line_over_the_limit_is_passed_over_and_the_next_is_read(tmp_path: Path) -> None:
    limits = Limits(line_bytes=30)
    rows = [b'{"prompt": "' + b"x" * size + b'"}' for size in (10, 16, 17, 3_000_000, 10)]
    found = read_all(source_of(tmp_path, b"\n".join(rows)), limits=limits)
    assert reasons_of(found) == ["", "", Reason.LINE_TOO_LONG, Reason.LINE_TOO_LONG, ""]
    assert found[4][0].place.offset == sum(len(row) + 1 for row in rows[:4])


def test_a_line_of_five_gigabytes_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(5 * 10**9)  # a hole: it is read as zeros and takes no disk
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"prompt": "Hello"}\n')
    found, grown = measured(path)
    assert found == ["line_too_long", "record"]
    assert grown < 100


def test_a_line_of_millions_of_values_is_not_parsed(tmp_path: Path) -> None:
    line = b'{"prompt": "a", "x": [' + b"{}," * 5_000_000 + b"{}]}\n"
    path = tmp_path / "values.jsonl"
    path.write_bytes(line + b'{"prompt": "Hello"}\n')
    found, grown = measured(path)
    assert found == ["too_many_values", "record"]
    assert grown < 150


def test_an_otlp_line_resumes_between_two_of_its_requests(tmp_path: Path) -> None:
    spans = [{"spanId": str(index), "attributes": {"gen_ai.prompt": f"Prompt {index}"}} for index in range(3)]
    line = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
    source = source_of(tmp_path, line + b"\n" + line + b"\n", "jsonl")
    found = read_all(source)
    assert [(one.place.row, one.place.item) for one, _ in found] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for index, (_, position) in enumerate(found):
        assert read_all(source, start=position) == found[index + 1 :]


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
