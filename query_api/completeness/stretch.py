"""A stretch of one file: between which gaps a place of it lies, and what is missing around it.

An entry of the ledger and a place go in; bounds that no row between them crosses come out, with
what lies there, and the statement of completeness of the rows that were shown.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from indexer.ledger.entries import FileEntry
from indexer.ledger.losses import unaccounted
from indexer.query.scope import Scope
from indexer.times import format_optional
from query_api.completeness.gaps import Gap, gaps_of
from query_api.completeness.progress import progress_of_node
from query_api.completeness.removed import removals
from query_api.completeness.replica import Snapshot
from query_api.completeness.statement import Completeness, HeldBack, Scan, Streams, gap_view
from query_api.completeness.verdict import GAPS_SHOWN, Trouble, losses, removed_view

_BEYOND = 1 << 62  # more than any file has

Edge = Literal["file", "gap", "limit", "open"]
"""Where rows end: with the file, at a gap, at the limit that was asked for, or at what has not come
yet of a file that goes on."""


@dataclass(frozen=True, slots=True)
class Break:
    """Bytes ``[start, end)`` that are not there: a gap, or what has not come yet."""

    start: int
    end: int
    gap: Gap | None


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows that begin in ``[low, high)`` are shown, and what lies before and behind them."""

    low: int
    high: int
    before: Break | None
    behind: Break | None

    def reached(self, first: Edge, last: Edge) -> list[Break]:
        """Return what rows with these edges have met; what is on both sides is one."""
        before = [self.before] if self.before and first == "gap" else []
        behind = [self.behind] if self.behind and last == "gap" else []
        return before if self.before is self.behind else before + behind


def stretch_of(file: FileEntry, offset: int) -> Stretch:
    """Return the stretch without a gap in which a place of a file lies.

    In a gap there is none: nothing is between its bounds.
    """
    before = behind = None
    for each in sorted(_breaks(file), key=lambda each: (each.start, each.end)):
        if each.start <= offset < each.end:
            return Stretch(offset, offset, each, each)
        if each.end <= offset and each.end > each.start:
            before = each
        elif each.start >= offset and behind is None:
            behind = each
    low = before.end if before else 0
    return Stretch(low, behind.start if behind else _BEYOND, before, behind)


def _breaks(file: FileEntry) -> Iterable[Break]:
    for gap in gaps_of(file):
        if gap.harms and gap.start is not None and gap.end is not None:
            yield Break(gap.start, gap.end, gap)
    for start, end in unaccounted(file, file.covered_end):
        yield Break(start, end, None)


def begins(file: FileEntry) -> int:
    """Return where the first row of a file is to begin."""
    return file.covered[0].start if file.covered else 0


def end_of(file: FileEntry) -> Edge:
    """Return what is behind the last row of a file."""
    return "open" if file.goes_on or file.size > file.covered_end else "file"


def judge_stretch(
    snapshot: Snapshot,
    file: FileEntry,
    breaks: Iterable[Break],
    end: Edge,
    times_ns: tuple[int, int],
    cluster: str,
    trouble: Trouble,
) -> Completeness:
    """Return what may be missing of the rows of one file that were shown.

    ``breaks`` are those that were reached, ``end`` is what is behind the rows, and ``times_ns`` the
    first and the last time that rows of them can have.
    """
    names = ("namespace", "pod", "container", "node")
    equals = {name: (getattr(file, name),) for name in names}
    scope = Scope(times_ns[0], times_ns[1] + 1, equals)
    gone = removals(snapshot.ledger, scope)
    gaps = [each.gap for each in breaks if each.gap is not None]
    loss = losses(len(gaps), gone, trouble)
    doubt = [
        f"bytes {each.start} to {each.end} have not come yet" for each in breaks if each.gap is None
    ]
    if end == "open":
        doubt.append(f"lines behind byte {file.covered_end} of the file may be on their way")
    node = progress_of_node(snapshot.ledger, file.node, scope)
    is_gone = file.node in snapshot.ledger.gone
    return Completeness(
        verdict="incomplete" if loss else "unknown" if doubt else "complete",
        complete_until=format_optional(node.complete_until_ns),
        held_back_by=None
        if is_gone
        else HeldBack(node=node.node, partition=node.partition, why=node.why),
        reasons=loss + doubt,
        gaps=[gap_view(gap, cluster) for gap in gaps],
        gaps_total=len(gaps),
        removed=[removed_view(each) for each in gone[:GAPS_SHOWN]],
        removed_total=len(gone),
        streams=Streams(expected=1, covered=int(not (gaps or doubt)), unknown=int(bool(doubt))),
        scan=Scan(
            segments_failed=len(trouble.failed),
            errors=list(trouble.failed.values())[:GAPS_SHOWN],
            cut_off=trouble.cut_off,
        ),
    )
