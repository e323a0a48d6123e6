"""Which streams may have lines in a scope, and of how many of them all is known to be there.

The ledger's totals, the progress of the nodes and the gaps go in; numbers and rows come out, by
whole columns: there may be very many streams.
"""

import numpy as np

from indexer.ledger.ledger import Ledger
from indexer.ledger.totals import FIRST, LAST, OPEN, Mask
from indexer.query.scope import Scope
from query_api.completeness.gap_columns import Found, GapColumns
from query_api.completeness.progress import Progress
from query_api.completeness.statement import Streams


def streams_in_scope(ledger: Ledger, scope: Scope) -> Mask:
    """Return which rows of the totals have, or may have, lines in the scope.

    Until all of its files have ended, more lines of a stream may be on their way.
    """
    numbers = ledger.totals.numbers
    begun = (numbers[:, FIRST] == 0) | (numbers[:, FIRST] < scope.to_ns)
    over = (numbers[:, OPEN] == 0) & (numbers[:, LAST] < scope.from_ns)
    found: Mask = ledger.totals.select(scope.equals) & begun & ~over
    return found


def count_streams(
    ledger: Ledger, scope: Scope, progress: Progress, gaps: GapColumns, found: Found
) -> Streams:
    """Count streams whose lines may be in scope: covered and unknown ones, or with a gap."""
    totals = ledger.totals
    chosen = streams_in_scope(ledger, scope)
    is_unknown = progress.by_code[totals.node_codes] < scope.to_ns
    whole = chosen.copy()
    rows, others = gaps.streams(found)
    whole[rows] = False
    for gap in others:
        for node in totals.nodes if gap.nodes is None else gap.nodes:
            whole &= totals.node_codes != totals.nodes.get(node, -1)
    unknown = int(np.count_nonzero(whole & is_unknown))
    covered = int(np.count_nonzero(whole)) - unknown
    return Streams(expected=int(np.count_nonzero(chosen)), covered=covered, unknown=unknown)
