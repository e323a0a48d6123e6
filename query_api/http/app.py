"""The HTTP service: endpoints, errors in one shape, metrics and a page that documents them.

Requests go in, answers of ``query_api.answer`` go out. Nothing here decides what an answer says;
work that blocks runs in threads.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any

import msgspec
import prometheus_client
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from collector.process import did_you_mean, own_version
from indexer.errors import (
    BucketUnavailable,
    CoverageError,
    IndexerError,
    ObjectDamaged,
    TableDamaged,
    TableError,
    VersionGone,
)
from indexer.store.bucket import Bucket
from indexer.store.open import open_bucket
from query_api.completeness.damage import Damages
from query_api.completeness.replica import Replica
from query_api.completeness.statement import plain
from query_api.errors import BadParameter, BadQuery, NotComplete, QueryError
from query_api.metrics import QueryMetrics
from query_api.questions.answer import Answer, ErrorAnswer, ErrorBody, Gaps, Status, StreamList
from query_api.questions.list_and_status import list_gaps, list_streams, show_status
from query_api.questions.parameters import (
    GapParameters,
    NoParameters,
    SearchParameters,
    StreamParameters,
)
from query_api.questions.search import Search
from query_api.settings import QuerySettings

NDJSON = "application/x-ndjson"
_DOCS = "API reference: /docs"
_PARAMETERS: dict[str, type[BaseModel]] = {
    "/v1/search": SearchParameters,
    "/v1/gaps": GapParameters,
    "/v1/streams": StreamParameters,
    "/v1/status": NoParameters,
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The request cannot be understood"},
    409: {"model": ErrorAnswer, "description": "Not complete, although require=complete was given"},
    410: {"model": ErrorAnswer, "description": "The table version of the cursor is no longer kept"},
    503: {
        "model": ErrorAnswer,
        "description": "The table does not exist, or cannot be reached at the moment",
    },
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """What the endpoints of one process share."""

    settings: QuerySettings
    replica: Replica
    search: Search
    metrics: QueryMetrics
    damages: Damages
    clock_ns: Callable[[], int]


def make_app(
    settings: QuerySettings,
    bucket: Bucket | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    monotonic: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Return the service over ``settings.bucket``, or over ``bucket`` if one is given."""
    replica = Replica(
        bucket or open_bucket(settings.bucket),
        settings.cluster,
        settings.refresh_ms,
        settings.pinned_versions,
        monotonic,
    )
    metrics = QueryMetrics(prometheus_client.CollectorRegistry())
    width = settings.scan_threads or os.cpu_count() or 1
    pool = ThreadPoolExecutor(width, "scan")
    damages = Damages(replica.bucket, settings.cluster)
    search = Search(settings, replica, pool, width, metrics, damages, clock_ns, monotonic)
    service = Service(settings, replica, search, metrics, damages, clock_ns)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        keeping = asyncio.create_task(_keep_up(service))
        try:
            yield
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            pool.shutdown(wait=True, cancel_futures=True)

    app = FastAPI(
        title="Everyline",
        version=own_version(),
        description="Log lines, with a statement of what may be missing.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_questions(app, service)
    _add_operations(app, service)
    _add_errors(app)
    return app


async def _keep_up(service: Service) -> None:
    """Look at the table each ``refresh_ms``, so that a first search need not catch up."""
    said = ""
    while True:
        try:
            snapshot = await asyncio.to_thread(service.replica.latest)
            service.metrics.version.set(snapshot.version)
            service.metrics.refresh_failed.set(0)
            said = ""
        except Exception as error:  # whatever it is, a later look may succeed, and requests say it
            service.metrics.refresh_failed.set(1)
            if str(error) != said:
                said = str(error)
                _log.warning("cannot refresh the view of the table", extra={"error": said})
        await asyncio.sleep(service.settings.refresh_ms / 1000)


def _add_questions(app: FastAPI, service: Service) -> None:
    replica, cluster = service.replica, service.settings.cluster

    @app.get("/v1/search", response_model=Answer, responses={200: _ROWS, **_ERRORS})
    def search(request: Request, asked: Annotated[SearchParameters, Query()]) -> Response:
        """Rows that match, newest first, with their completeness and cost.

        With ``Accept: application/x-ndjson``: a first record of what the plan knows, a record a
        row, and a last one with ``completeness``, ``cost`` and ``next``; without the last record
        the answer was cut off.
        """
        prepared = service.search.prepare(asked, service.clock_ns())
        header = service.search.header(prepared)
        if NDJSON not in request.headers.get("accept", ""):
            found = service.search.find(prepared)
            body = {"rows": found.rows, **found.last}
            body.update({name: header[name] for name in ("version", "from", "to")})
            return _json(body)
        if asked.require or asked.cursor:
            found = service.search.find(prepared)  # either may end in an error
            return StreamingResponse(_records(header, lambda: found), media_type=NDJSON)
        records = _records(header, lambda: service.search.find(prepared))
        return StreamingResponse(records, media_type=NDJSON)

    @app.get("/v1/gaps", response_model=Gaps, responses=_ERRORS)
    def gaps(asked: Annotated[GapParameters, Query()]) -> Response:
        """What is missing, with bounds and proof, the latest found first; and what is damaged."""
        asked.check()
        _check_list(service, asked.limit)
        scope = asked.scope(service.clock_ns())
        snapshot = replica.latest()
        damaged = service.damages.of(snapshot)
        return _json(plain(list_gaps(snapshot, scope, asked, cluster, damaged)))

    @app.get("/v1/streams", response_model=StreamList, responses=_ERRORS)
    def streams(asked: Annotated[StreamParameters, Query()]) -> Response:
        """Streams with their files, rows, bytes, and how far their node is complete."""
        _check_list(service, asked.limit)
        scope = asked.scope(service.clock_ns())
        return _json(plain(list_streams(replica.latest(), scope, asked.limit, cluster)))

    @app.get("/v1/status", response_model=Status, responses=_ERRORS)
    def status(_: Annotated[NoParameters, Query()]) -> Response:
        """How far each node and each partition is, and how much is missing."""
        snapshot, now_ns = replica.latest(), service.clock_ns()
        damaged = service.damages.of(snapshot)
        return _json(plain(show_status(snapshot, cluster, own_version(), now_ns, damaged)))


_ROWS: dict[str, Any] = {
    "description": "Rows, as one answer or as records",
    "content": {NDJSON: {"schema": {"type": "string"}}},
}


def _check_list(service: Service, limit: int) -> None:
    if limit > service.settings.list_max:
        service.metrics.limit_reached.labels("list_max").inc()
        most = service.settings.list_max
        raise BadParameter(f"limit is {limit}, the maximum is {most}", "setting list_max")


def _records(header: dict[str, Any], find: Callable[[], Any]) -> Iterator[bytes]:
    """Yield the lines of a streamed answer."""
    yield msgspec.json.encode(header) + b"\n"
    found = find()
    for row in found.rows:
        yield msgspec.json.encode(row) + b"\n"
    yield msgspec.json.encode(found.last) + b"\n"


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def _add_operations(app: FastAPI, service: Service) -> None:
    page = resources.files("query_api").joinpath("ui", "reference.html").read_text("utf-8")

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return HTMLResponse(page)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        body = prometheus_client.generate_latest(service.metrics.registry)
        return Response(body, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        # Not in a thread, here and for the two others: searches may have taken all of them.
        return _json({"healthy": True})

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        held, trouble = service.replica.held, service.replica.trouble
        if held is None or trouble:
            message = trouble or "the table has not been read yet"
            return _error(503, "table_unavailable", message, "try again in a moment")
        return _json({"ready": True, "version": held.version})

    @app.middleware("http")
    async def measure(request: Request, call_next: Any) -> Response:
        began = time.perf_counter()
        response: Response
        if _is_loopback(request.url.hostname or ""):
            response = await call_next(request)
        else:
            hint = "use 127.0.0.1 or localhost"
            response = _error(403, "wrong_host", "the service answers to loopback names only", hint)
        endpoint = request.url.path if request.url.path in _PARAMETERS else "other"
        seconds = service.metrics.request_seconds.labels(endpoint, str(response.status_code))
        seconds.observe(time.perf_counter() - began)
        return response


def _is_loopback(host: str) -> bool:
    """Return whether a request names this machine.

    Any other name was made to lead here: a web page that a user visits could read all logs so.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(QueryError)
    def query_error(_: Request, error: QueryError) -> Response:
        column = error.column if isinstance(error, BadQuery) else None
        if isinstance(error, NotComplete):
            return _error(409, error.code, str(error), error.hint, None, error.completeness)
        return _error(400, error.code, str(error), error.hint, column)

    @app.exception_handler(IndexerError)
    def indexer_error(_: Request, error: IndexerError) -> Response:
        if isinstance(error, VersionGone):
            return _error(410, "version_gone", str(error), "ask again without a cursor")
        if isinstance(error, TableDamaged | CoverageError | ObjectDamaged):
            _log.error("a request failed", extra={"error": str(error)})
            return _error(
                503, "table_damaged", str(error), "it does not mend itself; see the message"
            )
        if error.retriable or isinstance(error, TableError | BucketUnavailable):
            return _error(503, "table_unavailable", str(error), "try again in a moment")
        _log.error("a request failed", extra={"error": str(error)})
        return _error(500, "storage_error", str(error), "see the log of the service")

    @app.exception_handler(RequestValidationError)
    def wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        message, hint = _wrong_parameter(request.url.path, error.errors()[0])
        return _error(400, "bad_parameter", message, hint)

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        message = f"{error.detail.lower()}: {request.method} {request.url.path}"
        return _error(error.status_code, "http_error", message, _DOCS)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        _log.error("a request failed", exc_info=error, extra={"path": request.url.path})
        message = f"unexpected {type(error).__name__}"
        return _error(500, "internal_error", message, "see the log of the service")


def _wrong_parameter(path: str, problem: Any) -> tuple[str, str]:
    """Return message and hint for the first problem that pydantic has found."""
    name = str(problem["loc"][-1])
    if len(problem["loc"]) > 2:
        name = str(problem["loc"][1])
    if problem["type"] != "extra_forbidden":
        return f"{name}={problem.get('input')!r}: {problem['msg'].lower()}", _DOCS
    fields = _PARAMETERS[path].model_fields.items()
    known = [field.alias or key for key, field in fields]
    hint = did_you_mean(name, known, "known: " + (", ".join(known) or "none"))
    return f"unknown parameter {name!r}", hint


def _error(
    status: int,
    code: str,
    message: str,
    hint: str,
    column: int | None = None,
    completeness: Any = None,
) -> Response:
    body = ErrorBody(
        code=code, message=message, hint=hint, column=column, completeness=completeness
    )
    return _json({"error": body.model_dump(mode="json", by_alias=True, exclude_none=True)}, status)
