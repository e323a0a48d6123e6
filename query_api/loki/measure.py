"""A query that counts: how much there is before each of some points in time, by labels.

A metric and points go in; series come out. Rows are counted where they lie, by steps that fit the
windows of the points, and nothing of them is read that no label asks for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.errors import BadQuery
from query_api.completeness.statement import Completeness
from query_api.errors import BadParameter
from query_api.loki.answer import number, query_answer, seconds
from query_api.loki.asking import Asking
from query_api.loki.meaning import COLUMN_OF, LABELS, LEVEL, meaning_of
from query_api.loki.parameters import Points
from query_api.loki.syntax import (
    Aggregation,
    Grouping,
    Metric,
    Number,
    Operation,
    RangeCount,
    Vector,
    ranges_of,
)
from query_api.questions.search import Found
from query_api.scan.count import BETWEEN_VALUES, Steps

SERIES_MAX = 500
"""So many series may an answer have, as in Loki."""

_VALUES_MAX = 5_000_000  # of all series that a query goes through

Labels = tuple[tuple[str, str], ...]
Values = NDArray[np.float64]
Series = dict[Labels, Values]
"""By labels, a value for each point; NaN: there is none."""

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "%": np.fmod,
}  # fmt: skip
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater,
    ">=": np.greater_equal,
}  # fmt: skip


@dataclass(slots=True)
class _Counting:
    """What is being asked, and what was found out on the way."""

    asking: Asking
    points: Points
    found: list[tuple[Completeness, Mapping[str, Any]]] = field(default_factory=list)
    lines: int = 0


def measured(asking: Asking, metric: Metric, points: Points, *, is_instant: bool) -> dict[str, Any]:
    """Return the series of a metric; raise BadQuery, BadParameter or NotComplete."""
    points = _ended(asking, metric, points)
    counting = _Counting(asking, points)
    with np.errstate(all="ignore"):
        value = _value(counting, metric)
    at = [seconds(points.start_ns + n * points.step_ns) for n in range(points.count)]
    if not isinstance(value, dict):
        if is_instant:
            return query_answer("scalar", [at[0], number(value)], counting.found)
        value = {(): np.full(points.count, value)}
    shown = [(dict(labels), of) for labels, of in sorted(value.items()) if not np.isnan(of).all()]
    if len(shown) > SERIES_MAX:
        raise BadParameter(f"maximum of series ({SERIES_MAX}) reached for a single query",
                           "group by fewer labels, or choose fewer streams")  # fmt: skip
    if is_instant:
        if isinstance(metric, Aggregation) and metric.kind in ("topk", "bottomk"):
            shown.sort(key=lambda each: each[1][0], reverse=metric.kind == "topk")
        vector = [{"metric": name, "value": [at[0], number(of[0])]} for name, of in shown]
        return query_answer("vector", vector, counting.found, lines=counting.lines)
    matrix = [{"metric": name, "values": _pairs(at, of)} for name, of in shown]
    return query_answer("matrix", matrix, counting.found, lines=counting.lines)


def _pairs(at: Sequence[float], values: Values) -> list[list[Any]]:
    there = np.flatnonzero(~np.isnan(values)).tolist()
    return [[at[n], number(value)] for n, value in zip(there, values[there].tolist(), strict=True)]


def _ended(asking: Asking, metric: Metric, points: Points) -> Points:
    """Return the points without those that are later than a client wants them."""
    if asking.required != "complete-until":
        return points
    last_ns = points.last_ns
    for counted in ranges_of(metric):
        meaning = meaning_of(counted.query, asking.cluster, asking.latest.ledger.totals)
        end_ns = points.last_ns - counted.offset_ns + 1
        scope = asking.scope(end_ns - counted.range_ns, end_ns, meaning.equals)
        last_ns = min(last_ns, asking.end_ns(scope) - 1 + counted.offset_ns)
    if points.count == 1:
        return replace(points, start_ns=last_ns)
    count = (last_ns - points.start_ns) // points.step_ns + 1
    return replace(points, count=count) if count > 0 else points


def _value(counting: _Counting, metric: Metric) -> float | Series:
    if isinstance(metric, Number):
        return metric.value
    if isinstance(metric, Vector):
        return {(): np.full(counting.points.count, metric.value)}
    if isinstance(metric, RangeCount):
        return _counted(counting, metric, None)
    if isinstance(metric, Aggregation):
        grouping = metric.grouping or Grouping(())
        if metric.kind == "sum" and isinstance(metric.of, RangeCount) and not grouping.without:
            return _counted(counting, metric.of, grouping.labels)
        of = _value(counting, metric.of)
        if not isinstance(of, dict):
            raise BadParameter(f"{metric.kind} of a number", "give it series")
        return _ranked(metric, of) if metric.parameter else _aggregated(metric.kind, grouping, of)
    return _operated(metric, _value(counting, metric.left), _value(counting, metric.right))


def _counted(counting: _Counting, counted: RangeCount, by: Sequence[str] | None) -> Series:
    """Return what is counted, by some labels; None: by all that there are."""
    asking, points, query = counting.asking, counting.points, counted.query
    if counted.kind == "absent_over_time":
        by = ()
    labels = [each for each in ((*LABELS, LEVEL) if by is None else by) if query.shows(each)]
    for label in labels:
        if label not in COLUMN_OF and label != "cluster" and not label.startswith("__"):
            raise BadParameter(f"grouping by {label!r} is not supported: it is no label of streams",
                               f"labels are {', '.join(LABELS)} and {LEVEL}")  # fmt: skip
    labels = [label for label in labels if not label.startswith("__")]
    columns = tuple(dict.fromkeys(COLUMN_OF[each] for each in labels if each != "cluster"))
    from_ns = points.start_ns - counted.range_ns - counted.offset_ns + 1
    meaning = meaning_of(query, asking.cluster, asking.latest.ledger.totals)
    scope = asking.scope(from_ns, points.last_ns - counted.offset_ns + 1, meaning.equals)
    found = Found(asking.search.plan(scope, meaning.tree, asking.latest, require=asking.require))
    in_bytes = counted.kind in ("bytes_over_time", "bytes_rate")
    steps = Steps(from_ns, points.step_ns, columns, counted.range_ns % points.step_ns, in_bytes)
    counts = asking.search.counts(found, steps)
    completeness, told = asking.search.verdict_of(found)
    counting.found.append((completeness, told["cost"]))
    counting.lines += sum(counts["rows"].to_pylist())
    if counted.kind == "absent_over_time":
        return _absent(counted, points, steps, counts)
    per = counted.range_ns / 1e9 if counted.kind in ("rate", "bytes_rate") else 1.0
    series: Series = {}
    for value, sums in _in_windows(counts, steps, counted.range_ns, points.count, in_bytes).items():
        of = dict(zip(columns, value.split(BETWEEN_VALUES), strict=bool(columns)))
        named = {
            each: asking.cluster if each == "cluster" else of[COLUMN_OF[each]] for each in labels
        }
        series[tuple(sorted(named.items()))] = sums / per
    return series


def _in_windows(
    counts: pa.Table, steps: Steps, range_ns: int, points: int, in_bytes: bool
) -> dict[str, Values]:
    """Return of each value how much lies in the window before each point; NaN: nothing."""
    whole = range_ns // steps.length_ns
    first = np.arange(points, dtype=np.int64)
    if steps.split_ns:  # a window is so many whole steps, and the first part of another one
        first, behind = 2 * first, 2 * (first + whole) + 1
    else:
        behind = first + whole
    ordered = counts.sort_by([("value", "ascending"), ("step", "ascending")])
    at = ordered["step"].to_numpy()
    rows, size = ordered["rows"].to_numpy(), ordered["bytes"].to_numpy()
    names = ordered["value"].combine_chunks().dictionary_encode()
    edges = np.flatnonzero(np.diff(names.indices.to_numpy(), prepend=-1, append=-1))
    if (len(edges) - 1) * points > _VALUES_MAX:
        hint = "group by fewer labels, choose fewer streams or a longer step"
        raise BadParameter(f"more than {_VALUES_MAX:,} values to go through", hint)
    found: dict[str, Values] = {}
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        low, high = (np.searchsorted(at[start:stop], each) for each in (first, behind))
        summed = np.concatenate([[0], np.cumsum(rows[start:stop])])
        of = summed if not in_bytes else np.concatenate([[0], np.cumsum(size[start:stop])])
        there = summed[high] > summed[low]
        name = names.dictionary[names.indices[start].as_py()].as_py()
        found[name] = np.where(there, (of[high] - of[low]).astype(np.float64), np.nan)
    return found


def _absent(counted: RangeCount, points: Points, steps: Steps, counts: pa.Table) -> Series:
    """Return one series with a 1 where there is nothing, named by what the selector says."""
    windows = _in_windows(counts, steps, counted.range_ns, points.count, in_bytes=False)
    there = [~np.isnan(values) for values in windows.values()]
    some = np.logical_or.reduce(there) if there else np.zeros(points.count, np.bool_)
    labels = {each.label: each.value for each in counted.query.matches if each.operator == "="}
    return {tuple(sorted(labels.items())): np.where(some, np.nan, 1.0)}


def _group_of(labels: Labels, grouping: Grouping) -> Labels:
    return tuple(pair for pair in labels if (pair[0] in grouping.labels) != grouping.without)


def _aggregated(kind: str, grouping: Grouping, of: Series) -> Series:
    groups: dict[Labels, list[Values]] = {}
    for labels, values in of.items():
        groups.setdefault(_group_of(labels, grouping), []).append(values)
    return {labels: _together(kind, np.array(values)) for labels, values in groups.items()}


def _together(kind: str, values: Values) -> Values:
    there = ~np.isnan(values)
    count = there.sum(axis=0).astype(np.float64)
    if kind == "max":
        return cast(Values, np.fmax.reduce(values))
    if kind == "min":
        return cast(Values, np.fmin.reduce(values))
    total = np.where(there, values, 0.0).sum(axis=0)
    found = {"sum": total, "avg": total / count, "count": count}[kind]
    return np.where(count > 0, found, np.nan)


def _ranked(metric: Aggregation, of: Series) -> Series:
    """Return of each group the series with the largest, or smallest, values at each point."""
    groups: dict[Labels, list[Labels]] = {}
    for labels in of:
        group = _group_of(labels, metric.grouping or Grouping(()))
        groups.setdefault(group, []).append(labels)
    found: Series = {}
    for names in groups.values():
        values = np.array([of[name] for name in names])
        order = np.argsort(-values if metric.kind == "topk" else values, axis=0, kind="stable")
        kept = np.zeros_like(values, np.bool_)
        np.put_along_axis(kept, order[: metric.parameter], True, axis=0)
        found.update(zip(names, np.where(kept, values, np.nan), strict=True))
    return found


def _operated(metric: Operation, left: float | Series, right: float | Series) -> float | Series:
    """Return two sides made one; series that have the same labels belong together."""
    if isinstance(left, dict) and isinstance(right, dict):
        both = [labels for labels in left if labels in right]
        return {labels: _of_two(metric, left[labels], right[labels]) for labels in both}
    if isinstance(left, dict):
        return {labels: _of_two(metric, of, right) for labels, of in left.items()}
    if isinstance(right, dict):
        return {labels: _of_two(metric, left, of, is_right=True) for labels, of in right.items()}
    if metric.operator in _COMPARISONS and not metric.is_bool:
        raise BadQuery("two numbers compared without bool", metric.column, "write == bool")
    return float(_of_two(metric, left, right))


def _of_two(metric: Operation, left: Any, right: Any, is_right: bool = False) -> Any:
    if arithmetic := _ARITHMETIC.get(metric.operator):
        return arithmetic(left, right)
    holds = _COMPARISONS[metric.operator](left, right)
    there = ~(np.isnan(left) | np.isnan(right))
    if metric.is_bool:
        return np.where(there, np.where(holds, 1.0, 0.0), np.nan)
    return np.where(there & holds, right if is_right else left, np.nan)
