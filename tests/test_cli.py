"""The command line as a user meets it: every test starts the real program."""

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from serving import Server

from classifier.cli import app
from index.store import open_store

BUNDLES = Path(__file__).parent.parent / "var" / "bundles"
MARKER = "zebra-quartz-7719"
HEAVY = ("onnxruntime", "faiss", "grpc", "torch", "sklearn")


def verbs(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every verb and every group of verbs; () is the program itself."""
    command = typer.main.get_command(app) if command is None else command
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from verbs(child, (*path, name))


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of one start of the program."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Standard output as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def start(home: Path, *command: str, stdin: bytes = b"", **environment: str) -> Ran:
    """Run Python on a command line in a home, with no other settings than those given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STILLWATCH_")}
    done = subprocess.run(
        [sys.executable, *command],
        input=stdin,
        capture_output=True,
        check=False,
        cwd=home,
        env={**clean, "STILLWATCH_HOME": str(home), "PYTHONIOENCODING": "utf-8", **environment},
        timeout=60,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def run(home: Path, *arguments: str, stdin: bytes = b"", **environment: str) -> Ran:
    """Run one verb."""
    return start(home, "-m", "classifier.cli", *arguments, stdin=stdin, **environment)


def error_of(ran: Ran) -> str:
    """The one line that an error is; whatever else is wrong fails the test."""
    assert ran.code == 1, ran
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert ran.err.endswith("\n")
    assert ran.err.count("\n") == 1, ran.err
    return ran.err


def jsonl(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def stored(home: Path, source: str) -> list[str]:
    """The texts that the home's store holds of a source."""
    store = open_store(home / "examples.db")
    try:
        return [example.text for example in store.since(0) if example.source == source]
    finally:
        store.close()


ROWS = jsonl(
    {"id": "first", "text": "How tall is the Eiffel Tower?"}, {"surprise": MARKER}, {"text": ""}, {"prompt": "Hello"}
)


def borrowed(home: Path) -> Path:
    """A home with the built bundle."""
    home.mkdir()
    (home / "bundles").symlink_to(BUNDLES)
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that the tests of this file share; they score in it and add nothing."""
    return borrowed(tmp_path_factory.mktemp("cli") / "home")


@pytest.fixture(scope="module")
def scored(home: Path) -> Ran:
    """What comes of ROWS when they are scored here."""
    return run(home, "score", "--jsonl", "--json", stdin=ROWS)


@pytest.fixture
def own_home(tmp_path: Path) -> Path:
    """A home that a test may write into."""
    return borrowed(tmp_path / "home")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, so that nobody else listens on it, and refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("path", list(verbs()), ids=" ".join)
def test_every_verb_explains_itself(tmp_path: Path, path: tuple[str, ...]) -> None:
    ran = run(tmp_path, *path, "--help")
    assert ran.code == 0
    assert f"classifier.cli {' '.join(path)}".rstrip() in " ".join(ran.out.split())
    assert ran.err == ""


@pytest.mark.parametrize("path", [(), ("score",)], ids=" ".join)
def test_help_imports_no_heavy_package(tmp_path: Path, path: tuple[str, ...]) -> None:
    script = f"""
import sys
from classifier.cli import main
sys.argv = ["stillwatch", {", ".join(map(repr, path))}{"," if path else ""} "--help"]
try:
    main()
finally:
    print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    ran = start(tmp_path, "-c", script)
    assert (ran.code, ran.err.strip()) == (0, "[]")
    assert "Usage" in ran.out
    if not path:
        assert "0 done, 1 an error, 2 wrong usage, 3 some prompts could not be scored" in " ".join(ran.out.split())


def test_a_prompt_is_scored_as_one_line_of_json(home: Path) -> None:
    ran = run(home, "score", "How do I sort a list in Python?", "--json")
    assert (ran.code, ran.err) == (0, "")
    (row,) = ran.rows
    assert 0.0 <= row["verdict"]["extraction_probability"] <= 1.0
    assert row["verdict"]["decision"] == "DECISION_ALLOW"
    assert row["provenance"]["bundle_version"]


def test_a_prompt_is_scored_as_a_table_for_people(home: Path) -> None:
    ran = run(home, "score", stdin=b"How do I sort a list in Python?")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.split()[:2] == ["decision", "ALLOW"]


def test_a_prompt_is_explained_with_its_words_and_the_text_of_known_examples(home: Path) -> None:
    ran = run(home, "explain", "Come up with 20 diverse instructions, one line each, with an answer to each")
    assert ran.code == 0, ran.err
    for row in ("decision", "because", "words", "build", "nearest"):
        assert f"\n{row}" in f"\n{ran.out}"
    assert "cosine" in ran.out


def test_a_prompt_that_cannot_be_judged_shows_no_score(home: Path) -> None:
    (row,) = run(home, "score", "--json", "リストを逆順にする方法を教えてください。例もお願いします。").rows
    verdict = row["verdict"]
    assert verdict["decision"] == "DECISION_ABSTAIN"
    assert verdict["abstention"]["code"] == "UNSUPPORTED_LANGUAGE"
    assert verdict["inspected"]["extent"] == "EXTENT_NONE"
    assert verdict["extraction_probability"] == 0.0
    assert verdict["techniques"] == []


def test_a_disguised_prompt_is_read_in_plain_text_and_the_verdict_says_so(home: Path) -> None:
    plain = "Come up with 20 diverse instructions for a language model and answer each of them as JSON lines"
    disguised = base64.b64encode(plain.encode()).decode()
    rows = run(home, "score", "--jsonl", "--json", stdin=jsonl({"text": plain}, {"text": disguised})).rows
    one, other = (row["verdict"]["extraction_probability"] for row in rows)
    assert other == pytest.approx(one, abs=0.05)
    assert "DISGUISED_TEXT" in [reason["code"] for reason in rows[1]["verdict"]["reasons"]]


def test_a_budget_that_the_rows_cannot_support_is_one_line_that_says_how_many_are_needed(
    home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "benign.jsonl"
    file.write_bytes(jsonl(*({"text": f"how do I cook {n} eggs"} for n in range(20))))
    assert "2,995" in error_of(run(home, "calibrate", str(file), "--budget", "0.1%")).replace("2995", "2,995")


def test_an_empty_prompt_is_one_line_of_error(home: Path) -> None:
    assert "the prompt is empty" in error_of(run(home, "score", ""))


def test_bad_rows_of_standard_input_do_not_keep_the_others_from_being_scored(scored: Ran) -> None:
    assert scored.code == 3
    assert [row["id"] for row in scored.rows] == ["first", "2", "3", "4"]
    assert [0.0 < row["verdict"]["extraction_probability"] < 1.0 for row in (scored.rows[0], scored.rows[3])]
    reasons = [row["status"]["details"][0]["reason"] for row in scored.rows[1:3]]
    assert reasons == ["UNKNOWN_CONVERSATION", "EMPTY_PROMPT"]
    assert MARKER not in scored.out + scored.err


def test_a_server_gives_the_rows_the_results_that_they_get_here(scored: Ran, tmp_path: Path, server: Any) -> None:
    there = run(tmp_path, "score", "--jsonl", "--json", "--server", server.address, stdin=ROWS)
    assert there.code == scored.code
    assert [row["id"] for row in there.rows] == [row["id"] for row in scored.rows]
    assert [row.get("status") for row in there.rows] == [row.get("status") for row in scored.rows]
    found, expected = there.rows[0]["verdict"], scored.rows[0]["verdict"]
    assert found["extraction_logit"] == pytest.approx(expected["extraction_logit"], abs=1e-3)
    assert found["decision"] == expected["decision"]


def test_a_bad_row_stands_in_the_table_beside_the_others(home: Path) -> None:
    ran = run(home, "score", "--jsonl", stdin=jsonl({"text": "Hello"}, {"surprise": MARKER}))
    assert ran.code == 3
    assert ran.err == ""
    assert "not scored" in ran.out.splitlines()[2]
    assert MARKER not in ran.out


def test_a_file_of_rows_is_read_no_further_than_the_limit(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    file.write_bytes(jsonl({"text": "Hello"}, body) + b"{\n")
    ran = run(home, "score", "--json", "--limit", "2", "--file", str(file))
    assert (ran.code, ran.err) == (0, "")
    first, second = ran.rows
    assert first["verdict"]["extraction_logit"] == pytest.approx(second["verdict"]["extraction_logit"], abs=1e-3)


@pytest.mark.parametrize("name", ["nowhere.txt", "nowhere.jsonl"])
def test_a_missing_file_is_one_line_of_error_that_names_it(home: Path, name: str) -> None:
    assert name in error_of(run(home, "score", "--file", name))


def test_a_server_that_does_not_answer_is_one_line_of_error(tmp_path: Path, closed_port: int) -> None:
    error = error_of(run(tmp_path, "score", MARKER, "--server", f"127.0.0.1:{closed_port}"))
    assert "connect" in error
    assert MARKER not in error


def test_an_example_given_to_a_server_is_listed_by_it(tmp_path: Path, server: Any) -> None:
    one = ("--label", "benign", "--source", "desk", "--server", server.address, "--json")
    added = run(tmp_path, "examples", "add", "Which tea suits a rainy day?", *one)
    listed = run(tmp_path, "examples", "list", "--source", "desk", "--server", server.address, "--json")
    assert (added.code, listed.code) == (0, 0)
    assert [row["id"] for row in listed.rows] == [row["id"] for row in added.rows]
    assert not (tmp_path / "examples.db").exists()


def test_examples_are_added_imported_and_listed(own_home: Path) -> None:
    labels = ("--label", "extraction", "--technique", "self_chat", "--capability", "reward_modeling")
    about = ("--language", "en", "--source", "desk", "--author", "ada", "--note", "seen twice", "--json")
    added = run(own_home, "examples", "add", "Talk to yourself and log it.", *labels, *about)
    (row,) = added.rows
    assert (added.code, row["label"], row["technique"]) == (0, "LABEL_EXTRACTION", "self_chat")
    assert (row["capabilities"], row["language"], row["author"]) == (["reward_modeling"], "en", "ada")
    file = own_home / "more.jsonl"
    file.write_bytes(
        jsonl({"text": "Boil an egg?", "label": "benign"}, {"text": "Bake bread?", "label": "benign", "source": "desk"})
    )
    imported = run(own_home, "examples", "import", str(file))
    assert (imported.code, imported.out) == (0, "2 examples are stored, 2 of them new\n")
    listed = run(own_home, "examples", "list", "--source", "desk", "--json")
    assert [found["text"] for found in listed.rows] == ["Talk to yourself and log it.", "Bake bread?"]
    assert listed.rows[0] == row
    assert stored(own_home, "more.jsonl") == ["Boil an egg?"]


def test_the_list_keeps_to_its_label_and_its_limit(home: Path) -> None:
    ran = run(home, "examples", "list", "--label", "benign", "--limit", "3", "--json")
    assert [row["label"] for row in ran.rows] == ["LABEL_BENIGN"] * 3


def test_bundle_show_prints_the_version_and_the_manifest(home: Path) -> None:
    ran = run(home, "bundle", "show")
    first, _, rest = ran.out.partition("\n")
    manifest = json.loads((home / "bundles" / "current" / "manifest.json").read_bytes())
    assert ran.code == 0
    assert first.startswith(f"# {manifest['version']}+")
    assert json.loads(rest) == manifest


def test_a_precision_that_there_is_not_is_wrong_usage(home: Path) -> None:
    ran = run(home, "bundle", "build", "--precision", "nonsense")
    assert (ran.code, ran.out) == (2, "")
    assert "must be int8 or fp32" in ran.err


@pytest.mark.parametrize("verb", [("bundle", "show", "nowhere"), ("score", "Hello")], ids=" ".join)
def test_a_bundle_that_is_not_there_is_one_line_of_error_with_the_mend(tmp_path: Path, verb: tuple[str, ...]) -> None:
    assert "run  stillwatch bundle build" in error_of(run(tmp_path, *verb))


def test_the_doctor_finds_a_good_home_healthy(home: Path) -> None:
    ran = run(home, "doctor")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[:2] for line in ran.out.splitlines()] == [["ok", "bundle"], ["ok", "encoder"], ["ok", "store"]]


def test_the_doctor_finds_neither_bundle_nor_server_and_says_the_mend(tmp_path: Path, closed_port: int) -> None:
    ran = run(tmp_path, "doctor", "--server", f"127.0.0.1:{closed_port}")
    assert (ran.code, ran.err) == (1, "")
    found = [line.split()[:2] for line in ran.out.splitlines()]
    assert found == [["FAIL", "bundle"], ["FAIL", "encoder"], ["ok", "store"], ["FAIL", "server"]]
    assert "run  stillwatch bundle build" in ran.out.splitlines()[0]


def test_a_bad_setting_is_one_line_of_error_that_names_it(tmp_path: Path) -> None:
    error = error_of(run(tmp_path, "doctor", STILLWATCH_PORT="abc"))
    assert "port" in error
    assert "docs/settings.md" in error


def test_an_unknown_setting_of_the_file_is_one_line_of_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "stillwatch.toml").write_text('hme = "elsewhere"\n')
    assert "hme" in error_of(run(tmp_path, "doctor"))


@pytest.mark.parametrize(
    ("arguments", "stdin", "environment"),
    [
        (("score", MARKER), b"", {"STILLWATCH_MAX_PROMPT_CHARS": "9"}),
        (("score",), MARKER.encode() + b"\xff", {}),
        (("score", "--jsonl"), f'{{"text": "{MARKER}"'.encode(), {}),
        (("score", "--jsonl"), jsonl({"messages": MARKER}), {}),
        (("examples", "add", MARKER, "--label", "benign", "--technique", "self_chat"), b"", {}),
    ],
    ids=["too long", "no UTF-8", "no JSON", "no conversation", "technique of benign"],
)
def test_no_error_holds_the_prompts_text(
    home: Path, arguments: tuple[str, ...], stdin: bytes, environment: dict[str, str]
) -> None:
    assert MARKER not in error_of(run(home, *arguments, stdin=stdin, **environment))


def test_a_prompt_that_is_no_unicode_is_one_line_of_error(home: Path) -> None:
    assert "valid Unicode" in error_of(run(home, "score", os.fsdecode(b"\xff")))


def test_markup_in_ids_and_sources_is_printed_as_it_is(own_home: Path) -> None:
    rows = jsonl({"id": "[/a]", "text": "Hello there"}, {"id": "b", "text": "How are you?"})
    assert "[/a]" in run(own_home, "score", "--jsonl", stdin=rows).out
    added = run(own_home, "examples", "add", "see \\[a=b\\] and [/x]", "--label", "benign", "--source", "eu [west]")
    assert added.code == 0
    assert "[/x]" in added.out
    assert "eu [west]" in added.out


def test_many_examples_reach_a_server_and_come_back(own_home: Path, server: Server) -> None:
    file = own_home / "many.jsonl"
    file.write_bytes(jsonl(*({"text": f"number {i} of many", "label": "benign", "source": "many"} for i in range(300))))
    imported = run(own_home, "examples", "import", str(file), "--server", server.address)
    assert (imported.code, imported.out) == (0, "300 examples are stored, 300 of them new\n")
    command = ("examples", "list", "--source", "many", "--limit", "1000", "--json", "--server", server.address)
    assert len(run(own_home, *command).rows) == 300


def test_a_row_that_is_not_unicode_fails_alone_on_a_server_too(home: Path, server: Server) -> None:
    ran = run(
        home, "score", "--jsonl", "--json", "--server", server.address, stdin=b'{"text": "\\ud800"}\n{"text": "hi"}'
    )
    assert ran.code == 3
    assert ["status" in row for row in ran.rows] == [True, False]
