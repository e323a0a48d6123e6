"""The most frequent values of fields in the rows of one segment that match.

A task and names of fields go in; a table of values comes out, of which no more than a bounded
number is ever held. What is let go of is counted, and so is how many rows of a value may be among
that.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.query.fields import FieldPlace, decoded, text_of
from indexer.query.meant import COLUMNS, Matcher
from indexer.segment.reader import SegmentReader
from indexer.store.bucket import Ranges
from query_api.scan.segment import Group, RowGroup, Scanned, ScanTask, kept_rows, visit

VALUES = pa.schema(
    [
        pa.field("field", pa.int32()),  # its place among those asked for; ALL_ROWS
        pa.field("value", pa.string()),  # null: all values of the field, and what was let go of
        pa.field("rows", pa.int64()),  # that have it
        pa.field("dropped", pa.int64()),  # so often were values let go of
        pa.field("missed", pa.int64()),  # so many rows of any one value may be among these
    ]
)
ALL_ROWS = -1
"""In place of a field: all rows that match."""

VALUE_CHARACTERS = 256
"""Of longer values the first characters are one value."""

_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class Facets:
    """Fields whose values are counted; of each ``values_max`` are held at most."""

    fields: tuple[str, ...]
    values_max: int


def facet_segment(
    task: ScanTask,
    facets: Facets,
    bucket: Ranges | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Scanned:
    """Return the values (VALUES) of matching rows; of the task, order and limits do not count."""
    best = VALUES.empty_table()

    def take(segment: SegmentReader, group: Group, matching: Matcher) -> None:
        nonlocal best
        found = _values(RowGroup(segment, group), task, facets, matching)
        best = most_frequent([best, found], facets.values_max)

    scanned = visit(task, bucket, cancelled, take)
    return scanned if scanned.error else replace(scanned, rows=best)


def most_frequent(tables: Sequence[pa.Table], most: int) -> pa.Table:
    """Return tables of values as one, of each field the most frequent first and no more of them."""
    summed = _summed(pa.concat_tables([VALUES.empty_table(), *tables]))
    is_value = pc.is_valid(summed["value"])
    order = [("field", "ascending"), ("rows", "descending"), ("value", "ascending")]
    values = summed.filter(is_value).sort_by(order)
    fields = values["field"].to_numpy()
    over = np.arange(len(fields)) - np.searchsorted(fields, fields) >= most
    gone = values.filter(pa.array(over)).group_by("field")
    lost = gone.aggregate([("rows", "sum"), ("rows", "max")]).rename_columns(
        ["field", "dropped", "missed"]
    )
    nothing = [pa.nulls(len(lost), pa.string()), pa.array(np.zeros(len(lost), np.int64))]
    told = pa.table([lost["field"], *nothing, lost["dropped"], lost["missed"]], schema=VALUES)
    totals = _summed(pa.concat_tables([summed.filter(pc.invert(is_value)), told]))
    return pa.concat_tables([totals, values.filter(pa.array(~over))])


def _summed(table: pa.Table) -> pa.Table:
    counts = VALUES.names[2:]
    sums = table.group_by(VALUES.names[:2]).aggregate([(name, "sum") for name in counts])
    return sums.rename_columns(VALUES.names).cast(VALUES)


def _values(reader: RowGroup, task: ScanTask, facets: Facets, matching: Matcher) -> pa.Table:
    kept = kept_rows(reader, task, matching, task.from_ns, task.to_ns)
    chosen = pa.array(np.flatnonzero(kept))
    of_messages = [name for name in facets.fields if name not in COLUMNS]
    found = _of_messages(reader, chosen, of_messages) if of_messages else {}
    tables = [_table(ALL_ROWS, [None], [len(chosen)])]
    for at, name in enumerate(facets.fields):
        if name in found:
            having, counted = found[name]
            words, counts = list(counted), list(counted.values())
        else:
            column = reader.read([name]).column(name).take(chosen).cast(pa.string())
            structs = column.drop_null().value_counts()
            words, counts = structs.field("values"), structs.field("counts")
            having = len(column) - column.null_count
        tables += [_table(at, [None], [having]), _table(at, words, counts)]
    return pa.concat_tables(tables)


def _table(field: int, words: Any, counts: Any) -> pa.Table:
    none = np.zeros(len(words), np.int64)
    fields = pa.array(np.full(len(words), field, np.int32))
    columns = [fields, pa.array(words, pa.string()), pa.array(counts, pa.int64()), none, none]
    return pa.table(columns, schema=VALUES)


def _of_messages(
    reader: RowGroup, chosen: pa.Array, names: Sequence[str]
) -> dict[str, tuple[int, Counter[str]]]:
    """Return of each field how many rows have it, and how many have which value."""
    places = {name: FieldPlace(name) for name in names}
    having: Counter[str] = Counter()
    counted: dict[str, Counter[str]] = {name: Counter() for name in names}
    messages = reader.read(["message"]).column("message").take(chosen)
    for message in _each(messages.filter(_may_have(messages, names))):
        found = decoded(message)
        for name, place in places.items():
            values = {text_of(each)[:VALUE_CHARACTERS] for each in place.values(message, found)}
            counted[name].update(values)
            having[name] += bool(values)
    return {name: (having[name], counted[name]) for name in names}


def _may_have(messages: pa.ChunkedArray, names: Sequence[str]) -> Any:
    """Return which messages hold the last part of a name, or one that is spelt with escapes."""
    found = pc.match_substring(messages, "\\")
    for name in names:
        found = pc.or_(found, pc.match_substring(messages, name.split(".")[-1]))
    return found


def _each(messages: pa.ChunkedArray) -> Iterator[str]:
    for start in range(0, len(messages), _AT_ONCE):
        yield from messages.slice(start, _AT_ONCE).to_pylist()
