"""Buckets that note what is read of them, and segments in memory for tests without a bucket."""

from typing import Any, cast

import pytest

from indexer.errors import BucketError, ObjectMissing
from indexer.segment.reader import SegmentReader
from indexer.store.bucket import Bucket
from indexer.store.checked_file import _checksums_start
from indexer.table.table import Live


class Counted:
    """A bucket that notes which bytes of which objects were read."""

    def __init__(self, inner: Bucket) -> None:
        self._inner = inner
        self.reads: list[tuple[str, int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get(self, name: str) -> bytes:
        data = self._inner.get(name)
        self.reads.append((name, 0, len(data)))
        return data

    def get_range(self, name: str, start: int, length: int) -> bytes:
        self.reads.append((name, start, length))
        return self._inner.get_range(name, start, length)

    def of(self, each: Live) -> list[tuple[int, int]]:
        return [(start, length) for name, start, length in self.reads if name.endswith(each.name)]


class InMemory:
    """Objects that can be read by range, and nothing else."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self._objects = objects

    def get_range(self, name: str, start: int, length: int) -> bytes:
        if name not in self._objects:
            raise ObjectMissing(f"no object {name}")
        data = self._objects[name][start : start + length]
        if len(data) != length:
            raise BucketError(f"object {name} ends before byte {start + length}")
        return data


def reader_of(data: bytes) -> SegmentReader:
    """Return the reader of a segment in memory."""
    return SegmentReader(cast(Bucket, InMemory({"segment": data})), "segment", len(data))


def read_apart(patch: pytest.MonkeyPatch, segment: bytes) -> None:
    """Have segments read as large ones are: of this one the end at first, and no byte more."""
    footer_bytes = int.from_bytes(segment[-8:-4], "little") + 8
    end_bytes = len(segment) - _checksums_start(len(segment), footer_bytes)
    patch.setattr("indexer.segment.reader.WHOLE_BYTES", 0)
    patch.setattr("indexer.store.checked_file._TOGETHER_BYTES", 0)
    patch.setattr("indexer.segment.reader.TAIL_BYTES", end_bytes)
