"""A re-scoring command that takes turns with others: it stands still after every part while they are measured."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import peak_mib, processor_seconds

from classifier.batch.parts import SCORES

_LOOK = 0.01
"""Seconds between two looks whether a part is finished."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What some work took.

    Attributes:
        wall: Seconds.
        processor: Seconds of processor time, on all cores; other processes disturb it less.
    """

    wall: float
    processor: float


@dataclass(frozen=True, slots=True)
class Turns:
    """What a command took, the others' turns not counted.

    Attributes:
        parts: For each part, from the one before it on. The first holds the command's start; the last ends with nothing
            more to be scored meanwhile.
        whole: From the start of the process to its end.
        peak: The most resident memory, in MiB.
    """

    parts: tuple[Spent, ...]
    whole: Spent
    peak: float


def take_turns(
    command: Sequence[str],
    output: Path,
    parts: int,
    turn: Callable[[int], None],
    environment: Mapping[str, str],
) -> Turns:
    """Run a command that writes parts, and give the cores to others after each of them.

    Args:
        command: The command.
        output: The folder of its output.
        parts: How many parts it writes.
        turn: Called with a part's number while the command stands still; after the last one, when it has ended.
        environment: The command's.

    Returns:
        What the command took.

    Raises:
        SystemExit: When the command fails, writes another number of parts, or is too fast to be stopped between them.
    """
    clock = time.perf_counter()
    with (output.parent / "log").open("w+") as log:
        process = subprocess.Popen(command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=log)
        try:
            found, wall, processor, peak = [], 0.0, 0.0, 0.0
            for number in range(parts + 1):  # the last time it is the end that is waited for
                while not (ended := _ended(process.pid)) and (number == parts or _parts(output) <= number):
                    peak = max(peak, peak_mib(process.pid))
                    time.sleep(_LOOK)
                if not ended and number < parts - 1:
                    process.send_signal(signal.SIGSTOP)
                    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                part = Spent(time.perf_counter() - clock, processor_seconds(process.pid) - processor)
                wall, processor = wall + part.wall, processor + part.processor
                found.append(part)
                if ended:
                    break
                if number < parts - 1:
                    turn(number)
                    process.send_signal(signal.SIGCONT)
                clock = time.perf_counter()
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        if code or _parts(output) != parts:
            raise SystemExit(f"the command ended with {code} and {_parts(output)} of {parts} parts: {log.read()}")
        if len(found) < parts:
            raise SystemExit("the command was done before it could be stopped: take larger parts")
    turn(parts - 1)
    return Turns(tuple(found[:parts]), Spent(wall, processor), peak)


def _parts(output: Path) -> int:
    return len(list((output / SCORES).glob("[!.]*.parquet")))


def _ended(pid: int) -> bool:
    """Whether a process has ended; what it took can still be read."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
