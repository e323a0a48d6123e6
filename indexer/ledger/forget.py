"""What a ledger forgets, and by which rule; done once an hour of the commits' own time.

A ledger goes in and is changed: it loses what nothing will ask for any more. What speaks of rows is
forgotten with the rows, by the hours that the keeper says have expired; where rows are kept for
ever, so is what is missing among them.
"""

from collections.abc import Mapping

import numpy as np

from indexer.ledger.files import Commit
from indexer.ledger.settled import SECOND_NS
from indexer.ledger.state import LedgerState
from indexer.ledger.totals import LAST, OPEN
from indexer.times import HOUR_NS

LANE_KEPT_NS = 7 * 24 * HOUR_NS
"""How long the numbers of a run are remembered that another run has followed: as long as batches of
it may wait in a spool. What comes of it later is taken for all that is missing before it."""

# So small a part of the streams is not forgotten yet: all others are put together anew for it.
_FORGOTTEN_SHARE = 16


def forget(ledger: LedgerState, commit: Commit) -> None:
    """Forget whatever it is time for as of a commit."""
    expired = expired_until(ledger)
    _forget_losses(ledger, expired, commit)
    _forget_streams(ledger, expired)
    _forget_settled(ledger, commit.now_ns)
    until_ns = expired_everywhere(ledger, expired)
    _forget_lanes(ledger, until_ns, commit.now_ns)
    ledger.jumps = [e for e in ledger.jumps if (e.jump.to_ns or e.found_ns) >= until_ns]
    ledger.retired = [
        entry
        for entry in ledger.retired
        if entry.retired_ns >= until_ns or entry.node in ledger.totals.nodes
    ]
    ledger.gone = {entry.node: None for entry in ledger.retired if entry.node not in ledger.marks}
    for key in [k for k, e in ledger.deleted.items() if e.last_ns < expired.get(e.namespace, 0)]:
        del ledger.deleted[key]


def expired_until(ledger: LedgerState) -> dict[str, int]:
    """Return before when each namespace has no rows any more, of those that a rule has reached.

    A rule takes whole hours, and never one while an older one is still there.
    """
    found: dict[str, int] = {}
    for entry in ledger.expired.values():
        end_ns = entry.hours[-1][1] * HOUR_NS
        found[entry.namespace] = max(end_ns, found.get(entry.namespace, 0))
    return found


def expired_everywhere(ledger: LedgerState, expired: Mapping[str, int]) -> int:
    """Return before when no namespace has rows any more; 0 if one of them keeps its rows."""
    named = [expired.get(name, 0) for name in ledger.totals.namespaces]
    return min(named) if named else max(expired.values(), default=0)


def _forget_losses(ledger: LedgerState, expired: Mapping[str, int], commit: Commit) -> None:
    """Let go of files whose lines, those that came and those that are missing, have all expired."""
    gone = []
    for key, file in ledger.files.items():
        until_ns = expired.get(file.namespace, 0)
        if not until_ns or file.settled_ns or file.goes_on or file.last_ns >= until_ns:
            continue
        times = [lost.to_ns or lost.found_ns for lost in file.lost] or [file.gone_ns]
        if max(times) < until_ns:
            gone.append(key)
    ledger.let_settle(gone, commit)


def _forget_streams(ledger: LedgerState, expired: Mapping[str, int]) -> None:
    totals = ledger.totals
    until_ns = np.array([expired.get(name, 0) for name in totals.namespaces], np.int64)
    if not until_ns.any():
        return
    numbers = totals.numbers
    kept = (numbers[:, OPEN] > 0) | (numbers[:, LAST] >= until_ns[totals.namespace_codes])
    held = ((file.node, file.stream) for file in ledger.files.values() if not file.settled_ns)
    kept[[row for row in map(totals.find, held) if row is not None]] = True
    if (len(kept) - np.count_nonzero(kept)) * _FORGOTTEN_SHARE > len(kept):
        ledger.totals = totals.only(kept)


def _forget_settled(ledger: LedgerState, now_ns: int) -> None:
    """Forget settled files of nodes that no inventory speaks of, or any more: none lists them."""
    for place in [place for place in ledger.settled if place not in ledger.nodes]:
        ledger.settled[place] = ledger.settled[place].listed([], now_ns // SECOND_NS)
        if not len(ledger.settled[place]):
            del ledger.settled[place]


def _forget_lanes(ledger: LedgerState, until_ns: int, now_ns: int) -> None:
    for place, keys in list(ledger.holed.items()):
        for key in keys:
            lane = ledger.lanes.own(key) or ledger.lanes[key]
            lane.holes = [h for h in lane.holes if (h.to_ns or h.found_ns) >= until_ns]
            if not lane.holes:
                ledger.holed[place] -= {key}
        if not ledger.holed[place]:
            del ledger.holed[place]
    for key, lane in list(ledger.lanes.items()):
        node = ledger.nodes.get((lane.node, lane.partition))
        is_current = node is not None and node.run == lane.run
        if not is_current and not lane.holes and now_ns - lane.last_ns > LANE_KEPT_NS:
            del ledger.lanes[key]
