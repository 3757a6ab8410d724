"""Feeds the scorer: rows of an input become windows, whose prompts are scored while the next ones are read."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from classifier.batch.inputs import Source
from classifier.batch.reading import Position
from classifier.batch.reasons import Reason
from classifier.batch.record import Record, Reject
from classifier.batch.repeats import Repeats, Slot, span_in
from classifier.batch.scoring import Scoring
from classifier.batch.selection import Selection
from classifier.batch.tables import Row
from classifier.errors import EmptyPrompt, InvalidPrompt, NotUnicode

_WINDOW_PROMPTS = 1_024
_WINDOW_CHARS = 2**20
_WINDOW_REJECTS = 2**14
_BATCH_PROMPTS = 64
_BATCH_CHARS = 2**16
"""Of one call of the scorer: a few long prompts take as long as many short ones."""


@dataclass(slots=True)
class Window:
    """Rows that follow each other in one part.

    Attributes:
        source: The input.
        part: The part's number.
        first: Where the part's first row begins.
        next: Where the row after this window begins.
        requests: What is scored: the request, its slot, and whether the slot was another request's first.
        rejects: Rows that cannot be scored.
        skipped: How many requests are not to be scored.
        closes: Whether the part ends here.
        last: Whether the input does.
        cut: Whether the part ends here because of the limit alone.
        scoring: The calls of the scorer that fill the slots.
    """

    source: Source
    part: int
    first: Position
    next: Position
    requests: list[tuple[Record, Slot, bool]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    skipped: int = 0
    closes: bool = False
    last: bool = False
    cut: bool = False
    scoring: list[Future[None]] = field(default_factory=list)

    @property
    def read(self) -> int:
        """How many requests and rejected rows were read."""
        return len(self.requests) + len(self.rejects) + self.skipped

    @property
    def taken(self) -> int:
        """How many of them count for a limit."""
        return len(self.requests) + len(self.rejects)

    def rows(self, scoring: Scoring) -> list[Row]:
        """Wait for the scores; what was scored, in the input's order."""
        for call in self.scoring:
            call.result()
        rows = []
        for record, slot, repeat in self.requests:
            span = span_in(record.prompt, slot, scoring)
            if slot.outcome is None:
                raise RuntimeError("a slot was not scored before its window was written")
            rows.append(Row(record, slot.outcome, span, repeat))
        return rows


@dataclass(slots=True)
class Feed:
    """Reads inputs window by window. What is scored together depends on a part's rows alone, and so do its scores.

    Attributes:
        scoring: Scores the run.
        executor: Calls the scorer.
        selection: Which requests are scored.
        rows_per_part: How many requests and rejected rows a part holds.
        limit: How many more are scored or rejected; None: all.
        repeats: Makes the memory of a part's repeats.
    """

    scoring: Scoring
    executor: Executor
    selection: Selection
    rows_per_part: int
    limit: int | None
    repeats: Callable[[], Repeats]

    def windows(
        self, source: Source, rows: Iterator[tuple[Record | Reject, Position]], start: Position, part: int
    ) -> Iterator[Window]:
        """Cut an input's rows into windows, and set the scorer to work on each.

        Args:
            source: The input.
            rows: Its rows from the start on.
            start: Where the first of them begins.
            part: The number of the part that begins there.

        Yields:
            Windows in the input's order; the last one closes its part, unless no row was read before the limit.
        """
        repeats, read, window = self.repeats(), 0, Window(source, part, start, start)
        fresh: list[Slot] = []
        chars = 0
        for row, after in rows:
            if self.limit is not None and self.limit <= 0:
                if read:
                    window.closes, window.cut = True, read < self.rows_per_part
                    yield self._begun(window, fresh)
                return
            if read == self.rows_per_part:
                window.closes = True
                yield self._begun(window, fresh)
                part += 1
                window = Window(source, part, window.next, window.next)
                repeats, read, chars, fresh = self.repeats(), 0, 0, []
            elif (
                len(window.requests) >= _WINDOW_PROMPTS
                or chars >= _WINDOW_CHARS
                or len(window.rejects) >= _WINDOW_REJECTS
            ):
                yield self._begun(window, fresh)
                window = Window(source, part, window.first, window.next)
                chars, fresh = 0, []
            before = window.taken
            slot = self._take(window, row, repeats)
            if self.limit is not None:
                self.limit -= window.taken - before
            if slot is not None:
                fresh.append(slot)
            if isinstance(row, Record):
                chars += len(row.prompt)
            window.next = after
            read += 1
        window.closes = window.last = True
        yield self._begun(window, fresh)

    def _take(self, window: Window, row: Record | Reject, repeats: Repeats) -> Slot | None:
        """Put a row into a window; its slot, if its text must be scored."""
        if isinstance(row, Reject):
            window.rejects.append(row)
            return None
        if not self.selection.takes(row):
            window.skipped += 1
            return None
        try:
            slot, new = repeats.slot(row.prompt)
        except InvalidPrompt as error:
            window.rejects.append(Reject(row.place, _reason(error), str(error)))
            return None
        window.requests.append((row, slot, not new))
        return slot if new else None

    def _begun(self, window: Window, fresh: list[Slot]) -> Window:
        """The window, its texts on their way to the scorer: alike lengths together, the longest first."""
        batch: list[Slot] = []
        chars = 0
        for slot in sorted(fresh, key=lambda slot: -slot.length):
            if batch and (len(batch) == _BATCH_PROMPTS or chars + slot.length > _BATCH_CHARS):
                window.scoring.append(self.executor.submit(self._score, batch))
                batch, chars = [], 0
            batch.append(slot)
            chars += slot.length
        if batch:
            window.scoring.append(self.executor.submit(self._score, batch))
        return window

    def _score(self, slots: list[Slot]) -> None:
        for slot, outcome in zip(slots, self.scoring.score([slot.text for slot in slots]), strict=True):
            slot.scored(outcome)


def _reason(error: InvalidPrompt) -> Reason:
    if isinstance(error, EmptyPrompt):
        return Reason.EMPTY_PROMPT
    return Reason.LONE_SURROGATE if isinstance(error, NotUnicode) else Reason.PROMPT_TOO_LONG
