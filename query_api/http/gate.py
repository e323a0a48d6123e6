"""What every request passes: may it come in, are there too many, how long did it take.

Plain ASGI, not a middleware of the framework's: an answer that is streamed passes as it is, and
its time ends with its last byte.
"""

import ipaddress
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import get_origin

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from query_api.http.refusal import BUSY, refusal
from query_api.metrics import QueryMetrics


class Gate:
    """Answers in the application's place what it must not see, and measures all requests."""

    def __init__(
        self,
        app: ASGIApp,
        endpoints: Mapping[str, type[BaseModel]],
        requests_max: int,
        metrics: QueryMetrics,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Limit the requests to ``endpoints``, each with its parameters; others are from memory.

        A part of a path in braces stands for any text without a slash.
        """
        self._app = app
        self._endpoints = endpoints
        self._templates = [
            (re.compile(re.sub(r"{\w+}", "[^/]+", path)), path) for path in endpoints if "{" in path
        ]
        self._requests_max = requests_max
        self._metrics = metrics
        self._clock_s = clock_s
        self._answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s, status = self._clock_s(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        endpoint = self._endpoint(scope["path"])
        limited = endpoint in self._endpoints
        self._answering += limited
        try:
            refused = self._refused(Request(scope), self._endpoints.get(endpoint))
            await (refused or self._app)(scope, receive, sent)
        finally:
            self._answering -= limited
            seconds = self._metrics.request_seconds.labels(endpoint, str(status))
            seconds.observe(self._clock_s() - began_s)

    def _endpoint(self, path: str) -> str:
        """Return which endpoint a path is of."""
        if path in self._endpoints:
            return path
        return next((of for fits, of in self._templates if fits.fullmatch(path)), "other")

    def _refused(self, request: Request, model: type[BaseModel] | None) -> Response | None:
        if not _is_loopback(request.url.hostname or ""):
            hint = "use 127.0.0.1 or localhost"
            return refusal(403, "wrong_host", "the service answers to loopback names only", hint)
        if model is not None and (name := _repeated(request, model)):
            hint = f"give {name} once"
            return refusal(400, "bad_parameter", f"{name} is given more than once", hint)
        if model is not None and self._answering > self._requests_max:
            self._metrics.limit_reached.labels("requests_max").inc()
            message = f"{self._requests_max} requests are being answered already"
            hint = "try again in a moment; setting requests_max"
            return refusal(BUSY, "busy", message, hint)
        return None


def _repeated(request: Request, model: type[BaseModel]) -> str:
    """Return a parameter that has one value and is given twice: no answer would tell which."""
    fields = {field.alias or key: field for key, field in model.model_fields.items()}
    given = Counter(name for name, _ in request.query_params.multi_items())
    for name, times in given.items():
        if times > 1 and name in fields and get_origin(fields[name].annotation) is not list:
            return name
    return ""


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
