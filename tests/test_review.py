"""The terminal review: a real program at a real pseudo-terminal, and what hostile prompts do to it."""

import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from serving import running_server
from stillwatch.v1 import examples_pb2
from test_cli import borrowed, run

from classifier.client import Client
from classifier.config import Settings
from classifier.keyboard import Keyboard
from classifier.local_examples import open_client
from classifier.review_screen import Near, View, draw, room
from classifier.visible import excerpt, visible
from index.example import Label, content_hash

EVIL = "ordinary words \x1b[2J\x1b]0;owned\x07\x9b31m \u202eesrever\u202c \x7f\x00 end"
PROMPTS = [
    "Come up with 20 diverse instructions for a language model and answer each of them as JSON lines",
    "My train was cancelled this morning, how do I ask for my money back?",
    f"Which tea suits a rainy day? {EVIL}",
]


class Terminal:
    """A program at a pseudo-terminal."""

    def __init__(self, master: int, process: "subprocess.Popen[bytes]") -> None:
        self._master = master
        self.process = process
        self.seen = b""
        self._read_to = 0

    def until(self, words: str, seconds: float = 120.0) -> bytes:
        """What is printed from where the last call ended to these words."""
        wanted, end = words.encode(), time.monotonic() + seconds
        while wanted not in self.seen[self._read_to :]:
            assert time.monotonic() < end, f"{words} does not come: {self.seen[self._read_to :][-3_000:]!r}"
            if select.select([self._master], [], [], 0.5)[0]:
                try:
                    data = os.read(self._master, 65_536)
                except OSError:
                    data = b""
                assert data or wanted in self.seen[self._read_to :], (
                    f"{words}: the program ended: {self.seen[-3_000:]!r}"
                )
                self.seen += data
        place = self.seen.index(wanted, self._read_to) + len(wanted)
        part, self._read_to = self.seen[self._read_to : place], place
        return part

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def modes(self) -> int:
        """The terminal's local modes."""
        return int(termios.tcgetattr(self._master)[3])


@contextmanager
def terminal(home: Path, *arguments: str, columns: int = 120, lines: int = 40, **variables: str) -> Iterator[Terminal]:
    """Start a verb at a pseudo-terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    clean = {n: v for n, v in os.environ.items() if not n.startswith("STILLWATCH_") and n not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "classifier.cli", *arguments],
        stdin=slave, stdout=slave, stderr=slave, cwd=home, start_new_session=True,
        env={**clean, "STILLWATCH_HOME": str(home), "TERM": "xterm-256color", **variables},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # so that Ctrl-C is a signal
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait(20)
        os.close(master)


def ended(at: Terminal) -> int:
    """The exit code, once everything is printed."""
    with pytest.raises(AssertionError, match="the program ended"):
        at.until("a text that is never printed, so that all is read", 60)
    return at.process.wait(20)


def stored(home: Path) -> dict[str, examples_pb2.Example]:
    with open_client(Settings(home=home), None) as client:
        return {
            example.text: example for example in client.list_examples(1_000, source="review", any_state=True).examples
        }


def decided(home: Path, prompt: str) -> str:
    with open_client(Settings(home=home), None) as client:
        found = client.find_decisions([content_hash(prompt)]).decisions
    return str(found[0].choice) if found else ""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return borrowed(tmp_path / "home")


@pytest.fixture
def file(home: Path) -> Path:
    path = home / "prompts.jsonl"
    path.write_text("".join(json.dumps({"text": prompt}) + "\n" for prompt in PROMPTS))
    return path


def test_each_key_is_a_decision_and_the_last_one_can_be_taken_back(home: Path, file: Path) -> None:
    with terminal(home, "review", str(file), "--seed", "3") as at:
        at.until("1 of 3")
        at.until("nearest examples")
        at.until("quit")
        at.press("r")
        at.until("2 of 3")
        at.press("b")
        at.until("1 of 3")
        at.press("i")
        at.until("2 of 3")
        at.press("i")
        at.until("3 of 3")
        at.press("i")
        at.until("are gone through")
        at.press("q")
        at.until("3 of 3 decided: 3 ignore")
        assert ended(at) == 0
    assert stored(home) == {}
    assert [decided(home, prompt) for prompt in PROMPTS] == ["3", "3", "3"]
    with terminal(home, "review", str(file)) as again:
        again.until("nothing to review")
        assert ended(again) == 0


def test_an_accepted_prompt_is_an_example_with_the_labels_that_keys_gave_it(home: Path) -> None:
    file = home / "one.jsonl"
    file.write_text(json.dumps({"text": PROMPTS[1]}))
    with terminal(home, "review", str(file), "--actor", "ada", "--state", "pending") as at:
        at.until("1 of 1")
        at.until("accepted it is")
        at.until("benign")
        at.press("t")
        at.until("has no technique")
        at.press("l")
        at.until("extraction")
        first = technique_in(at)
        at.press("t")
        at.until("accepted it is")
        second = technique_in(at)
        assert first != second
        at.press("a")
        at.until("are gone through")
        at.press("q")
        at.until("1 of 1 decided: 1 accept")
        assert ended(at) == 0
    (example,) = stored(home).values()
    assert (example.label, example.technique, example.author) == (examples_pb2.LABEL_EXTRACTION, second, "ada")
    assert example.state == examples_pb2.EXAMPLE_STATE_PENDING
    assert decided(home, PROMPTS[1]) == "1"


def technique_in(at: Terminal) -> str:
    """The technique on the screen's last lines."""
    line = at.until("accept ").decode()
    words = [word for word in line.replace("\x1b", " ").split() if "_" in word]
    return words[-1] if words else ""


@pytest.mark.parametrize("columns", [130, 60])
def test_a_hostile_prompt_cannot_speak_to_the_terminal(home: Path, columns: int) -> None:
    file = home / "evil.jsonl"
    file.write_text(json.dumps({"text": PROMPTS[2]}))
    with terminal(home, "review", str(file), columns=columns) as at:
        at.until("1 of 1")
        at.until("quit")
        at.press("q")
        ended(at)
        for raw in (b"\x1b[2J", b"\x1b]0;", b"\x07", "\x9b".encode(), "\u202e".encode(), b"\x00", b"\x7f"):
            assert raw not in at.seen, raw
        assert "␛[2J".encode() in at.seen


def test_the_screen_follows_the_terminals_size_and_the_terminal_is_left_as_it_was(home: Path, file: Path) -> None:
    with terminal(home, "review", str(file), columns=130) as at:
        before = at.modes()
        at.until("1 of 3")
        at.until("quit")
        assert not at.modes() & termios.ICANON
        at.resize(70, 30)
        at.until("1 of 3")
        at.press("\x1b[A")  # an arrow is no decision
        at.press("q")
        at.until("0 of 3 decided: none")
        assert ended(at) == 0
        assert at.modes() == before


def test_a_size_that_changes_while_the_screen_is_drawn_is_seen_at_the_next_key() -> None:
    master, slave = pty.openpty()
    try:
        tty.setcbreak(slave)
        keys = Keyboard(slave)
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 70, 0, 0))
        os.write(master, b"ab")
        redrawn: list[bool] = []
        assert keys.key(lambda: redrawn.append(True)) == "a"
        assert redrawn == [True]
        assert keys.key(lambda: redrawn.append(True)) == "b"
        assert redrawn == [True]
    finally:
        os.close(master)
        os.close(slave)


def test_an_interrupt_waits_for_the_next_key_and_a_second_one_does_not() -> None:
    master, slave = pty.openpty()
    try:
        tty.setcbreak(slave)
        keys = Keyboard(slave)
        with pytest.raises(KeyboardInterrupt):
            keys.interrupt(signal.SIGINT, None)  # nothing is decided yet
        os.write(master, b"a")
        assert keys.key() == "a"
        keys.interrupt(signal.SIGINT, None)
        with pytest.raises(KeyboardInterrupt):
            keys.key()
        with pytest.raises(KeyboardInterrupt):
            keys.interrupt(signal.SIGINT, None)
    finally:
        os.close(master)
        os.close(slave)


def test_an_interrupt_keeps_what_was_decided_before_the_last_one(home: Path, file: Path) -> None:
    with terminal(home, "review", str(file)) as at:
        before = at.modes()
        at.until("1 of 3")
        at.press("i")
        at.until("2 of 3")
        at.press("i")
        at.until("3 of 3")
        at.press("\x03")
        at.until("the last decision is not kept")
        assert ended(at) == 130
        assert at.modes() == before
    assert sorted(decided(home, prompt) for prompt in PROMPTS) == ["", "", "3"]


def test_pending_examples_are_reviewed_on_a_server(home: Path) -> None:
    texts = ["log a long chat of a tutor with himself", "which boots for a wet moor?"]
    with running_server(home) as server, Client(server.address) as client:
        made = [
            examples_pb2.Example(
                text=texts[0],
                label=examples_pb2.LABEL_EXTRACTION,
                technique="self_chat",
                state=examples_pb2.EXAMPLE_STATE_PENDING,
            ),
            examples_pb2.Example(
                text=texts[1], label=examples_pb2.LABEL_BENIGN, state=examples_pb2.EXAMPLE_STATE_PENDING
            ),
        ]
        first, second = (example.id for example in client.add_examples(made, actor="ada").examples)
        with terminal(home, "review", "--server", server.address, "--actor", "ben") as at:
            at.until("1 of 2")
            at.until("would newly flag")
            at.press("a")
            at.until("2 of 2")
            at.press("r")
            at.until("are gone through")
            at.press("q")
            at.until("2 of 2 decided")
            assert ended(at) == 0
        assert client.get_example(first).example.state == examples_pb2.EXAMPLE_STATE_ACTIVE
        assert client.get_example(second).example.state == examples_pb2.EXAMPLE_STATE_REVOKED
        assert client.get_example(first, with_history=True).history[-1].actor == "ben"
        server.stop()
        assert "tutor" not in server.log + server.startup


def test_prompts_are_reviewed_on_a_server(home: Path, file: Path) -> None:
    with running_server(home) as server, Client(server.address) as client:
        with terminal(home, "review", str(file), "--server", server.address) as at:
            for number in (1, 2, 3):
                at.until(f"{number} of 3")
                at.press("a")
            at.until("are gone through")
            at.press("q")
            at.until("3 of 3 decided: 3 accept")
            assert ended(at) == 0
        found = client.list_examples(10, source="review").examples
        assert {example.text for example in found} == set(PROMPTS)
        assert all(example.author for example in found)


def test_a_pipe_is_no_terminal_and_is_told_so(home: Path, file: Path) -> None:
    ran = run(home, "review", str(file), stdin=b"aaa")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: a review needs a terminal")


def test_every_character_that_a_terminal_obeys_or_hides_is_named() -> None:
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x3000), 0xFEFF, 0xE0041, 0x1F600]))
    shown = visible(everything)
    assert "\n" in shown
    for number in (*range(0x0A), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0xAD, 0x200B, 0x202E, 0x2066, 0xFEFF, 0xE0041):
        assert chr(number) not in shown, hex(number)
    assert "é😀" in visible("é😀")
    assert visible("\ud800") == "⟨D800⟩"
    assert visible("plain words, as they were") == "plain words, as they were"
    assert visible("a\tb") == "a    b"


def test_an_excerpt_is_one_line_of_bounded_length() -> None:
    assert excerpt("short\nand  two", 40) == "short and two"
    assert excerpt("word " * 1_000_000, 20) == "word word word word…"
    assert len(excerpt("\x1b" * 500, 30)) == 30


@pytest.mark.parametrize(("width", "height"), [(200, 60), (100, 24), (60, 20), (20, 8), (5, 3)])
def test_the_screen_fits_terminals_of_every_size(width: int, height: int) -> None:
    near = [Near(f"ex-{n}", Label.EXTRACTION, "self_chat", 0.9, "words " * 200) for n in range(5)]
    view = View(
        1, 9, "prompt\n" * 500, "by chance", "REVIEW", 0.5, Label.BENIGN, "", ("writing",), near, "impact", "note"
    )
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True)
    lines = console.render_lines(draw(console, view), console.options.update(width=width, height=height))
    assert len(lines) == height
    assert room(console) >= 1


def test_a_long_prompt_is_paged_and_begins_again_at_its_end() -> None:
    prompt = "\n".join(f"line number {n}" for n in range(200))
    console = Console(width=120, height=30, file=io.StringIO())

    def page(scrolled: int) -> str:
        view = View(1, 1, prompt, "", "ALLOW", None, Label.BENIGN, "", (), (), scrolled=scrolled)
        with console.capture() as got:
            console.print(draw(console, view), height=30)
        return got.get()

    assert "line number 0 " in page(0)
    assert f"{200 - room(console)} lines more" in page(0)
    assert f"line number {room(console)} " in page(room(console))
    assert "line number 0 " in page(400)
