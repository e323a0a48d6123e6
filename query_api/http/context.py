"""The route of a line's context: the lines around it in its file.

A file and an offset go in; rows of that file go out in its order, with the gap or the end of the
file that they stop at.
"""

from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from query_api.completeness.replica import Snapshot
from query_api.http.refusal import as_json
from query_api.http.service import ERRORS, Service
from query_api.questions.answer import Context
from query_api.questions.parameters import ContextParameters

ENDPOINTS: dict[str, type[BaseModel]] = {"/v1/context": ContextParameters}


def add_context(app: FastAPI, service: Service) -> None:
    """Add the route of contexts."""

    @app.get("/v1/context", response_model=Context, responses=ERRORS)
    async def context(request: Request, asked: Annotated[ContextParameters, Query()]) -> Response:
        """The rows before and behind a line in its file, up to a gap or the end of the file."""
        latest = await service.view.latest()
        return await run_in_threadpool(_around, service, request, asked, latest)


def _around(
    service: Service, request: Request, asked: ContextParameters, latest: Snapshot
) -> Response:
    began_s = service.search.monotonic()
    scope = service.scope(request, asked, latest)
    return as_json(service.contexts.answer(asked, latest, scope, began_s))
