"""Labels, their values and the streams that there are: what the ledger's totals say of a scope.

A selector and bounds go in; names come out, in order, and none that the scope does not allow.
Nothing is read from storage.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from indexer.ledger.totals import NAMES
from indexer.schema import LEVELS, OUTPUTS
from query_api.completeness.streams import streams_in_scope
from query_api.loki.asking import Asking
from query_api.loki.meaning import COLUMN_OF, LABELS, LEVEL, meaning_of, stream_filter
from query_api.loki.syntax import LogQuery

STREAMS_MAX = 10_000
"""So many streams are named at most."""


def labels(asking: Asking, query: LogQuery, bounds: tuple[int, int]) -> list[str]:
    """Return the names of the labels; none if there is no stream."""
    return list(LABELS) if any(_places(asking, query, bounds)) else []


def values(asking: Asking, query: LogQuery, bounds: tuple[int, int], label: str) -> list[str]:
    """Return the values of a label, in order; none of a label that no stream has."""
    column = COLUMN_OF.get(label)
    if not query.matches and column in NAMES:
        totals = asking.latest.ledger.totals
        chosen = streams_in_scope(asking.latest.ledger, asking.scope(*bounds))
        return sorted(totals.names_of(column, chosen))
    found = set[str]()
    for labels_of in _places(asking, query, bounds):
        if label in ("level", LEVEL):
            return sorted(LEVELS)
        if label == "output":
            return sorted(OUTPUTS)
        if label in labels_of:
            found.add(labels_of[label])
    return sorted(found)


def series(
    asking: Asking, queries: list[LogQuery], bounds: tuple[int, int]
) -> list[dict[str, str]]:
    """Return the labels of the streams that any of some selectors chooses.

    Which outputs a stream has written is not known without reading.
    """
    found = dict[tuple[str, ...], dict[str, str]]()
    for query in queries:
        for labels_of in _places(asking, query, bounds):
            found.setdefault(tuple(labels_of.values()), dict(labels_of))
            if len(found) == STREAMS_MAX:
                break
    return [found[key] for key in sorted(found)]


def _places(
    asking: Asking, query: LogQuery, bounds: tuple[int, int]
) -> Iterator[Mapping[str, str]]:
    """Yield the labels of the streams that a selector chooses; the output is none of them."""
    for labels_of, _ in places(asking, query, bounds):
        yield labels_of


def places(
    asking: Asking, query: LogQuery, bounds: tuple[int, int]
) -> Iterator[tuple[Mapping[str, str], Any]]:
    """Yield the labels, and the numbers of the totals, of the streams that a selector chooses."""
    ledger = asking.latest.ledger
    meaning = meaning_of(query, asking.cluster, ledger.totals)
    chosen = streams_in_scope(ledger, asking.scope(*bounds, meaning.equals))
    fits = stream_filter(query)
    for at in np.flatnonzero(chosen).tolist():
        node, stream = ledger.totals.places[at]
        labels_of = {
            "cluster": asking.cluster,
            "container": stream.container,
            "namespace": stream.namespace,
            "node": node,
            "pod": stream.pod,
            "pod_uid": stream.pod_uid,
            "restart": str(stream.restart),
            "service_name": stream.container,
        }
        if fits(labels_of):
            yield labels_of, ledger.totals.numbers[at]
