"""All gaps of a ledger as columns, so that a question finds at once those that touch it.

Gaps and the totals of the streams go in; out come places in the list of gaps, the latest found
first.
"""

from collections.abc import Iterable, Set

import numpy as np
import numpy.typing as npt

from indexer.ledger.totals import StreamTotals
from indexer.query.scope import Scope
from query_api.completeness.gaps import Gap

Found = npt.NDArray[np.intp]
_EVER = np.iinfo(np.int64)
_NO_ROW = -1


class GapColumns:
    """The gaps of one ledger, the latest found first; ``rows`` are those of their streams.

    A gap that is of no file has none.
    """

    def __init__(self, gaps: Iterable[Gap], totals: StreamTotals) -> None:
        """Take the gaps of a ledger with these totals; neither may be changed afterwards."""
        self.gaps = sorted(gaps, key=lambda gap: (-gap.found_ns, gap.id))
        self._totals = totals
        self._harms = np.array([gap.harms for gap in self.gaps], np.bool_)
        self._from = np.array([_bound(gap.from_ns, _EVER.min) for gap in self.gaps], np.int64)
        self._to = np.array([_bound(gap.to_ns, _EVER.max) for gap in self.gaps], np.int64)
        self.rows = np.array([self._row(gap) for gap in self.gaps], np.intp)

    def _row(self, gap: Gap) -> int:
        place = None if gap.file is None else (gap.file.node, gap.file.stream)
        row = None if place is None else self._totals.find(place)
        return _NO_ROW if row is None else row

    def harmful(self, scope: Scope, nodes: Set[str]) -> Found:
        """Return the places of those that make an answer of this scope incomplete."""
        found = np.flatnonzero(
            self._harms & (self._from < scope.to_ns) & (self._to >= scope.from_ns)
        )
        if not len(found):
            return found
        rows = self.rows[found]
        is_file = rows != _NO_ROW
        touches = np.ones(len(found), np.bool_)
        if scope.equals:
            touches[is_file] = self._totals.select(scope.equals)[rows[is_file]]
        for at in np.flatnonzero(~is_file):
            touches[at] = self.gaps[found[at]].touches(scope, nodes)
        return found[touches]

    def streams(self, found: Found) -> tuple[npt.NDArray[np.intp], list[Gap]]:
        """Return the rows of the streams of some gaps, and those gaps that are of no file."""
        rows = self.rows[found]
        others = [self.gaps[at] for at in found[rows == _NO_ROW]]
        return np.unique(rows[rows != _NO_ROW]), others


def _bound(ns: int | None, unknown: int) -> int:
    return unknown if ns is None else ns
