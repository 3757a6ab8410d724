"""How a test spoils a bundle: it replaces a file, and gives the manifest the hash that fits or leaves it as it is."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from variants import BUILT

from classifier.bundle import MANIFEST


def pristine_copy(folder: Path) -> Path:
    """Copy the built bundle into a folder that nobody rebuilds."""
    return Path(shutil.copytree(BUILT.resolve(), folder, dirs_exist_ok=True))


def linked_copy(pristine: Path, folder: Path) -> Path:
    """Copy a bundle by links."""
    return Path(shutil.copytree(pristine, folder, copy_function=os.link))


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    return manifest


def put(folder: Path, name: str, data: bytes) -> None:
    """Replace a file and leave the manifest as it is."""
    (folder / name).unlink()
    (folder / name).write_bytes(data)


def amend(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest."""
    manifest = manifest_of(folder)
    change(manifest)
    put(folder, MANIFEST, json.dumps(manifest).encode())


def swap(folder: Path, name: str, data: bytes) -> None:
    """Replace a file and give the manifest its hash, as somebody would who can write the whole folder."""
    put(folder, name, data)
    amend(folder, lambda manifest: manifest["files"].update({name: hashlib.sha256(data).hexdigest()}))
