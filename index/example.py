"""The labelled example."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from index.errors import InvalidExample

MAX_TEXT_CHARS = 100_000
MAX_FIELD_CHARS = 2_000
MAX_CAPABILITIES = 32
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


class Label(StrEnum):
    """What an example shows."""

    EXTRACTION = "extraction"
    BENIGN = "benign"


class State(StrEnum):
    """What becomes of an example: it is proposed, then known to the search, then taken back."""

    PENDING = "pending"
    ACTIVE = "active"
    REVOKED = "revoked"


_LABELS = frozenset(Label)


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled prompt.

    Attributes:
        text: The prompt.
        label: Extraction-style, or benign.
        technique: The extraction technique; None for a benign example.
        capabilities: The capabilities that the prompt targets, sorted.
        language: A language code, or "".
        source: Where the example comes from.
        author: Who added it.
        note: Why it is one: free text.
        created: When it was stored (UTC).
        revision: The store's revision that brought it; 0 before it is stored.
        licence: Under which terms the text may be kept: an SPDX identifier or free words, or "".
        state: Only active examples are searched.
        changed: The store's revision of its last change; 0 before it is stored.
        content_hash: SHA-256 of the text's UTF-8 bytes, in hexadecimal.
        id: "ex-" and the first 20 digits of the content hash, so that every store names a text alike.
    """

    text: str
    label: Label
    technique: str | None = None
    capabilities: tuple[str, ...] = ()
    language: str = ""
    source: str = ""
    author: str = ""
    note: str = ""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    revision: int = 0
    licence: str = ""
    state: State = State.ACTIVE
    changed: int = 0
    content_hash: str = field(init=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidExample: When a field is missing or not allowed.
        """
        if not self.text.strip():
            raise InvalidExample("text is empty: give the prompt itself")
        if len(self.text) > MAX_TEXT_CHARS:
            raise InvalidExample(f"text has {len(self.text)} characters: at most {MAX_TEXT_CHARS} are kept")
        for name in ("text", "source", "author", "note", "licence"):
            if not is_unicode(getattr(self, name)):
                raise InvalidExample(f"{name} holds an unpaired surrogate: give valid Unicode") from None
        if self.created.tzinfo is None:
            raise InvalidExample("created has no time zone: give one")
        self._check_labels()
        if self.language and not _LANGUAGE.fullmatch(self.language):
            raise InvalidExample('language is not a language code: give one such as "en" or "pt-BR", or none')
        for name in ("source", "author", "note", "licence"):
            if len(getattr(self, name)) > MAX_FIELD_CHARS:
                raise InvalidExample(f"{name} is over {MAX_FIELD_CHARS} characters: shorten it")
        if type(self.label) is not Label:
            object.__setattr__(self, "label", Label(self.label))
        object.__setattr__(self, "technique", self.technique or None)
        object.__setattr__(self, "capabilities", tuple(sorted(set(self.capabilities))))
        object.__setattr__(self, "content_hash", content_hash(self.text))
        object.__setattr__(self, "id", example_id(self.content_hash))

    def _check_labels(self) -> None:
        if self.label not in _LABELS:
            raise InvalidExample('label must be "extraction" or "benign"')
        if self.label == Label.EXTRACTION and not self.technique:
            raise InvalidExample("technique is missing: an extraction example needs one")
        if self.label == Label.BENIGN and self.technique:
            raise InvalidExample("technique is set: a benign example has none")
        if self.technique and not _NAME.fullmatch(self.technique):
            raise InvalidExample("technique must be a name in lower_snake_case of at most 64 characters")
        if len(self.capabilities) > MAX_CAPABILITIES:
            raise InvalidExample(f"capabilities has over {MAX_CAPABILITIES} names")
        if not all(_NAME.fullmatch(name) for name in self.capabilities):
            raise InvalidExample("capabilities must be names in lower_snake_case of at most 64 characters")

    def same_labels(self, other: "Example") -> bool:
        """Whether the other example says the same of its text."""
        return (self.label, self.technique, self.capabilities) == (other.label, other.technique, other.capabilities)

    def at_revision(self, revision: int) -> "Example":
        """A copy that carries the store's revision as the one that brought it."""
        return replace(self, revision=revision, changed=revision)


def content_hash(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def example_id(content_hash: str) -> str:
    """The id of the example with this content."""
    return f"ex-{content_hash[:20]}"


def is_unicode(text: str) -> bool:
    """Whether a text can be written in UTF-8: it holds no half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def content_fingerprint(examples: Iterable[Example]) -> str:
    """A SHA-256 over texts and labels, the same whatever the order of the examples."""
    digest = hashlib.sha256()
    for line in sorted(f"{e.content_hash} {e.label} {e.technique or '-'} {','.join(e.capabilities)}" for e in examples):
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()
