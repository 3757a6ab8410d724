"""How far a run is, by the bytes of its inputs; of compressed ones by estimate, for their rows are not counted before."""

import zlib
from collections.abc import Sequence
from io import BytesIO

from classifier.batch.inputs import Source
from classifier.batch.reading import Position
from classifier.batch.streams import opened

_LOOKED_AT = 2**18


class Extents:
    """The extents of a run's inputs."""

    def __init__(self, sources: Sequence[Source]) -> None:
        """Take the inputs, in the order in which they are read."""
        self._before: dict[str, int] = {}
        self._total = 0
        for source in sources:
            self._before[source.name] = self._total
            self._total += source.size
        self._units: dict[str, float] = {}

    def done(self, source: Source, position: Position) -> float:
        """The share of all inputs that is done.

        Args:
            source: The input that is read.
            position: How far it is.

        Returns:
            In [0, 1].
        """
        if source.name not in self._units:
            self._units = {source.name: _units(source)}
        at = position.row if source.format == "parquet" else position.offset
        part = min(1.0, at / max(1.0, self._units[source.name]))
        return (self._before[source.name] + part * source.size) / max(1, self._total)


def _units(source: Source) -> float:
    """Rows of a Parquet file, bytes of others after decompression."""
    with opened(source) as file:
        if source.format == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                return float(pq.read_metadata(file).num_rows)
            except (pa.ArrowException, OSError):
                return 0.0
        if not source.compression:
            return float(source.size)
        return source.size * _expansion(file.read(_LOOKED_AT), source.compression)


def _expansion(head: bytes, compression: str) -> float:
    """How many bytes come of one; as little is held of a head that stands for gigabytes as of any."""
    import zstandard

    most, stored = 64 * _LOOKED_AT, len(head)
    try:
        if compression == "gz":
            found = len(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, most))
        else:
            source = BytesIO(head)
            reader = zstandard.ZstdDecompressor().stream_reader(source, read_size=2**7, read_across_frames=True)
            found = len(reader.read(most))
            stored = source.tell()
    except (zlib.error, zstandard.ZstdError):
        return 1.0
    return max(1.0, found / max(1, stored))
