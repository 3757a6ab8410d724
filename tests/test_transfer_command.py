"""The verbs examples import and examples export, on the local store and on a server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import variants
from serving import Server

from classifier.config import Settings
from classifier.errors import InvalidSetting
from classifier.local_examples import open_client
from classifier.transfer.command import export_file, import_files
from classifier.transfer.exporting import Wanted
from index.example import State

MARKER = "xyzzy-the-secret-text"
SOURCE = "moved"


def rows(*contents: dict[str, object]) -> bytes:
    return b"".join(json.dumps(content).encode() + b"\n" for content in contents)


def benign(number: int, **fields: object) -> dict[str, object]:
    return {"text": f"{MARKER} {number}", "label": "benign", "source": SOURCE, **fields}


@pytest.fixture(params=["local", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Settings, str | None]:
    """Where examples are kept: the settings, and the server's address."""
    settings = Settings(home=variants.make_home(tmp_path / "home"))
    if request.param == "local":
        return settings, None
    return settings, request.getfixturevalue("server").address


def state_of(settings: Settings, server: str | None, source: str) -> tuple[int, list[tuple[Any, ...]]]:
    with open_client(settings, server) as client:
        found = client.list_examples(1_000, source=source, any_state=True)
    said = [(e.text, e.label, e.state, e.licence, e.note, tuple(e.capabilities)) for e in found.examples]
    return found.revision, said


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_what_a_store_exports_another_imports_and_exports_alike(
    tmp_path: Path, place: tuple[Settings, str | None], format: str
) -> None:
    source = f"{SOURCE}-{format}"
    first = tmp_path / "first.jsonl"
    attack = {"label": "extraction", "technique": "self_chat", "capabilities": ["maths", "coding"]}
    first.write_bytes(
        rows(
            benign(1, source=source, licence="CC0-1.0", note='a "b"\r\nc; =1', text=f"{format} one\r\n"),
            benign(2, source=source, state="pending", text=f"{format} two"),
            benign(3, source=source, text=f"{format} \U0001f600", **attack),
        )
    )
    settings, server = place
    counts, rejected = import_files([first], settings, server)
    assert (counts.stored, counts.added, rejected) == (3, 3, [])
    out = tmp_path / f"out.{format}"
    assert export_file(out, settings, server, Wanted(source=source)) == 3
    other = Settings(home=variants.make_home(tmp_path / "other"))
    counts, rejected = import_files([out], other, None)
    assert (counts.added, rejected) == (3, [])
    assert state_of(other, None, source)[1] == state_of(settings, server, source)[1]
    before = state_of(other, None, source)
    assert import_files([out], other, None)[0].added == 0
    assert state_of(other, None, source) == before


def test_conflicts_with_the_store_are_rejected_by_row_and_a_rerun_changes_nothing(
    tmp_path: Path, place: tuple[Settings, str | None]
) -> None:
    settings, server = place
    path = tmp_path / "rows.jsonl"
    other = {"label": "extraction", "technique": "self_chat"}
    lines = [benign(number, text=f"conflict {number}", source="conflicts") for number in range(140)]
    path.write_bytes(rows(*lines, {**lines[7], **other}, {**lines[130], **other}))
    counts, rejected = import_files([path], settings, server)
    assert (counts.stored, counts.added) == (140, 140)
    assert [(each.row, each.reason) for each in rejected] == [(141, "conflict"), (142, "conflict")]
    assert all("conflict 7" not in each.detail for each in rejected)
    before = state_of(settings, server, "conflicts")
    again, _ = import_files([path], settings, server)
    assert (again.stored, again.added, again.rejected) == (140, 0, 2)
    assert state_of(settings, server, "conflicts") == before


def test_an_export_as_of_a_revision_shows_what_was_there_then(tmp_path: Path) -> None:
    settings = Settings(home=variants.make_home(tmp_path / "home"))
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_bytes(rows(benign(1, text=name)))
    import_files([tmp_path / "one.jsonl"], settings, None, state=State.PENDING)
    with open_client(settings, None) as client:
        revision = client.list_examples(1).revision
        (first,) = client.list_examples(10, source=SOURCE, any_state=True).examples
        client.accept_examples([first.id])
    import_files([tmp_path / "two.jsonl"], settings, None)
    out = tmp_path / "out.jsonl"
    assert export_file(out, settings, None, Wanted(source=SOURCE, as_of=revision)) == 1
    assert json.loads(out.read_bytes())["state"] == "pending"
    assert export_file(out, settings, None, Wanted(source=SOURCE)) == 2


def test_nothing_is_imported_when_one_of_the_files_is_not_there(tmp_path: Path) -> None:
    settings = Settings(home=variants.make_home(tmp_path / "home"))
    (tmp_path / "a.jsonl").write_bytes(rows(benign(1)))
    with pytest.raises(Exception, match=r"absent\.csv"):
        import_files([tmp_path / "a.jsonl", tmp_path / "absent.csv"], settings, None)
    with pytest.raises(InvalidSetting, match="would replace"):
        import_files([tmp_path / "a.jsonl"], settings, None, rejects=tmp_path / "a.jsonl")
    assert state_of(settings, None, SOURCE)[1] == []


def stillwatch(home: Path, *arguments: str) -> SimpleNamespace:
    ran = subprocess.run(
        [sys.executable, "-m", "classifier.cli", "examples", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "STILLWATCH_HOME": str(home)},
    )
    return SimpleNamespace(code=ran.returncode, out=ran.stdout, err=ran.stderr)


def test_the_command_tells_counts_and_rejects_and_ends_with_three(tmp_path: Path) -> None:
    home = variants.make_home(tmp_path / "home")
    path, rejects = tmp_path / "rows.jsonl", tmp_path / "rejects.jsonl"
    path.write_bytes(rows(benign(1, ticket=7), {"text": MARKER, "label": "extraction"}))
    ran = stillwatch(home, "import", str(path), "--rejects", str(rejects))
    assert (ran.code, ran.out) == (3, "1 examples are stored, 1 of them new, 1 rows are rejected\n")
    assert "row 2: invalid_example: technique is missing" in ran.err
    assert "passed over the columns ticket" in ran.err
    assert MARKER not in ran.out + ran.err + rejects.read_text()
    assert [json.loads(line)["row"] for line in rejects.read_text().splitlines()] == [2]
    out = tmp_path / "out.csv"
    ran = stillwatch(home, "export", str(out), "--source", SOURCE)
    assert (ran.code, ran.out) == (0, f"1 examples are in {out}\n")
    ran = stillwatch(home, "import", str(out), "--json")
    assert (ran.code, json.loads(ran.out)) == (0, {"stored": 1, "added": 0, "rejects": {}})


@pytest.mark.parametrize(
    "arguments",
    [
        ("import", "a.jsonl", "--state", "revoked"),
        ("import", "a.jsonl", "--include-rows"),
        ("import", "a.jsonl", "--format", "xml"),
        ("export", "a.jsonl", "--label", "evil"),
        ("export", "a.jsonl", "--state", "new"),
        ("import",),
    ],
)
def test_wrong_usage_ends_with_two(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert stillwatch(tmp_path, *arguments).code == 2


def test_a_server_with_small_limits_gets_smaller_lots(tmp_path: Path) -> None:
    from serving import running_server

    home = variants.make_home(tmp_path / "home")
    path = tmp_path / "rows.jsonl"
    path.write_bytes(rows(*(benign(n, text=f"small {n} " + "word " * 4_000) for n in range(30)), benign(31)))
    with running_server(home, max_batch_items=10, max_message_bytes=2**16) as server:
        assert isinstance(server, Server)
        counts, rejected = import_files([path], Settings(home=home), server.address)
    assert (counts.stored, rejected) == (31, [])
