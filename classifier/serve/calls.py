"""What is known of the call under way: gathered without prompt text, for metrics, traces and the access log."""

import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # the batcher itself asks which call its prompts belong to
    from classifier.serve.batcher import Answer, Outcome

Noted: TypeAlias = "Callable[[Call, Outcome], None]"


class Call:
    """One RPC from its first message to its status.

    Attributes:
        method: The full method, "/stillwatch.v1.ClassifierService/Classify".
        started: time.perf_counter() at its start.
        opened: Nanoseconds of the wall clock at its start.
        streaming: Whether it has many messages.
        trace_id: 32 hexadecimal digits of the caller's or the own trace; "" when there is none.
        caller: The caller's name, when an interceptor has found it; "" otherwise.
        span: The trace's span; None while nothing is traced.
        prompts: Prompts answered so far.
        refused: Prompts refused so far, each alone.
        tokens: Tokens inspected so far.
        last: The last answer.
    """

    __slots__ = (
        "_noted",
        "caller",
        "last",
        "method",
        "opened",
        "prompts",
        "refused",
        "span",
        "started",
        "streaming",
        "tokens",
        "trace_id",
    )

    def __init__(self, method: str, *, streaming: bool, noted: Noted) -> None:
        """Begin now.

        Args:
            method: The full method.
            streaming: Whether it has many messages.
            noted: Told of each outcome.
        """
        self.method = method
        self.started = time.perf_counter()
        self.opened = time.time_ns()
        self.streaming = streaming
        self.trace_id = ""
        self.caller = ""
        self.span: Any = None
        self.prompts = 0
        self.refused = 0
        self.tokens = 0
        self.last: Answer | None = None
        self._noted = noted

    def note(self, outcome: "Outcome") -> None:
        """Take account of a prompt's outcome."""
        if isinstance(outcome, Exception):
            self.refused += 1
        else:
            self.prompts += 1
            self.tokens += outcome.verdict.inspected.tokens_inspected
            self.last = outcome
        self._noted(self, outcome)


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """The call that this code runs for; None outside of one."""
    return _current.get()


def note(outcome: "Outcome") -> None:
    """Take account of a prompt's outcome in the call under way; outside of one nothing happens."""
    call = _current.get()
    if call is not None:
        call.note(outcome)


def enter(call: Call) -> Token[Call | None]:
    """Make a call the one under way, for this task and those that it starts."""
    return _current.set(call)


def leave(token: Token[Call | None]) -> None:
    """Undo what enter did."""
    _current.reset(token)
