"""How far each node is complete, as far as the lines of a question are concerned.

A ledger and a scope go in; out comes of each node up to when it is complete, and why no further.
The fold has the marks; only nodes with a blind spot are looked at one by one.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.ledger.entries import BlindSpot, NodeEntry
from indexer.ledger.ledger import Ledger
from indexer.ledger.totals import nodes_of
from indexer.query.scope import Scope

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """How far a node is complete, None if nothing proves it; ``why`` says what holds it back."""

    node: str
    complete_until_ns: int | None
    partition: int | None
    why: str
    is_blind: bool = False  # by a blind spot


class Marks:
    """The marks of all nodes of a ledger, put together once for all questions of it.

    ``nodes`` are all that there ever were; ``until_ns`` is of those that are waited for, and
    ``by_code`` of each node code of the totals, without an end for a node that has gone for good.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Take a ledger that must not be changed afterwards."""
        self.ledger = ledger
        self.nodes = frozenset(ledger.marks.keys() | ledger.totals.nodes.keys())
        self.until_ns = self.of(self.nodes)
        self.by_code = self.array(self.until_ns)
        self.last = _last(self.until_ns)

    def of(self, nodes: Set[str]) -> dict[str, int]:
        """Return up to when some nodes are complete (0: nothing is proved)."""
        marks = self.ledger.marks
        awaited = nodes - self.ledger.gone.keys()
        return {node: marks[node].until_ns if node in marks else 0 for node in awaited}

    def array(self, until_ns: Mapping[str, int]) -> npt.NDArray[np.int64]:
        """Return the same by node code."""
        nodes = self.ledger.totals.nodes
        return np.fromiter((until_ns.get(node, _NEVER) for node in nodes), np.int64, len(nodes))


@dataclass(frozen=True, slots=True)
class Progress:
    """Up to when the nodes of a question are complete, and the one that is last.

    ``by_code`` has the same by node code, and no end for a node that nobody waits for.
    """

    until_ns: Mapping[str, int]
    by_code: npt.NDArray[np.int64]
    last: NodeProgress | None


def nodes_in_scope(marks: Marks, scope: Scope) -> Set[str]:
    """Return the nodes that may hold lines of the scope: all, unless node or pod say better.

    A pod may be on any node by now if those that had it have gone for good.
    """
    ledger = marks.ledger
    if wanted := scope.equals.get("node"):
        return frozenset(wanted)
    if scope.equals.get("pod"):
        entries = (ledger.nodes[key] for key in ledger.blind)
        blind = {entry.node for entry in entries if any(blind_spots(entry, scope))}
        found = nodes_of(ledger.totals, ledger.totals.select(scope.equals)) | blind
        if found - ledger.gone.keys():
            return found
    return marks.nodes


def progress_of(marks: Marks, nodes: Set[str], scope: Scope) -> Progress:
    """Return how far nodes are complete for lines of the scope, less those that have gone for good.

    A blind spot holds back only whose files it may hide.
    """
    ledger = marks.ledger
    is_all = nodes is marks.nodes
    until_ns = marks.until_ns if is_all else marks.of(nodes)
    held = {
        node: progress_of_node(ledger, node, scope).complete_until_ns or 0
        for node in {node for node, _ in ledger.blind} & until_ns.keys()
    }
    if held or not is_all:
        until_ns = {**until_ns, **held}
        by_code, last = marks.array(until_ns), _last(until_ns)
    else:
        by_code, last = marks.by_code, marks.last
    of_last = None if last is None else progress_of_node(ledger, last, scope)
    return Progress(until_ns, by_code, of_last)


def _last(until_ns: Mapping[str, int]) -> str | None:
    if not until_ns:
        return None
    earliest = min(until_ns.values())
    return min(node for node, until in until_ns.items() if until == earliest)


def progress_of_node(ledger: Ledger, node: str, scope: Scope) -> NodeProgress:
    """Return how far one node is complete, by that of its partitions which is last."""
    if (mark := ledger.marks.get(node)) is None:
        return NodeProgress(node, None, None, "no inventory of this node has arrived yet")
    entries = [ledger.nodes[node, partition] for partition in mark.partitions]
    if mark.partition not in mark.partitions:
        why = "no inventory has arrived in this partition yet"
        return NodeProgress(node, None, mark.partition, why)
    return min(
        (_of_entry(entry, scope) for entry in entries),
        key=lambda each: (each.complete_until_ns or 0, each.partition),
    )


def _of_entry(entry: NodeEntry, scope: Scope) -> NodeProgress:
    """Return how far one node is complete in one partition."""
    until_ns = entry.complete_until_ns
    why = entry.holds_back or (
        entry.errors[0] if entry.errors else "waiting for its next inventory"
    )
    spots = [spot for spot in blind_spots(entry, scope) if spot.since_ns < until_ns]
    if spots:
        spot = min(spots, key=lambda each: each.since_ns)
        until_ns, why = spot.since_ns, describe(spot)
    return NodeProgress(entry.node, until_ns or None, entry.partition, why, bool(spots))


def blind_spots(entry: NodeEntry, scope: Scope) -> Iterator[BlindSpot]:
    """Yield those of a node's blind spots in which lines of the scope may lie."""
    for spot in entry.blind_spots:
        names = zip(("namespace", "pod", "container"), spot.whose, strict=True)
        if all(not value or scope.allows(name, value) for name, value in names):
            yield spot


def describe(spot: BlindSpot) -> str:
    """Return a blind spot as a sentence."""
    return f"{'/'.join(spot.names)}: {spot.why}"
