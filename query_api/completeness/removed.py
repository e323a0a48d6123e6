"""What was taken out of the table on purpose: by a rule of retention, or on request.

A ledger and the scope of a question go in; out come the removals whose rows may have been asked
for. They are no loss, and an answer without them is not complete.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from indexer.ledger.ledger import Ledger
from indexer.query.scope import Scope
from indexer.times import HOUR_NS


@dataclass(frozen=True, slots=True)
class Removal:
    """Rows of a namespace, or of one container of it, with times in ``[from_ns, to_ns)``."""

    kind: Literal["EXPIRED", "DELETED"]
    namespace: str
    pod: str
    container: str
    from_ns: int
    to_ns: int
    rows: int | None  # None: not known for this span alone
    why: str  # the rule or the request


def removals(ledger: Ledger, scope: Scope) -> list[Removal]:
    """Return the removals that touch a scope, the latest rows first."""
    found = [each for each in (*_expired(ledger), *_deleted(ledger)) if _touches(each, scope)]
    return sorted(found, key=lambda each: (-each.to_ns, each.namespace, each.pod, each.why))


def _touches(removal: Removal, scope: Scope) -> bool:
    named = {name: getattr(removal, name) for name in ("namespace", "pod", "container")}
    allowed = all(scope.allows(name, value) for name, value in named.items() if value)
    return allowed and scope.overlaps(removal.from_ns, removal.to_ns - 1)


def _expired(ledger: Ledger) -> Iterator[Removal]:
    for entry in ledger.expired.values():
        for first, end in entry.hours:
            rows = entry.rows if len(entry.hours) == 1 else None
            span = (first * HOUR_NS, end * HOUR_NS)
            yield Removal("EXPIRED", entry.namespace, "", "", *span, rows, f"rule {entry.rule}")


def _deleted(ledger: Ledger) -> Iterator[Removal]:
    for entry in ledger.deleted.values():
        yield Removal(
            "DELETED", entry.namespace, entry.pod, entry.container,
            entry.first_ns, entry.last_ns + 1, entry.rows, f"request {entry.request}",
        )  # fmt: skip
