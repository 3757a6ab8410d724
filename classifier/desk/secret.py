"""The desk's own key and files: readable by their owner alone, and never seen half written."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from classifier.errors import InvalidSetting
from index.example import content_hash, example_id

KEY_FILE = "desk.key"
KEY_BYTES = 32
_MARK_BYTES = 16


def desk_key(home: Path) -> bytes:
    """The home's random key, made when it is first asked for.

    Args:
        home: The folder of bundles and examples; it must exist.

    Returns:
        32 bytes, the same for every process of this home.

    Raises:
        InvalidSetting: When the key cannot be read or made, or is no key.
    """
    path = home / KEY_FILE
    try:
        if not path.exists():
            _publish_once(path, os.urandom(KEY_BYTES))
        with path.open("rb") as file:
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise InvalidSetting(f"{path} cannot be read or made ({error.strerror}): check the folder's rights") from None
    if len(key) != KEY_BYTES:
        raise InvalidSetting(f"{path} is no key of {KEY_BYTES} bytes: remove it, and a new one is made")
    return key


def mark_of(name: str, key: bytes) -> bytes:
    """What stands for a text where the text must not be kept.

    Args:
        name: The id that an example with this text has or would have.
        key: The home's key: without it nobody can try texts out.

    Returns:
        16 bytes, the same for equal texts.
    """
    return hashlib.blake2b(name.encode(), key=key, digest_size=_MARK_BYTES).digest()


def mark_of_text(text: str, key: bytes) -> bytes:
    """The mark of a prompt, as it was sent; see mark_of."""
    return mark_of(example_id(content_hash(text)), key)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read; it is durable, and never seen half written.

    Args:
        path: Where it shall stand.
        data: What it holds.

    Raises:
        OSError: When it cannot be written; what stood there before still does.
    """
    fresh = _written(path, data)
    try:
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _publish_once(path: Path, data: bytes) -> None:
    """As write_private, but of two processes that do it at once the first one's file stays."""
    fresh = _written(path, data)
    try:
        with suppress(FileExistsError):
            path.hardlink_to(fresh)
    finally:
        fresh.unlink()
    _sync(path.parent)


def _written(path: Path, data: bytes) -> Path:
    fresh = path.with_name(f".{path.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123  # the mode
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return fresh


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
