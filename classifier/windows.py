"""Overlapping windows: how a prompt of any length reaches the encoder, and why what is buried in it is not diluted."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """How prompts are cut.

    Attributes:
        length: Tokens in a window, without the two special ones.
        overlap: Tokens that a window shares with the one before.
        budget: The most tokens of one prompt that are encoded on each scale, overlaps counted.
    """

    length: int = 254
    overlap: int = 64
    budget: int = 12_700

    def __post_init__(self) -> None:
        """Refuse plans that cannot make progress."""
        if not 0 <= self.overlap < self.length <= self.budget:
            raise ValueError("a window plan needs 0 <= overlap < length <= budget")

    @property
    def finer(self) -> "WindowPlan":
        """The plan of the second scale: half as long, its special tokens counted."""
        length = max(1, (self.length - 2) // 2)
        return WindowPlan(length, min(self.overlap // 2, length - 1), self.budget)


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open range of a prompt's tokens."""

    start: int
    end: int


def cut(tokens: int, plan: WindowPlan) -> list[Window]:
    """Cut a prompt into windows, within the budget.

    A prompt over the budget is read from both ends, the beginning first, because instructions stand there.

    Args:
        tokens: How many tokens the prompt has.
        plan: Lengths and budget.

    Returns:
        At least one window, in the order of the text; together they hold every token unless the budget ended first.
    """
    step = plan.length - plan.overlap
    starts = [0]
    while starts[-1] + plan.length < tokens:
        starts.append(starts[-1] + step)
    # The last window is drawn back, so that it is a full one.
    starts[-1] = max(0, min(starts[-1], tokens - plan.length))
    allowed = plan.budget // plan.length
    if len(starts) > allowed:
        tail = allowed // 2
        starts = starts[: allowed - tail] + starts[len(starts) - tail :]
    return [Window(start, min(start + plan.length, tokens)) for start in starts]


def cut_finer(tokens: int, plan: WindowPlan) -> list[Window]:
    """Cut a prompt into the windows of the second scale.

    Args:
        tokens: How many tokens the prompt has.
        plan: Lengths and budget of the first scale.

    Returns:
        Windows as cut returns them; none where the first scale's only window is as short.
    """
    return cut(tokens, plan.finer) if tokens > plan.finer.length else []


def covered(windows: Sequence[Window]) -> int:
    """How many tokens stand in at least one of the windows, which are in the order of the text."""
    total, reached = 0, 0
    for window in windows:
        total += window.end - max(window.start, min(reached, window.end))
        reached = max(reached, window.end)
    return total
