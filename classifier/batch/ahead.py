"""Parts that are whole, but not in the output yet: workers write them aside, and the run takes them over in order.

So the output holds at any time what a run on one machine leaves: of each input its first parts, without a gap. Every
attempt at a part has a folder of its own, so that two workers, of which one was believed dead, never share a file.
"""

import hashlib
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from classifier.batch.inputs import Source
from classifier.batch.output import AHEAD
from classifier.batch.parts import REJECTED, SCORES, Part, read_parts
from classifier.durable import sync_folder
from classifier.errors import RunRefused

ATTEMPTS = 10
"""So often a part is begun in one run; machines are lost, but a part that ends every worker must not do so for ever."""
Waiting = dict[tuple[str, int], tuple[Part, str]]
"""By input and number: a part and the name of its attempt."""


def new_attempt(output: Path, part: str) -> str:
    """Make a folder for one attempt at a part.

    Args:
        output: The run's output.
        part: The part's file name.

    Returns:
        The attempt's name; `attempt_folder` says where it is.

    Raises:
        RunRefused: When too many attempts at this part ended without an answer. Ray itself begins again for ever.
    """
    key = hashlib.sha256(part.encode()).hexdigest()[:16]
    if sum(1 for _ in (output / AHEAD).glob(f"{key}-*")) >= ATTEMPTS:
        raise RunRefused(
            f"the part {part} ended its worker {ATTEMPTS} times: give workers more memory, or look for a row that is too "
            "large; then run the same command again"
        )
    name = f"{key}-{uuid.uuid4().hex}"
    folder = attempt_folder(output, name)
    folder.mkdir()  # not the folder above it: a worker that outlives its run for a moment leaves nothing behind
    for kind in (SCORES, REJECTED):
        (folder / kind).mkdir()
    return name


def attempt_folder(output: Path, attempt: str) -> Path:
    """Where an attempt's files are."""
    return output / AHEAD / attempt


def written(output: Path, attempt: str) -> Part:
    """The part that an attempt wrote, as this machine sees it.

    Args:
        output: The run's output.
        attempt: The attempt.

    Returns:
        The part.

    Raises:
        RunRefused: When it is not there, or not whole.
    """
    parts = list(read_parts(attempt_folder(output, attempt)))
    if len(parts) != 1:
        raise RunRefused(
            f"a worker's part is not to be seen in {output}: the folder must be one of a file system that the workers "
            "share with this machine"
        )
    return parts[0]


def take_over(output: Path, part: Part, attempt: str) -> None:
    """Put a part into the output, durably; its rejects are there before it is.

    Args:
        output: The run's output.
        part: The part.
        attempt: The attempt that wrote it.
    """
    folder = attempt_folder(output, attempt)
    if part.rejected:
        (folder / REJECTED / part.name).replace(output / REJECTED / part.name)
        sync_folder(output / REJECTED)
    (folder / SCORES / part.name).replace(output / SCORES / part.name)
    sync_folder(output / SCORES)
    drop(output, attempt)


def drop(output: Path, attempt: str) -> None:
    """Remove an attempt."""
    shutil.rmtree(attempt_folder(output, attempt), ignore_errors=True)


def left_ahead(output: Path, fingerprint: str, sources: Mapping[str, Source], numbers: Mapping[str, int]) -> Waiting:
    """Whole parts that an earlier call did not come to take over; whatever else is there is removed.

    Args:
        output: The run's output.
        fingerprint: The run's.
        sources: The inputs, by name.
        numbers: How many parts of each input are in the output to stay.

    Returns:
        The parts that this run would write again, byte for byte the same rows.
    """
    found: Waiting = {}
    for folder in sorted((output / AHEAD).glob("*/")):
        with suppress(RunRefused):
            part = written(output, folder.name)
            source = sources.get(part.source)
            key = (part.source, part.number)
            ours = part.fingerprint == fingerprint and source is not None and source.stamp == part.stamp
            if ours and not part.cut and key not in found and part.number >= numbers.get(part.source, 0):
                found[key] = (part, folder.name)
                continue
        drop(output, folder.name)
    return found
