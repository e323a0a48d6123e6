"""Cutting off what the table has already: replays become new bytes only.

Ranges and elided stretches of one commit go in, in the order of the topic; out come the parts that
no commit covers yet. Judged by covered intervals of a file and by its running CRC, never by
content, time or equal cuts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from collector.checksum import crc32
from collector.wire.batch import Elided
from collector.wire.range import CRC_UNKNOWN, Range, open_outputs
from indexer.ledger.entries import FileEntry, FileKey
from indexer.ledger.intervals import holes, united


@dataclass(frozen=True, slots=True)
class Part:
    """New bytes of a range; the fields are those of Range, at the part's own start."""

    epoch: int
    start: int
    data: bytes
    open_before: int
    torn_before: bool
    format: str
    crc_after: int
    lines: int  # newlines, and one more if the last line is cut

    @property
    def end(self) -> int:
        """Offset of the first byte after the part."""
        return self.start + len(self.data)


@dataclass
class _Known:
    """What is covered of one file: by the table, and by what this commit holds so far."""

    covered: list[tuple[int, int]] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)


class Trimmer:
    """The trim state of one commit: the ledger's files, not changed, and what came since."""

    def __init__(self, files: Mapping[FileKey, FileEntry]) -> None:
        """``files`` are the files of the ledger as of the commit before."""
        self._files = files
        self._known: dict[FileKey, _Known] = {}
        self.epochs_raised = 0
        self.trimmed_bytes = 0

    def trim(self, whole: Range) -> list[Part]:
        """Return the parts of a range that are new, under the epoch that its bytes belong to."""
        epoch = self._epoch(whole)
        known = self._of((whole.file_id, epoch))
        self.epochs_raised += epoch != whole.epoch
        self.trimmed_bytes += _overlap(known.covered, whole.start, whole.end)
        parts = []
        for start, end in list(holes(known.covered, whole.start, whole.end)):
            parts.append(_part(whole, epoch, start, end))
            if parts[-1].crc_after != CRC_UNKNOWN:
                known.ends[end] = parts[-1].crc_after
            _add(known.covered, start, end)
        return parts

    def elide(self, entry: Elided) -> list[tuple[int, int]]:
        """Return the stretches of an elided one that nothing covers yet."""
        known = self._of((entry.file_id, entry.epoch))
        self.trimmed_bytes += _overlap(known.covered, entry.start, entry.end)
        stretches = list(holes(known.covered, entry.start, entry.end))
        for start, end in stretches:
            _add(known.covered, start, end)
        if stretches and stretches[-1][1] == entry.end:
            known.ends[entry.end] = entry.crc_after
        return stretches

    def _epoch(self, whole: Range) -> int:
        """Return the first epoch whose running CRC the range continues, else the first it may."""
        epoch, possible = whole.epoch, None
        while (known := self._of((whole.file_id, epoch))).covered:
            same = _is_same(whole, known)
            if same:
                return epoch
            if same is None and possible is None:
                possible = epoch
            epoch += 1
        return epoch if possible is None else possible

    def _of(self, key: FileKey) -> _Known:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known()
            if file := self._files.get(key):
                known.covered = [(part.start, part.end) for part in file.covered]
                known.ends = file.ends
        return known


def _is_same(whole: Range, known: _Known) -> bool | None:
    """Return whether the range is of the content that is known, by its running CRC.

    The CRC is compared where the range starts, and at the last place in it where one is known: it
    then speaks of all bytes before that place. None: no CRC is known at such a place.
    """
    at_start = None if whole.crc_before == CRC_UNKNOWN else known.ends.get(whole.start)
    if at_start is not None and at_start != whole.crc_before:
        return False
    inside = [end for end in known.ends if whole.start < end <= whole.end]
    if not inside:
        return None if at_start is None else True
    last = max(inside)
    if not whole.redacted:
        upto = memoryview(whole.data)[: last - whole.start]
        return crc32(upto, whole.crc_before) == known.ends[last]
    # The bytes on disk are not here; their CRC is known where the range ends, and nowhere before.
    if last == whole.end:
        return whole.crc_after == known.ends[last]
    return None if at_start is None else True


def _overlap(covered: list[tuple[int, int]], start: int, end: int) -> int:
    """Return how many of the bytes ``[start, end)`` are covered."""
    return sum(max(0, min(end, part[1]) - max(start, part[0])) for part in covered)


def _add(covered: list[tuple[int, int]], start: int, end: int) -> None:
    covered[:] = united([*covered, (start, end)])


def _part(whole: Range, epoch: int, start: int, end: int) -> Part:
    """Return bytes ``[start, end)`` of a range; the bytes before them tell the state there."""
    cut, stop = start - whole.start, end - whole.start
    before = whole.data[:cut]
    data = whole.data[cut:stop] if stop - cut < len(whole.data) else whole.data
    torn, state = whole.torn_before, whole.open_before
    if before:
        torn = not before.endswith(b"\n")
        head = before.find(b"\n") + 1 if whole.torn_before else 0
        if head or not whole.torn_before:
            state = open_outputs(before[head:] if head else before, state, None, whole.format)
    if not whole.redacted:
        crc_after = crc32(data, crc32(before, whole.crc_before))
    elif end < whole.end or whole.crc_after is None:
        crc_after = CRC_UNKNOWN
    else:
        crc_after = whole.crc_after
    # The collector has counted a whole range already, independently of the parser.
    lines = whole.lines if data is whole.data else data.count(b"\n")
    lines += not data.endswith(b"\n")
    return Part(epoch, start, data, state, torn, whole.format, crc_after, lines)
