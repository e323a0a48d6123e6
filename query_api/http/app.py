"""The HTTP service: endpoints, health, metrics and a page that documents them.

Requests go in, answers of ``questions`` go out. Nothing here decides what an answer says; work that
blocks runs in threads.
"""

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Annotated, Any

import msgspec
import prometheus_client
import pyarrow as pa
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel

from collector.errors import SettingError
from collector.process import own_version
from indexer.query.scope import WORDS
from indexer.store.bucket import Bucket, BucketLimits
from indexer.store.open import open_bucket
from indexer.table.request import DeletionRequest
from query_api.completeness.damage import Damages
from query_api.completeness.replica import Replica, Snapshot
from query_api.completeness.statement import Model, plain
from query_api.deletion import ask, listed, preview
from query_api.errors import BadParameter
from query_api.http.gate import Gate
from query_api.http.refusal import add_errors, as_json, refusal
from query_api.http.view import View
from query_api.metrics import QueryMetrics
from query_api.questions.answer import (
    Answer,
    Deletions,
    ErrorAnswer,
    Gaps,
    Histogram,
    Requested,
    Status,
    StreamList,
    plain_rows,
)
from query_api.questions.list_and_status import list_gaps, list_streams, show_status
from query_api.questions.names import expanded
from query_api.questions.parameters import (
    DeletionParameters,
    GapParameters,
    HistogramParameters,
    NoParameters,
    SearchParameters,
    StreamParameters,
)
from query_api.questions.search import Found, Search
from query_api.settings import QuerySettings

NDJSON = "application/x-ndjson"
PARAMETERS: dict[str, type[BaseModel]] = {
    "/v1/search": SearchParameters,
    "/v1/histogram": HistogramParameters,
    "/v1/gaps": GapParameters,
    "/v1/streams": StreamParameters,
    "/v1/status": NoParameters,
    "/v1/deletions": DeletionParameters,
}
_ERRORS: dict[int | str, dict[str, Any]] = {
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

# To the table's log, besides those that scans take.
_CONNECTIONS_BESIDE = 8


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


def make_app(
    settings: QuerySettings,
    bucket: Bucket | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    monotonic: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Return the service over ``settings.bucket``, or over ``bucket`` if one is given."""
    if settings.deletion not in ("on", "off"):
        raise SettingError(f"deletion={settings.deletion!r}: expected on or off")
    limits = BucketLimits(connections=settings.store_reads + _CONNECTIONS_BESIDE)
    bucket = bucket or open_bucket(settings.bucket, limits)
    replica = Replica(bucket, settings.cluster, settings.pinned_versions)
    metrics = QueryMetrics(prometheus_client.CollectorRegistry())
    view = View(replica, settings, metrics, monotonic)
    pool = ThreadPoolExecutor(settings.store_reads, "scan")
    computing = settings.scan_threads or os.cpu_count() or 1
    damages = Damages(bucket, settings.cluster)
    search = Search(settings, replica, pool, computing, metrics, damages, clock_ns, monotonic)
    service = Service(settings, bucket, view, search, metrics, damages, clock_ns)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Each request that the gate lets in has a thread to wait in.
        current_default_thread_limiter().total_tokens = settings.requests_max
        keeping = asyncio.create_task(view.keep_up())
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
    app.add_middleware(
        Gate, endpoints=PARAMETERS, requests_max=settings.requests_max, metrics=metrics
    )
    _add_questions(app, service)
    _add_deletions(app, service)
    _add_operations(app, service)
    add_errors(app, PARAMETERS)
    return app


def _add_questions(app: FastAPI, service: Service) -> None:
    cluster = service.settings.cluster

    @app.get("/v1/search", response_model=Answer, responses={200: _ROWS, **_ERRORS})
    async def search(request: Request, asked: Annotated[SearchParameters, Query()]) -> Response:
        """Rows that match, newest first, with their completeness and cost.

        With ``Accept: application/x-ndjson``: a first record of what the plan knows, a record a
        row, and a last one with ``completeness``, ``cost`` and ``next``; without the last record
        the answer was cut off.
        """
        latest, now_ns = await service.view.latest(), service.clock_ns()
        streamed = NDJSON in request.headers.get("accept", "")
        return await run_in_threadpool(_search, service.search, asked, latest, now_ns, streamed)

    @app.get("/v1/histogram", response_model=Histogram, responses=_ERRORS)
    async def histogram(asked: Annotated[HistogramParameters, Query()]) -> Response:
        """How many rows match, by step of time and by level or another column."""
        latest, now_ns = await service.view.latest(), service.clock_ns()
        return await run_in_threadpool(_counted, service.search, asked, latest, now_ns)

    @app.get("/v1/gaps", response_model=Gaps, responses=_ERRORS)
    async def gaps(asked: Annotated[GapParameters, Query()]) -> Response:
        """What is missing, with bounds and proof, the latest found first; and what is damaged."""
        asked.check()
        _check_list(service, asked.limit)
        scope = asked.scope(service.clock_ns())
        latest = await service.view.latest()

        scope = expanded(scope, latest.ledger.totals)

        def listed() -> Gaps:
            return list_gaps(latest, scope, asked, cluster, service.damages.of(latest))

        return await run_in_threadpool(_shown, listed)

    @app.get("/v1/streams", response_model=StreamList, responses=_ERRORS)
    async def streams(asked: Annotated[StreamParameters, Query()]) -> Response:
        """Streams with their files, rows, bytes, and how far their node is complete."""
        _check_list(service, asked.limit)
        scope = asked.scope(service.clock_ns())
        latest = await service.view.latest()
        scope = expanded(scope, latest.ledger.totals)
        shown = list_streams, latest, scope, asked.limit, cluster
        return await run_in_threadpool(_shown, *shown)

    @app.get("/v1/status", response_model=Status, responses=_ERRORS)
    async def status(_: Annotated[NoParameters, Query()]) -> Response:
        """How far each node and each partition is, and how much is missing."""
        latest, now_ns = await service.view.latest(), service.clock_ns()

        def shown() -> Status:
            damaged = service.damages.of(latest)
            return show_status(latest, cluster, own_version(), now_ns, damaged)

        return await run_in_threadpool(_shown, shown)


def _add_deletions(app: FastAPI, service: Service) -> None:
    cluster = service.settings.cluster

    @app.get("/v1/deletions", response_model=Deletions, responses=_ERRORS)
    async def deletions(_: Annotated[NoParameters, Query()]) -> Response:
        """Every request for deletion, and how far it is."""
        return await run_in_threadpool(_listed, service.bucket, cluster)

    @app.post("/v1/deletions", response_model=Requested, responses=_ERRORS)
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


def _shown(answer: Callable[..., Model], *given: Any) -> Response:
    """Return the answer to a question that is more than a moment's work."""
    return as_json(plain(answer(*given)))


def _counted(search: Search, asked: HistogramParameters, latest: Snapshot, now_ns: int) -> Response:
    return as_json(search.histogram(asked, latest, now_ns))


def _search(
    search: Search, asked: SearchParameters, latest: Snapshot, now_ns: int, streamed: bool
) -> Response:
    prepared = search.prepare(asked, latest, now_ns)
    header, found = search.header(prepared), Found(prepared)
    if streamed and not (asked.require or asked.cursor):
        records = _records(header, search.rows(found), partial(search.last, found))
        return StreamingResponse(_joined(records), media_type=NDJSON)
    tables = list(search.rows(found))  # it may end in an error, which is no answer's middle
    last = search.last(found)
    if streamed:
        records = _records(header, tables, lambda: last)
        return StreamingResponse(_joined(records), media_type=NDJSON)
    rest = {**last, **{name: header[name] for name in ("version", "from", "to")}}
    return StreamingResponse(_joined(_document(tables, rest)), media_type="application/json")


_ROWS: dict[str, Any] = {
    "description": "Rows, as one answer or as records",
    "content": {NDJSON: {"schema": {"type": "string"}}},
}


def _check_list(service: Service, limit: int) -> None:
    if limit > service.settings.list_max:
        service.metrics.limit_reached.labels("list_max").inc()
        most = service.settings.list_max
        raise BadParameter(f"limit is {limit}, the maximum is {most}", "setting list_max")


def _records(
    header: dict[str, Any], tables: Iterable[pa.Table], last: Callable[[], dict[str, Any]]
) -> Iterator[bytes]:
    """Yield the lines of a streamed answer."""
    yield msgspec.json.encode(header) + b"\n"
    for row in _encoded(tables):
        yield row + b"\n"
    yield msgspec.json.encode(last()) + b"\n"


def _document(tables: Iterable[pa.Table], rest: dict[str, Any]) -> Iterator[bytes]:
    """Yield the parts of an answer that is one document."""
    before = b'{"rows":['
    for row in _encoded(tables):
        yield before + row
        before = b","
    yield (before if before != b"," else b"") + b"]," + msgspec.json.encode(rest)[1:]


def _encoded(tables: Iterable[pa.Table]) -> Iterator[bytes]:
    return (msgspec.json.encode(row) for table in tables for row in plain_rows(table))


def _joined(parts: Iterable[bytes], each_bytes: int = 64 << 10) -> Iterator[bytes]:
    """Yield parts joined, for each that is sent costs a turn of a thread."""
    held = bytearray()
    for part in parts:
        held += part
        if len(held) >= each_bytes:
            yield bytes(held)
            held.clear()
    yield bytes(held)


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
        # Not in a thread, here and for the two others: requests may have taken all of them.
        return as_json({"healthy": True})

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        held, trouble = service.view.held, service.view.trouble
        if held is None or trouble:
            message = trouble or "the table has not been read yet"
            return refusal(503, "table_unavailable", message, "try again in a moment")
        return as_json({"ready": True, "version": held.version})
