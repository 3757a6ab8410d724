"""How a row becomes requests: shapes that are recognised, named, or written as a map of fields."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from classifier.batch import payloads, telemetry
from classifier.batch.fields import Row, found, identity, key_name, moment
from classifier.batch.names import shown, spelt
from classifier.batch.payloads import Taken, body_format, body_of, prompt_text, take_body
from classifier.batch.reasons import Reason, RowFault
from classifier.conversation import BodyFormat
from classifier.errors import DataRejected, InvalidSetting

DETECTED_ROWS = 100
"""Rows of a source at which detection looks."""
FIELDS = ("prompt", "account", "key", "request_id", "time")
_AUTO, _MAPPED = "auto", "mapped"
_JSON = "json:"
_MOST_KEYS = 40
_EXAMPLE = "prompt=request.text, account=customer.id, time=received_at"


@dataclass(frozen=True, slots=True)
class _Kind:
    """One shape.

    Attributes:
        fits: Whether a row has it.
        take: What a row of it holds.
        columns: The top-level fields that are looked at.
    """

    fits: Callable[[Row], bool]
    take: Callable[[Row], Sequence[Taken | RowFault]]
    columns: frozenset[str]


def _body_kind(format: BodyFormat) -> _Kind:
    return _Kind(lambda row: _body_format(row) is format, lambda row: take_body(row, format), payloads.BODY_FIELDS)


def _body_format(row: Row) -> BodyFormat | None:
    body = body_of(row)
    return None if body is None else body_format(body)


_BODY_FORMATS = [api for api in BodyFormat if api is not BodyFormat.OTEL_GENAI]
# In this order a row is judged: from what only one program writes to what anyone does.
_KINDS: Mapping[str, _Kind] = {
    "otel": _Kind(telemetry.is_telemetry, telemetry.take_telemetry, telemetry.FIELDS),
    "litellm": _Kind(payloads.is_litellm, payloads.take_litellm, payloads.LITELLM_FIELDS),
    "langfuse": _Kind(payloads.is_langfuse, payloads.take_langfuse, payloads.LANGFUSE_FIELDS),
    **{api.value: _body_kind(api) for api in _BODY_FORMATS},
    "plain": _Kind(payloads.is_plain, payloads.take_plain, payloads.PLAIN_FIELDS),
}
NAMES = (*_KINDS, _AUTO)
_NULLABLE = frozenset(("prompt", "text", "input", "messages"))


@dataclass(frozen=True, slots=True)
class Shape:
    """How a row becomes requests. Plain data: it can be compared, pickled and written into a manifest.

    Attributes:
        name: One of NAMES, or "mapped"; of a detected shape the names that were found, joined by "+".
        kind: The shape that every row has, "auto" when each row is judged by itself, or "mapped".
        fields: Fields that are taken from dotted paths whatever the kind says, by name.
    """

    name: str
    kind: str = _AUTO
    fields: tuple[tuple[str, str], ...] = ()

    @classmethod
    def named(cls, name: str) -> "Shape":
        """The shape of a name.

        Args:
            name: One of NAMES.

        Returns:
            The shape; rows that have another one are faults, except under "auto".

        Raises:
            InvalidSetting: When there is none of the name.
        """
        if name not in NAMES:
            raise InvalidSetting(f"the shape {name!r} is unknown: use one of {', '.join(NAMES)}, or map the fields")
        return cls(name, name)

    @classmethod
    def mapped(cls, mapping: Mapping[str, str]) -> "Shape":
        """A shape of one's own.

        Args:
            mapping: Of FIELDS to dotted paths; "prompt" must be there. A prompt that is a list of messages or a request
                body is joined; one that is text is taken literally, unless its path begins with "json:".

        Returns:
            The shape.

        Raises:
            InvalidSetting: When a field is unknown, a path is empty, or there is no prompt.
        """
        shape = cls(_MAPPED, _MAPPED).overriding(mapping)
        if "prompt" not in mapping:
            raise InvalidSetting(f"the field map names no prompt: write for example {_EXAMPLE}")
        return shape

    @classmethod
    def detect(cls, first_rows: Iterable[object], name: str = "the input") -> "Shape":
        """Recognise the shape of a source.

        Args:
            first_rows: Its first rows as parsed; `classifier.batch.reading.first_rows` gives them.
            name: What to call the source in the message.

        Returns:
            A shape that judges every row by itself, because logs of gateways mix them, named after those found.

        Raises:
            DataRejected: When there are rows and none has a known shape. The message holds the rows' keys, never values.
        """
        rows = [row for row in first_rows if isinstance(row, Mapping)]
        kinds = {kind for row in rows if (kind := _kind_of(row)) is not None}
        if kinds or not rows or any(not _NULLABLE.isdisjoint(row) for row in rows):
            return cls("+".join(kind for kind in _KINDS if kind in kinds) or _AUTO)
        keys = sorted({str(key) for row in rows for key in row})
        listed = ", ".join(map(shown, keys[:_MOST_KEYS])) + (" and others" if len(keys) > _MOST_KEYS else "")
        raise DataRejected(
            f"{spelt(name)}: the rows have no known shape. Their keys are: {listed or '(none)'}. "
            f"Name the shape ({', '.join(NAMES)}), or say by dotted paths where the fields are, for example {_EXAMPLE}"
        )

    def overriding(self, mapping: Mapping[str, str]) -> "Shape":
        """The same shape with some fields taken from elsewhere.

        Args:
            mapping: Of FIELDS to dotted paths.

        Returns:
            The shape.

        Raises:
            InvalidSetting: When a field is unknown or a path is empty.
        """
        for name, path in mapping.items():
            if name not in FIELDS:
                raise InvalidSetting(f"the field map names {name!r}: its fields are {', '.join(FIELDS)}")
            if not path.removeprefix(_JSON).strip("."):
                raise InvalidSetting(f"the field map gives {name!r} no path: write for example {_EXAMPLE}")
        return replace(self, fields=tuple(sorted({**dict(self.fields), **mapping}.items())))

    def columns(self, available: Sequence[str]) -> list[str]:
        """Which of a table's columns are needed.

        Args:
            available: The columns' names.

        Returns:
            Those that are, in their order.
        """
        kinds = [_KINDS[self.kind]] if self.kind in _KINDS else _KINDS.values() if self.kind == _AUTO else ()
        wanted = frozenset[str]().union(*(kind.columns for kind in kinds))
        telemetry_too = self.kind in (_AUTO, "otel")
        paths = [path.removeprefix(_JSON) for _, path in self.fields]
        return [
            column
            for column in available
            if column in wanted
            or (telemetry_too and column.startswith("gen_ai") and not column.startswith("gen_ai.output"))
            or any(path == column or path.startswith(f"{column}.") for path in paths)
        ]

    def take(self, row: Row) -> Sequence[Taken | RowFault]:
        """What a row holds.

        Args:
            row: The row as parsed.

        Returns:
            One request or more; or faults of single ones.

        Raises:
            RowFault: When the whole row is none.
        """
        if self.kind == _MAPPED:
            return (self._mapped(Taken("", "", "", "", None, row)),)
        kind = _kind_of(row) if self.kind == _AUTO else self.kind
        if kind is None:
            if not _NULLABLE.isdisjoint(row):
                raise RowFault(Reason.NO_PROMPT, "the prompt is null: log the request's text")
            raise RowFault(Reason.UNKNOWN_SHAPE, f"the row has no known shape: map its fields, for example {_EXAMPLE}")
        # A body that is recognised is read as what it is, even where its messages are of OpenTelemetry's parts.
        taken = take_body(row) if self.kind == _AUTO and kind in _BODY_FORMATS else _KINDS[kind].take(row)
        if not self.fields:
            return taken
        return [one if isinstance(one, RowFault) else self._mapped(one) for one in taken]

    def _mapped(self, taken: Taken) -> Taken:
        row = taken.source
        for name, path in self.fields:
            value = found(row, path.removeprefix(_JSON) if name == "prompt" else path)
            if name == "prompt":
                taken = replace(taken, prompt=prompt_text(value, unpack=path.startswith(_JSON)))
            elif name == "key":
                taken = replace(taken, key=key_name(value))
            elif name == "time":
                taken = replace(taken, time=moment(value))
            elif name == "account":
                taken = replace(taken, account=identity(value))
            else:
                taken = replace(taken, request_id=identity(value))
        return taken


def _kind_of(row: Row) -> str | None:
    for name in ("otel", "litellm", "langfuse"):
        if _KINDS[name].fits(row):
            return name
    # Bodies are judged at once, because looking for one takes the longest.
    if (api := _body_format(row)) is not None:
        return (BodyFormat.OPENAI_CHAT if api is BodyFormat.OTEL_GENAI else api).value
    return "plain" if payloads.is_plain(row) else None
