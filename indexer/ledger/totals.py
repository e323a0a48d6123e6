"""What each stream has on each node, over all of its files: a row of numbers, kept up by the fold.

News of files go in; out come columns that a question is answered from, however many files there
ever were. A branch shares them with its origin until it is the first to change one.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import numpy.typing as npt

from collector.wire.range import Stream

Mask = npt.NDArray[np.bool_]
Place = tuple[str, Stream]
"""A node, and a stream on it."""

NAMES = ("node", "namespace", "pod", "container")
FIRST, LAST, ROWS, BYTES, FILES, OPEN = range(6)
"""Columns of the numbers: times of the first and the last line in ns (0: of none yet), rows,
covered bytes, files that there ever were, and those of them that may go on."""


class StreamEntry(msgspec.Struct, frozen=True):
    """One stream on one node, as it is stored."""

    node: str
    namespace: str
    pod: str
    pod_uid: str
    container: str
    restart: int
    numbers: list[int]


@dataclass(slots=True, eq=False)
class StreamTotals:
    """Of each place its numbers; row n of all columns is of ``places[n]``."""

    places: list[Place] = field(default_factory=list)
    _rows: dict[Place, int] = field(default_factory=dict)
    _codes: dict[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in NAMES})
    _names: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((64, 4), np.int32))
    _numbers: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((64, 6), np.int64))
    _shares_names: bool = False  # with an origin or a branch, and so do the places
    _shares_numbers: bool = False

    def __len__(self) -> int:
        """Return how many places there are."""
        return len(self.places)

    def __eq__(self, other: object) -> bool:
        """Return whether both have the same of the same places, in whatever order."""
        return isinstance(other, StreamTotals) and self._plain() == other._plain()

    __hash__ = None  # type: ignore[assignment]

    def _plain(self) -> dict[Place, list[int]]:
        return dict(zip(self.places, self.numbers.tolist(), strict=True))

    def branch(self) -> "StreamTotals":
        """Return totals that can be changed while these stay as they are."""
        self._shares_names = self._shares_numbers = True
        return replace(self)

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """The numbers, a row for each place and a column for each of the six; not to be changed."""
        return self._numbers[: len(self.places)]

    def names(self, column: str) -> Mapping[str, int]:
        """Return every name that one of NAMES has had, and its code."""
        return self._codes[column]

    def names_of(self, column: str, chosen: Mask) -> list[str]:
        """Return the names that one of NAMES has in some rows."""
        codes = np.unique(self._names[: len(self.places), NAMES.index(column)][chosen])
        names = list(self._codes[column])
        return [names[code] for code in codes.tolist()]

    @property
    def nodes(self) -> Mapping[str, int]:
        """Every node that has had a file, and its code in ``node_codes``."""
        return self._codes["node"]

    @property
    def namespaces(self) -> Mapping[str, int]:
        """Every namespace that has had a file, and its code in ``namespace_codes``."""
        return self._codes["namespace"]

    @property
    def namespace_codes(self) -> npt.NDArray[np.int32]:
        """The code of the namespace of each row."""
        return self._names[: len(self.places), 1]

    @property
    def node_codes(self) -> npt.NDArray[np.int32]:
        """The code of the node of each row."""
        return self._names[: len(self.places), 0]

    def find(self, place: Place) -> int | None:
        """Return the row of a place; None if there is none."""
        return self._rows.get(place)

    def row(self, node: str, stream: Stream) -> int:
        """Return the row of a place, which is added if it is new."""
        at = self._rows.get((node, stream))
        return self._add((node, stream)) if at is None else at

    def _add(self, place: Place) -> int:
        if self._shares_names:
            self.places, self._rows = list(self.places), dict(self._rows)
            self._codes = {name: dict(codes) for name, codes in self._codes.items()}
            self._names, self._shares_names = self._names.copy(), False
        at = len(self.places)
        if at == len(self._names):
            self._names = np.concatenate([self._names, np.zeros_like(self._names)])
        if at == len(self._numbers):
            self._own_numbers()
            self._numbers = np.concatenate([self._numbers, np.zeros_like(self._numbers)])
        node, stream = place
        for column, name in enumerate((node, *stream.whose)):
            codes = self._codes[NAMES[column]]
            self._names[at, column] = codes.setdefault(name, len(codes))
        self.places.append(place)
        self._rows[place] = at
        return at

    def _own_numbers(self) -> None:
        if self._shares_numbers:
            self._numbers, self._shares_numbers = self._numbers.copy(), False

    def add(self, row: int, *, files: int = 0, opened: int = 0) -> None:
        """Count files of a row, and those of them that may go on."""
        self._own_numbers()
        self._numbers[row, FILES] += files
        self._numbers[row, OPEN] += opened

    def cover(self, row: int, rows: int, covered_bytes: int, first_ns: int, last_ns: int) -> None:
        """Note what has been covered of a row; times are of the lines in it, 0 if it has none."""
        self._own_numbers()
        numbers = self._numbers[row]
        numbers[ROWS] += rows
        numbers[BYTES] += covered_bytes
        if first_ns and not 0 < numbers[FIRST] <= first_ns:
            numbers[FIRST] = first_ns
        if last_ns > numbers[LAST]:
            numbers[LAST] = last_ns

    def select(self, equals: Mapping[str, Iterable[str]]) -> Mask:
        """Return which rows have one of the values given, in each of the NAMES that has some."""
        chosen = np.ones(len(self.places), np.bool_)
        for column, name in enumerate(NAMES):
            if wanted := tuple(equals.get(name, ())):
                codes = [self._codes[name].get(value, -1) for value in wanted]
                chosen &= np.isin(self._names[: len(self.places), column], codes)
        return chosen

    def only(self, kept: Mask) -> "StreamTotals":
        """Return some of the rows, alone."""
        rows = zip(self.entries(), kept.tolist(), strict=True)
        return StreamTotals.of(entry for entry, is_kept in rows if is_kept)

    def entries(self) -> Iterator[StreamEntry]:
        """Yield every row as it is stored."""
        for (node, stream), numbers in zip(self.places, self.numbers.tolist(), strict=True):
            yield StreamEntry(node=node, **stream.fields(), numbers=numbers)

    @classmethod
    def of(cls, entries: Iterable[StreamEntry]) -> "StreamTotals":
        """Return the totals that these entries were made of."""
        totals = cls()
        for entry in entries:
            totals.take(entry)
        return totals

    def take(self, entry: StreamEntry) -> None:
        """Put in a row as it was stored."""
        row = self.row(entry.node, Stream.of(entry))
        self._own_numbers()
        self._numbers[row] = entry.numbers

    def close_node(self, node: str) -> None:
        """Note that no file of a node goes on."""
        code = self.nodes.get(node)
        if code is not None:
            self._own_numbers()
            self.numbers[self.node_codes == code, OPEN] = 0


def nodes_of(totals: StreamTotals, chosen: Mask) -> Set[str]:
    """Return the nodes of some rows."""
    names = list(totals.nodes)
    return {names[code] for code in np.unique(totals.node_codes[chosen]).tolist()}
