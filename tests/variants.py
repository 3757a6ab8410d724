"""Bundles that differ from the default one in what a test needs."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from serving import BUNDLES

from classifier.bundle import write_bundle

BUILT = BUNDLES / "current"
Change = Callable[[dict[str, Any], dict[str, bytes]], None]


def make_home(folder: Path) -> Path:
    """A home with a bundle folder of its own, in which the default bundle is the current one."""
    home = folder / "home"
    bundles = home / "bundles"
    bundles.mkdir(parents=True)
    (bundles / "default").symlink_to(BUILT.resolve())
    (bundles / "current").symlink_to("default")
    return home


def make_current(home: Path, *changes: Change) -> str:
    """Write a changed copy of the default bundle into a home and make it the current one; its folder's name."""
    card = json.loads((BUILT / "manifest.json").read_bytes())
    files = {name: (BUILT / name).read_bytes() for name in card.pop("files")}
    for change in changes:
        change(card, files)
    return write_bundle(home / "bundles", card, files).name


def point(home: Path, name: str) -> None:
    """Make another bundle of a home the current one."""
    fresh = home / "bundles" / ".next"
    fresh.symlink_to(name)
    fresh.replace(home / "bundles" / "current")


def versioned(version: str) -> Change:
    """Another version."""

    def change(card: dict[str, Any], files: dict[str, bytes]) -> None:
        card["version"] = version

    return change


def with_thresholds(review: float, flag: float) -> Change:
    """Other thresholds."""

    def change(card: dict[str, Any], files: dict[str, bytes]) -> None:
        card["head"]["thresholds"] = {"review": review, "flag": flag}

    return change


def shifted(offset: float) -> Change:
    """Another calibration: every extraction probability moves."""

    def change(card: dict[str, Any], files: dict[str, bytes]) -> None:
        card["head"]["calibration"][0]["offset"] += offset

    return change


def of_another_encoder(card: dict[str, Any], files: dict[str, bytes]) -> None:
    """The same numbers under another fingerprint, so that kept vectors are not its own."""
    model = onnx.load_model_from_string(files["encoder.onnx"])
    model.doc_string = "another one"
    files["encoder.onnx"] = model.SerializeToString()


def with_blind_encoder(card: dict[str, Any], files: dict[str, bytes]) -> None:
    """An encoder whose embeddings are no numbers."""
    model = onnx.load_model_from_string(files["encoder.onnx"])
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if name == output else name for name in node.output]
        node.input[:] = ["before" if name == output else name for name in node.input]
    nan = onnx.numpy_helper.from_array(np.array([np.nan], np.float32), "nan")
    model.graph.initializer.append(nan)
    model.graph.node.append(onnx.helper.make_node("Mul", ["before", "nan"], [output]))
    files["encoder.onnx"] = model.SerializeToString()


def seeded(keep: Callable[[int, dict[str, Any]], bool], *more: dict[str, Any]) -> Change:
    """Only some of the seed examples, and others with the first one's embedding."""

    def change(card: dict[str, Any], files: dict[str, bytes]) -> None:
        rows = [json.loads(line) for line in files["examples.jsonl"].splitlines()]
        vectors = np.load(BytesIO(files["examples.npy"]), allow_pickle=False)
        kept = [number for number, row in enumerate(rows) if keep(number, row)]
        lines = [rows[number] for number in kept] + [{**rows[0], **row} for row in more]
        files["examples.jsonl"] = "".join(json.dumps(row) + "\n" for row in lines).encode()
        buffer = BytesIO()
        np.save(buffer, np.concatenate([vectors[kept], *(vectors[:1] for _ in more)]), allow_pickle=False)
        files["examples.npy"] = buffer.getvalue()

    return change
