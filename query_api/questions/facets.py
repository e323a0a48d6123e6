"""Which values the fields of matching rows have, and which fields there are.

A question goes in; out come values by how many rows have them, of all rows or of those that a limit
left, and names of fields with what a sample of the newest rows shows of each.
"""

from collections import Counter, defaultdict
from functools import partial
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from indexer.query.fields import named_values, text_of
from indexer.query.meant import COLUMNS
from query_api.completeness.replica import Snapshot
from query_api.completeness.statement import Completeness, Model, Time
from query_api.questions.answer import Cost
from query_api.questions.parameters import FacetParameters, FieldParameters
from query_api.questions.search import Found, Search
from query_api.scan.facet import ALL_ROWS, VALUE_CHARACTERS, VALUES, facet_segment, most_frequent
from query_api.scan.facet import Facets as Asked
from query_api.scan.page import Scan
from query_api.scan.segment import ScanTask
from query_api.settings import QuerySettings

FIELDS_MAX = 1_000
"""So many fields of messages are told; those that the fewest rows have are left out."""


class FacetValue(Model):
    """A value and how many rows have it."""

    value: Annotated[str, Field(description=f"its first {VALUE_CHARACTERS} characters")]
    rows: int


class Facet(Model):
    """The most frequent values of a field."""

    field: str
    values: list[FacetValue]
    rows: Annotated[int, Field(description="that have the field")]
    others: Annotated[int, Field(description="how often rows have values that are not shown")]
    missed: Annotated[
        int,
        Field(
            description="as too many values were met to hold them all, each may have so many more "
            "rows; 0: what is shown is exact"
        ),
    ]


class _OfRows(Model):
    """What all answers about many rows say."""

    completeness: Completeness
    hints: list[str]
    cost: Cost
    version: int
    from_: Annotated[Time, Field(alias="from")]
    to: Time


class Facets(_OfRows):
    """The most frequent values of some fields."""

    facets: list[Facet]
    rows: Annotated[int, Field(description="that match and were counted")]
    of: Annotated[
        int | None,
        Field(description="a limit cut it: all counts are of so many rows; null: of all"),
    ]


class FieldView(Model):
    """A field, as a sample of rows has it."""

    name: str
    source: Literal["column", "message"]
    type: Annotated[
        Literal["string", "number", "boolean", "object", "null", "mixed"] | None,
        Field(description="null: no row of the sample has it"),
    ]
    rows: Annotated[int, Field(description="of the sample, that have it")]
    values: Annotated[int, Field(description="different ones in the sample: at least so many")]
    example: Annotated[str | None, Field(description="its most frequent value there")]


class Fields(_OfRows):
    """The fields of matching rows."""

    fields: Annotated[list[FieldView], Field(description="columns, then those that most rows have")]
    sampled_rows: Annotated[int, Field(description="the newest that match, of which this is told")]
    more_rows: Annotated[bool, Field(description="there are others, which nobody looked at")]
    others: Annotated[int, Field(description="fields of messages that are left out")]


def find_facets(
    search: Search,
    settings: QuerySettings,
    asked: FacetParameters,
    latest: Snapshot,
    now_ns: int,
) -> dict[str, Any]:
    """Return the most frequent values of fields; raises as ``prepare`` and ``last`` do."""
    prepared = search.prepare_all(asked, latest, now_ns)
    if asked.dry_run:
        return search.dry_run(prepared)
    found, names = Found(prepared), tuple(dict.fromkeys(asked.field))
    of = Asked(names, max(1, settings.facet_values // len(names)))

    def scan_of(task: ScanTask) -> Scan:
        return partial(facet_segment, task, of)

    best = VALUES.empty_table()
    for values in search.each(found, scan_of, "facet_ms"):
        best = most_frequent([best, values], of.values_max)
    rows = _of_field(best, ALL_ROWS)[0]["rows"]
    return {
        "facets": [_facet(best, at, name, asked.limit) for at, name in enumerate(names)],
        "rows": rows,
        "of": rows if found.page.left else None,
        **search.ending(found),
    }


def _of_field(values: pa.Table, field: int) -> tuple[dict[str, int], pa.Table]:
    """Return what is said of all values of a field, and each of them."""
    here = values.filter(pc.equal(values["field"], field))
    total = here.filter(pc.is_null(here["value"])).to_pylist()
    none = {"rows": 0, "dropped": 0, "missed": 0}
    return total[0] if total else none, here.filter(pc.is_valid(here["value"]))


def _facet(values: pa.Table, at: int, name: str, limit: int) -> dict[str, Any]:
    total, each = _of_field(values, at)
    shown = each.slice(0, limit)
    rest = pc.sum(each.slice(limit)["rows"]).as_py() or 0
    return {
        "field": name,
        "values": shown.select(["value", "rows"]).to_pylist(),
        "rows": total["rows"],
        "others": rest + total["dropped"],
        "missed": total["missed"],
    }


def find_fields(
    search: Search,
    settings: QuerySettings,
    asked: FieldParameters,
    latest: Snapshot,
    now_ns: int,
) -> dict[str, Any]:
    """Return the fields of the newest rows that match; raises as ``prepare`` and ``last`` do."""
    prepared = search.prepare_all(asked, latest, now_ns, settings.field_rows)
    if asked.dry_run:
        return search.dry_run(prepared)
    found = Found(prepared)
    sample = _Sample()
    for rows in search.rows(found):
        sample.add(rows)
    fields, others = sample.fields()
    return {
        "fields": fields,
        "sampled_rows": sample.rows,
        "more_rows": found.page.last is not None,
        "others": others,
        **search.ending(found),
    }


class _Sample:
    """What rows show of their fields."""

    def __init__(self) -> None:
        self.rows = 0
        self._having: Counter[str] = Counter()
        self._values: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._types: defaultdict[str, set[str]] = defaultdict(set)
        self._columns: dict[str, Counter[Any]] = {name: Counter() for name in COLUMNS}

    def add(self, rows: pa.Table) -> None:
        """Look at rows (RESULT_SCHEMA)."""
        self.rows += len(rows)
        for name, counter in self._columns.items():
            if name in rows.column_names:
                counter.update(rows[name].to_pylist())
        for message in rows["message"].to_pylist():
            here = set()
            for name, value in named_values(message):
                here.add(name)
                self._values[name][text_of(value)[:VALUE_CHARACTERS]] += 1
                self._types[name].add(_type(value))
            self._having.update(here)

    def fields(self) -> tuple[list[dict[str, Any]], int]:
        """Return what is told of each field, and how many were left out."""
        columns = [
            _view(name, "column", {"number" if name == "restart" else "string"}, counter)
            for name, counter in self._columns.items()
        ]
        names = sorted(set(self._having) - set(COLUMNS), key=lambda n: (-self._having[n], n))
        told = [
            _view(n, "message", self._types[n], self._values[n], self._having[n])
            for n in names[:FIELDS_MAX]
        ]
        return columns + told, len(names) - len(told)


def _view(
    name: str, source: str, types: set[str], values: Counter[Any], rows: int | None = None
) -> dict[str, Any]:
    kind = types.pop() if len(types) == 1 else "mixed"
    return {
        "name": name,
        "source": source,
        "type": kind if values else None,
        "rows": values.total() if rows is None else rows,
        "values": len(values),
        "example": str(min(values, key=lambda v: (-values[v], v))) if values else None,
    }


_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (str, "string"), (bool, "boolean"), ((int, float), "number"), (type(None), "null"),
)  # fmt: skip


def _type(value: Any) -> str:
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "object")
