"""What a query of logs means here: a scope that planning prunes by, and the tree of our language.

A query and the names that there ever were go in. Labels are columns of a row; what is no column is
a field of the message. Regular expressions of labels fit whole values, as in Loki, and a label that
a line has not is an empty one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import pyarrow as pa
import pyarrow.compute as pc

from collector import levels
from indexer.errors import BadQuery
from indexer.ledger.totals import NAMES, StreamTotals
from indexer.query.tree import (
    EVERYTHING,
    And,
    Compared,
    Field,
    Not,
    Or,
    Query,
    Regex,
    Term,
)
from indexer.schema import LEVELS, OUTPUTS
from query_api.loki.syntax import (
    AllMatch,
    AnyMatch,
    Condition,
    LineFilter,
    LogQuery,
    Match,
    NumberMatch,
    Parsed,
)

LABELS = (
    "cluster", "container", "namespace", "node", "output", "pod", "pod_uid", "restart",
    "service_name",
)  # fmt: skip
"""Labels of a stream; ``service_name`` is its container."""

LEVEL = "detected_level"
"""The label of a line that its stream does not have."""

COLUMN_OF: Mapping[str, str] = {
    **{name: name for name in LABELS if name != "cluster"},
    "service_name": "container",
    "level": "level",
    LEVEL: "level",
}
"""Label -> column, but for the cluster, of which a table has one."""

_NAMED_MAX = 100  # values of a column that planning compares with
_UNDERSCORES_MAX = 4
_NOWHERE = ("",)  # no pod has this name
_LEVEL_OF = {word: level for level, words in levels.WORDS.items() for word in words}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What rows must be: equal to one of some values in some columns, and as a tree says."""

    equals: Mapping[str, tuple[str, ...]]
    tree: Query


def meaning_of(query: LogQuery, cluster: str, totals: StreamTotals) -> Meaning:
    """Return what a query of logs means; raise BadQuery."""
    for match in query.matches:
        if match.label not in (*COLUMN_OF, "cluster"):
            raise BadQuery(f"no stream has the label {match.label!r}", match.column,
                           f"labels are {', '.join(LABELS)} and {LEVEL}; "
                           "write what lines hold behind the selector")  # fmt: skip
    equals: dict[str, tuple[str, ...]] = {}
    parts: list[Query] = []
    paths: dict[str, str] = {}
    for stage in (*query.matches, *query.stages):
        if isinstance(stage, Parsed):
            paths.update(stage.paths)
        elif isinstance(stage, LineFilter):
            parts.append(_lines(stage))
        elif isinstance(stage, Match) and (named := _named(stage, cluster, totals)) is not None:
            column, values = named
            both = (each for each in values if each in equals.get(column, values))
            equals[column] = tuple(both)
        elif isinstance(stage, Match | NumberMatch | AllMatch | AnyMatch):
            parts.append(_labels(stage, cluster, paths))
    if not all(equals.values()):
        equals = {name: values or _NOWHERE for name, values in equals.items()}
    kept = tuple(part for part in parts if part != EVERYTHING)
    return Meaning(equals, kept[0] if len(kept) == 1 else And(kept))


def _named(match: Match, cluster: str, totals: StreamTotals) -> tuple[str, tuple[str, ...]] | None:
    """Return a column and the values that a label allows it, if those are few; None: ask rows."""
    if match.label == "cluster":
        return None if _fitting(match, [cluster]) else ("pod", ())
    column = COLUMN_OF.get(match.label)
    if column == "level":
        return column, _levels(match)
    if column not in NAMES:
        return None
    if match.operator == "=" and "*" not in match.value:
        return column, (match.value,) if match.value else ()
    if match.operator != "=~":
        return None
    values = tuple(_fitting(match, list(totals.names(column))))
    return (column, values) if len(values) <= _NAMED_MAX else None


def _levels(match: Match) -> tuple[str, ...]:
    if match.operator in ("=", "!="):
        word = match.value.lower()
        level = _LEVEL_OF.get(word, word)
        return tuple(each for each in LEVELS if (each == level) == (match.operator == "="))
    return tuple(_fitting(match, LEVELS))


def _fitting(match: Match, values: Iterable[str]) -> list[str]:
    """Return which values a label may have."""
    values = list(values)
    if match.operator in ("=", "!="):
        return [each for each in values if (each == match.value) == (match.operator == "=")]
    fits = _found(_whole(match), values, match.column)
    return [each for each, fit in zip(values, fits, strict=True) if fit == (match.operator == "=~")]


def stream_filter(query: LogQuery) -> Callable[[Mapping[str, str]], bool]:
    """Return what tells by its labels whether a selector chooses a stream.

    Labels that it is not given are passed over.
    """
    known: list[dict[str, bool]] = [{} for _ in query.matches]

    def fits(labels: Mapping[str, str]) -> bool:
        for match, fitting in zip(query.matches, known, strict=True):
            if (value := labels.get(match.label)) is None:
                continue
            if value not in fitting:
                fitting[value] = bool(_fitting(match, [value]))
            if not fitting[value]:
                return False
        return True

    return fits


def _whole(match: Match) -> str:
    """Return an expression that fits the whole of what a label may be, or may not."""
    pattern = escaped(match.value) if match.operator in ("=", "!=") else match.value
    return rf"\A(?:{pattern})\z"


def _found(pattern: str, texts: list[str], column: int) -> list[bool]:
    asked = pa.array([*texts, ""], pa.string())  # of no text at all nothing would be compiled
    try:
        found = pc.match_substring_regex(asked, pattern=pattern)
    except pa.ArrowInvalid as error:
        said = str(error).removeprefix("Invalid regular expression: ")
        raise BadQuery(f"a regular expression that RE2 does not take ({said})", column) from error
    fits: list[bool] = found.to_pylist()
    return fits[:-1]


def escaped(text: str) -> str:
    """Return an expression for RE2 that finds a text as it is written."""
    return "".join(
        c if c.isalnum() or c == "_" or not c.isascii()
        else f"\\{c}" if c.isprintable() else f"\\x{{{ord(c):x}}}"
        for c in text
    )  # fmt: skip


def _lines(stage: LineFilter) -> Query:
    if stage.operator in ("|>", "!>"):
        hint = "write a regular expression, as in |~ `a .* b`"
        raise BadQuery(f"{stage.operator} is not supported", stage.column, hint)
    holds = stage.operator in ("|=", "!=")
    some = tuple(_line(text, holds, stage.column) for text in stage.texts)
    found = some[0] if len(some) == 1 else EVERYTHING if EVERYTHING in some else Or(some)
    return Not(found) if stage.operator.startswith("!") else found


def _line(text: str, holds: bool, column: int) -> Query:
    if not text:
        return EVERYTHING
    if holds:
        return Regex(escaped(text))
    _found(text, [], column)
    plain = text.removeprefix("(?i)")
    # A term is found in either case, and unlike such an expression by the words in it.
    if plain and plain != text and plain.isascii() and plain == escaped(plain).replace("\\ ", " "):
        return Term(plain)
    return Regex(text)


def _labels(condition: Condition, cluster: str, paths: Mapping[str, str]) -> Query:
    if isinstance(condition, AllMatch):
        return And(tuple(_labels(part, cluster, paths) for part in condition.parts))
    if isinstance(condition, AnyMatch):
        return Or(tuple(_labels(part, cluster, paths) for part in condition.parts))
    if isinstance(condition, NumberMatch):
        return _number(condition, _names(condition.label, paths))
    if condition.label == "cluster" or condition.label.startswith("__"):
        value = cluster if condition.label == "cluster" else ""
        return EVERYTHING if _fitting(condition, [value]) else Not(EVERYTHING)
    if (column := COLUMN_OF.get(condition.label)) is not None:
        return _column(condition, column)
    fits_empty = bool(_fitting(condition, [""]))
    is_negated = condition.operator.startswith("!")
    names = _names(condition.label, paths)
    # Whatever an empty label fits, a line without the field does.
    if condition.operator in ("=", "!=") and not condition.value:
        there = _any(names, Regex("(?s)."))
        return Not(there) if fits_empty else there
    fits = _any(names, Regex(_whole(condition)))
    if is_negated:
        return Not(fits) if fits_empty else And((_any(names, Regex("(?s).")), Not(fits)))
    return Or((fits, Not(_any(names, Regex("(?s)."))))) if fits_empty else fits


def _column(match: Match, column: str) -> Query:
    """Ask a column of each row."""
    known = {"level": LEVELS, "output": OUTPUTS}.get(column)
    if known is not None:
        values = _levels(match) if column == "level" else tuple(_fitting(match, known))
        if not values:
            return Not(EVERYTHING)
        return Or(tuple(Field(column, Term(each, True, True)) for each in values))
    if match.operator == "=" and match.value:
        return Field(column, Term(match.value, True, True))
    _fitting(match, [])
    fits = Field(column, Regex(_whole(match)))
    return Not(fits) if match.operator.startswith("!") else fits


def _names(label: str, paths: Mapping[str, str]) -> list[str]:
    """Return the fields that a label may stand for: Loki writes dots of JSON as underscores."""
    if label in COLUMN_OF:
        return [COLUMN_OF[label]]
    if label in paths:
        return [paths[label]]
    pieces = label.split("_")
    if len(pieces) - 1 > _UNDERSCORES_MAX:
        return [label, ".".join(pieces)]
    between = product("_.", repeat=len(pieces) - 1)
    joined = ("".join(sum(zip(pieces, (*each, ""), strict=True), ())) for each in between)
    return [name for name in joined if ".." not in name and name.strip(".") == name]


def _any(names: list[str], value: Regex | Compared) -> Query:
    fields = tuple(Field(name, value) for name in names)
    return fields[0] if len(fields) == 1 else Or(fields)


def _number(match: NumberMatch, names: list[str]) -> Query:
    def compared(operator: str) -> Query:
        return _any(names, Compared(operator, match.number, match.unit))  # type: ignore[arg-type]

    if match.operator == "==":
        return And((compared("<="), compared(">=")))
    if match.operator == "!=":
        return Or((compared("<"), compared(">")))
    return compared(match.operator)
