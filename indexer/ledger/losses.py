"""What of one file or lane is lost: spans, reports and numbers go in, intervals come out.

Nothing here knows of any other file or lane. Bytes are lost by a report of the collector, or since
the topic has acknowledged them and the table does not have them; a number that the topic has
acknowledged and that is not there is lost, and one that is missing otherwise may still come.
"""

from collections.abc import Iterator

from collector.wire.batch import Gap
from collector.wire.range import CRC_UNKNOWN
from indexer.ledger.entries import (
    LOST_ROTATED,
    LOST_TOPIC,
    Covered,
    FileEntry,
    LaneEntry,
    LaneHole,
    Lost,
    missing,
)
from indexer.ledger.intervals import holes
from indexer.table.coverage import Note, Span


def cover(file: FileEntry, span: Span) -> int:
    """Add a span to the covered bytes; return how many of them are new."""
    new = Covered(span.start, span.end, span.first_ns, span.last_ns, span.parser_state)
    new_bytes = span.end - span.start
    rest: list[Covered] = []
    for old in file.covered:
        if old.end < new.start or old.start > new.end:
            rest.append(old)
            continue
        new_bytes -= max(0, min(old.end, span.end) - max(old.start, span.start))
        new = Covered(
            min(old.start, new.start),
            max(old.end, new.end),
            min(old.first_ns or new.first_ns, new.first_ns or old.first_ns),
            max(old.last_ns, new.last_ns),
            (old if old.end >= new.end else new).parser_state,
        )
    file.covered = sorted([*rest, new], key=lambda part: part.start) if rest else [new]
    if span.crc_after != CRC_UNKNOWN:
        file.add_end(span.end, span.crc_after)
    file.lines += span.lines
    file.rows += span.rows
    if span.rule:
        file.elided += span.end - span.start
    file.size = max(file.size, span.end)
    return new_bytes


def is_accounted(file: FileEntry, end: int) -> bool:
    """Return whether all of ``[0, end)`` is covered or known to be lost."""
    covered = file.covered
    if covered and covered[0].start == 0 and covered[0].end >= end:
        return True  # as most are
    return next(unaccounted(file, end), None) is None


def unaccounted(file: FileEntry, end: int) -> Iterator[tuple[int, int]]:
    """Yield the holes of ``[0, end)`` that are not known to be lost either."""
    known = sorted((lost.start, lost.end if lost.end_exact else end) for lost in file.lost)
    for start, stop in missing(file, end):
        yield from holes(known, start, stop)


def known_since(file: FileEntry) -> int:
    """Return when the file was first seen. Its OPEN may be lost with a run that kept the rest."""
    reports = (lost.to_ns or 0 for lost in file.lost)
    return file.seen_ns or file.first_ns or max(reports, default=0)


def is_over(file: FileEntry) -> bool:
    return any(not lost.end_exact for lost in file.lost)


def lose_missing(file: FileEntry, end: int, proof: str, now_ns: int) -> None:
    """What the topic has acknowledged and the table does not cover by now is lost."""
    if is_accounted(file, end):
        return
    for start, stop in list(unaccounted(file, end)):
        before = [part.last_ns for part in file.covered if part.end <= start]
        after = [part.first_ns for part in file.covered if part.start >= stop]
        file.lost.append(
            Lost(
                type=LOST_TOPIC,
                start=start,
                end=stop,
                end_exact=True,
                from_ns=max(before, default=0) or None,
                to_ns=min((t for t in after if t), default=0) or None,
                reason="acknowledged by the topic, and not in it",
                proof=proof,
                found_ns=now_ns,
            )
        )


def lose_rest(
    file: FileEntry, kind: str, reason: str, proof: str, until_ns: int, now_ns: int
) -> None:
    """What has not come of a file was never said to be acknowledged, and will not come any more."""
    file.lost.append(
        Lost(
            type=kind,
            start=file.covered_end,
            end=max(file.size, file.covered_end),
            end_exact=False,
            from_ns=file.last_ns or None,
            to_ns=until_ns,
            reason=reason,
            proof=proof,
            found_ns=now_ns,
        )
    )


def lose_reported(file: FileEntry, gap: Gap, note: Note, now_ns: int) -> None:
    if any(lost.start == gap.start and lost.reason == gap.reason for lost in file.lost):
        return  # the same entry, sent by a run that was killed before it could note that
    # The line before the gap bounds it from below; the collector's last scan may be later.
    before_ns = max((part.last_ns for part in file.covered if part.end <= gap.start), default=0)
    file.lost.append(
        Lost(
            type=LOST_ROTATED,
            start=gap.start,
            end=gap.end,
            end_exact=gap.end_exact,
            from_ns=before_ns or gap.from_ns,
            to_ns=gap.to_ns,
            reason=gap.reason,
            proof=f"gap in batch {note.sequence} of run {note.run.hex()}",
            found_ns=now_ns,
        )
    )
    file.size = max(file.size, gap.end)


# -- lanes ------------------------------------------------------------------------------------


def _unseen(lane: LaneEntry, end: int) -> Iterator[tuple[int, int, int | None, int | None]]:
    """Yield runs of numbers below ``end`` that did not come, and what bounds them in time."""
    at, before = 0, None
    for part in lane.seen:
        if at < min(part.first, end):
            yield at, min(part.first, end) - 1, before, part.first_created_ns
        at, before = part.last + 1, part.last_created_ns
    if at < end:
        yield at, end - 1, before, None


def _is_seen(lane: LaneEntry, end: int) -> bool:
    """Return whether all numbers below ``end`` came without a hole, as most do."""
    return bool(lane.seen) and lane.seen[0].first == 0 and lane.seen[0].last >= end - 1


def prove_holes(lane: LaneEntry, proof: str, now_ns: int) -> bool:
    """Note what is lost of the numbers that the topic has acknowledged; return whether any is."""
    if _is_seen(lane, lane.oldest_unacked):
        return False
    known, before = _known_holes(lane), len(lane.holes)
    for first, last, from_ns, to_ns in _unseen(lane, lane.oldest_unacked):
        for start, end in holes(known, first, last + 1):
            lane.holes.append(LaneHole(start, end - 1, from_ns, to_ns, proof, now_ns))
    return len(lane.holes) > before


def hole_before(lane: LaneEntry, sequence: int) -> str:
    """Return which number is neither here nor known to be lost; empty if there is none."""
    if _is_seen(lane, sequence):
        return ""
    known = _known_holes(lane)
    for first, last, _, _ in _unseen(lane, sequence):
        for start, _ in holes(known, first, last + 1):
            return f"batch {start} of run {lane.run.hex()} has not come"
    return ""


def _known_holes(lane: LaneEntry) -> list[tuple[int, int]]:
    return sorted((hole.first, hole.last + 1) for hole in lane.holes)
