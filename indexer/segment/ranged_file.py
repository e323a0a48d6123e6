"""An object of a bucket as a file for Arrow, and where in it a row group's columns stand.

Reads of a file go in, ranged reads of a bucket come out. What is held of the object meanwhile, and
what reading costs, is the affair of those who build on this.
"""

import io
from typing import Any

from indexer.store.bucket import Bucket


class RangedFile(io.RawIOBase):
    """An object of ``size_bytes``; each read of it is a ranged one."""

    def __init__(self, bucket: Bucket, name: str, size_bytes: int) -> None:
        """Name the object; nothing is read yet."""
        self._bucket = bucket
        self._name = name
        self._size = size_bytes
        self._at = 0

    def part(self, start: int, end: int) -> bytes:
        """Return bytes ``[start, end)`` of the object."""
        return self._bucket.get_range(self._name, start, end - start)

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes."""
        left = max(0, self._size - self._at)
        start, end = self._at, self._at + (left if size is None or size < 0 else min(size, left))
        self._at = end
        return self.part(start, end)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the place of the next read."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Return the place of the next read."""
        return self._at

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It has places."""
        return True


def column_places(row_group: Any) -> dict[str, tuple[int, int]]:
    """Return where each column of a row group's metadata stands in its file: ``[start, end)``."""
    places = {}
    for column in map(row_group.column, range(row_group.num_columns)):
        # Arrow takes 0 for an offset that is not set.
        start = column.dictionary_page_offset or column.data_page_offset
        places[column.path_in_schema] = (start, start + column.total_compressed_size)
    return places
