"""What the routes of the service share: its parts, what their errors are, and what a scope means.

A request and its parameters go in; out comes the scope that an answer may speak of. Each route that
shows anything of the table takes its scope from here, so that none can show more than another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request, Response

from indexer.query.scope import Scope
from indexer.store.bucket import Bucket
from query_api.completeness.damage import Damages
from query_api.completeness.replica import Snapshot
from query_api.completeness.statement import Model, plain
from query_api.errors import BadParameter
from query_api.http.refusal import as_json
from query_api.http.view import View
from query_api.metrics import QueryMetrics
from query_api.questions.answer import ErrorAnswer
from query_api.questions.context import Contexts
from query_api.questions.names import expanded
from query_api.questions.search import Search
from query_api.settings import QuerySettings

NDJSON = "application/x-ndjson"
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The request cannot be understood"},
    409: {"model": ErrorAnswer, "description": "Not complete, although require=complete was given"},
    410: {"model": ErrorAnswer, "description": "The table version of the cursor is no longer kept"},
    503: {
        "model": ErrorAnswer,
        "description": (
            "The table does not exist or cannot be reached at the moment, or too many requests"
            " are being answered: try again in a moment"
        ),
    },
}


class Asked(Protocol):
    """Parameters that name a scope."""

    def scope(self, now_ns: int) -> Scope:
        """Return what is asked for; raise BadParameter."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """What the endpoints of one process share."""

    settings: QuerySettings
    bucket: Bucket
    view: View
    search: Search
    metrics: QueryMetrics
    damages: Damages
    clock_ns: Callable[[], int]
    contexts: Contexts

    def scope(self, _: Request, asked: Asked, latest: Snapshot) -> Scope:
        """Return the scope of a question, with the names that its patterns stand for."""
        return expanded(asked.scope(self.clock_ns()), latest.ledger.totals)

    def check_list(self, limit: int) -> None:
        """Raise BadParameter for a list that is longer than the setting allows."""
        if limit > self.settings.list_max:
            self.metrics.limit_reached.labels("list_max").inc()
            most = self.settings.list_max
            raise BadParameter(f"limit is {limit}, the maximum is {most}", "setting list_max")


def shown(answer: Callable[..., Model], *given: Any) -> Response:
    """Return the answer to a question that is more than a moment's work."""
    return as_json(plain(answer(*given)))
