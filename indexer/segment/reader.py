"""The one reader of a segment in a bucket: its footer, its token filter, its columns and rows.

A segment's name and size go in; what is asked of it comes out, by as few ranged requests as that
takes, which are counted. No more than a few row groups are ever held, and whatever is not what was
written, or cannot be decoded, is a SegmentDamaged that names the segment.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from indexer.errors import BucketError, ObjectMissing, SegmentDamaged
from indexer.schema import open_segment
from indexer.segment.token_filter import TokenFilter
from indexer.store.bucket import Ranges
from indexer.store.checked_file import CheckedFile, End

_AT_ONCE_BYTES = 4 << 20  # of row groups that are read one after the other
WHOLE_BYTES = 1 << 20
"""A segment or row group of so few bytes is read by one request."""

TAIL_BYTES = 64 << 10
"""What is read first of a larger one; it holds most footers."""


class SegmentReader:
    """One segment, of which only what is asked for is read; for one thread at a time.

    Every method raises SegmentDamaged for what cannot be decoded, ObjectMissing, and
    BucketUnavailable. Besides the end of the segment, or all of a small one, only what was fetched
    of the row group at work is held.
    """

    def __init__(self, bucket: Ranges, name: str, size_bytes: int, end: End | None = None) -> None:
        """Name the segment; nothing is read yet. ``end`` is what another reader has read of it."""
        self.name = name
        self._file = CheckedFile(bucket, name, size_bytes, end)
        self._opened: pq.ParquetFile | None = None
        self._at_work = -1
        self._known_places: tuple[int, dict[str, tuple[int, int]]] = (-1, {})

    @property
    def gets(self) -> int:
        """How many requests were made."""
        return self._file.gets

    @property
    def read_bytes(self) -> int:
        """How many bytes they have brought."""
        return self._file.read_bytes

    @property
    def _parquet(self) -> pq.ParquetFile:
        # Not a cached_property: until Python 3.12 the readers of all segments share its lock.
        if self._opened is None:
            with self.reading():
                size = self._file.size
                footer = self._file.footer(size if size <= WHOLE_BYTES else TAIL_BYTES)
                # Of one that is not held whole, Arrow would ask for more than the footer.
                is_held = self._file.is_held(0, size)
                metadata = None if is_held else pq.read_metadata(pa.BufferReader(footer))
                self._opened = open_segment(self._file, metadata)
        return self._opened

    @property
    def end(self) -> End | None:
        """What it ends with, for another reader of it; None before it was opened."""
        return self._file.end

    @property
    def is_held(self) -> bool:
        """Whether all of it was read at once, since it is small."""
        return self._file.is_held(0, self._file.size)

    @property
    def footer(self) -> Any:
        """What Parquet's footer says; its statistics are to be taken within ``reading``."""
        return self._parquet.metadata

    @property
    def numbers(self) -> range:
        """The numbers of its row groups."""
        return range(self._parquet.num_row_groups)

    def token_filter(self) -> TokenFilter:
        """Return the filter, which is read as it is asked."""
        return TokenFilter(self.footer.metadata, self._parquet.num_row_groups, self._range)

    def begin(self, number: int) -> None:
        """Go on to a row group; a small one is fetched whole."""
        start, end = self.place(number)
        self._turn_to(number)
        if end - start <= WHOLE_BYTES:
            with self.reading():
                self._file.fetch([(start, end)])

    def columns(self, number: int, names: Sequence[str]) -> pa.Table:
        """Return columns of a row group, all rows."""
        places = self._places(number)
        self._turn_to(number)
        with self.reading():
            self._file.fetch(places[name] for name in names)
            return self._parquet.read_row_group(number, columns=names, use_threads=False)

    def _turn_to(self, number: int) -> None:
        """Let go of what was fetched of other row groups, or of the filter."""
        if number != self._at_work:
            self._file.forget()
        self._at_work = number

    def row_groups(self, numbers: Sequence[int] | None = None) -> Iterator[pa.Table]:
        """Yield row groups decoded, all or these ascending ones; neighbours by one request."""
        numbers = self.numbers if numbers is None else numbers
        fetched = -1
        for at, number in enumerate(numbers):
            if number > fetched:
                fetched = self._fetch(numbers[at:])
            with self.reading():
                rows = self._parquet.read_row_group(number, use_threads=False)
            yield rows

    def _fetch(self, numbers: Sequence[int]) -> int:
        """Fetch the first of the row groups and as many behind it as go along; return the last."""
        last = numbers[0]
        start, end = self.place(last)
        for number in numbers[1:]:
            behind = self.place(number)[1]
            if number != last + 1 or behind - start > _AT_ONCE_BYTES:
                break
            last, end = number, behind
        self._turn_to(last)
        with self.reading():
            self._file.fetch([(start, end)])
        return last

    def place(self, number: int) -> tuple[int, int]:
        """Return where the first column of a row group starts, and where the last one ends."""
        places = self._places(number).values()
        return min(start for start, _ in places), max(end for _, end in places)

    def _places(self, number: int) -> dict[str, tuple[int, int]]:
        """Return where each column of a row group stands: ``[start, end)``."""
        if self._known_places[0] != number:
            group = self.footer.row_group(number)
            places = {}
            for column in map(group.column, range(group.num_columns)):
                # Arrow takes 0 for an offset that is not set.
                start = column.dictionary_page_offset or column.data_page_offset
                places[column.path_in_schema] = (start, start + column.total_compressed_size)
            self._known_places = number, places
        return self._known_places[1]

    def _range(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, fewer where the segment ends before it."""
        self._file.seek(min(offset, self._file.size))
        with self.reading():
            return self._file.read(length)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Name the segment in whatever goes wrong while its content is looked at."""
        try:
            yield
        except BucketError as error:
            if error.retriable or isinstance(error, ObjectMissing):
                raise
            raise SegmentDamaged(f"segment {self.name} cannot be read: {error}") from error
        except (pa.ArrowException, OSError, LookupError, ValueError) as error:
            raise SegmentDamaged(f"segment {self.name} is damaged: {error}") from error
