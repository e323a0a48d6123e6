"""A selector of labels: which streams it means.

The history of the streams and what their labels or owners have to be go in; a set of streams comes
out. A label that a stream does not have counts as empty, as in Prometheus and Loki.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from collector.wire.range import STREAM_FIELDS, Stream
from indexer.errors import SelectorError

_MIN, _MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition; ``key`` names a label or annotation, and is empty for an owner.

    ``in``: equal to one of ``values``. ``regex``: one of ``values``, in RE2's syntax, matches all
    of it. ``exists``: it is there, even if empty; an owner is if it is not empty.
    """

    column: Literal["labels", "annotations", "owner_kind", "owner"]
    key: str
    kind: Literal["in", "regex", "exists"]
    values: tuple[str, ...] = ()
    negated: bool = False


def select(
    history: pa.Table, matchers: Iterable[Matcher], from_ns: int = _MIN, to_ns: int = _MAX
) -> set[Stream]:
    """Return the streams one of whose versions in ``[from_ns, to_ns)`` fulfils all matchers.

    ``history`` is of HISTORY_SCHEMA. Raises SelectorError for a pattern that is not a regular
    expression.
    """
    chosen = pc.and_(pc.less(history["from_ns"], to_ns), pc.greater(history["until_ns"], from_ns))
    for matcher in matchers:
        matched = _matched(history, matcher)
        chosen = pc.and_(chosen, pc.invert(matched) if matcher.negated else matched)
    found = history.select(STREAM_FIELDS).filter(chosen)
    return set(map(Stream, *(found[name].to_pylist() for name in STREAM_FIELDS)))


def _matched(history: pa.Table, matcher: Matcher) -> pa.ChunkedArray:
    values = history[matcher.column]
    if pa.types.is_map(values.type):
        values = pc.map_lookup(values, pa.scalar(matcher.key), "first")
    elif matcher.kind == "exists":
        return pc.not_equal(values, "")
    if matcher.kind == "exists":
        return pc.is_valid(values)
    values = pc.fill_null(values, "")
    if matcher.kind == "in":
        return pc.is_in(values, pa.array(matcher.values, pa.string()))
    whole = "|".join(f"(?:{pattern})" for pattern in matcher.values)
    try:
        return pc.match_substring_regex(values, f"\\A(?s:{whole})\\z")
    except pa.ArrowInvalid as error:
        raise SelectorError(f"{matcher.key or matcher.column}: {error}") from error
