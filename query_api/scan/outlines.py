"""What is remembered of segments: what they end with, and their token filters.

What scans have learned goes in, by names that never mean anything else; out come the segments of a
plan that may hold the tokens of a question, told apart without a request or an open file. All of it
is bounded, and what nobody has asked for longest is forgotten.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from indexer.query.needed import ANY_ROW, Groups, Needed
from indexer.segment.held_filters import HeldFilters
from indexer.store.checked_file import End
from query_api.scan.plan import Planned
from query_api.scan.segment import Scanned


class Outlines:
    """Ends and token filters of the segments of one table; may be used from any thread."""

    def __init__(self, bytes_max: int) -> None:
        """Hold nothing yet; half of the bytes are for the ends, half for the filters."""
        self._bytes_max = bytes_max // 2
        self._ends: OrderedDict[str, End] = OrderedDict()
        self._ends_bytes = 0
        self._filters = HeldFilters(bytes_max // 2)
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """How much is held."""
        return self._ends_bytes + self._filters.held_bytes

    def sift(self, planned: Sequence[Planned], tokens: Needed) -> list[Planned]:
        """Return the segments that may hold what is needed, with the row groups if known."""
        if tokens == ANY_ROW:
            return list(planned)
        asked = self._holding([each.name for each in planned], tokens)
        sifted: list[Planned] = []
        for each, held in zip(planned, asked, strict=True):
            if held is None:
                sifted.append(each)
            elif held.any():
                sifted.append(replace(each, row_groups=tuple(np.flatnonzero(held).tolist())))
        return sifted

    def _holding(self, names: Sequence[str], formula: Needed) -> list[Groups | None]:
        """Return of each segment which row groups may hold what is needed; None: not known."""
        found = self._filters.ask(names, formula.tokens)
        for choice in formula.parts:
            for at, each in enumerate(zip(*(self._holding(names, part) for part in choice.parts),
                                          strict=True)):  # fmt: skip
                held, some = found[at], [groups for groups in each if groups is not None]
                # A filter may have come, or been let go, between two questions.
                if held is not None and len(some) == len(each):
                    found[at] = held & np.logical_or.reduce(some)
        return found

    def end_of(self, name: str) -> End | None:
        """Return what a segment ends with, if that is known."""
        with self._lock:
            if (end := self._ends.get(name)) is not None:
                self._ends.move_to_end(name)
            return end

    def learn(self, name: str, scanned: Scanned) -> None:
        """Take what a scan has read of a segment."""
        if scanned.filter is not None:
            self._filters.add(name, scanned.filter)
        if (end := scanned.end) is None:
            return
        with self._lock:
            if name not in self._ends:
                self._ends_bytes += len(end.data)
                self._ends[name] = end
            while self._ends_bytes > self._bytes_max:
                _, gone = self._ends.popitem(last=False)
                self._ends_bytes -= len(gone.data)
