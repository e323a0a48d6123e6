"""The scrubber: reads committed objects again, and names those that storage has damaged or lost.

Members of a snapshot go in, in an order of their own that a new keeper goes on with; out comes what
is wrong with each. What was found is stored beside the table until the object is sound again or
gone, so that a damaged one is told once and known for as long as it matters.
"""

import bisect
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from collector.checksum import crc32
from indexer.errors import CoverageError, ObjectMissing
from indexer.object_names import logs_folder, named_crc, scrub_folder, scrub_name
from indexer.store.bucket import Bucket
from indexer.table.coverage import from_object
from indexer.table.damage import Damage, Round, read_round
from indexer.table.table import Live
from indexer.times import HOUR_NS

_log = logging.getLogger(__name__)
_PIECE_BYTES = 8 << 20
# What was not read while a keeper was down or busy is not made up for by one long turn.
_SAVED_S = 120


@dataclass(frozen=True, slots=True)
class Checked:
    """An object that was read again; ``fault`` is empty if it is what was committed."""

    name: str
    read_bytes: int
    fault: str


def scrub(bucket: Bucket, folder: str, objects: Iterable[Live]) -> Iterator[Checked]:
    """Read each object below ``folder`` and yield how it is.

    Size and CRC-32 are compared with the table's log and the object's name; what has no CRC in its
    name must decode, which does not show every flipped bit. Objects are those of a snapshot younger
    than the age of vacuum. Raises BucketError if the bucket does not answer: that says nothing
    about an object.
    """
    for each in objects:
        read_bytes, fault = _examine(bucket, folder + each.name, each)
        yield Checked(each.name, read_bytes, fault)


def _examine(bucket: Bucket, name: str, each: Live) -> tuple[int, str]:
    try:
        size = bucket.size(name)
        if size != each.size:
            return 0, f"has {size} bytes, {each.size} were committed"
        named = named_crc(name)
        if named is None:
            return size, _undecodable(bucket.get(name), is_coverage=each.is_coverage)
        crc = 0
        for start in range(0, size, _PIECE_BYTES):
            crc = crc32(bucket.get_range(name, start, min(_PIECE_BYTES, size - start)), crc)
    except ObjectMissing:
        return 0, "is missing"
    if crc != named:
        return size, f"has CRC-32 {crc:08x}, {named:08x} was committed"
    return size, ""


def _undecodable(data: bytes, *, is_coverage: bool) -> str:
    """Return why an object cannot be decoded; empty if it can."""
    try:
        if is_coverage:
            from_object(data)
        else:
            file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
            for number in range(file.num_row_groups):
                file.read_row_group(number)
    except (pa.ArrowException, OSError, CoverageError) as error:
        return f"cannot be decoded: {' '.join(str(error).split())[:200]}"
    return ""


class Scrubber:
    """Rounds over all objects of one table, at so many bytes a second."""

    def __init__(
        self,
        bucket: Bucket,
        cluster: str,
        bytes_per_s: int,
        round_hours: int,
        clock: Callable[[], int],
    ) -> None:
        """Read nothing yet; a round begins ``round_hours`` after the one before has begun."""
        self._bucket = bucket
        self._table_folder = logs_folder(cluster)
        self._folder = scrub_folder(cluster)
        self._bytes_per_s = bytes_per_s
        self._round_ns = round_hours * HOUR_NS
        self._clock = clock
        self._allowed_bytes = 0.0  # below zero after a large object: the next one waits for it
        self._allowed_ns = 0
        self._stored = ""
        self.round = Round()

    def turn(self, objects: Sequence[Live]) -> Generator[tuple[int, int, Checked]]:
        """Check the next objects of a snapshot; yield how many are done, of how many, and each.

        Ends where the bytes that this time allows are read, or with the round.
        """
        if not self._stored:
            self._take()
        now_ns = self._clock()
        self._allow(now_ns)
        if self._allowed_bytes <= 0:
            return
        if not self.round.began_ns:
            if self.round.complete_ns and now_ns < self.round.complete_ns + self._round_ns:
                return
            self.round.began_ns, self.round.after = now_ns, ""
        # The names start with random digits, so new objects fall anywhere in a round.
        ordered = sorted(objects, key=lambda each: _place(each.name))
        places = [_place(each.name) for each in ordered]
        present = {each.name for each in ordered}
        for name in self.round.damaged.keys() - present:
            del self.round.damaged[name]
        at = bisect.bisect_right(places, self.round.after)
        try:
            for checked in scrub(self._bucket, self._table_folder, ordered[at:]):
                self._note(checked, now_ns)
                at += 1
                yield at, len(ordered), checked
                if self._allowed_bytes <= 0:
                    break
            if at == len(ordered):
                self.round.complete_ns, self.round.began_ns = self.round.began_ns, 0
        finally:
            self._store(now_ns)

    def _allow(self, now_ns: int) -> None:
        since_s = (now_ns - self._allowed_ns) / 1e9 if self._allowed_ns else 1.0
        self._allowed_ns = now_ns
        self._allowed_bytes += max(0.0, min(since_s, _SAVED_S)) * self._bytes_per_s
        self._allowed_bytes = min(self._allowed_bytes, _SAVED_S * self._bytes_per_s)

    def _note(self, checked: Checked, now_ns: int) -> None:
        self._allowed_bytes -= checked.read_bytes
        self.round.after = _place(checked.name)
        known = self.round.damaged.pop(checked.name, None)
        if checked.fault:
            if known is None:
                what = {"object": checked.name, "fault": checked.fault}
                _log.error("an object of the table is damaged", extra=what)
            found_ns = now_ns if known is None else known.found_ns
            self.round.damaged[checked.name] = Damage(checked.fault, found_ns)

    def _take(self) -> None:
        """Go on where the last keeper has stored that it was."""
        names = sorted(self._bucket.names(self._folder))
        for name in names[:-1]:  # a keeper has ended before it could
            self._bucket.delete(name)
        if names:
            self._stored = names[-1]
            self.round = read_round(self._bucket, self._stored)

    def _store(self, now_ns: int) -> None:
        """Store under a new name, then delete the old: no object is ever overwritten."""
        name = scrub_name(self._folder, now_ns)
        if name != self._stored:
            self._bucket.put(name, msgspec.json.encode(self.round))
            if self._stored:
                self._bucket.delete(self._stored)
            self._stored = name


def _place(name: str) -> str:
    return name.rpartition("/")[2]
