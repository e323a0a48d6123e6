"""The routes of Loki's API, as Grafana and logcli ask them.

Texts of a URL or of a form go in; answers in Loki's shape go out, and errors as plain text. What
may be told is the scope that all routes share.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from isal import igzip
from pydantic import BaseModel

from collector.process import own_version
from indexer.errors import BadQuery, BadRequest, IndexerError
from indexer.query.scope import Scope
from indexer.times import HOUR_NS
from query_api.errors import BadParameter, NotComplete, QueryError
from query_api.http.service import Service
from query_api.loki.answer import CATEGORIZED, success
from query_api.loki.asking import REQUIRED, Asking
from query_api.loki.logs import logs
from query_api.loki.measure import measured
from query_api.loki.names import labels, series, values
from query_api.loki.parameters import (
    Given,
    Points,
    bounds_of,
    is_backward,
    limit_of,
    points_of,
    time_of,
)
from query_api.loki.parse import parse_logql, parse_selector
from query_api.loki.syntax import LogQuery

ROOT = "/loki/api/v1"
REQUIRE_HEADER = "X-Everyline-Require"

_FORM_BYTES_MAX = 1 << 20
_GZIPPED_BYTES = 1 << 10
_LABELS_SINCE_NS = 6 * HOUR_NS
_ALL = LogQuery(())
_NO_DELETION = "deletions are requested by `everyline delete`, which counts and shows first\n"


class _Anything(BaseModel):
    """Parameters that are passed over where nobody knows them."""


@dataclass(frozen=True, slots=True)
class _Question:
    """A request with the version that it is answered from."""

    given: Given
    lists: Mapping[str, list[str]]
    headers: Mapping[str, str]
    asking: Asking
    path: Mapping[str, str]


_Answer = Callable[[_Question], Any]


def _query_range(asked: _Question) -> Any:
    parsed = parse_logql(asked.given.get("query", ""))
    start_ns, end_ns = bounds_of(asked.given, asked.asking.now_ns)
    if not isinstance(parsed, LogQuery):
        points = points_of(asked.given, start_ns, end_ns)
        return measured(asked.asking, parsed, points, is_instant=False)
    if asked.given.get("interval", "").strip("0s."):
        raise BadParameter("interval is not supported", "leave it out")
    return logs(
        asked.asking,
        parsed,
        (start_ns, end_ns),
        limit=limit_of(asked.given),
        newest_first=is_backward(asked.given),
        categorized=CATEGORIZED in asked.headers.get("x-loki-response-encoding-flags", ""),
    )


def _query(asked: _Question) -> Any:
    parsed = parse_logql(asked.given.get("query", ""))
    if isinstance(parsed, LogQuery):
        raise BadParameter("log queries are not supported as an instant query type",
                           "change the query to a range query type")  # fmt: skip
    at_ns = time_of(asked.given, "time", asked.asking.now_ns)
    return measured(asked.asking, parsed, Points(at_ns, 1, 1), is_instant=True)


def _labels(asked: _Question) -> Any:
    query, bounds = _selected(asked)
    name = asked.path.get("name")
    found = (
        labels(asked.asking, query, bounds)
        if name is None
        else values(asked.asking, query, bounds, name)
    )
    return success(found)


def _series(asked: _Question) -> Any:
    given = [*asked.lists.get("match[]", []), *asked.lists.get("match", [])]
    queries = [parse_selector(text) for text in given if text.strip()] or [_ALL]
    bounds = bounds_of(asked.given, asked.asking.now_ns, _LABELS_SINCE_NS)
    return success(series(asked.asking, queries, bounds))


def _selected(asked: _Question) -> tuple[LogQuery, tuple[int, int]]:
    text = asked.given.get("query", "")
    query = parse_selector(text) if text.strip() else _ALL
    return query, bounds_of(asked.given, asked.asking.now_ns, _LABELS_SINCE_NS)


_ROUTES: Mapping[str, _Answer] = {
    f"{ROOT}/query_range": _query_range,
    f"{ROOT}/query": _query,
    f"{ROOT}/labels": _labels,
    f"{ROOT}/label": _labels,
    ROOT + "/label/{name}/values": _labels,
    f"{ROOT}/series": _series,
}
ENDPOINTS: dict[str, type[BaseModel]] = dict.fromkeys(_ROUTES, _Anything)


def add_loki(app: FastAPI, service: Service) -> None:
    """Add the routes of Loki's API."""
    for path, answer in _ROUTES.items():
        route = partial(_answered, service, answer)
        app.add_api_route(path, _endpoint(route), methods=["GET", "POST"], include_in_schema=False)

    @app.get(f"{ROOT}/status/buildinfo", include_in_schema=False)
    def buildinfo() -> Response:
        names = ("revision", "branch", "buildUser", "buildDate", "goVersion")
        return _json({"version": own_version(), **dict.fromkeys(names, "")})

    @app.get("/prometheus/api/v1/rules", include_in_schema=False)
    def rules() -> Response:
        return _json(success({"groups": []}))

    @app.api_route(f"{ROOT}/delete", methods=["GET", "POST", "PUT", "DELETE"],
                   include_in_schema=False)  # fmt: skip
    def delete() -> Response:
        return _text(403, _NO_DELETION)

    @app.api_route("/loki/{rest:path}", methods=["GET", "POST", "PUT", "DELETE"],
                   include_in_schema=False)  # fmt: skip
    def unknown(rest: str) -> Response:
        return _text(404, "404 page not found\n")


def _endpoint(route: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        response: Response = await route(request)
        return response

    return endpoint


async def _answered(service: Service, answer: _Answer, request: Request) -> Response:
    """Answer a request, or say in a text why not."""
    try:
        lists = await _given(request)
        required = request.headers.get(REQUIRE_HEADER, "").strip()
        if required not in REQUIRED:
            raise BadParameter(f"{REQUIRE_HEADER}: {required}", "complete or complete-until")
        latest = await service.view.latest()

        def allowed(scope: Scope) -> Scope:
            return service.scope(request, _Fixed(scope), latest)

        asking = Asking(
            service.search, latest, service.settings.cluster, service.clock_ns(), allowed, required
        )
        given = {name: each[-1] for name, each in lists.items()}
        query = given.get("query", "")
        service.search.check_limit("query_characters", "query", len(query))
        asked = _Question(given, lists, request.headers, asking, request.path_params)
        body = await run_in_threadpool(lambda: msgspec.json.encode(answer(asked)))
    except (QueryError, IndexerError) as error:
        return _refused(error)
    return _encoded(request, body)


@dataclass(frozen=True, slots=True)
class _Fixed:
    """A scope that is asked for as it is."""

    asked: Scope

    def scope(self, _: int) -> Scope:
        """Return it."""
        return self.asked


async def _given(request: Request) -> dict[str, list[str]]:
    """Return the values of each parameter, of the URL and of a form."""
    pairs = list(request.query_params.multi_items())
    if request.method == "POST":
        form = bytearray()
        async for part in request.stream():
            form += part
            if len(form) > _FORM_BYTES_MAX:
                raise BadParameter("a form of more than a megabyte", "ask for less at once")
        pairs += parse_qsl(form.decode("utf-8", "replace"), keep_blank_values=True)
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _refused(error: QueryError | IndexerError) -> Response:
    """Return why there is no answer; the word timeout makes a client try again."""
    hint = getattr(error, "hint", "")
    said = f"{error}; {hint}" if hint else str(error)
    if isinstance(error, NotComplete):
        reasons = "; ".join(error.completeness.reasons)
        return _text(409, f"{error}: {reasons}\n")
    if isinstance(error, QueryError | BadQuery | BadRequest):
        return _text(400, f"{said}\n")
    again = " (timeout; try again in a moment)" if error.retriable else ""
    return _text(503, f"{said}{again}\n")


def _text(status: int, text: str) -> Response:
    return Response(text, status, media_type="text/plain; charset=utf-8")


def _json(body: Any) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


def _encoded(request: Request, body: bytes) -> Response:
    headers = {"Vary": "Accept-Encoding"}
    if len(body) >= _GZIPPED_BYTES and "gzip" in request.headers.get("accept-encoding", ""):
        body = igzip.compress(body)
        headers["Content-Encoding"] = "gzip"
    return Response(body, 200, headers, media_type="application/json")
