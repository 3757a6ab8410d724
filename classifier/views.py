"""A prompt on its way to the encoder: its canonical form, and the undisguised one, cut into windows."""

from dataclasses import dataclass

from classifier.encoder import Tokens
from classifier.windows import Window


@dataclass(frozen=True, slots=True)
class View:
    """One form of a prompt's text, cut into windows.

    Attributes:
        text: What the tokens are of.
        tokens: Its tokens.
        windows: The parts that are encoded.
        finer: Parts of half the length, encoded as well; none in a short prompt.
    """

    text: str
    tokens: Tokens
    windows: tuple[Window, ...]
    finer: tuple[Window, ...] = ()

    @property
    def sequences(self) -> list[list[int]]:
        """The windows' token ids, the finer ones last."""
        return [self.tokens.ids[window.start : window.end] for window in (*self.windows, *self.finer)]

    @property
    def count(self) -> int:
        """How many windows there are on both scales."""
        return len(self.windows) + len(self.finer)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prompt that is ready to be encoded.

    Attributes:
        text: The original text.
        views: Its canonical form, and the undisguised one where something disguises it.
        disguises: What was undone for the second view.
        language: The prompt's language, when it is surely none that the bundle knows.
    """

    text: str
    views: tuple[View, ...]
    disguises: tuple[str, ...] = ()
    language: str | None = None

    @property
    def sequences(self) -> list[list[int]]:
        """The windows' token ids, view by view."""
        return [sequence for view in self.views for sequence in view.sequences]

    @property
    def windows(self) -> int:
        """How many windows the views have together."""
        return sum(view.count for view in self.views)
