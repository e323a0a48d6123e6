"""Which objects may hold rows that a request for deletion means, and which rows these are.

Requests go in, and objects or rows; a search with the same arguments shows the same rows, by the
same code. Nothing is deleted here.
"""

from collections.abc import Callable
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from indexer.query.meant import Decoded, Matcher, meant
from indexer.query.parse import parse_query
from indexer.table.request import DeletionRequest
from indexer.table.table import Live
from indexer.times import to_datetime

# Statistics of times may be cut to milliseconds.
_CUT = timedelta(milliseconds=1)


def may_hold(each: Live, request: DeletionRequest) -> bool:
    """Return whether the statistics of an object allow a row that a request means."""
    if each.is_coverage:
        return False
    scope = request.scope
    for name, wanted in scope.equals.items():
        bounds = each.stats.get(name)
        if bounds and not any(bounds[0] <= value <= bounds[1] for value in wanted):
            return False
    least, greatest = each.stats.get("time", (None, None))
    if least is None:
        return True
    begin, end = to_datetime(scope.from_ns), to_datetime(scope.to_ns)
    return bool(least - _CUT < end and begin <= greatest + _CUT)


def matcher(request: DeletionRequest) -> Callable[[pa.Table], pa.Array]:
    """Return what tells, for each row of a table, whether the request means it."""
    scope, matching = request.scope, Matcher(parse_query(request.query))

    def fits(rows: pa.Table) -> pa.Array:
        kept = meant(Decoded(rows), scope, matching)
        message = rows.column("message")
        if request.text:
            kept &= pc.match_substring(message, request.text).to_numpy()
        if request.regex:
            kept &= pc.match_substring_regex(message, request.regex).to_numpy()
        return pa.array(kept)

    return fits
