"""Structured logs on standard error, never with prompt text, and never more lines of a kind than allowed."""

import logging
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from traceback import extract_tb
from types import TracebackType
from typing import Any, Literal

import structlog

Event = MutableMapping[str, Any]
Form = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]
_log = structlog.get_logger("stillwatch.process")


def configure_logging(form: Form = "json", level: Level = "info", lines_per_second: int = 100) -> None:
    """Log lines with time and level to standard error, those of other libraries by their place alone.

    Args:
        form: JSON, one object a line, or a form for people.
        level: The least level that is logged.
        lines_per_second: The most lines of one kind in a second; how many were left out stands on the next one.
    """
    structlog.configure(
        processors=[
            LineLimit(lines_per_second),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Foreign()], level=logging.WARNING, force=True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda raised: _uncaught(raised.exc_type, raised.exc_value, raised.exc_traceback)


def place_of(trace: TracebackType | None) -> str:
    """Where an error was raised, as function and line; "unknown" when nobody knows."""
    frames = extract_tb(trace)
    return f"{frames[-1].name}:{frames[-1].lineno}" if frames else "unknown"


class LineLimit:
    """A structlog processor that drops lines of one event beyond so many a second; events are few and constant."""

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing dropped.

        Args:
            per_second: The most lines of one event.
            clock: Seconds.
        """
        self._most = per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[int, int, int]] = {}

    def __call__(self, logger: object, method: str, event: Event) -> Event:  # noqa: ARG002  # structlog's signature
        """Let a line pass, with the number of those dropped before it, or drop it."""
        name, second = str(event.get("event")), int(self._clock())
        with self._lock:
            when, lines, dropped = self._seen.get(name, (second, 0, 0))
            if when != second:
                when, lines = second, 0
            if lines >= self._most:
                self._seen[name] = (when, lines, dropped + 1)
                raise structlog.DropEvent
            self._seen[name] = (when, lines + 1, 0)
        if dropped:
            event["suppressed"] = dropped
        return event


class _Foreign(logging.Handler):
    """What other libraries log, by logger and place: their words may quote a prompt."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        facts = {"logger": record.name, "place": f"{record.funcName}:{record.lineno}"}
        if error is not None:
            facts |= {"error": type(error).__name__, "place": place_of(error.__traceback__)}
        _log.log(record.levelno, "library", **facts)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    found = trace if error is None else error.__traceback__
    _log.error("uncaught_error", error=kind.__name__, place=place_of(found))
