"""CSV: quotes, line breaks within them, headers and cells over the limit."""

from pathlib import Path

import pytest
from made_logs import measured, prompts_of, read_all, reasons_of, source_of

from classifier.batch.reading import Limits
from classifier.batch.reasons import Reason
from classifier.batch.record import Reject


def test_csv_takes_quoted_line_breaks_stray_quotes_and_other_delimiters(tmp_path: Path) -> None:
    data = '\ufeffid;prompt;n\r\n1;"two\r\n\r\nlines ""quoted"" ; here";x\r\n\r\n2;5" pipes;x\r\n3;;x\r\n4;a;b;c\r\n5;"open;x\r\n'
    source = source_of(tmp_path, data.encode(), "csv")
    found = read_all(source)
    assert prompts_of(found) == ['two\r\n\r\nlines "quoted" ; here', '5" pipes']
    assert reasons_of(found) == ["", "", Reason.NO_PROMPT, Reason.BROKEN_CSV, Reason.BROKEN_CSV]
    for index, (_, position) in enumerate(found):
        assert read_all(source, start=position) == found[index + 1 :]


def test_csv_over_the_limit_is_passed_over_with_its_quoted_line_breaks(tmp_path: Path) -> None:
    data = b'prompt,n\n"' + b"x\n" * 200 + b'",1\n"' + b"y" * 300 + b'\n",2\n"z\n",3\n'
    source = source_of(tmp_path, data, "csv")
    found = read_all(source, limits=Limits(line_bytes=100))
    assert reasons_of(found) == [Reason.LINE_TOO_LONG, Reason.LINE_TOO_LONG, ""]
    assert prompts_of(found) == ["z\n"]


def test_a_csv_cell_may_hold_more_than_the_librarys_own_limit(tmp_path: Path) -> None:
    source = source_of(tmp_path, b'prompt,answer\nHi,"' + b"x" * 500_000 + b'"\n', "csv")
    assert prompts_of(read_all(source)) == ["Hi"]


@pytest.mark.parametrize("data", [b'prompt,"open\nHello\n', b"\xff\xfe,prompt\nHello,a\n"])
def test_csv_without_a_header_that_can_be_read_is_one_reject(tmp_path: Path, data: bytes) -> None:
    source = source_of(tmp_path, data, "csv")
    found = read_all(source)
    assert len(found) == 1
    assert isinstance(found[0][0], Reject)
    assert read_all(source, start=found[0][1]) == []


def test_a_header_that_names_two_columns_alike_is_one_reject_without_its_text(tmp_path: Path) -> None:
    ((reject, _),) = read_all(source_of(tmp_path, b"prompt,secret, secret,n\nHello,1,2,3\n", "csv"))
    assert isinstance(reject, Reject)
    assert reject.reason == Reason.BROKEN_CSV
    assert "columns 2 and 3" in reject.detail
    assert "secret" not in reject.detail
    found = read_all(source_of(tmp_path, b"prompt,,\nHello,1,2\n", "csv"))
    assert prompts_of(found) == ["Hello"]


def test_a_record_of_millions_of_cells_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"prompt,n\nHello" + b"," * 5_000_000 + b"\nHello,1\n")
    found, grown = measured(path)
    assert found == ["too_many_values", "record"]
    assert grown < 80
    path.write_bytes(b"prompt" + b",n" * 2_000_000 + b"\nHello\n")
    assert reasons_of(read_all(source_of(tmp_path, path.read_bytes(), "csv"))) == [Reason.TOO_MANY_VALUES]
