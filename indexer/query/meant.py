"""Which rows a question means: the one answer that a search and a deletion share.

A scope, the terms of a query and the columns of some rows go in; out comes for each row whether it
is meant. A column is asked for only where it decides, and messages of the rows that are left.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from indexer.query.filter import Filter
from indexer.query.scope import Scope
from indexer.schema import times_ns

EVER_NS = (-(2**63), 2**63)
"""Bounds that every time lies between, so that times need not be looked at."""


class Columns(Protocol):
    """Rows whose columns can be asked for."""

    @property
    def rows(self) -> int:
        """How many there are."""
        ...

    @property
    def ns(self) -> pa.ChunkedArray:
        """The time of each row in nanoseconds since 1970."""
        ...

    def read(self, names: Sequence[str]) -> pa.Table:
        """Return these columns of all rows."""
        ...


class Decoded:
    """Columns of rows that are in memory."""

    def __init__(self, rows: pa.Table) -> None:
        """Take them as a segment has them."""
        self._table = rows
        self.rows: int = rows.num_rows

    @property
    def ns(self) -> pa.ChunkedArray:
        """The time of each row in nanoseconds since 1970."""
        return times_ns(self._table)

    def read(self, names: Sequence[str]) -> pa.Table:
        """Return these columns of all rows."""
        return self._table.select(names)


def meant(columns: Columns, scope: Scope, matching: Filter) -> NDArray[np.bool_]:
    """Return for each row whether it is in the scope and its message matches.

    A bound of ``EVER_NS`` is not compared with.
    """
    kept = np.ones(columns.rows, np.bool_)
    if scope.from_ns > EVER_NS[0]:
        kept &= columns.ns.to_numpy() >= scope.from_ns
    if scope.to_ns < EVER_NS[1]:
        kept &= columns.ns.to_numpy() < scope.to_ns
    for name, wanted in scope.equals.items():
        words = columns.read([name]).column(name)
        kept &= pc.is_in(words, value_set=pa.array(wanted, pa.string())).to_numpy()
    if matching and kept.any():
        matching.strike_out(columns.read(["message"]).column("message"), kept)
    return kept
