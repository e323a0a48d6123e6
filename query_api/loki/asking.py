"""What each of Loki's questions is asked with: a version of the table, and what may be seen.

A span of time and a meaning go in; a scope that says no more than is allowed comes out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from indexer.query.scope import Scope
from query_api.completeness.progress import nodes_in_scope, progress_of
from query_api.completeness.replica import Snapshot
from query_api.questions.search import Search

REQUIRED = ("", "complete", "complete-until")
"""What a client may demand: nothing; a complete answer; or one that is complete, up to an end that
may be earlier than what was asked for."""

BEHIND_NS_MAX = 10 * 60 * 10**9
"""So much earlier that end may be: an answer about the distant past would pass for one of today."""

_EVERYWHERE: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class Asking:
    """One request; ``allowed`` returns what of a scope it may see."""

    search: Search
    latest: Snapshot
    cluster: str
    now_ns: int
    allowed: Callable[[Scope], Scope]
    required: str = ""

    @property
    def require(self) -> Literal["", "complete"]:
        """What the search is to demand."""
        return "complete" if self.required else ""

    def scope(
        self, from_ns: int, to_ns: int, equals: Mapping[str, tuple[str, ...]] = _EVERYWHERE
    ) -> Scope:
        """Return what may be seen of times ``[from_ns, to_ns)`` and some columns' values."""
        return self.allowed(Scope(from_ns, to_ns, dict(equals)))

    def end_ns(self, scope: Scope) -> int:
        """Return the end of a scope, moved back to complete until where the client wants that."""
        if self.required != "complete-until":
            return scope.to_ns
        marks = self.latest.marks
        last = progress_of(marks, nodes_in_scope(marks, scope), scope).last
        until_ns = scope.to_ns if last is None else last.complete_until_ns or 0
        is_near = scope.to_ns - until_ns <= BEHIND_NS_MAX
        return min(scope.to_ns, until_ns) if is_near else scope.to_ns
