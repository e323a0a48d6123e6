"""From a snapshot's add actions to the segments that a query has to read.

In go statistics as the Delta log has them, out come the segments whose bounds allow a row of the
scope. Only the statistics of ``time`` count, never the hour of a path: rows from outside of the
accepted window are filed under the hour of their commit.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from indexer.object_names import COVERAGE_FOLDER
from indexer.query.scope import WORDS, Scope
from indexer.schema import TIME
from indexer.table.table import LogEntry
from indexer.times import from_datetime

_PLANNED = ("path", "size_bytes", "num_records", "min.time", "max.time")
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("num_records", pa.int64()),
        *((f"{bound}.{name}", TIME if name == "time" else pa.string())
          for name in ("time", *WORDS) for bound in ("min", "max")),
    ]
)  # fmt: skip
_CHUNKS_MAX = 64  # each refresh adds one
# Other writers may cut the statistics of times to milliseconds, which the Delta protocol allows.
_CUT_US = 999


@dataclass(frozen=True, slots=True)
class Planned:
    """A segment to read, and the bounds of its rows' times in nanoseconds, both inclusive."""

    name: str
    size_bytes: int
    rows: int
    low_ns: int
    high_ns: int
    row_groups: tuple[int, ...] | None = None  # those that may hold what is asked for, if known


class Segments:
    """All segments of one version of the table, with their statistics as Arrow columns."""

    def __init__(self, add_actions: pa.Table) -> None:
        """Take what ``DeltaTable.get_add_actions(flatten=True)`` gives."""
        coverage = pc.starts_with(add_actions.column("path"), COVERAGE_FOLDER)
        kept = add_actions.filter(pc.invert(coverage))
        columns = [
            kept[field.name].cast(field.type)
            if field.name in kept.column_names
            else pa.nulls(kept.num_rows, field.type)
            for field in _SCHEMA
        ]
        self._actions = pa.table(columns, schema=_SCHEMA)

    def after(self, entries: Iterable[LogEntry]) -> "Segments":
        """Return the segments of a later version, given what each version since then did."""
        added: dict[str, Mapping[str, Any]] = {}
        removed: set[str] = set()
        for entry in entries:
            removed.update(entry.removed)
            for name in entry.removed:
                added.pop(name, None)
            added.update((action["path"], action) for action in entry.actions)
        later = Segments(_from_log(added.values()))
        kept = self._actions
        if removed:
            gone = pc.is_in(kept["path"], value_set=pa.array(list(removed), pa.string()))
            kept = kept.filter(pc.invert(gone))
        later._actions = pa.concat_tables([kept, later._actions])
        if later._actions["path"].num_chunks > _CHUNKS_MAX:
            later._actions = later._actions.combine_chunks()
        return later

    def held(self, names: Iterable[str]) -> set[str]:
        """Return which of these names are segments of this version."""
        wanted = pa.array(list(names), pa.string())
        paths = self._actions["path"]
        return set(paths.filter(pc.is_in(paths, value_set=wanted)).to_pylist())

    def __len__(self) -> int:
        """Return how many segments there are."""
        return int(self._actions.num_rows)

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return pc.sum(self._actions.column("size_bytes")).as_py() or 0

    @property
    def rows(self) -> int:
        """Rows of all segments, as far as their statistics say."""
        return pc.sum(self._actions.column("num_records")).as_py() or 0

    @property
    def time_bounds_ns(self) -> tuple[int, int] | None:
        """Lowest and highest time of a row, in whole microseconds; None if there is no row."""
        low = pc.min(self._actions.column("min.time")).cast(pa.int64()).as_py()
        high = pc.max(self._actions.column("max.time")).cast(pa.int64()).as_py()
        return None if low is None or high is None else (low * 1000, high * 1000)

    def plan(self, scope: Scope) -> list[Planned]:
        """Return the segments that may hold a row of the scope; without statistics, all may."""
        # Microseconds that hold a nanosecond of the scope, widened by what a bound may lack.
        lowest = _timestamp(scope.from_ns // 1000 - _CUT_US)
        highest = _timestamp((scope.to_ns - 1) // 1000)
        keep = pc.and_(
            self._may(pc.greater_equal(self._actions.column("max.time"), lowest)),
            self._may(pc.less_equal(self._actions.column("min.time"), highest)),
        )
        for name in WORDS:
            if wanted := scope.equals.get(name):
                keep = pc.and_(keep, self._may_hold(name, wanted))
        kept = self._actions.filter(keep)
        return [_planned(row) for row in kept.select(_PLANNED).to_pylist()]

    def _may_hold(self, name: str, wanted: Sequence[str]) -> pa.ChunkedArray:
        low = self._actions.column(f"min.{name}")
        high = self._actions.column(f"max.{name}")
        found = None
        for value in wanted:
            inside = pc.and_(pc.less_equal(low, value), pc.greater_equal(high, value))
            found = inside if found is None else pc.or_(found, inside)
        return self._may(found)

    def _may(self, known: pa.ChunkedArray) -> pa.ChunkedArray:
        return pc.fill_null(known, fill_value=True)


def _timestamp(time_us: int) -> pa.Scalar:
    return pa.scalar(time_us, pa.int64()).cast(TIME)


def _from_log(actions: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return the add actions of the log as Delta Lake's library shows them."""
    columns: dict[str, list[Any]] = {field.name: [] for field in _SCHEMA}
    for action in actions:
        stats = json.loads(action.get("stats") or "{}") or {}
        columns["path"].append(action["path"])
        columns["size_bytes"].append(action["size"])
        columns["num_records"].append(stats.get("numRecords"))
        for name in ("time", *WORDS):
            columns[f"min.{name}"].append((stats.get("minValues") or {}).get(name))
            columns[f"max.{name}"].append((stats.get("maxValues") or {}).get(name))
    arrays = [
        pa.array(columns[field.name], pa.string()).cast(TIME)
        if field.type == TIME
        else pa.array(columns[field.name], field.type)
        for field in _SCHEMA
    ]
    return pa.table(arrays, schema=_SCHEMA)


def _planned(row: Mapping[str, Any]) -> Planned:
    low, high = row.get("min.time"), row.get("max.time")
    return Planned(
        name=row["path"],
        size_bytes=row["size_bytes"],
        rows=row.get("num_records") or 0,
        low_ns=-(2**63) if low is None else from_datetime(low),
        high_ns=2**63 - 1 if high is None else from_datetime(high) + _CUT_US * 1000 + 999,
    )
