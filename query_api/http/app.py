"""The HTTP service: its routes, health, metrics and a page that documents them.

Requests go in, answers of ``questions`` go out. Nothing here decides what an answer says; work that
blocks runs in threads.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import prometheus_client
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse

from collector.errors import SettingError
from collector.process import own_version
from indexer.store.bucket import Bucket, BucketLimits
from indexer.store.open import open_bucket
from query_api.completeness.damage import Damages
from query_api.completeness.files import Files
from query_api.completeness.replica import Replica
from query_api.http import context, deletions, export, facets, lists, loki, search
from query_api.http.gate import Gate
from query_api.http.refusal import add_errors, as_json, refusal
from query_api.http.service import Service
from query_api.http.view import View
from query_api.metrics import QueryMetrics
from query_api.questions.context import Contexts
from query_api.questions.search import Search
from query_api.settings import QuerySettings

PARAMETERS = {
    **search.ENDPOINTS, **facets.ENDPOINTS, **export.ENDPOINTS, **context.ENDPOINTS,
    **lists.ENDPOINTS, **deletions.ENDPOINTS, **loki.ENDPOINTS,
}  # fmt: skip

# To the table's log, besides those that scans take.
_CONNECTIONS_BESIDE = 8


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
    searches = Search(settings, replica, pool, computing, metrics, damages, clock_ns, monotonic)
    contexts = Contexts(settings, searches, Files(bucket, settings.cluster))
    service = Service(settings, bucket, view, searches, metrics, damages, clock_ns, contexts)

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
    search.add_search(app, service)
    facets.add_facets(app, service)
    export.add_export(app, service)
    context.add_context(app, service)
    lists.add_lists(app, service)
    deletions.add_deletions(app, service)
    loki.add_loki(app, service)
    _add_operations(app, service)
    add_errors(app, PARAMETERS)
    return app


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
