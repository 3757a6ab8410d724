"""Prompts as the command line takes them: an argument, a file, standard input; one prompt or JSON Lines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from classifier.errors import DataRejected
from classifier.rows import parse_rows, read_rows


@dataclass(frozen=True, slots=True)
class NamedPrompt:
    """A prompt with the name under which its result is printed.

    Attributes:
        name: The row's id, or its line number.
        content: Text, or the bytes of a request body.
    """

    name: str
    content: str | bytes


def read_prompts(text: str | None, file: Path | None, stdin: IO[bytes], *, lines: bool) -> Iterator[NamedPrompt]:
    """Read prompts from where the caller gave them.

    Args:
        text: A prompt as an argument.
        file: A file; its name's ending tells JSON Lines (.jsonl, .jsonl.gz) from one prompt.
        stdin: Read when there is neither text nor file.
        lines: Read standard input as JSON Lines.

    Yields:
        The prompts.

    Raises:
        DataRejected: When the input cannot be read.
    """
    if text is not None:
        yield NamedPrompt("1", text)
    elif file is not None and (lines or file.name.endswith((".jsonl", ".jsonl.gz"))):
        for number, row in read_rows(file):
            yield _from_row(number, row)
    elif file is not None:
        try:
            yield NamedPrompt(file.name, _decoded(file.read_bytes(), file.name))
        except OSError as error:
            raise DataRejected(f"{file} cannot be read ({error.strerror}): check its name") from None
    elif lines:
        for number, row in parse_rows(stdin, "standard input"):
            yield _from_row(number, row)
    else:
        yield NamedPrompt("1", _decoded(stdin.read(), "standard input"))


def _from_row(number: int, row: dict[str, object]) -> NamedPrompt:
    given = next((row[key] for key in ("id", "request_id") if row.get(key) not in (None, "")), number)
    name = str(given).encode(errors="replace").decode()
    for key in ("text", "prompt"):
        if isinstance(row.get(key), str):
            return NamedPrompt(name, str(row[key]))
    # Anything else is a request body, which the scorer recognises or refuses.
    return NamedPrompt(name, json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataRejected(f"{name} is not UTF-8 (byte {error.start}): convert it") from None
