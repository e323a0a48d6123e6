"""A Parquet object read by ranges, each checked before anybody decodes it.

A Parquet file goes in and comes out with the CRC-32 of each of its blocks before the footer; a
name that holds the CRC-32 of these and the footer vouches for the rest. Whatever is read of an
object with such a name is what was written, or an ObjectDamaged: decoders in C++ may end the
process over damaged bytes, or make other rows of them.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from collector.checksum import crc32
from indexer.errors import ObjectDamaged
from indexer.object_names import named_crc, named_end_crc, new_name
from indexer.store.bucket import Ranges

BLOCK_BYTES = 16 << 10
"""What one checksum is of; a range is read from where its first block starts to its last one's end.
"""

_SUM_BYTES = 4
_END_BYTES = 8  # behind the footer: its length, and "PAR1"
_TOGETHER_BYTES = 64 << 10  # a gap between two ranges that costs less than another request


@dataclass(frozen=True, slots=True)
class End:
    """What an object ends with, once it was compared: its checksums, if it has some, and footer.

    Whoever has it reads any part of the object without asking for the end again.
    """

    at: int  # where it begins
    data: bytes
    footer_bytes: int  # with what stands behind it
    is_checked: bool  # whether it begins with checksums

    @property
    def footer(self) -> bytes:
        """The footer and what stands behind it."""
        return self.data[-self.footer_bytes :]


def add_checksums(file: io.BytesIO) -> None:
    """Put the checksums of all blocks before the footer of a Parquet file, in its place."""
    with file.getbuffer() as data:
        start = len(data) - _footer_bytes(data)
        sums = [
            crc32(data[at : min(at + BLOCK_BYTES, start)]) for at in range(0, start, BLOCK_BYTES)
        ]
        footer = bytes(data[start:])
    file.seek(start)
    file.write(b"".join(each.to_bytes(_SUM_BYTES, "little") for each in sums))
    file.write(footer)


def checked_name(folder: str, data: bytes) -> str:
    """Return a new name below ``folder`` for a file that has its checksums."""
    end = _checksums_start(len(data), _footer_bytes(data))
    return new_name(folder, data, memoryview(data)[end:])


def _footer_bytes(data: bytes | memoryview) -> int:
    """Return how long the footer is, with what stands behind it."""
    return int.from_bytes(data[-_END_BYTES:-4], "little") + _END_BYTES


def _checksums_start(size: int, footer_bytes: int) -> int:
    """Return where the checksums start: each block has one."""
    before = size - footer_bytes
    return before - _SUM_BYTES * -(-before // (BLOCK_BYTES + _SUM_BYTES))


class CheckedFile(io.RawIOBase):
    """An object of ``size`` bytes as a file for Arrow; what was fetched of it is held.

    One whose name holds no checksum is read as it is. Raises ObjectDamaged, and what a bucket does.
    """

    def __init__(self, bucket: Ranges, name: str, size: int, end: End | None = None) -> None:
        """Name the object; nothing is read yet. ``end`` is what another one has read of it."""
        self._bucket = bucket
        self._name = name
        self._at = 0
        self._kept: list[tuple[int, bytes]] = []  # until the end
        self._fetched: list[tuple[int, bytes]] = []
        self._sums: bytes | None = None  # of the blocks; None: nothing can be checked
        self._blocks_end = 0
        self.size = size
        self.gets = 0
        self.read_bytes = 0
        self.end = end
        """What it ends with, once that is known."""
        if end is not None:
            self._kept.append((end.at, end.data))
            if end.is_checked:
                self._sums, self._blocks_end = end.data[: -end.footer_bytes], end.at

    def footer(self, first_bytes: int) -> bytes:
        """Return the end of the object from where the footer starts; it is held until the end.

        ``first_bytes``, eight or more, are read at first, and more where these do not hold all of
        it. Of what is damaged before the footer nothing is said before it is asked for.
        """
        if self.end is not None:
            return self.end.footer
        size = self.size
        at = max(0, size - first_bytes)
        data = self._get(at, size)
        footer_bytes = _footer_bytes(data)
        whole_crc, end_crc = named_crc(self._name), named_end_crc(self._name)
        if footer_bytes > size:
            raise self._damaged(f"a footer of {footer_bytes} bytes in {size}")
        end = size - footer_bytes
        if end_crc is not None:
            end = max(0, _checksums_start(size, footer_bytes))
        if end < at:
            at, data = end, self._get(end, at) + data
        if at > 0 or whole_crc is None or crc32(data) != whole_crc:
            if end_crc is not None:
                at, data = self._vouched_for(at, data, end, size - footer_bytes, end_crc)
            elif at == 0 and whole_crc is not None:
                self._expect(data, whole_crc, 0)
        self._kept.append((at, data))
        begins = size - footer_bytes if end_crc is None else end
        self.end = End(begins, data[begins - at :], footer_bytes, end_crc is not None)
        return self.end.footer

    def _vouched_for(
        self, at: int, data: bytes, end: int, footer: int, end_crc: int
    ) -> tuple[int, bytes]:
        """Take the checksums that begin at ``end``; return the part of ``data`` that is sound."""
        self._expect(memoryview(data)[end - at :], end_crc, end)
        self._sums, self._blocks_end = data[end - at : footer - at], end
        begins = min(-(-at // BLOCK_BYTES) * BLOCK_BYTES, end)
        try:
            self._check(begins, memoryview(data)[begins - at : end - at])
        except ObjectDamaged:  # of which perhaps nobody asks for anything
            begins = end
        return begins, data[begins - at :]

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Read ``[start, end)`` ranges that are not held yet, near ones by one request."""
        wanted = [each for each in sorted(ranges) if self._held(*each) is None]
        for start, end in _together(wanted):
            self._fetched.append(self._checked(start, end))

    def is_held(self, start: int, end: int) -> bool:
        """Return whether a range can be read without a request."""
        return self._held(start, end) is not None

    def forget(self) -> None:
        """Let go of what was fetched."""
        self._fetched.clear()

    def _checked(self, start: int, end: int) -> tuple[int, bytes]:
        """Return where what was read of a range begins, and its bytes."""
        if self._sums is None:
            return start, self._get(start, end)
        start -= start % BLOCK_BYTES
        blocks_end = min(-(-end // BLOCK_BYTES) * BLOCK_BYTES, self._blocks_end)
        data = self._get(start, blocks_end)
        self._check(start, memoryview(data))
        if end > blocks_end:  # what stands behind the blocks is held
            data += self._held(blocks_end, end) or b""
        return start, data

    def _check(self, start: int, data: memoryview) -> None:
        """Raise ObjectDamaged unless these whole blocks are what was written."""
        sums = self._sums or b""
        for at in range(0, len(data), BLOCK_BYTES):
            place = (start + at) // BLOCK_BYTES * _SUM_BYTES
            crc = int.from_bytes(sums[place : place + _SUM_BYTES], "little")
            self._expect(data[at : at + BLOCK_BYTES], crc, start + at)

    def _expect(self, data: bytes | memoryview, crc: int, start: int) -> None:
        if (found := crc32(data)) != crc:
            where = f"bytes {start} to {start + len(data)}"
            raise self._damaged(f"{where} have CRC-32 {found:08x}, {crc:08x} was written")

    def _damaged(self, how: str) -> ObjectDamaged:
        return ObjectDamaged(f"object {self._name} is damaged: {how}")

    def _get(self, start: int, end: int) -> bytes:
        data = self._bucket.get_range(self._name, start, end - start)
        self.gets += 1
        self.read_bytes += end - start
        return data

    def _held(self, start: int, end: int) -> bytes | None:
        for at, data in (*self._kept, *self._fetched):
            if at <= start and end <= at + len(data):
                return data[start - at : end - at]
        return None

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, from what is held if it has them."""
        left = max(0, self.size - self._at)
        start, end = self._at, self._at + (left if size is None or size < 0 else min(size, left))
        self._at = end
        if (held := self._held(start, end)) is not None:
            return held
        self.fetch([(start, end)])
        return self._held(start, end) or b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the place of the next read."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
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


def _together(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield ranges in order, those that are near each other as one."""
    pending: tuple[int, int] | None = None
    for start, end in ranges:
        if pending is not None and start - pending[1] <= _TOGETHER_BYTES:
            pending = pending[0], max(pending[1], end)
            continue
        if pending is not None:
            yield pending
        pending = start, end
    if pending is not None:
        yield pending
