"""The gaps of one file, whatever was reported of it and whatever has come since."""

from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.ledger.entries import LOST_ROTATED, Covered, Entries, FileEntry, Lost
from indexer.ledger.intervals import united
from indexer.ledger.ledger import Ledger
from query_api.completeness.gaps import LOST, UNKNOWN, find_gaps

FILE = bytes(16)


@st.composite
def intervals(draw: st.DrawFn, least: int) -> list[tuple[int, int]]:
    starts = draw(st.lists(st.integers(0, 20), max_size=4))
    return [(start, start + draw(st.integers(least, 6))) for start in starts]


def entry(covered: list[tuple[int, int]], lost: list[Lost], *, sealed: bool) -> FileEntry:
    parts = [Covered(start, end, 1, 2) for start, end in united(covered)]
    size = max([end for _, end in covered] + [each.end for each in lost], default=0)
    return FileEntry(
        file_id=FILE, epoch=0, partition=0, node="n", namespace="s", pod="p", pod_uid="u",
        container="c", restart=0, covered=parts, lost=lost, size=size, sealed=sealed,
    )  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(intervals(1), intervals(0), st.lists(st.booleans(), min_size=4), st.booleans())
def test_each_lost_byte_is_in_one_gap_and_an_open_end_is_told_once(
    covered: list[tuple[int, int]], reports: list[tuple[int, int]], exact: list[bool], sealed: bool
) -> None:
    lost = [
        Lost(LOST_ROTATED, start, end, is_exact, 1, 2, "x", "y", 3)
        for (start, end), is_exact in zip(reports, exact, strict=False)
    ]
    file = entry(covered, lost, sealed=sealed)
    gaps = list(find_gaps(Ledger(files=Entries({(FILE, 0): file}))))
    assert len({gap.id for gap in gaps if gap.harms}) == len([gap for gap in gaps if gap.harms])
    there = {byte for start, end in covered for byte in range(start, end)}
    known_end = max([end for _, end in covered] + [each.end for each in lost], default=0)
    named = {
        byte
        for each in lost
        for byte in range(each.start, each.end if each.end_exact else known_end)
    }
    found = [
        byte for gap in gaps if gap.state == LOST for byte in range(gap.start or 0, gap.end or 0)
    ]
    assert sorted(found) == sorted(named - there)
    is_open = [gap for gap in gaps if gap.harms and not gap.end_exact]
    assert len(is_open) == (not sealed and any(not each.end_exact for each in lost))
    assert all(gap.end == known_end for gap in is_open)
    assert all(gap.start == gap.end for gap in gaps if gap.state == UNKNOWN)
