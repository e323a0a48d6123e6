"""The routes of the ledger: gaps, streams, and the state of the pipeline.

Parameters of a URL go in; what the ledger of the newest version says goes out. Nothing is read from
storage for it.
"""

from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from collector.process import own_version
from query_api.http.service import ERRORS, Service, shown
from query_api.questions.answer import Gaps, Status, StreamList
from query_api.questions.list_and_status import list_gaps, list_streams, show_status
from query_api.questions.parameters import GapParameters, NoParameters, StreamParameters

ENDPOINTS: dict[str, type[BaseModel]] = {
    "/v1/gaps": GapParameters,
    "/v1/streams": StreamParameters,
    "/v1/status": NoParameters,
}


def add_lists(app: FastAPI, service: Service) -> None:
    """Add the routes of the ledger."""
    cluster = service.settings.cluster

    @app.get("/v1/gaps", response_model=Gaps, responses=ERRORS)
    async def gaps(request: Request, asked: Annotated[GapParameters, Query()]) -> Response:
        """What is missing, with bounds and proof, the latest found first; and what is damaged."""
        asked.check()
        service.check_list(asked.limit)
        latest = await service.view.latest()
        scope = service.scope(request, asked, latest)

        def listed() -> Gaps:
            return list_gaps(latest, scope, asked, cluster, service.damages.of(latest))

        return await run_in_threadpool(shown, listed)

    @app.get("/v1/streams", response_model=StreamList, responses=ERRORS)
    async def streams(request: Request, asked: Annotated[StreamParameters, Query()]) -> Response:
        """Streams with their files, rows, bytes, and how far their node is complete."""
        service.check_list(asked.limit)
        latest = await service.view.latest()
        scope = service.scope(request, asked, latest)
        return await run_in_threadpool(shown, list_streams, latest, scope, asked.limit, cluster)

    @app.get("/v1/status", response_model=Status, responses=ERRORS)
    async def status(_: Annotated[NoParameters, Query()]) -> Response:
        """How far each node and each partition is, and how much is missing."""
        latest, now_ns = await service.view.latest(), service.clock_ns()

        def told() -> Status:
            damaged = service.damages.of(latest)
            return show_status(latest, cluster, own_version(), now_ns, damaged)

        return await run_in_threadpool(shown, told)
