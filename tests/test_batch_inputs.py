"""Inputs: files, folders, globs, links and URLs, found in a stable order and none of them twice."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from made_logs import prompts_of, read_all, source_of

from classifier.batch.inputs import find
from classifier.batch.reading import detect
from classifier.errors import DataRejected, InvalidSetting


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
    assert prompts_of(read_all(source)) == ["Hello"]


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
    assert [prompt for source in found for prompt in prompts_of(read_all(source))] == ["Hello", "There"]
    assert find(["memory://logs/*.gz", "memory://logs/b.jsonl.gz"]) == found[:1]


def test_the_stamp_changes_with_the_file(tmp_path: Path) -> None:
    first = source_of(tmp_path, b"a")
    assert find([first.url])[0].stamp == first.stamp
    longer = source_of(tmp_path, b"ab")
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
    source = source_of(tmp_path, gzip.compress(b"{}\n"), "jsonl.gz")
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


def test_a_file_that_vanishes_is_an_error_and_no_reject(tmp_path: Path) -> None:
    source = source_of(tmp_path, b"{}")
    Path(source.url).unlink()
    with pytest.raises(DataRejected, match=r"log\.jsonl"):
        read_all(source)


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
        assert prompts_of(read_all(source)) == ["Hello"]


@pytest.mark.parametrize("folder", ["", "*.jsonl", "both"])
def test_hard_links_to_one_file_are_read_once_and_said(tmp_path: Path, folder: str) -> None:
    names = [tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl")]
    names[0].write_bytes(b'{"prompt": "Hello"}')
    names[1].hardlink_to(names[0])
    names[2].hardlink_to(names[0])
    names[3].write_bytes(b'{"prompt": "Hello"}')  # the same bytes are not the same file
    said: list[str] = []
    given = [f"file://{names[0]}", *map(str, names)] if folder == "both" else [str(tmp_path / folder)]
    found = find(given, note=said.append)
    assert [Path(source.name).name for source in found] == ["a.jsonl", "d.jsonl"]
    (text,) = said
    assert "b.jsonl and " in text
    assert "a.jsonl are one file, which is read once, and 1 more names" in text


def test_a_file_that_is_named_twice_is_nothing_to_speak_of(tree: Path) -> None:
    said: list[str] = []
    find([str(tree / "a.csv"), str(tree / "a.csv"), str(tree / "*.csv")], note=said.append)
    assert not said


def test_a_name_is_shown_without_what_a_terminal_would_obey(tmp_path: Path) -> None:
    path = tmp_path / "\x1b]0;owned\x07\u202e.jsonl"
    path.write_text(json.dumps({"\x1b[2J\x9bkey": 1}))
    (source,) = find([str(path)])
    with pytest.raises(DataRejected) as unknown:
        detect(source)
    path.unlink()
    with pytest.raises(DataRejected) as gone:
        read_all(source)
    for caught in (unknown, gone):
        assert str(caught.value).isprintable()
        assert r"\x1b]0;owned" in str(caught.value)
    assert r"\x1b[2J\x9bkey" in str(unknown.value)
