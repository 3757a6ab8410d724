"""Repeats: prompts of the same canonical text are scored once, with the result that each would have had."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from classifier.batch.scoring import Outcome, Scoring
from classifier.text import canonical, fold, source_span

ENTRY_BYTES = 1_600
"""What one remembered outcome takes, by measurement: its numbers, its strings' places, its key."""


@dataclass(slots=True)
class Slot:
    """A text that is scored, and what comes of it.

    Attributes:
        text: What is scored: a canonical text, or a prompt that must be scored as it was sent.
        length: The text's length, in code points.
        as_sent: Whether it is a prompt's own text, and no canonical one.
        outcome: None until it was scored.
    """

    text: str
    length: int
    as_sent: bool = False
    outcome: Outcome | None = None

    def scored(self, outcome: Outcome) -> None:
        """Keep the outcome, and let the text go: nobody scores it again."""
        self.outcome, self.text = outcome, ""


class Repeats:
    """Gives equal prompts one slot. It remembers the most recently used ones, within a number of bytes."""

    def __init__(self, scoring: Scoring, *, most_bytes: int = 96 * 2**20, embedding_bytes: int = 0) -> None:
        """Begin empty.

        Args:
            scoring: Scores the run.
            most_bytes: The most memory of what is remembered, by estimate.
            embedding_bytes: What an outcome's embedding takes.
        """
        self._scoring = scoring
        self._most = max(1, most_bytes // (ENTRY_BYTES + embedding_bytes))
        self._slots: OrderedDict[bytes, Slot] = OrderedDict()

    def __len__(self) -> int:
        """How many texts are remembered."""
        return len(self._slots)

    def slot(self, prompt: str) -> tuple[Slot, bool]:
        """The slot of a prompt.

        Args:
            prompt: As it was sent.

        Returns:
            The slot, and whether it is new, so that its text must be scored.

        Raises:
            InvalidPrompt: When the prompt cannot be scored.
        """
        text = canonical(prompt, self._scoring.max_chars)
        # A known example's own text is decided by its letters, which the canonical form may have changed.
        if text != prompt and self._scoring.repetition(text) != self._scoring.repetition(prompt):
            text, as_sent = prompt, True
        else:
            as_sent = False
        key = hashlib.blake2b(text.encode(), digest_size=16, person=b"as sent" if as_sent else b"canonical").digest()
        held = self._slots.get(key)
        if held is not None:
            self._slots.move_to_end(key)
            return held, False
        fresh = self._slots[key] = Slot(text, len(text), as_sent)
        if len(self._slots) > self._most:
            self._slots.popitem(last=False)
        return fresh, True


def span_in(prompt: str, slot: Slot, scoring: Scoring) -> tuple[int, int]:
    """Where a prompt's strongest window stands in it, from where it stands in its slot's text.

    Args:
        prompt: As it was sent.
        slot: Its slot, scored.
        scoring: Scores the prompt itself in the one case that the slot cannot answer.

    Returns:
        Half-open range of code points of the prompt.

    Raises:
        ValueError: When the slot was not scored.
    """
    outcome = slot.outcome
    if outcome is None:
        raise ValueError("the slot's text was not scored")
    whole = (0, len(prompt))
    if outcome.windows == 1:  # the only window is the whole prompt, white space around it and all
        return whole
    if slot.as_sent or fold(prompt) == prompt:
        return outcome.span
    found = source_span(prompt, *outcome.span, slot.length)
    if not outcome.disguises or outcome.span != (0, slot.length) or found == whole:
        return found
    # Either the undisguised view, which stands for the whole prompt, or a window over all of the canonical text.
    return scoring.score([prompt])[0].span
