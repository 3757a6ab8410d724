"""A flame graph by sampling a function's Python stack from another thread, written as SVG."""

import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

INTERVAL = 0.002
WIDTH, ROW = 1_200, 17


@dataclass
class _Node:
    samples: int = 0
    below: dict[str, "_Node"] = field(default_factory=dict)


def sampled(work: Callable[[], None]) -> Counter[tuple[str, ...]]:
    """Run a function and count its stacks, outermost call first, every two milliseconds.

    Args:
        work: What is looked at; it runs on the calling thread.

    Returns:
        How often each stack was seen.
    """
    stacks: Counter[tuple[str, ...]] = Counter()
    done = threading.Event()
    target = threading.get_ident()

    def look() -> None:
        while not done.wait(INTERVAL):
            frame, names = sys._current_frames().get(target), []  # noqa: SLF001  # the only way to see another thread
            while frame is not None and frame.f_code is not work.__code__:
                names.append(f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}")
                frame = frame.f_back
            if frame is not None:
                stacks[tuple(reversed(names))] += 1

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return stacks


def draw(stacks: Counter[tuple[str, ...]], path: Path, title: str) -> None:
    """Draw stacks as a flame graph: a box is a function, as wide as its share of the time.

    Args:
        stacks: What sampled returned.
        path: The SVG file.
        title: What was run.
    """
    root = _Node()
    for stack, count in stacks.items():
        node = root
        node.samples += count
        for name in stack:
            node = node.below.setdefault(name, _Node())
            node.samples += count
    height = ROW * (max(map(len, stacks), default=0) + 3)
    boxes: list[str] = []
    _boxes(root, 0.0, 0, WIDTH / max(1, root.samples), height, boxes)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="monospace" font-size="11">'
    text = f'<rect width="{WIDTH}" height="{height}" fill="white"/><text x="4" y="13">{escape(title)}, {root.samples} samples</text>'
    path.write_text("\n".join([head, text, *boxes, "</svg>"]) + "\n", encoding="utf-8")


def _boxes(node: _Node, left: float, depth: int, scale: float, height: int, boxes: list[str]) -> None:
    for name, below in sorted(node.below.items()):
        width = below.samples * scale
        if width >= 1:
            top = height - ROW * (depth + 1)
            hue = 20 + sum(map(ord, name)) % 40
            label = escape(name[: int(width / 7)]) if width > 30 else ""
            share = below.samples * scale / WIDTH
            boxes.append(
                f'<g><title>{escape(name)} {share:.1%}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" '
                f'height="{ROW - 1}" fill="hsl({hue},90%,65%)"/><text x="{left + 2:.1f}" y="{top + 12}">{label}</text></g>'
            )
            _boxes(below, left, depth + 1, scale, height, boxes)
        left += width
