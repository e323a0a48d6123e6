"""What a segment's footer says of its rows: which namespaces each row group has, and how many rows.

A segment in a bucket goes in; its footer is read by range, and of row groups with several
namespaces that one column. What is counted must be what the table's log says of the segment, so
that nothing is removed by a footer that storage has damaged.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from indexer.errors import BucketError, ObjectMissing, SegmentDamaged
from indexer.schema import SEGMENT_SCHEMA, open_segment
from indexer.segment.ranged_file import RangedFile, column_places
from indexer.store.bucket import Bucket
from indexer.table.table import Live

_NAMESPACE = SEGMENT_SCHEMA.names.index("namespace")


class _FetchedFile(RangedFile):
    """A segment of which the bytes that were fetched last are held."""

    _held = (0, b"")

    def fetch(self, start: int, end: int) -> None:
        """Hold bytes ``[start, end)`` for the reads to come, instead of those fetched before."""
        self._held = start, super().part(start, end)

    def part(self, start: int, end: int) -> bytes:
        """Return bytes ``[start, end)``, from what is held if it has them."""
        at, data = self._held
        if at <= start and end <= at + len(data):
            return data[start - at : end - at]
        return super().part(start, end)


class SegmentFile:
    """One segment, of which only what is asked for is read.

    Raises SegmentDamaged for what cannot be decoded or is not what was committed, ObjectMissing,
    and BucketUnavailable.
    """

    def __init__(self, bucket: Bucket, folder: str, segment: Live) -> None:
        """Read the footer."""
        self._segment = segment
        self._file = _FetchedFile(bucket, folder + segment.name, segment.size)
        with self._reading():
            self._parquet = open_segment(self._file)

    def namespaces(self) -> list[Counter[str]]:
        """Return for each row group how many rows it has of which namespaces."""
        with self._reading():
            groups = [self._group(number) for number in range(self._parquet.num_row_groups)]
        found = sum(groups, Counter())
        rows, known = self._parquet.metadata.num_rows, self._segment
        if found.total() != rows or known.rows not in (None, rows):
            raise SegmentDamaged(
                f"segment {known.name} has {found.total()} rows, by its footer {rows}, and "
                f"{known.rows} were committed"
            )
        bounds = min(found, default=""), max(found, default="")
        if known.stats.get("namespace", bounds) != bounds:
            raise SegmentDamaged(f"segment {known.name} has other namespaces than were committed")
        return groups

    def _group(self, number: int) -> Counter[str]:
        group = self._parquet.metadata.row_group(number)
        stats = group.column(_NAMESPACE).statistics
        if stats is not None and stats.has_min_max and stats.min == stats.max:
            return Counter({stats.min: group.num_rows})
        rows = self._parquet.read_row_group(number, columns=["namespace"], use_threads=False)
        counts = pc.value_counts(rows.column("namespace").combine_chunks()).to_pylist()
        return Counter({each["values"]: each["counts"] for each in counts})

    def row_groups(self, numbers: Sequence[int]) -> Iterator[pa.Table]:
        """Yield these row groups, ascending, decoded; neighbours come by one request."""
        for at, number in enumerate(numbers):
            with self._reading():
                if at == 0 or numbers[at - 1] != number - 1:
                    self._fetch(number, numbers[at:])
                rows = self._parquet.read_row_group(number, use_threads=False)
            yield rows

    def _fetch(self, first: int, numbers: Sequence[int]) -> None:
        """Fetch a row group and those of ``numbers`` that follow it without another in between."""
        last = max(n for at, n in enumerate(numbers) if n == first + at)
        self._file.fetch(self._bounds(first)[0], self._bounds(last)[1])

    def _bounds(self, number: int) -> tuple[int, int]:
        """Return where the first column of a row group starts, and where the last one ends."""
        places = column_places(self._parquet.metadata.row_group(number)).values()
        return min(start for start, _ in places), max(end for _, end in places)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except BucketError as error:
            if error.retriable or isinstance(error, ObjectMissing):
                raise
            raise SegmentDamaged(f"segment {self._segment.name} cannot be read: {error}") from error
        except (pa.ArrowException, OSError) as error:
            raise SegmentDamaged(f"segment {self._segment.name} is damaged: {error}") from error
