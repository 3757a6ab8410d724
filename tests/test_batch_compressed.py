"""Compressed logs, whole, cut and damaged: no row before the damage is lost, and no bomb is held."""

import gzip
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from made_logs import measured, pack, read_all, reasons_of, source_of

from classifier.batch.reasons import Reason
from classifier.batch.record import Record, Reject
from classifier.batch.streams import pieces


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst"])
@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), level=st.integers(1, 9))
def test_a_cut_stream_gives_all_rows_before_the_cut_and_one_reject(suffix: str, share: float, level: int) -> None:
    rows = [orjson.dumps({"prompt": f"Prompt {index} {index**7:x}"}) for index in range(200)]
    data = b"\n".join(rows)
    packed = gzip.compress(data, level) if suffix.endswith("gz") else zstandard.compress(data, level)
    packed = packed[: int(share * len(packed))]
    with tempfile.TemporaryDirectory() as folder:
        found = read_all(source_of(Path(folder), packed, suffix))
    whole = zlib.decompressobj(31).decompress(packed) if suffix.endswith("gz") else None
    *before, broken = found
    assert isinstance(broken[0], Reject)
    assert broken[0].reason == Reason.BROKEN_COMPRESSION
    assert all(isinstance(one, Record) for one, _ in before)
    if whole is not None:
        assert len(before) == whole.count(b"\n")
        assert broken[0].place.offset == whole.rfind(b"\n") + 1


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst"])
def test_damage_in_the_middle_loses_no_row_before_it(tmp_path: Path, suffix: str) -> None:
    rows = b"".join(orjson.dumps({"prompt": f"{index} {os.urandom(40).hex()}"}) + b"\n" for index in range(20_000))
    packed = bytearray(pack(rows, suffix))
    packed[len(packed) // 2 :] = b"\xff" * (len(packed) // 2)
    inflater = zlib.decompressobj(31) if suffix.endswith("gz") else zstandard.ZstdDecompressor().decompressobj()
    reference = bytearray()
    try:
        for byte in packed:
            reference += inflater.decompress(bytes([byte]))
    except (zlib.error, zstandard.ZstdError):
        pass
    source = source_of(tmp_path, bytes(packed), suffix)
    found = read_all(source)
    assert found[-1][0].place.row == reference.count(b"\n") > 5_000
    assert reasons_of(found[-1:]) == [Reason.BROKEN_COMPRESSION]
    assert read_all(source, start=found[-2][1]) == found[-1:]
    assert read_all(source, start=found[-1][1]) == []


def test_members_frames_and_padding_follow_one_another(tmp_path: Path) -> None:
    line = b'{"prompt": "Hello"}\n'
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    files = {
        "jsonl.gz": gzip.compress(line) + gzip.compress(b"") + gzip.compress(line) + b"\0" * 512,
        "jsonl.zst": zstandard.compress(line) + skippable + zstandard.compress(b"") + zstandard.compress(line),
    }
    for suffix, data in files.items():
        assert reasons_of(read_all(source_of(tmp_path, data, suffix))) == ["", ""]
    assert reasons_of(read_all(source_of(tmp_path, gzip.compress(line) + b"garbage", "jsonl.gz"))) == [
        "",
        Reason.BROKEN_COMPRESSION,
    ]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_bomb_is_not_held(tmp_path: Path, suffix: str) -> None:
    packer: Any = zlib.compressobj(9, wbits=31) if suffix == "gz" else zstandard.ZstdCompressor(level=19).compressobj()
    path = tmp_path / f"bomb.csv.{suffix}"
    with path.open("wb") as file:
        file.write(packer.compress(b'prompt\n"'))
        for _ in range(1_000):
            file.write(packer.compress(b"\0" * 10**6))
        file.write(packer.compress(b'"\nHello\n') + packer.flush())
    assert path.stat().st_size < 2 * 10**6
    found, grown = measured(path)
    assert found == ["line_too_long", "record"]
    assert grown < 200


def test_a_zstd_window_over_the_usual_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(b'{"prompt": "Hello"}\n') + packer.flush()
    assert reasons_of(read_all(source_of(tmp_path, packed, "jsonl.zst"))) == [Reason.BROKEN_COMPRESSION]


def test_skipping_to_an_offset_gives_the_rest(tmp_path: Path) -> None:
    data = os.urandom(3 * 2**20)
    for suffix in ("jsonl", "jsonl.gz", "jsonl.zst"):
        source = source_of(tmp_path, pack(data, suffix), suffix)
        for offset in (0, 1, 2**20, len(data) - 1, len(data), len(data) + 1):
            assert b"".join(pieces(source, offset)) == data[offset:]
