"""The routes of rows: a search, as one answer or as records, and a histogram.

Parameters of a URL go in; rows go out as they are found, with their completeness and cost at the
end, without which an answer was cut off.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Annotated, Any

import msgspec
import pyarrow as pa
from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from query_api.completeness.replica import Snapshot
from query_api.http.refusal import as_json
from query_api.http.service import ERRORS, NDJSON, Service
from query_api.questions.answer import Answer, DryRun, Histogram, plain_rows
from query_api.questions.parameters import HistogramParameters, SearchParameters
from query_api.questions.search import Found, Search

ENDPOINTS: dict[str, type[BaseModel]] = {
    "/v1/search": SearchParameters,
    "/v1/histogram": HistogramParameters,
}
_NOW = b""
"""In place of a part: what is held is sent before the next one is waited for."""

_ROWS: dict[str, Any] = {
    "description": "Rows, as one answer or as records",
    "content": {NDJSON: {"schema": {"type": "string"}}},
}


def add_search(app: FastAPI, service: Service) -> None:
    """Add the routes of rows."""

    @app.get("/v1/search", response_model=Answer | DryRun, responses={200: _ROWS, **ERRORS})
    async def search(request: Request, asked: Annotated[SearchParameters, Query()]) -> Response:
        """Rows that match, newest first, with their completeness and cost.

        With ``Accept: application/x-ndjson``: a first record of what the plan knows, a record a
        row, and a last one with ``completeness``, ``cost`` and ``next``; without the last record
        the answer was cut off.
        """
        latest, now_ns = await service.view.latest(), service.clock_ns()
        streamed = NDJSON in request.headers.get("accept", "")
        return await run_in_threadpool(_search, service.search, asked, latest, now_ns, streamed)

    @app.get("/v1/histogram", response_model=Histogram | DryRun, responses=ERRORS)
    async def histogram(asked: Annotated[HistogramParameters, Query()]) -> Response:
        """How many rows match, by step of time and by level or another column."""
        latest, now_ns = await service.view.latest(), service.clock_ns()
        return await run_in_threadpool(_counted, service.search, asked, latest, now_ns)


def _counted(search: Search, asked: HistogramParameters, latest: Snapshot, now_ns: int) -> Response:
    return as_json(search.histogram(asked, latest, now_ns))


def _search(
    search: Search, asked: SearchParameters, latest: Snapshot, now_ns: int, streamed: bool
) -> Response:
    prepared = search.prepare(asked, latest, now_ns)
    if asked.dry_run:
        return as_json(search.dry_run(prepared))
    header, found = search.header(prepared), Found(prepared)
    if streamed and not (asked.require or asked.cursor):
        records = _records(header, search.rows(found), partial(search.last, found))
        return StreamingResponse(joined(records), media_type=NDJSON)
    tables = list(search.rows(found))  # it may end in an error, which is no answer's middle
    last = search.last(found)
    if streamed:
        records = _records(header, tables, lambda: last)
        return StreamingResponse(joined(records), media_type=NDJSON)
    rest = {**last, **{name: header[name] for name in ("version", "from", "to")}}
    return StreamingResponse(joined(_document(tables, rest)), media_type="application/json")


def _records(
    header: dict[str, Any], tables: Iterable[pa.Table], last: Callable[[], dict[str, Any]]
) -> Iterator[bytes]:
    """Yield the lines of a streamed answer."""
    yield msgspec.json.encode(header) + b"\n"
    yield _NOW
    for table in tables:
        for row in plain_rows(table):
            yield msgspec.json.encode(row) + b"\n"
        yield _NOW
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


def joined(parts: Iterable[bytes], each_bytes: int = 64 << 10) -> Iterator[bytes]:
    """Yield parts joined, for each that is sent costs a turn of a thread; at _NOW what there is."""
    held = bytearray()
    for part in parts:
        held += part
        if len(held) >= each_bytes or (held and part == _NOW):
            yield bytes(held)
            held.clear()
    yield bytes(held)
