"""The numbers of one lane: which have not come, and which of those are proved to be lost.

A number that the topic acknowledged and that is not there is lost; one that is missing otherwise
may still come.
"""

from collections.abc import Iterator

from indexer.ledger.entries import LaneEntry, LaneHole
from indexer.ledger.intervals import holes


def _unseen(lane: LaneEntry, end: int) -> Iterator[tuple[int, int, int | None, int | None]]:
    """Yield runs of numbers below ``end`` that did not come, and what bounds them in time."""
    at, before = 0, None
    for part in lane.seen:
        if at < min(part.first, end):
            yield at, min(part.first, end) - 1, before, part.first_created_ns
        at, before = part.last + 1, part.last_created_ns
    if at < end:
        yield at, end - 1, before, None


def prove_holes(lane: LaneEntry, proof: str, now_ns: int) -> bool:
    """Note what is lost of the numbers that the topic has acknowledged; return whether any is."""
    known, before = _known_holes(lane), len(lane.holes)
    for first, last, from_ns, to_ns in _unseen(lane, lane.oldest_unacked):
        for start, end in holes(known, first, last + 1):
            lane.holes.append(LaneHole(start, end - 1, from_ns, to_ns, proof, now_ns))
    return len(lane.holes) > before


def hole_before(lane: LaneEntry, sequence: int) -> str:
    """Return which number is neither here nor known to be lost; empty if there is none."""
    known = _known_holes(lane)
    for first, last, _, _ in _unseen(lane, sequence):
        for start, _ in holes(known, first, last + 1):
            return f"batch {start} of run {lane.run.hex()} has not come"
    return ""


def _known_holes(lane: LaneEntry) -> list[tuple[int, int]]:
    return sorted((hole.first, hole.last + 1) for hole in lane.holes)
