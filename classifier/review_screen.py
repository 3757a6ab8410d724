"""What a reviewer sees: one prompt, what the scorer says of it, and the nearest known examples beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.text import Text

from classifier.visible import excerpt, visible
from index.example import Label

WIDE = 100
"""Columns from which the examples stand beside the prompt; on a narrower terminal they stand below it."""
KEYS = (
    ("a", "accept"),
    ("r", "reject"),
    ("i", "ignore"),
    ("b", "back"),
    ("l", "label"),
    ("t", "technique"),
    ("space", "more"),
    ("q", "quit"),
)
_STYLES = {"ALLOW": "green", "REVIEW": "yellow", "FLAG": "bold red", "ABSTAIN": "magenta"}
_LABEL_STYLES = {Label.EXTRACTION: "red", Label.BENIGN: "green"}
_HEAD = 2
_FOOT = 4
_FRAME = 2
"""Lines, or columns with their padding, that a panel takes for itself."""
_NEAR_CHARS = 240


@dataclass(frozen=True, slots=True)
class Near:
    """A known example that stands near the prompt.

    Attributes:
        id: Its id.
        label: Its label.
        technique: Its technique, or "".
        cosine: Its cosine to the nearest part of the prompt, in [-1, 1].
        text: Its text.
    """

    id: str
    label: Label
    technique: str
    cosine: float
    text: str


@dataclass(frozen=True, slots=True)
class View:
    """All that is on the screen.

    Attributes:
        number: The prompt's place, from 1.
        total: How many prompts there are.
        prompt: Its text.
        why: Why it is shown.
        decision: The scorer's decision, such as "REVIEW".
        probability: The extraction probability; None where the scorer did not judge.
        label: The label that accepting gives it.
        technique: The technique that accepting gives it, or "".
        capabilities: The capabilities that accepting gives it.
        nearest: The nearest examples, highest cosine first.
        impact: What accepting it would change, or "".
        note: What happened last, or "".
        scrolled: How many of the prompt's lines stand above the screen.
    """

    number: int
    total: int
    prompt: str
    why: str
    decision: str
    probability: float | None
    label: Label
    technique: str
    capabilities: Sequence[str]
    nearest: Sequence[Near]
    impact: str = ""
    note: str = ""
    scrolled: int = 0


def room(console: Console) -> int:
    """How many lines of the prompt stand on the screen at once."""
    lines = _body(console) // (1 if _wide(console) else 2)
    return max(1, lines - _FRAME)


def draw(console: Console, view: View) -> Layout:
    """The screen.

    Args:
        console: The terminal, whose size counts.
        view: What is on it.

    Returns:
        A layout that fills the terminal.
    """
    wide = _wide(console)
    screen, body = Layout(), Layout(name="body")
    prompt = Layout(_prompt(console, view), ratio=3 if wide else 1, minimum_size=3)
    nearest = Layout(_nearest(view.nearest), ratio=2 if wide else 1, minimum_size=3)
    if wide:
        body.split_row(prompt, nearest)
    else:
        body.split_column(prompt, nearest)
    screen.split_column(Layout(_head(view), size=_HEAD), body, Layout(_foot(view), size=_FOOT))
    return screen


def draw_end(console: Console, total: int, note: str) -> Layout:
    """The screen after the last prompt.

    Args:
        console: The terminal, whose size counts.
        total: How many prompts there were.
        note: What happened last, or "".

    Returns:
        A layout that fills the terminal.
    """
    lines = Group(Text(f"all {total:,} prompts are gone through", "bold"), Text(visible(note)), Text("b back, q end"))
    return Layout(Panel(lines, height=min(console.height, 5)))


def _wide(console: Console) -> bool:
    return console.width >= WIDE


def _body(console: Console) -> int:
    return console.height - _HEAD - _FOOT


def _head(view: View) -> RenderableType:
    first = Text(f"{view.number} of {view.total}  ", "bold")
    first.append(view.decision, _STYLES.get(view.decision, ""))
    score = "  not judged" if view.probability is None else f"  extraction {view.probability:.3f}"
    first.append(score)
    first.append(f"  {visible(view.why)}", "dim")
    first.truncate(10_000)
    return Group(_line(first), _line(Text(visible(view.note), "italic")))


def _prompt(console: Console, view: View) -> Panel:
    width = console.width * 3 // 5 if _wide(console) else console.width
    lines = Text(visible(view.prompt)).wrap(console, max(1, width - 2 * _FRAME), overflow="fold")
    most = room(console)
    begin = view.scrolled if view.scrolled < len(lines) else 0  # past the end it begins again
    shown = lines[begin : begin + most]
    left = len(lines) - begin - len(shown)
    below = f"{left:,} lines more: space" if left > 0 else "the end" if begin else None
    return Panel(Text("\n").join(shown), title="prompt", title_align="left", subtitle=below, subtitle_align="right")


def _nearest(nearest: Sequence[Near]) -> Panel:
    parts = []
    for near in nearest:
        about = Text(f"{near.cosine:.2f} ", "bold")
        about.append(visible(near.technique) or near.label.value, _LABEL_STYLES[near.label])
        about.append(f"  {visible(near.id)}", "dim")
        parts += [about, Text(excerpt(near.text, _NEAR_CHARS)), Text()]
    return Panel(Group(*(parts or [Text("nothing known is near")])), title="nearest examples", title_align="left")


def _foot(view: View) -> RenderableType:
    given = Text("accepted it is  ")
    given.append(view.label.value, f"bold {_LABEL_STYLES[view.label]}")
    for name in (view.technique, ", ".join(view.capabilities)):
        if name:
            given.append(f"  {visible(name)}")
    keys = Text()
    for key, name in KEYS:
        keys.append(key, "bold reverse")
        keys.append(f" {name}  ")
    return Group(_line(given), _line(Text(visible(view.impact), "yellow")), keys)


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
