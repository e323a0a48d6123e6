"""Which streams may have lines in a scope, and of how many of them all is known to be there.

The ledger's totals, the progress of the nodes and the gaps go in; numbers and rows come out, by
whole columns: there may be very many streams.
"""

from collections.abc import Sequence

import numpy as np

from indexer.ledger.ledger import Ledger
from indexer.ledger.totals import FIRST, LAST, OPEN, Mask
from indexer.query.scope import Scope
from query_api.completeness.gaps import Gap
from query_api.completeness.progress import Progress
from query_api.completeness.statement import Streams

_NEVER = np.iinfo(np.int64).max  # nothing more is waited for of a node that has gone for good


def streams_in_scope(ledger: Ledger, scope: Scope) -> Mask:
    """Return which rows of the totals have, or may have, lines in the scope.

    Until all of its files have ended, more lines of a stream may be on their way.
    """
    numbers = ledger.totals.numbers
    begun = (numbers[:, FIRST] == 0) | (numbers[:, FIRST] < scope.to_ns)
    over = (numbers[:, OPEN] == 0) & (numbers[:, LAST] < scope.from_ns)
    found: Mask = ledger.totals.select(scope.equals) & begun & ~over
    return found


def count_streams(ledger: Ledger, scope: Scope, progress: Progress, gaps: Sequence[Gap]) -> Streams:
    """Count streams whose lines may be in scope: covered and unknown ones, or with a gap."""
    totals = ledger.totals
    chosen = streams_in_scope(ledger, scope)
    until = np.fromiter(
        (progress.until_ns.get(node, _NEVER) for node in totals.nodes), np.int64, len(totals.nodes)
    )
    is_unknown = until[totals.node_codes] < scope.to_ns
    whole = chosen.copy()
    codes = [
        code for gap in gaps if gap.file is None
        for node in (totals.nodes if gap.nodes is None else gap.nodes)
        if (code := totals.nodes.get(node)) is not None
    ]  # fmt: skip
    if codes:
        whole &= ~np.isin(totals.node_codes, codes)
    for file in (gap.file for gap in gaps if gap.file is not None):
        if (row := totals.find((file.node, file.stream))) is not None:
            whole[row] = False
    unknown = int(np.count_nonzero(whole & is_unknown))
    covered = int(np.count_nonzero(whole)) - unknown
    return Streams(expected=int(np.count_nonzero(chosen)), covered=covered, unknown=unknown)
