"""Cuts inputs into splits: where each part of the output begins, so that parts can be written anywhere, in any order.

A split is found by the readers themselves, which count rows as the single machine's run does; scoring them takes some 200
times as long. So every part has the rows that it has in any other run.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass

from classifier.batch.inputs import Source, is_unchanged
from classifier.batch.names import spelt
from classifier.batch.reading import Limits, Position, detect, read
from classifier.batch.record import Reject
from classifier.batch.selection import Selection
from classifier.batch.shapes import Shape
from classifier.errors import DataRejected


@dataclass(frozen=True, slots=True)
class Split:
    """Where a part of the output begins; it ends after the run's rows per part, or with its input.

    Attributes:
        source: The input.
        number: The part's among those of its input.
        first: Where the part's first row begins.
        most: The most requests and rejects that the limit of the run leaves for this part; None: no limit.
        again: Requests and rejects of the part in whose place it comes, which the limit has counted already.
    """

    source: Source
    number: int
    first: Position
    most: int | None = None
    again: int = 0

    def dumped(self) -> str:
        """The split as JSON."""
        return json.dumps(asdict(self), ensure_ascii=True)

    @classmethod
    def loaded(cls, text: str) -> "Split":
        """The split of such JSON."""
        said = json.loads(text)
        return cls(**{**said, "source": Source(**said["source"]), "first": Position(**said["first"])})


@dataclass(frozen=True, slots=True)
class Cutter:
    """Finds the splits of inputs.

    Attributes:
        shape: How rows become requests; None recognises it, input by input.
        limits: What a row may have at most.
        selection: Which requests are scored: only they and rejects count for a limit.
        rows_per_part: How many requests and rejected rows a part holds.
    """

    shape: Shape | None
    limits: Limits
    selection: Selection
    rows_per_part: int

    def cut(
        self, openings: Sequence[Split], *, limit: int | None = None, known: Collection[tuple[str, int]] = ()
    ) -> Iterator[Split]:
        """Read inputs and find where parts begin.

        Args:
            openings: The next part of each input that is not finished.
            limit: How many requests and rejects are left, over all of them; None: all.
            known: Name and number of parts that are written already.

        Yields:
            The other parts, in order, each before its own rows are read.

        Raises:
            DataRejected: When an input cannot be read or recognised, or is another one here.
        """
        for opening in openings:
            if limit is not None:
                if limit <= 0:
                    return
                limit += opening.again
            source, number, first, read_here = opening.source, opening.number, opening.first, 0
            if (source.name, number) not in known:
                yield Split(source, number, first, limit)
            check_seen(source)
            shape = self.shape or detect(source, limits=self.limits)
            for row, after in read(source, shape, start=first, limits=self.limits):
                if limit is not None and limit <= 0:
                    return
                if read_here == self.rows_per_part:
                    number, read_here = number + 1, 0
                    if (source.name, number) not in known:
                        yield Split(source, number, first, limit)
                if limit is not None:
                    limit -= isinstance(row, Reject) or self.selection.takes(row)
                first = after
                read_here += 1


def check_seen(source: Source) -> None:
    """See that an input is here what it is where the run was planned.

    Args:
        source: The input, as it was found there.

    Raises:
        DataRejected: When it is missing or another one.
    """
    if not is_unchanged(source):
        raise DataRejected(
            f"{spelt(source.name)} is missing where a worker reads, or another file than where the command runs: every machine "
            "must see the same files under the same names, and they must not change during the run"
        )
