"""Names in the scope of a question: patterns of them, and those that nobody has ever had.

A scope and the totals of a ledger go in; out come the names that a pattern stands for, and hints
about names that no stream is known by, with the nearest that there are.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from indexer.ledger.totals import NAMES, StreamTotals
from indexer.query.parse import parse_query
from indexer.query.scope import Scope
from indexer.query.tree import EVERYTHING, And, Query
from query_api.errors import BadParameter

_PATTERN = re.compile(r"[A-Za-z0-9._*-]+")
_NEAR = 3
_COMPARED_MAX = 2_000


def patterns_of(scope: Scope) -> dict[str, tuple[str, ...]]:
    """Return the values of each name that has a pattern among them; raise BadParameter."""
    found = {
        name: values for name, values in scope.equals.items() if any("*" in each for each in values)
    }
    for name, values in found.items():
        for value in values:
            if not _PATTERN.fullmatch(value):
                hint = "beside a pattern, names have letters, digits and . _ - * only"
                raise BadParameter(f"{name}={value!r} is no pattern of names", hint)
    return found


def without(scope: Scope, names: Mapping[str, object]) -> Scope:
    """Return a scope that leaves these names open."""
    kept = {name: values for name, values in scope.equals.items() if name not in names}
    return replace(scope, equals=kept)


def expanded(scope: Scope, totals: StreamTotals) -> Scope:
    """Return a scope with the names that its patterns stand for in place of them."""
    found = dict(scope.equals)
    for name, values in patterns_of(scope).items():
        if name not in NAMES:
            raise BadParameter(f"{name} takes no pattern", "name the values")
        fits = re.compile("|".join(map(_regex, values))).fullmatch
        # Where there is none, the pattern itself is a name that nothing has.
        found[name] = tuple(filter(fits, totals.names(name))) or values
    return replace(scope, equals=found)


def in_query(query: Query, patterns: Mapping[str, tuple[str, ...]]) -> Query:
    """Return a query that asks for patterns of names too."""
    if not patterns:
        return query
    asked = parse_query(
        " ".join(f"{name}:({' OR '.join(values)})" for name, values in patterns.items())
    )
    return asked if query == EVERYTHING else And((query, asked))


def hints_of(scope: Scope, totals: StreamTotals) -> Iterator[str]:
    """Yield what is to be said of names that no stream has, or has any more."""
    for name in NAMES:
        for value in scope.equals.get(name, ()):
            known = totals.names(name)
            if value in known or ("*" in value and any(map(re.compile(_regex(value)).fullmatch,
                                                           known))):  # fmt: skip
                continue
            near = [] if "*" in value else _near(value, known)
            nearest = f"; near: {', '.join(near)}" if near else ""
            yield f"no stream has the {name} {value!r}{nearest}"


def _near(value: str, known: Mapping[str, int]) -> list[str]:
    names = list(known)
    if len(names) > _COMPARED_MAX:
        names = [each for each in names if each[:2] == value[:2]][:_COMPARED_MAX]
    return difflib.get_close_matches(value, names, _NEAR)


def _regex(pattern: str) -> str:
    return ".*".join(map(re.escape, re.split(r"\*+", pattern)))
