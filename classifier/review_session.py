"""An interactive review: keys become decisions, and the last of them can be taken back."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console
from rich.layout import Layout
from rich.live import Live

from classifier.desk.queue import Item
from classifier.desk.review import Labelling, Review
from classifier.errors import StillwatchError
from classifier.keyboard import Keyboard
from classifier.review_screen import Near, View, draw, draw_end, room
from classifier.verdict import Decision
from index.change import Choice
from index.errors import IndexRoomError
from index.example import Label

Weigh = Callable[[Item, Labelling], str]
"""Says what it would change if a prompt became an example."""
_CHOICES = {"a": Choice.ACCEPT, "r": Choice.REJECT, "i": Choice.IGNORE}
_DONE = {Choice.ACCEPT: "accepted", Choice.REJECT: "rejected", Choice.IGNORE: "ignored"}
_QUIT = ("q", "")


@dataclass
class Session:
    """One reviewer at one terminal.

    Attributes:
        review: What is reviewed, and what was decided.
        techniques: Every technique that there is, in the order in which a key goes through them.
        weigh: Says what accepting would change.
        decided: How many prompts were decided, of each choice.
    """

    review: Review
    techniques: Sequence[str]
    weigh: Weigh
    decided: Counter[Choice] = field(default_factory=Counter)
    _labelling: Labelling | None = None
    _scrolled: int = 0
    _note: str = ""
    _weighed: dict[tuple[str, Labelling], str] = field(default_factory=dict)

    def run(self, console: Console, keys: Keyboard) -> None:
        """Show prompts and take keys until the reviewer quits.

        Args:
            console: The terminal.
            keys: Its keyboard.

        Raises:
            StillwatchError: When the last decision cannot be kept.
            IndexRoomError: When the last decision cannot be kept.
        """
        with Live(console=console, screen=True, auto_refresh=False, transient=True) as live:

            def show() -> None:
                live.update(self._drawn(console), refresh=True)

            while True:
                show()
                key = keys.key(show)
                if key in _QUIT or (self.review.current is None and key != "b"):
                    break
                self._take(key, console)
        self._flush()

    def _take(self, key: str, console: Console) -> None:
        self._note = ""
        if key in _CHOICES:
            self._decide(_CHOICES[key])
        elif key == "b":
            self._back()
        elif key == "l":
            self._relabel(self._turned())
        elif key in ("t", "T"):
            self._relabel(self._next_technique(1 if key == "t" else -1))
        elif key == " ":
            self._scrolled += room(console)

    def _decide(self, choice: Choice) -> None:
        held = self.review.held
        try:
            self.review.decide(choice, self._given())
        except (StillwatchError, IndexRoomError) as error:
            self._note = f"not kept: {error}" + (" (b takes the decision before back)" if held else "")
            return
        if held is not None:
            self.decided[held.choice] += 1
        self._note = f"{_DONE[choice]}; b takes it back"
        self._reset()

    def _back(self) -> None:
        if not self.review.back():
            self._note = "the decisions before are kept already: change them by  stillwatch examples"
        self._reset()

    def _flush(self) -> None:
        held = self.review.held
        self.review.flush()
        if held is not None:
            self.decided[held.choice] += 1

    def _reset(self) -> None:
        self._labelling, self._scrolled = None, 0

    def _given(self) -> Labelling:
        item = self.review.current
        if self._labelling is None and item is not None:
            self._labelling = Review.suggested(item)
        assert self._labelling is not None
        return self._labelling

    def _relabel(self, labelling: Labelling) -> None:
        self._labelling = labelling

    def _turned(self) -> Labelling:
        """The other label, with the technique that fits best if it has one."""
        given, item = self._given(), self.review.current
        if given.label is Label.EXTRACTION:
            return replace(given, label=Label.BENIGN, technique=None)
        best = (item.technique if item else None) or next(iter(self.techniques), None)
        return replace(given, label=Label.EXTRACTION, technique=best)

    def _next_technique(self, step: int) -> Labelling:
        given = self._given()
        if given.label is Label.BENIGN or not self.techniques:
            self._note = "a benign example has no technique: l makes it an attack"
            return given
        place = self.techniques.index(given.technique) if given.technique in self.techniques else -step
        return replace(given, technique=self.techniques[(place + step) % len(self.techniques)])

    def _drawn(self, console: Console) -> Layout:
        item = self.review.current
        if item is None:
            return draw_end(console, len(self.review.items), self._note)
        given = self._given()
        return draw(
            console,
            View(
                number=self.review.place + 1,
                total=len(self.review.items),
                prompt=item.prompt,
                why=item.reason,
                decision=item.decision.name,
                probability=None if item.decision is Decision.ABSTAIN else item.probability,
                label=given.label,
                technique=given.technique or "",
                capabilities=given.capabilities,
                nearest=[
                    Near(m.example.id, m.example.label, m.example.technique or "", m.cosine, m.example.text)
                    for m in item.nearest
                ],
                impact=self._impact(item, given),
                note=self._note,
                scrolled=self._scrolled,
            ),
        )

    def _impact(self, item: Item, given: Labelling) -> str:
        key = (item.content_hash, given)
        if key not in self._weighed:
            try:
                self._weighed[key] = self.weigh(item, given)
            except (StillwatchError, IndexRoomError) as error:
                self._weighed[key] = f"the impact is not known: {error}"
        return self._weighed[key]
