"""Runs a check on many random inputs in a process of its own, and names those that crash, hang or raise what they must not."""

import multiprocessing
import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from google.protobuf.message import DecodeError

from classifier.errors import StillwatchError
from index.errors import IndexRoomError

ALLOWED = (StillwatchError, IndexRoomError, DecodeError)
_MEMORY = 8 * 2**30
_MOST_FINDINGS = 20
_EVERY_SECONDS = 0.2
_TOGETHER = 256
_PREPARING = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is fuzzed. The functions stand in a module, so that another process can find them.

    Attributes:
        name: As the command line calls it.
        prepare: Makes what the check needs, once for each process.
        make: A random input.
        check: Takes what was prepared and an input; raises an error of the project's, or nothing.
        seconds: The most CPU time of one input.
    """

    name: str
    prepare: Callable[[], Any]
    make: Callable[[random.Random], Any]
    check: Callable[[Any, Any], object]
    seconds: float


@dataclass(slots=True)
class Run:
    """What came of a target.

    Attributes:
        inputs: How many were tried.
        refused: How many of them met one of the project's errors.
        slowest: The longest CPU time of one input, in seconds.
        findings: What must not be, each with the number of its input.
        elapsed: Seconds of the whole run.
    """

    inputs: int = 0
    refused: int = 0
    slowest: float = 0.0
    findings: list[str] = field(default_factory=list)
    elapsed: float = 0.0


def fuzz(target: Target, count: int, *, first: int = 0, seed: int = 0, patience: float = 20.0) -> Run:
    """Try so many inputs; after a crash or a hang the next input goes on in a new process.

    Args:
        target: What is fuzzed.
        count: How many inputs.
        first: The number of the first one; an input depends on the seed and its number alone.
        seed: Of all inputs.
        patience: Wall-clock seconds after which an input counts as a hang.

    Returns:
        What was found.
    """
    context = multiprocessing.get_context("spawn")
    found = Run()
    started = time.monotonic()
    place, end = first, first + count
    while place < end and len(found.findings) < _MOST_FINDINGS:
        progress = context.Value("q", place - 1, lock=False)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(target, place, end, seed, progress, sender), daemon=True)
        process.start()
        sender.close()
        hung = _watch(process, progress, receiver, found, patience)
        process.join()
        receiver.close()
        found.inputs = int(progress.value) + 1 - first
        if not hung and not process.exitcode:
            break
        place = int(progress.value)
        if place < first:
            raise SystemExit(f"{target.name} could not be prepared: run it alone to see why")
        found.findings.append(f"input {place}: {'hangs' if hung else f'crashes (exit code {process.exitcode})'}")
        place += 1
    found.elapsed = time.monotonic() - started
    return found


def _watch(process: Any, progress: Any, receiver: Connection, found: Run, patience: float) -> bool:
    """Gather what the process reports until it ends, or is killed because it hangs."""
    before = seen = progress.value
    since = time.monotonic()
    while True:
        try:
            while receiver.poll(_EVERY_SECONDS):
                refused, slowest, findings = receiver.recv()
                found.refused += refused
                found.slowest = max(found.slowest, slowest)
                found.findings += findings
        except EOFError:
            return False
        if progress.value != seen:
            seen, since = progress.value, time.monotonic()
        # Before the first input the process imports and prepares.
        elif time.monotonic() - since > patience + (_PREPARING if seen == before else 0):
            process.kill()
            return True


def _work(target: Target, first: int, end: int, seed: int, progress: Any, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    prepared = target.prepare()
    refused, slowest, findings = 0, 0.0, list[str]()
    for number in range(first, end):
        progress.value = number
        given = target.make(random.Random(f"{seed} {target.name} {number}"))  # noqa: S311
        finding = ""
        started = time.process_time()
        try:
            target.check(prepared, given)
        except ALLOWED:
            refused += 1
        except BaseException as error:  # noqa: BLE001  # this is what is looked for
            finding = f"input {number}: {type(error).__name__} {_place(error)}"
        spent = time.process_time() - started
        if spent > target.seconds:
            finding = finding or f"input {number}: takes {spent:.1f} s"
        slowest = max(slowest, spent)
        findings += [finding] if finding else []
        if findings or number % _TOGETHER == 0 or number == end - 1:
            sender.send((refused, slowest, findings))
            refused, slowest, findings = 0, 0.0, []


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"in {trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}"
