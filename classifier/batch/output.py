"""A run's output folder: one run at a time, of one fingerprint, without left-overs."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from classifier.batch.manifest import MANIFEST, read_manifest
from classifier.batch.names import spelt
from classifier.batch.parts import REJECTED, SCORES, Part, read_parts
from classifier.durable import TEMPORARY
from classifier.errors import InvalidSetting, RunRefused

AHEAD = ".ahead"
"""Holds parts of a run on many machines that are whole, before they are taken over in their order."""
_LOCK = ".lock"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How a URL begins once it was taken for a path, which holds no empty names."""
_OURS = {SCORES, REJECTED, MANIFEST, _LOCK}


def check_local(output: Path) -> None:
    """Refuse a URL, of which a path would make a folder of such a name.

    Args:
        output: A folder or file to write.

    Raises:
        InvalidSetting: When it is a URL.
    """
    if _URL.match(str(output)):
        raise InvalidSetting(
            f"the output {spelt(str(output))} is a URL: name a local folder or file, and copy what is written when it is done"
        )


def fingerprint(identity: Mapping[str, object]) -> str:
    """The hash of all that decides what a row's output is.

    Args:
        identity: Bundle, examples, thresholds and settings, as JSON.

    Returns:
        SHA-256 in hexadecimal.
    """
    return hashlib.sha256(json.dumps(identity, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


@contextmanager
def held(output: Path, *, ahead: bool = False) -> Iterator[None]:
    """Make a folder ready for a run and keep other runs out of it until the end, however it comes.

    Args:
        output: The folder; it is made.
        ahead: Whether parts that wait to be taken over are kept.

    Yields:
        Nothing.

    Raises:
        RunRefused: When another run works in it, or it holds what no run wrote.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        strange = sorted(path.name for path in output.iterdir() if path.name not in _OURS and path.name[0] != ".")
        known = (output / MANIFEST).exists() or (output / SCORES).exists()
        if strange and not known:
            raise RunRefused(f"{output} is not empty and holds no run ({strange[0]}): name another folder")
        descriptor = os.open(output / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RunRefused(
            f"{output} cannot be written ({error.strerror}): name another folder, or mend its rights"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go when the process ends
        except OSError:
            raise RunRefused(f"another run works in {output}: wait for its end, or name another folder") from None
        for name in (SCORES, REJECTED):
            (output / name).mkdir(exist_ok=True)
            for left in (output / name).glob(f"{TEMPORARY}*"):
                left.unlink()
        for left in output.glob(f"{TEMPORARY}*"):
            left.unlink()
        if not ahead:
            shutil.rmtree(output / AHEAD, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)


def finished_parts(output: Path, identity: Mapping[str, object]) -> dict[str, list[Part]]:
    """The parts that earlier runs finished, if they are of this run's kind; rejects without a part are removed.

    Args:
        output: The run's output.
        identity: What decides this run's output.

    Returns:
        For each input its parts, in their order.

    Raises:
        RunRefused: When a part is of another fingerprint, damaged, or missing among its input's.
    """
    wanted = fingerprint(identity)
    known = read_manifest(output)
    parts = list(read_parts(output, mend=True))
    said = [part.fingerprint for part in parts]
    if known is not None:
        said.append(known.fingerprint)
    if any(one != wanted for one in said):
        before = known.identity if known is not None and known.fingerprint != wanted else {}
        raise RunRefused(
            f"{output} holds scores of another kind: {_difference(before, identity)}. They are not mixed: name another "
            "folder, or set back what changed"
        )
    for path in (output / REJECTED).glob("[!.]*.parquet"):
        if not (output / SCORES / path.name).exists():
            path.unlink()  # its part was not finished, and will be written again
    found: dict[str, list[Part]] = {}
    for part in sorted(parts, key=lambda part: (part.source, part.number)):
        found.setdefault(part.source, []).append(part)
    for own in found.values():
        _check_sequence(own)
    return found


def _check_sequence(parts: Sequence[Part]) -> None:
    for number, part in enumerate(parts):
        before = parts[number - 1] if number else None
        follows = part.number == number and (before is None or (part.first == before.next and not before.last))
        if not follows or part.stamp != parts[0].stamp:
            raise RunRefused(
                f"{part.name} does not follow the part before it of {spelt(part.source)}: remove it and those after it, and run "
                "again"
            )


def _difference(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if not before or not names:
        return "another bundle, other examples or other settings"
    return "; ".join(f"{name} was {_shown(before.get(name))} and is {_shown(now.get(name))}" for name in names)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 80 else f"{text[:77]}..."
