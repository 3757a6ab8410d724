"""Reload: by call, by SIGHUP, and when another bundle becomes current."""

import asyncio
import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

import structlog
from google.rpc import error_details_pb2

from classifier.bundle import MANIFEST
from classifier.errors import ReloadInProgress, StillwatchError
from classifier.serve.edge import log_unknown
from classifier.serve.generations import Generations
from classifier.serve.status import status_of
from index.errors import IndexRoomError

_TRY_AGAIN = 60.0
"""Seconds for which the watch leaves a refused bundle alone while the pointer stays on it."""
_log = structlog.get_logger("stillwatch.reload")


class Trigger(StrEnum):
    """What asked for a reload."""

    CALL = "call"
    SIGNAL = "signal"
    WATCH = "watch"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one reload.

    Attributes:
        trigger: What asked for it.
        swapped: Whether the candidate is in force; otherwise what was in force still is.
        reason: The ErrorInfo reason of a refusal, "" when swapped.
        message: What is wrong, and how to mend it; "" when swapped.
        bundle_version: The bundle in force afterwards.
        started: When it began (UTC).
        duration: How long it took.
        moved_canaries: Canaries that added examples turn to the wrong side.
        needs_restart: Settings that were changed, but are only read at start.
    """

    trigger: Trigger
    swapped: bool
    reason: str
    message: str
    bundle_version: str
    started: datetime
    duration: timedelta
    moved_canaries: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


_Ended: TypeAlias = tuple[Report, Exception | None]


class Reloader:
    """Runs reloads one at a time, beside the traffic, and remembers what came of them. Used from one event loop."""

    def __init__(self, generations: Generations) -> None:
        """Nothing is reloaded yet."""
        self.generations = generations
        self.started = datetime.now(UTC)
        self.last: Report | None = None
        self.swaps = 0
        self.refusals = 0
        self._task: asyncio.Task[_Ended] | None = None
        self._once_more = False

    async def reload(self) -> Report:
        """Reload for a caller, and wait for it; a caller that goes away does not stop it.

        Returns:
            What came of it.

        Raises:
            ReloadInProgress: When another reload is under way.
            StillwatchError: Why the candidate was refused.
            IndexRoomError: When the example store cannot be used.
        """
        if self._task is not None:
            raise ReloadInProgress("a reload is under way: wait for it, then ask again if it is still needed")
        report, refusal = await asyncio.shield(self._begin(Trigger.CALL))
        if refusal is not None:
            raise refusal
        return report

    def on_signal(self) -> None:
        """Reload now, or when the reload that is under way has ended: that one may have begun too early."""
        if self._task is None:
            self._begin(Trigger.SIGNAL)
        else:
            self._once_more = True

    async def watch(self, pointer: Path, seconds: float) -> None:
        """Reload whenever another bundle became current, until cancelled.

        Args:
            pointer: The current bundle's directory.
            seconds: How often to look; 0 never.
        """
        tried, last_try = self._in_force(), time.monotonic()
        while seconds > 0:
            await asyncio.sleep(seconds)
            found = await asyncio.to_thread(_manifest_hash, pointer)
            if found == self._in_force():
                tried = found
            elif self._task is None and (found != tried or time.monotonic() - last_try >= _TRY_AGAIN):
                tried, last_try = found, time.monotonic()
                self._begin(Trigger.WATCH)

    def stop(self) -> None:
        """Begin no more reloads, and let one that is under way end soon."""
        self._once_more = False
        self.generations.stop()

    async def close(self) -> None:
        """Stop, and wait until nothing is under way."""
        self.stop()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _begin(self, trigger: Trigger) -> "asyncio.Task[_Ended]":
        self._task = asyncio.create_task(self._run(trigger))
        self._task.add_done_callback(self._end)
        return self._task

    def _end(self, _: "asyncio.Task[_Ended]") -> None:
        self._task = None
        if self._once_more:
            self._once_more = False
            self._begin(Trigger.SIGNAL)

    async def _run(self, trigger: Trigger) -> _Ended:
        started, clock = datetime.now(UTC), time.perf_counter()
        swap, refusal = None, None
        try:
            swap = await asyncio.to_thread(self.generations.reload)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  # a library's panic is no Exception; it must not end the server
            refusal = error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
            if not isinstance(error, StillwatchError | IndexRoomError):
                log_unknown(error, "reload")
        duration = timedelta(seconds=time.perf_counter() - clock)
        version = self.generations.runtime.bundle.model.version
        if swap is not None:
            self.swaps += 1
            moved, late = swap.moved_canaries, swap.needs_restart
            self.last = Report(trigger, True, "", "", version, started, duration, moved, late)
            _log.info("reloaded", **_logged(self.last), index_revision=swap.index_revision)
        else:
            self.refusals += 1
            reason, message = _said(refusal)
            self.last = Report(trigger, False, reason, message, version, started, duration)
            _log.error("reload_refused", **_logged(self.last))
        return self.last, refusal

    def _in_force(self) -> str:
        """The head of the manifest's hash, as it stands in the version of the bundle in force."""
        return self.generations.runtime.bundle.model.version.rpartition("+")[2]


def _said(refusal: Exception | None) -> tuple[str, str]:
    """Reason and message, as a caller would get them: of an unforeseen error they say nothing."""
    status = status_of(refusal or RuntimeError())
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return info.reason, status.message


def _logged(report: Report) -> dict[str, object]:
    fields: dict[str, object] = {"trigger": report.trigger.value, "bundle": report.bundle_version}
    fields |= {"seconds": round(report.duration.total_seconds(), 3)}
    for name in ("reason", "message", "moved_canaries", "needs_restart"):
        value = getattr(report, name)
        fields |= {name: value} if value else {}
    return fields


def _manifest_hash(pointer: Path) -> str:
    """The head of the manifest's SHA-256, as a bundle's version holds it; "" when it cannot be read."""
    try:
        return hashlib.sha256((pointer / MANIFEST).read_bytes()).hexdigest()[:12]
    except OSError:
        return ""
