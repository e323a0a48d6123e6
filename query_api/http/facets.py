"""The routes of values: which fields matching rows have, and which values these.

Parameters of a URL go in; counts go out with their completeness and cost.
"""

from typing import Annotated

from fastapi import FastAPI, Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from query_api.http.refusal import as_json
from query_api.http.service import ERRORS, Service
from query_api.questions.answer import DryRun
from query_api.questions.facets import Facets, Fields, find_facets, find_fields
from query_api.questions.parameters import FacetParameters, FieldParameters

ENDPOINTS: dict[str, type[BaseModel]] = {
    "/v1/facets": FacetParameters,
    "/v1/fields": FieldParameters,
}


def add_facets(app: FastAPI, service: Service) -> None:
    """Add the routes of values."""
    search, settings = service.search, service.settings

    @app.get("/v1/facets", response_model=Facets | DryRun, responses=ERRORS)
    async def facets(asked: Annotated[FacetParameters, Query()]) -> Response:
        """The most frequent values of columns, or of fields of messages, with their rows."""
        latest, now_ns = await service.view.latest(), service.clock_ns()
        given = search, settings, asked, latest, now_ns
        return as_json(await run_in_threadpool(find_facets, *given))

    @app.get("/v1/fields", response_model=Fields | DryRun, responses=ERRORS)
    async def fields(asked: Annotated[FieldParameters, Query()]) -> Response:
        """The fields that the newest matching rows have: columns, and those of messages."""
        latest, now_ns = await service.view.latest(), service.clock_ns()
        given = search, settings, asked, latest, now_ns
        return as_json(await run_in_threadpool(find_fields, *given))
