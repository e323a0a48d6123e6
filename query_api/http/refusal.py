"""Every error as an answer, all in one shape: code, message, and what to do next.

Errors of the packages, of parameters and of the server itself go in; a log line tells of those
that a client cannot mend.
"""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from collector.process import did_you_mean
from indexer.errors import (
    BadQuery,
    BadRequest,
    BucketUnavailable,
    CoverageError,
    IndexerError,
    ObjectDamaged,
    TableDamaged,
    TableError,
    VersionGone,
)
from query_api.errors import NotComplete, QueryError
from query_api.questions.answer import ErrorBody
from query_api.questions.parameters import EMPTY_VALUE

DOCS = "API reference: /docs"
BUSY = 503
RETRY_AFTER_S = 1

_log = logging.getLogger(__name__)


def as_json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer with a body of JSON."""
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def add_errors(app: FastAPI, parameters: Mapping[str, type[BaseModel]]) -> None:
    """Answer every error of the application; ``parameters`` are those of each path."""

    @app.exception_handler(QueryError)
    def query_error(_: Request, error: QueryError) -> Response:
        if isinstance(error, NotComplete):
            return refusal(409, error.code, str(error), error.hint, None, error.completeness)
        return refusal(400, error.code, str(error), error.hint)

    @app.exception_handler(BadQuery)
    def bad_query(_: Request, error: BadQuery) -> Response:
        return refusal(400, error.code, str(error), error.hint, error.column)

    @app.exception_handler(BadRequest)
    def bad_request(_: Request, error: BadRequest) -> Response:
        return refusal(400, "bad_parameter", str(error), DOCS)

    @app.exception_handler(IndexerError)
    def indexer_error(_: Request, error: IndexerError) -> Response:
        if isinstance(error, VersionGone):
            return refusal(410, "version_gone", str(error), "ask again without a cursor")
        if isinstance(error, TableDamaged | CoverageError | ObjectDamaged):
            _log.error("a request failed", extra={"error": str(error)})
            hint = "it does not mend itself; see the message"
            return refusal(503, "table_damaged", str(error), hint)
        if error.retriable or isinstance(error, TableError | BucketUnavailable):
            return refusal(503, "table_unavailable", str(error), "try again in a moment")
        _log.error("a request failed", extra={"error": str(error)})
        return refusal(500, "storage_error", str(error), "see the log of the service")

    @app.exception_handler(RequestValidationError)
    def wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        message, hint = _wrong_parameter(parameters[request.url.path], error.errors()[0])
        return refusal(400, "bad_parameter", message, hint)

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        message = f"{error.detail.lower()}: {request.method} {request.url.path}"
        allow = error.headers  # which methods there are
        return refusal(error.status_code, "http_error", message, DOCS, headers=allow)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        _log.error("a request failed", exc_info=error, extra={"path": request.url.path})
        message = f"unexpected {type(error).__name__}"
        return refusal(500, "internal_error", message, "see the log of the service")


def _wrong_parameter(model: type[BaseModel], problem: Any) -> tuple[str, str]:
    """Return message and hint for the first problem that pydantic has found."""
    name = str(problem["loc"][-1])
    if len(problem["loc"]) > 2:
        name = str(problem["loc"][1])
    if problem["type"] == EMPTY_VALUE:
        return f"{name} has an empty value", f"give a value, or leave {name} out"
    if problem["type"] != "extra_forbidden":
        return f"{name}={problem.get('input')!r}: {problem['msg'].lower()}", DOCS
    fields = model.model_fields.items()
    known = [field.alias or key for key, field in fields]
    hint = did_you_mean(name, known, "known: " + (", ".join(known) or "none"))
    return f"unknown parameter {name!r}", hint


def refusal(
    status: int,
    code: str,
    message: str,
    hint: str,
    column: int | None = None,
    completeness: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an answer that says what is wrong and what to do next."""
    body = ErrorBody(
        code=code, message=message, hint=hint, column=column, completeness=completeness
    )
    shown = body.model_dump(mode="json", exclude={"completeness"}, exclude_none=True)
    if completeness is not None:  # in which a null says something
        shown["completeness"] = completeness.model_dump(mode="json", by_alias=True)
    if status == BUSY:
        headers = {**(headers or {}), "Retry-After": str(RETRY_AFTER_S)}
    return as_json({"error": shown}, status, headers)
