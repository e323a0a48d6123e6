"""A histogram: how many rows of a question there are, step by step.

Counts of all segments go in; steps of one round length come out, those without a row too. Of a
column with many values the largest are told apart.
"""

from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa

from indexer.query.scope import Scope
from indexer.times import DAY_NS, HOUR_NS, SECOND_NS, format_time
from query_api.scan.count import Steps

STEPS_MAX = 1_000
VALUES_MAX = 50
"""So many values of a column are told apart; the others are counted as one."""

_MS, _MINUTE = 10**6, 60 * SECOND_NS
_LENGTHS_NS = (
    *(n * _MS for n in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(n * SECOND_NS for n in (1, 2, 5, 10, 15, 30)),
    *(n * _MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * HOUR_NS for n in (1, 2, 3, 6, 12)),
    *(2**n * DAY_NS for n in range(18)),  # the last one is longer than all times that there are
)


def steps_of(scope: Scope, most: int, by: str) -> Steps:
    """Return steps of the shortest round length of which so many span a scope.

    The first one begins at a multiple of the length, so at or before the scope; only where no
    length is so that one step reaches over 1970, it begins with the scope.
    """
    for length_ns in _LENGTHS_NS:
        from_ns = scope.from_ns // length_ns * length_ns
        if scope.to_ns - from_ns <= most * length_ns:
            return Steps(from_ns, length_ns, (by,) if by else ())
    length_ns = -(-(scope.to_ns - scope.from_ns) // most)
    return Steps(scope.from_ns, length_ns, (by,) if by else ())


def told(counts: pa.Table, steps: Steps, scope: Scope) -> dict[str, Any]:
    """Return steps, rows and others as the answer has them; ``counts`` are as COUNTS."""
    rows = list(zip(*(counts[name].to_pylist() for name in ("step", "value", "rows")), strict=True))
    totals: Counter[str] = Counter()
    for _, value, count in rows:
        totals[value] += count
    largest = {value for value, _ in totals.most_common(VALUES_MAX)}
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for step, value, count in rows:
        found[step][value if value in largest else ""] += count
    last = (scope.to_ns - 1 - steps.from_ns) // steps.length_ns
    return {
        "steps": [_step(steps, scope, at, found.get(at, Counter())) for at in range(last + 1)],
        "rows": totals.total(),
        "others": len(totals) - len(largest),
    }


def _step(steps: Steps, scope: Scope, at: int, counted: Counter[str]) -> dict[str, Any]:
    from_ns = steps.from_ns + at * steps.length_ns
    return {
        "from": format_time(max(from_ns, scope.from_ns)),
        "to": format_time(min(from_ns + steps.length_ns, scope.to_ns)),
        "rows": counted.total(),
        "by": dict(sorted(counted.items())) if steps.by else {},
    }
