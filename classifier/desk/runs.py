"""Re-scored logs as the review queue reads them: scores first, and the text of the chosen requests afterwards."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from classifier.batch.inputs import FORMATS, Source, find
from classifier.batch.manifest import Input, RunManifest, manifest_of
from classifier.batch.parts import load
from classifier.batch.reading import DEFAULTS, Limits, Position, detect, read
from classifier.batch.record import Place, Record
from classifier.batch.shapes import Shape
from classifier.desk.choosing import Seen
from classifier.errors import DataRejected
from classifier.verdict import Decision

_COLUMNS = (
    "file", "row", "item", "offset", "extraction_probability", "decision", "template", "repeat"
)  # fmt: skip
_ROWS_AT_ONCE = 8_192


class RunPrompts:
    """The requests of one run."""

    def __init__(self, folder: Path) -> None:
        """Open a run.

        Args:
            folder: The run's output.

        Raises:
            RunRefused: When the folder holds no run.
        """
        self._folder = folder
        self._manifest: RunManifest = manifest_of(folder)
        self._inputs: dict[str, Input] = {one.name: one for one in self._manifest.inputs}

    def seen(self) -> Iterator[Seen]:
        """Every scored request, repeats left out; with its text where the run holds it.

        Yields:
            The requests, in the order of the run's parts.

        Raises:
            DataRejected: When a part cannot be read.
        """
        try:
            rows = load(self._folder)
            columns = [*_COLUMNS, *(["prompt"] if "prompt" in rows.schema.names else [])]
            for batch in rows.to_batches(columns=columns, batch_size=_ROWS_AT_ONCE):
                yield from (_seen(row) for row in batch.to_pylist() if not row["repeat"])
        except (OSError, pa.ArrowException) as error:
            raise DataRejected(
                f"the scores in {self._folder} cannot be read ({type(error).__name__}): run  stillwatch rescore  again"
            ) from None

    def look(self, wanted: Sequence[Seen]) -> Iterator[Seen]:
        """Find the text of requests in the files that were scored.

        Args:
            wanted: Requests of this run.

        Yields:
            The same, with their text.

        Raises:
            DataRejected: When a file is gone or has changed.
        """
        by_file: dict[str, list[tuple[Place, Seen]]] = {}
        for seen in wanted:
            if seen.place is not None:
                by_file.setdefault(seen.place.file, []).append((seen.place, seen))
        for name, own in by_file.items():
            source = self._source(name)
            shape = self._shape(source)
            places = {(place.row, place.item): seen for place, seen in own}
            for record in _records(source, shape, self._limits, [place for place, _ in own]):
                seen = places[record.place.row, record.place.item]
                yield replace(seen, prompt=record.prompt)

    def _source(self, name: str) -> Source:
        known = self._inputs.get(name)
        stamp = known.stamp if known else ""
        read_as = next((form for form in FORMATS if stamp.endswith(f"-{form}")), None)
        try:
            (source,) = find([name], format=read_as)
        except (DataRejected, ValueError):
            source = None
        if source is None or source.stamp != stamp:
            what = "is not there" if source is None else "has changed since it was scored"
            raise DataRejected(
                f"the run in {self._folder} holds no prompts, and {name} {what}: put it back and begin in the folder in "
                "which it was scored, or score it again with  stillwatch rescore --include-prompt"
            )
        return source

    def _shape(self, source: Source) -> Shape:
        said = self._manifest.identity.get("shape", "detected")
        if not isinstance(said, list):
            return detect(source, limits=self._limits)
        name, fields = said
        return Shape.mapped(fields) if name == "mapped" else Shape.named(name).overriding(fields)

    @property
    def _limits(self) -> Limits:
        identity: dict[str, Any] = self._manifest.identity
        return Limits(
            line_bytes=int(identity.get("line_bytes") or DEFAULTS.line_bytes),
            prompt_chars=int(identity.get("max_prompt_chars") or DEFAULTS.prompt_chars),
        )


def _seen(row: dict[str, Any]) -> Seen:
    place = Place(row["file"], row["row"], row["offset"], row["item"])
    return Seen(
        name=f"{place.row}\n{place.item}\n{place.file}",
        probability=row["extraction_probability"],
        decision=Decision(row["decision"]),
        template=row["template"],
        prompt=row.get("prompt"),
        place=place,
    )


def _records(source: Source, shape: Shape, limits: Limits, places: Sequence[Place]) -> Iterator[Record]:
    """The records of some places of a file: by their offsets, or by one reading where the file knows none."""
    wanted = {(place.row, place.item) for place in places}
    ordered = sorted(places, key=lambda place: (place.row, place.item))
    starts = [Position(place.row, place.offset, place.item) for place in ordered]
    jumps = source.format != "parquet" and not source.compression
    for start in starts if jumps else starts[:1]:
        for record, _ in read(source, shape, start=start, limits=limits):
            key = (record.place.row, record.place.item)
            if isinstance(record, Record) and key in wanted:
                yield record
            if jumps or key >= (ordered[-1].row, ordered[-1].item):
                break
