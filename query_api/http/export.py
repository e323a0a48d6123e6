"""The route of exports: all rows that match, in the format of a file.

Parameters of a URL go in; bytes of one format go out as rows are found. An answer that breaks off
is not one that ends.
"""

from typing import Annotated, Any

from fastapi import FastAPI, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from query_api.completeness.replica import Snapshot
from query_api.http.export_formats import FORMATS, OTEL
from query_api.http.refusal import as_json
from query_api.http.search import joined
from query_api.http.service import ERRORS, Service
from query_api.questions.answer import DryRun
from query_api.questions.export import Export
from query_api.questions.parameters import ExportParameters
from query_api.questions.search import Search

ENDPOINTS: dict[str, type[BaseModel]] = {"/v1/export": ExportParameters}
_FILE: dict[str, Any] = {
    "description": "Rows in the format asked for; or what they would take",
    "model": DryRun,
    "content": {media: {"schema": {"type": "string"}} for media, _, _ in FORMATS.values()},
}


def add_export(app: FastAPI, service: Service) -> None:
    """Add the route of exports."""

    @app.get("/v1/export", responses={200: _FILE, **ERRORS}, response_model=None)
    async def export(asked: Annotated[ExportParameters, Query()]) -> Response:
        """All rows that match, without a limit, as NDJSON, CSV or Parquet.

        With ``dry_run`` what one page of 50,000 rows takes at most.
        """
        asked.check()
        latest, now_ns = await service.view.latest(), service.clock_ns()
        return await run_in_threadpool(_exported, service.search, asked, latest, now_ns)


def _exported(search: Search, asked: ExportParameters, latest: Snapshot, now_ns: int) -> Response:
    export = Export(search, asked, latest, now_ns)
    if asked.dry_run:
        return as_json(search.dry_run(export.prepared))
    media, ending, write = FORMATS[asked.format]
    headers = {"Content-Disposition": f'attachment; filename="everyline.{ending}"'}
    written = write(export, OTEL if asked.names else {})
    return StreamingResponse(joined(written), 200, headers, media_type=media)
