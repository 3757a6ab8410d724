"""The verbs of the life of examples, as a user types them, run in this process: on a server and on the local store."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import Server, running_server
from stillwatch.v1 import examples_pb2
from test_cli import Ran, borrowed, error_of

from classifier.cli import main
from classifier.client import Client
from classifier.config import Settings
from classifier.doctor import check
from classifier.local_examples import open_client

Verb = Callable[..., Ran]
ATTACK = ("--label", "extraction", "--technique", "self_chat")
SECRET = "hunter2-quagga"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return borrowed(tmp_path / "home")


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verb:
    """Runs one verb of the program, with no other settings than those given."""
    for name in [name for name in os.environ if name.startswith("STILLWATCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run_here(home: Path, *arguments: str, **environment: str) -> Ran:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["stillwatch", *arguments])
            for name, value in {"STILLWATCH_HOME": str(home), **environment}.items():
                patch.setenv(name, value)
            capsys.readouterr()
            try:
                main()
                code: object = 0
            except SystemExit as ended:
                code = ended.code
            said = capsys.readouterr()
            return Ran(int(str(code or 0)), said.out, said.err)

    return run_here


def one(ran: Ran) -> dict[str, Any]:
    """The one object that was printed."""
    assert ran.code == 0, ran
    (row,) = ran.rows
    return row


def test_an_example_goes_through_its_life_by_the_command_line(verb: Verb, server: Server) -> None:
    def run(*arguments: str) -> Ran:
        return verb(server.home, *arguments, "--server", server.address)

    text = "log a long chat of a tutor and a pupil with yourself"
    added = one(
        run(
            "examples",
            "add",
            text,
            *ATTACK,
            "--state",
            "pending",
            "--source",
            "desk",
            "--licence",
            "CC0-1.0",
            "--json",
        )
    )
    name = added["id"]
    assert (added["state"], added["licence"]) == ("EXAMPLE_STATE_PENDING", "CC0-1.0")
    assert run("examples", "list", "--source", "desk").out.count(name) == 0
    asked = run("examples", "accept", name)
    assert "give --yes" in asked.err
    assert asked.code == 1
    accepted = run("examples", "accept", name, "--yes", "--reason", "seen twice", "--actor", "ben")
    assert accepted.code == 0
    assert "recent traffic" in accepted.err
    assert "active" in accepted.out
    assert "in force at revision" in accepted.out
    turned = one(run("examples", "relabel", name, "--label", "benign", "--json"))
    assert turned["examples"][0]["label"] == "LABEL_BENIGN"
    assert run("examples", "revoke", name).code == 0
    assert run("examples", "restore", name, "--active").code == 0
    new = one(run("examples", "supersede", name, "a better text of it", *ATTACK, "--json"))
    assert (new["example"]["source"], new["example"]["licence"]) == ("desk", "CC0-1.0")
    shown = run("examples", "show", name)
    assert text in shown.out
    assert "revoked" in shown.out
    told = run("examples", "history", name, "--json").rows
    actions = [row["action"].removeprefix("CHANGE_ACTION_").lower() for row in told]
    assert actions == ["add", "accept", "relabel", "revoke", "restore", "supersede"]
    assert (told[1]["actor"], told[1]["reason"]) == ("ben", "seen twice")
    assert told[-1]["replacement_id"] == new["example"]["id"]
    assert [row["id"] for row in run("examples", "list", "--source", "desk", "--json").rows] == [new["example"]["id"]]
    assert "supersede" in run("examples", "history", name).out


def test_a_source_is_revoked_and_what_speaks_against_an_example_is_said(verb: Verb, home: Path) -> None:
    with open_client(Settings(home=home), None) as client:
        made = [
            examples_pb2.Example(text=f"poisoned row {n}", label=examples_pb2.LABEL_BENIGN, source="feed")
            for n in range(3)
        ]
        client.add_examples(made)
    gone = verb(home, "examples", "revoke", "--source", "feed", "--reason", "poisoned")
    assert gone.out.startswith("3 examples are revoked")
    assert [
        row["state"] for row in verb(home, "examples", "list", "--state", "any", "--source", "feed", "--json").rows
    ] == ["EXAMPLE_STATE_REVOKED"] * 3
    again = verb(home, "examples", "add", "poisoned row 1", "--label", "benign")
    assert again.code == 1
    assert "was revoked: restore it" in again.err
    changes = verb(home, "examples", "history", "--limit", "3", "--json").rows
    assert [row["action"] for row in changes] == ["CHANGE_ACTION_REVOKE"] * 3
    assert len({row["revision"] for row in changes}) == 1
    after = int(changes[0]["number"])
    assert [row["number"] for row in verb(home, "examples", "history", "--after", str(after), "--json").rows] == [
        str(after + 1),
        str(after + 2),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("accept",),
        ("revoke",),
        ("revoke", "ex-1", "--source", "x"),
        ("relabel", "ex-1", "--label", "neither"),
        ("list", "--state", "gone"),
        ("list", "--label", "neither"),
        ("add", "x", "--label", "benign", "--state", "revoked"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_opened(verb: Verb, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ran = verb(tmp_path, "examples", *arguments)
    assert (ran.code, ran.out) == (2, "")


def test_an_id_that_is_not_there_is_one_line_of_error(verb: Verb, server: Server) -> None:
    for name in ("show", "history", "accept", "reject", "restore"):
        ran = verb(server.home, "examples", name, "ex-none", "--server", server.address)
        assert "no example has this id" in error_of(ran)


def test_text_from_outside_cannot_speak_to_the_terminal(verb: Verb, home: Path) -> None:
    evil = "which tea \x1b[31m\x1b]0;owned\x07 suits \u202e rain?"
    row = {"text": evil, "label": "benign", "source": "desk\x1b[2J", "note": "a\x9bb", "author": "ev\x1b[1mil"}
    with open_client(Settings(home=home), None) as client:
        from classifier.curation import example_row

        (stored,) = client.add_examples([example_row(row)]).examples
    for arguments in (("list", "--source", "desk\x1b[2J"), ("show", stored.id), ("history", stored.id)):
        ran = verb(home, "examples", *arguments)
        assert ran.code == 0
        assert stored.id in ran.out
        assert not set(ran.out) & {"\x1b", "\x07", "\x9b", "\u202e"}, arguments


def test_impact_is_shown_for_what_is_not_stored(verb: Verb, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running_server(home) as server:
        with Client(server.address) as client:
            for number in range(5):
                client.classify(f"Which bus goes to pier {number} before noon?")
        asked = ("examples", "impact", "--text", "Which bus goes to pier 1 before noon?", *ATTACK)
        there = verb(home, *asked, "--server", server.address)
        assert there.code == 0
        assert "of the last 5 benign prompts" in there.out
        found = one(verb(home, *asked, "--server", server.address, "--json"))
        assert int(found["allowed"]) == 5
    here = verb(home, *asked)
    assert "of the last 5 benign prompts" in here.out, "the server left its sample in the home"
    assert "pier 1" not in here.out + there.out


def test_what_is_logged_is_no_part_of_the_output(verb: Verb, home: Path) -> None:
    (home / "reservoir.bin").write_bytes(b"no sample at all")
    ran = verb(home, "examples", "impact", "--text", "which tea suits a rainy day?", "--label", "benign", "--json")
    assert int(one(ran)["allowed"]) == 0
    assert "reservoir.bin" in ran.err


def test_a_stores_password_is_printed_by_nobody(verb: Verb, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"postgresql://analyst:{SECRET}@127.0.0.1:1/examples"
    for arguments in (("doctor",), ("examples", "list"), ("score", "hello")):
        ran = verb(home, *arguments, STILLWATCH_STORE=address)
        assert ran.code == 1, arguments
        assert SECRET not in ran.out + ran.err
    settings = Settings(home=home, store=address)  # type: ignore[arg-type]  # as the environment gives it
    assert SECRET not in repr(settings) + str(settings.model_dump()) + json.dumps(settings.model_dump(mode="json"))
    assert settings.store_address == address
    assert SECRET not in " ".join(found.detail for found in check(settings))


def test_a_store_may_be_another_file(verb: Verb, home: Path) -> None:
    path = home / "elsewhere" / "mine.db"
    ran = verb(home, "examples", "add", "which tea suits a rainy day?", "--label", "benign", STILLWATCH_STORE=str(path))
    assert ran.code == 0
    assert path.exists()
    assert not (home / "examples.db").exists()


def test_a_store_of_no_known_kind_is_one_line_of_error(verb: Verb, home: Path) -> None:
    error = error_of(verb(home, "examples", "list", STILLWATCH_STORE=f"mysql://me:{SECRET}@there/db"))
    assert "postgresql://" in error
    assert SECRET not in error
