"""What a rewrite must not change: the number of rows and the sum of their hashes, per stream.

Rows as they were read and as they were written go in, by another decoding of what was written; out
come tallies that must be equal. A row's hash is of all its columns, so no row can be dropped,
doubled, cut or given to another stream without a trace.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collector.wire.range import STREAM_FIELDS
from indexer.equal_runs import runs
from indexer.errors import NotBalanced
from indexer.kernels import Bytes, compiled, integer
from indexer.schema import SEGMENT_SCHEMA, open_segment

Tally = Mapping[tuple[Any, ...], tuple[int, int]]
"""Stream -> rows, and the sum of their hashes modulo 2^64."""

STREAM = (*STREAM_FIELDS, "node")

Hashes = NDArray[np.uint64]

# Odd constants of MurmurHash3's and SplitMix64's finalisers (A. Appleby; G. Steele et al.).
_MULTIPLIER = 0xFF51AFD7ED558CCD
_ODD = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0xD6E8FEB86659FD93)
_SHIFT = np.uint64(32)
_MASK = (1 << 64) - 1


@compiled
def _hash_strings(text: Bytes, offsets: Any, out: Any) -> None:
    """Hash ``text[offsets[i]:offsets[i + 1]]``, eight bytes at a time."""
    multiplier = np.uint64(_MULTIPLIER)
    for i in range(out.size):
        at, end = integer(offsets[i]), integer(offsets[i + 1])
        value = np.uint64(end - at)
        while at + 8 <= end:
            word = np.uint64(0)
            for j in range(8):
                word |= np.uint64(text[at + j]) << np.uint64(8 * j)
            value = (value ^ word) * multiplier
            value ^= value >> np.uint64(29)
            at += 8
        word = np.uint64(0)
        for j in range(end - at):
            word |= np.uint64(text[at + j]) << np.uint64(8 * j)
        value = (value ^ word) * multiplier
        out[i] = value ^ (value >> np.uint64(32))


def row_hashes(rows: pa.Table) -> Hashes:
    """Return one hash for each row, uint64[n], of the values of every column of SEGMENT_SCHEMA."""
    hashes: Hashes = np.zeros(rows.num_rows, np.uint64)
    for field in SEGMENT_SCHEMA:
        column = rows.column(field.name).combine_chunks()
        hashes = (hashes ^ _column_hashes(column)) * _ODD
        hashes ^= hashes >> _SHIFT
    return hashes


def _column_hashes(array: pa.Array) -> Hashes:
    kind = array.type
    if pa.types.is_dictionary(kind):
        words = _column_hashes(array.dictionary)
        found: Hashes = words[array.indices.to_numpy(zero_copy_only=False)]
        return found
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        _, offsets, text = array.buffers()
        out: Hashes = np.zeros(len(array), np.uint64)
        bounds = np.frombuffer(offsets, np.int32)[array.offset :][: len(array) + 1]
        _hash_strings(np.frombuffer(text or b"", np.uint8), bounds, out)
        if array.null_count:
            out[array.is_null().to_numpy(zero_copy_only=False)] = _NULL
        return out
    if pa.types.is_fixed_size_binary(kind):
        width = kind.byte_width // 8
        halves = np.frombuffer(array.buffers()[1], np.uint64)[array.offset * width :]
        first, second = halves[: len(array) * width].reshape(-1, width).T
        return first ^ (second * _ODD)
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    if pa.types.is_timestamp(kind):
        array = array.cast(pa.int64())
    numbers: NDArray[Any] = array.fill_null(0).to_numpy(zero_copy_only=False)
    found = numbers.astype(np.int64).view(np.uint64)
    if array.null_count:
        found[array.is_null().to_numpy(zero_copy_only=False)] = _NULL
    return found


def tally(rows: pa.Table, into: dict[tuple[Any, ...], tuple[int, int]]) -> None:
    """Add rows to a tally; those of a stream mostly lie together, which makes this cheap."""
    if not rows.num_rows:
        return
    rows = rows.combine_chunks()
    starts, streams = runs(rows.select(STREAM))
    counts = np.diff(np.append(starts, rows.num_rows)).tolist()
    sums = np.add.reduceat(row_hashes(rows), starts).tolist()
    for stream, count, value in zip(streams, counts, sums, strict=True):
        before = into.get(stream, (0, 0))
        into[stream] = (before[0] + count, (before[1] + value) & _MASK)


def row_groups(data: bytes) -> Iterable[pa.Table]:
    """Yield the row groups of a segment, decoded."""
    file = open_segment(pa.BufferReader(data))
    for number in range(file.num_row_groups):
        yield file.read_row_group(number, use_threads=False)


def check(before: Tally, written: Iterable[bytes], dropped: Tally, what: str) -> None:
    """Raise NotBalanced unless ``before`` is what was ``written`` and what was ``dropped``."""
    after: dict[tuple[Any, ...], tuple[int, int]] = dict(dropped)
    for data in written:
        for rows in row_groups(data):
            tally(rows, after)
    if dict(before) != after:
        wrong = [stream for stream in {*before, *after} if before.get(stream) != after.get(stream)]
        example = min(wrong, key=str)
        raise NotBalanced(
            f"{what} does not balance, nothing was changed: {len(wrong)} streams differ, such as "
            f"{'/'.join(map(str, example))}: {before.get(example)} before, {after.get(example)} now"
        )
