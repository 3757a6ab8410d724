"""Times the page and the comparison of runs of many rows, and takes their memory: copies of a finished run's first part.

The copies hold the columns that are read. Their rows have new numbers, times over 45 days, and accounts of their own:
25,000 of them, or with --hostile one for every row, with a template of its own, too.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from classifier.batch.changed import COMPARED, SHARED
from classifier.batch.diff import compare
from classifier.batch.parts import REJECTED, SCORES, part_name
from classifier.batch.report import write_report

_KEY = b"stillwatch.part"
_PAGE = (
    "file",
    "row",
    "account",
    "request_id",
    "time",
    "decision",
    "extraction_probability",
    "technique",
    "capabilities",
    "template",
    "abstention",
)
_DIFF = ("row", "item", *SHARED, *COMPARED)
_START, _SPAN = 1_767_571_200_000_000, 45 * 86_400 * 10**6
_GROUP_ROWS = 16_384


def main() -> None:
    """Make the copies, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a finished run's output")
    parser.add_argument("--rows", type=int, default=28_800_000)
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--diff", action="store_true", help="compare the copies with themselves instead of a page")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.run.parent) as place:
        made = _copies(given.run, Path(place), given.rows, _DIFF if given.diff else _PAGE, hostile=given.hostile)
        wall, processor = time.monotonic(), time.process_time()
        if given.diff:
            compare(Path(place), Path(place))
        else:
            write_report(Path(place))
        wall, processor = time.monotonic() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{made:,} rows: {wall:.0f} s, {processor:.0f} s of processor time, peak {peak} MiB")


def _copies(run: Path, folder: Path, rows: int, columns: tuple[str, ...], *, hostile: bool) -> int:
    first = min((run / SCORES).glob("*.parquet"))
    table = pq.read_table(first, columns=list(columns))
    said = json.loads(pq.read_metadata(first).metadata[_KEY])
    for name in (SCORES, REJECTED):
        (folder / name).mkdir()
    (folder / "run.json").write_bytes((run / "run.json").read_bytes())
    size, chance = len(table), np.random.default_rng(1)
    count = -(-rows // size)
    for number in range(count):
        places = np.arange(size) + number * size
        accounts = places if hostile else chance.integers(0, 25_000, size)
        changed = {
            "row": pa.array(places),
            "account": pa.array([f"acct-{value}" for value in accounts.tolist()]),
            "time": pa.array(_START + places * (_SPAN // (count * size)), pa.timestamp("us", "UTC")),
        }
        if hostile:
            changed["template"] = pa.array([f"{value:016x}" for value in chance.integers(0, 2**62, size).tolist()])
        copy = table
        for name, values in changed.items():
            copy = copy.set_column(copy.schema.get_field_index(name), name, values)
        _write(folder, copy, {**said, "number": number, "last": number == count - 1}, size)
    return count * size


def _write(folder: Path, table: pa.Table, said: dict[str, object], size: int) -> None:
    number = said["number"]
    assert isinstance(number, int)
    for name, at in (("first", number), ("next", number + 1)):
        said[name] = {"row": at * size, "offset": at, "item": 0}
    path = folder / SCORES / part_name(str(said["source"]), number, str(said["fingerprint"]))
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        writer.write_table(table, row_group_size=_GROUP_ROWS)
        writer.add_key_value_metadata({_KEY: json.dumps(said).encode()})


if __name__ == "__main__":
    main()
