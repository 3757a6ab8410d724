"""What the tests of the stores share: examples, processes, and a fresh store of either kind."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import index
from index.change import Act
from index.contract import ExampleStore
from index.example import Example, Label

ROOT = Path(index.__file__).parents[1]
Open = Callable[[], ExampleStore]
"""Opens one and the same store, as often as it is called."""
SECRET = "a prompt that no message may repeat"
ACT = Act("ann", "a test")


def benign(*texts: str) -> list[Example]:
    """Benign examples of these texts."""
    return [Example(text, Label.BENIGN) for text in texts]


def extraction(text: str) -> Example:
    """An extraction example of the text."""
    return Example(text, Label.EXTRACTION, technique="self_chat")


def texts_of(examples: Sequence[Example]) -> list[str]:
    """The examples' texts."""
    return [example.text for example in examples]


def assert_each_write_has_its_revision(examples: Sequence[Example], revision: int) -> None:
    """Revisions count the writes from 1 without a gap, oldest first, and each brought one whole batch of two.

    The batches' texts are "<writer> <batch> <number>".
    """
    revisions = [example.revision for example in examples]
    assert revisions == sorted(revisions)
    assert set(revisions) == set(range(1, revision + 1))
    batches: dict[int, set[str]] = {}
    for example in examples:
        batches.setdefault(example.revision, set()).add(example.text.rpartition(" ")[0])
    assert all(len(batch) == 1 for batch in batches.values())
    assert all(count == 2 for count in Counter(revisions).values())


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs the script, with its pipes open."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script: str, *arguments: object) -> tuple[int, str]:
    """How a script ended, and what it printed."""
    with start(script, *arguments) as process:
        output, errors = process.communicate(timeout=60)
    return process.returncode, output + errors
