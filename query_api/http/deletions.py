"""The routes of deletion: what was requested, and a new request.

A request goes in as a search with the same arguments says it; it is stored for the keeper, or only
counted.
"""

import uuid
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from indexer.query.scope import WORDS
from indexer.store.bucket import Bucket
from indexer.table.request import DeletionRequest
from query_api.deletion import ask, listed, preview
from query_api.http.refusal import as_json, refusal
from query_api.http.service import ERRORS, Service
from query_api.questions.answer import Deletions, Requested
from query_api.questions.parameters import DeletionParameters, NoParameters

ENDPOINTS: dict[str, type[BaseModel]] = {"/v1/deletions": DeletionParameters}


def add_deletions(app: FastAPI, service: Service) -> None:
    """Add the routes of deletion."""
    cluster = service.settings.cluster

    @app.get("/v1/deletions", response_model=Deletions, responses=ERRORS)
    async def deletions(_: Annotated[NoParameters, Query()]) -> Response:
        """Every request for deletion, and how far it is."""
        return await run_in_threadpool(_listed, service.bucket, cluster)

    @app.post("/v1/deletions", response_model=Requested, responses=ERRORS)
    async def delete(asked: DeletionParameters) -> Response:
        """Request the deletion of what a search with the same arguments shows; or count it."""
        if service.settings.deletion != "on":
            hint = "use everyline delete --bucket, or the setting deletion"
            return refusal(403, "deletion_off", "this service takes no requests for deletion", hint)
        return await run_in_threadpool(
            _requested, service.bucket, cluster, asked, service.clock_ns()
        )


def _listed(bucket: Bucket, cluster: str) -> Response:
    return as_json({"deletions": listed(bucket, cluster)})


def _requested(bucket: Bucket, cluster: str, asked: DeletionParameters, now_ns: int) -> Response:
    scope = asked.scope(now_ns)
    words: dict[str, Any] = {name: scope.equals.get(name, ()) for name in WORDS}
    request = DeletionRequest(
        id=uuid.uuid4().hex[:12],
        requested_ns=now_ns,
        by=asked.by,
        reason=asked.reason,
        from_ns=scope.from_ns,
        to_ns=scope.to_ns,
        query=asked.query,
        **words,
    )
    if asked.dry_run:
        return as_json({"id": None, **msgspec.to_builtins(preview(bucket, cluster, request))})
    ask(bucket, cluster, request)
    return as_json({"id": request.id})
