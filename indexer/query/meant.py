"""Which rows a question means: the one answer that a search and a deletion share.

A scope, a query and the columns of some rows go in; out comes for each row whether it is meant. A
column is asked for only where it decides, messages only where rows are left, and what is cheap to
tell is told first.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from indexer.query.fields import MessageField, fits, wild_for_re2
from indexer.query.filter import Filter
from indexer.query.scope import Scope
from indexer.query.tree import (
    EVERYTHING,
    And,
    Field,
    Not,
    Or,
    Query,
    Regex,
    Term,
    Wild,
)
from indexer.schema import times_ns

EVER_NS = (-(2**63), 2**63)
"""Bounds that every time lies between, so that times need not be looked at."""

COLUMNS = (
    "namespace", "pod", "container", "node", "output", "level", "pod_uid", "restart", "time_source",
)  # fmt: skip
"""Columns of a row that a query may name as fields; every other field is one of its message."""

Rows = NDArray[np.bool_]
_Leaf = Callable[["Columns", Rows], Rows]
"""Return which of some rows fit; it may look at others, and answers false for them."""

_OF_COLUMN, _OF_TEXT, _OF_PATTERN, _OF_MESSAGE_FIELD = range(4)  # what costs more comes later


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


class Matcher:
    """A query, ready to be asked of any rows; can be used from several threads at once."""

    def __init__(self, query: Query) -> None:
        """Prepare what each leaf compares."""
        self._asks = query != EVERYTHING
        self._cost, self._fitting = _prepared(query)

    def __bool__(self) -> bool:
        """Return whether it asks for anything."""
        return self._asks

    def fitting(self, columns: Columns, rows: Rows) -> Rows:
        """Return which of some rows are meant."""
        return self._fitting(columns, rows)


def meant(columns: Columns, scope: Scope, matching: Matcher) -> Rows:
    """Return for each row whether it is in the scope and the query means it.

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
    return matching.fitting(columns, kept) if matching and kept.any() else kept


def _prepared(query: Query) -> tuple[int, _Leaf]:
    if isinstance(query, And):
        return _all_of([_prepared(part) for part in query.parts])
    if isinstance(query, Or):
        return _any_of([_prepared(part) for part in query.parts])
    if isinstance(query, Not):
        cost, leaf = _prepared(query.part)
        return cost, lambda columns, rows: rows & ~leaf(columns, rows)
    if isinstance(query, Field):
        if query.name in COLUMNS:
            return _OF_COLUMN, _of_column(query)
        return _OF_MESSAGE_FIELD, _of_message_field(query)
    if isinstance(query, Term):
        return _OF_TEXT, _of_text(query)
    return _OF_PATTERN, _of_pattern(query)


def _all_of(parts: list[tuple[int, _Leaf]]) -> tuple[int, _Leaf]:
    parts.sort(key=lambda part: part[0])

    def leaf(columns: Columns, rows: Rows) -> Rows:
        for _, part in parts:
            if not rows.any():
                break
            rows = part(columns, rows)
        return rows

    return max((cost for cost, _ in parts), default=0), leaf


def _any_of(parts: list[tuple[int, _Leaf]]) -> tuple[int, _Leaf]:
    parts.sort(key=lambda part: part[0])

    def leaf(columns: Columns, rows: Rows) -> Rows:
        found = np.zeros_like(rows)
        for _, part in parts:
            left = rows & ~found
            if not left.any():
                break
            found |= part(columns, left)
        return found

    return max(cost for cost, _ in parts), leaf


def _of_text(term: Term) -> _Leaf:
    matching = Filter([term])

    def leaf(columns: Columns, rows: Rows) -> Rows:
        kept = rows.copy()
        matching.strike_out(columns.read(["message"]).column("message"), kept)
        return kept

    return leaf


def _of_pattern(pattern: Wild | Regex) -> _Leaf:
    source = pattern.pattern if isinstance(pattern, Regex) else wild_for_re2(pattern)

    def leaf(columns: Columns, rows: Rows) -> Rows:
        places = np.flatnonzero(rows)
        messages = columns.read(["message"]).column("message").take(pa.array(places))
        found = pc.match_substring_regex(messages.cast(pa.string()), pattern=source)
        kept = np.zeros_like(rows)
        kept[places] = pc.fill_null(found, False).to_numpy()
        return kept

    return leaf


def _of_column(field: Field) -> _Leaf:
    """Return what compares a column: a name must be the whole value, as it is written."""
    value = field.value
    if isinstance(value, Term):
        wanted = pa.array([value.text.lower() if field.name == "level" else value.text])

        def equal(columns: Columns, rows: Rows) -> Rows:
            words = columns.read([field.name]).column(field.name)
            if not pa.types.is_dictionary(words.type):
                words = words.cast(pa.string())
            found: Rows = pc.is_in(words, value_set=wanted).to_numpy(zero_copy_only=False)
            return rows & found

        return equal
    if isinstance(value, Wild):
        pattern = "^" + "(?s).*".join(map(_whole, value.pieces)) + "$"
        value = Regex(pattern)
    fit = fits(value)

    def leaf(columns: Columns, rows: Rows) -> Rows:
        words = columns.read([field.name]).column(field.name)
        fitting: dict[Any, bool] = {}
        kept = np.zeros_like(rows)
        places = np.flatnonzero(rows)
        for place, word in zip(places, words.take(pa.array(places)).to_pylist(), strict=True):
            if word not in fitting:
                fitting[word] = word is not None and fit(word)
            kept[place] = fitting[word]
        return kept

    return leaf


def _whole(piece: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else f"\\x{{{ord(c):x}}}" for c in piece)


def _of_message_field(field: Field) -> _Leaf:
    wanted = MessageField(field.name, field.value)
    # A message without the last part of the name has no such field, unless letters are escaped.
    named = _any_of([(0, _of_text(Term(text))) for text in (field.name.split(".")[-1], "\\u")])[1]

    def leaf(columns: Columns, rows: Rows) -> Rows:
        kept = named(columns, rows)
        places = np.flatnonzero(kept)
        messages = columns.read(["message"]).column("message").take(pa.array(places)).to_pylist()
        for place, message in zip(places, messages, strict=True):
            kept[place] = message is not None and wanted.matches(message)
        return kept

    return leaf
