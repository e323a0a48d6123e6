"""An export has all rows of a search, in order, and its end says what may be missing."""

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.times import from_rfc_3339
from query_api.http.app import make_app
from query_api.http.export_formats import OTEL
from query_api.questions.answer import DryRun
from query_api.scan import page as pages
from query_api.scan.segment import Scanned, ScanTask, scan_segment
from query_api.settings import QuerySettings
from tests.query_api.conftest import served
from tests.query_api.drawn import EVER, NOW_NS, all_rows, ship
from tests.query_api.questions.test_context import keeper
from tests.query_api.written import CLUSTER, HOUR, START_NS, Line, Written

FORMATS = ("ndjson", "csv", "csv-spreadsheet", "parquet")
_NUMBERS = ("restart", "epoch", "offset")


@pytest.fixture
def pages_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("query_api.questions.export.PAGE_ROWS", 5)
    monkeypatch.setattr("query_api.http.export_formats.PAGE_ROWS", 20)


def read(format_: str, body: bytes) -> tuple[list[dict[str, Any]], str]:
    """Return rows as a search has them, and the verdict; raise ValueError for what is cut off."""
    if format_ == "ndjson":
        _, *rows, last = (json.loads(line) for line in body.splitlines())
        if "completeness" not in last:
            raise ValueError("cut off")
        return rows, last["completeness"]["verdict"]
    if format_ == "parquet":
        try:
            table = pq.read_table(pa.BufferReader(body))
        except pa.ArrowInvalid as error:
            raise ValueError("cut off") from error
        said = json.loads(
            pq.read_metadata(pa.BufferReader(body)).metadata[b"everyline.completeness"]
        )
        rows = table.set_column(0, "time", table["time"].cast(pa.int64())).to_pylist()
        return [{name: v for name, v in row.items() if v} for row in rows], said["verdict"]
    try:
        text = io.StringIO(body.decode(), newline="")
        records = list(csv.DictReader(text, strict=True))
    except csv.Error as error:
        raise ValueError("cut off") from error
    if not records or not records[-1]["completeness"]:
        raise ValueError("cut off")
    assert all(not each["completeness"] for each in records[:-1])
    verdict = records.pop()["completeness"].partition(";")[0]
    return [{name: v for name, v in row.items() if v} for row in records], verdict


def expected(format_: str, row: dict[str, Any]) -> dict[str, Any]:
    if format_ == "ndjson":
        return row
    row = {name: value for name, value in row.items() if value}
    if format_ == "parquet":
        raw = {"raw": row["message"].encode()} if "raw" in row else {}
        row = {**row, "time": from_rfc_3339(row["time"]), "file_id": bytes.fromhex(row["file_id"])}
        return row | raw
    harmful = "=+-@\t\r" if format_ == "csv-spreadsheet" else ()
    texts = {name: str(value) for name, value in row.items()}
    return {name: f"'{t}" if t[0] in harmful else t for name, t in texts.items()} | {
        name: str(row.get(name, 0)) for name in _NUMBERS
    }


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("asked", [{}, {"order": "asc", "query": "status:*"}, {"pod": "api-1"}])
async def test_an_export_has_all_rows_of_a_search_in_order(
    written: Written, pages_of_five: None, format_: str, compacted: bool, asked: dict[str, Any]
):
    ship(written, len(asked))
    if compacted:
        keeper(written).compact()
    async with served(written.bucket, NOW_NS) as client:
        response = await client.get("/v1/export", params={**EVER, **asked, "format": format_})
        rows = await all_rows(client, **asked)
    found, verdict = read(format_, response.content)
    for row in (*rows, *found):
        if format_ == "parquet" and "raw" in row:
            row.pop("raw")
    assert found == [expected(format_, row) for row in rows]
    assert len(rows) > 5
    assert verdict == "complete"
    assert "attachment" in response.headers["content-disposition"]


@pytest.mark.parametrize("format_", FORMATS)
async def test_an_export_that_was_cut_off_anywhere_is_not_one_that_ended(
    written: Written, format_: str
):
    ship(written, 1, commits=1, lines=8)
    async with served(written.bucket, NOW_NS) as client:
        body = (await client.get("/v1/export", params={**EVER, "format": format_})).content
    assert len(read(format_, body)[0]) == 8
    for end in range(len(body) - 2):  # without the last newline it is all there
        with pytest.raises((ValueError, KeyError)):
            read(format_, body[:end])


@pytest.mark.parametrize("format_", ["ndjson", "parquet"])
async def test_columns_are_named_as_opentelemetry_names_them(written: Written, format_: str):
    ship(written, 1, commits=1)
    asked = {**EVER, "format": format_, "names": "otel"}
    async with served(written.bucket, NOW_NS) as client:
        body = (await client.get("/v1/export", params=asked)).content
        rows = await all_rows(client)
        refused = await client.get("/v1/export", params={**asked, "format": "csv"})
    if format_ == "parquet":
        found = pq.read_table(pa.BufferReader(body)).to_pylist()
        assert set(found[0]) == set(OTEL.values())
    else:
        found = [json.loads(line) for line in body.splitlines()[1:-1]]
    for one, row in zip(found, rows, strict=True):
        assert one["body"] == row["message"]
        assert one["severity_text"] == row["level"].upper()
        assert one["k8s.pod.name"] == row["pod"]
    assert refused.status_code == 400


@pytest.mark.parametrize("format_", FORMATS)
async def test_what_cannot_be_read_is_in_the_verdict(
    written: Written, pages_of_five: None, format_: str
):
    ship(written, 3)
    name = min(written.bucket.names(written.table.folder + "date=2"))
    written.bucket.delete(name)
    async with served(written.bucket, NOW_NS) as client:
        body = (await client.get("/v1/export", params={**EVER, "format": format_})).content
        asked = {**EVER, "format": format_, "require": "complete"}
        with pytest.raises(
            RuntimeError, match="already started"
        ):  # an answer that has begun breaks off
            await client.get("/v1/export", params=asked)
    assert read(format_, body)[1] == "incomplete"


async def test_who_requires_a_complete_export_is_told_before_its_first_row(written: Written):
    written.ship(Line(START_NS, "line"))
    async with served(written.bucket, NOW_NS) as client:
        asked: dict[str, Any] = {**EVER, "require": "complete"}
        refused = await client.get("/v1/export", params=asked)
        dry = await client.get("/v1/export", params={**asked, "dry_run": "true"})
        written.inventory(NOW_NS)
        ended = await client.get("/v1/export", params=asked)
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "not_complete"
    DryRun.model_validate(dry.json())
    assert read("ndjson", ended.content)[1] == "complete"


async def test_rows_go_out_before_older_segments_are_read(written: Written, monkeypatch):
    """The framework is asked as a server asks it: chunk by chunk."""
    written.ship(Line(START_NS, "old"))
    written.ship(Line(START_NS + 2 * HOUR, "new"))
    sent, is_out = bytearray(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def scan(task: ScanTask, *more: Any) -> Scanned:
        if is_old(task):
            asyncio.run_coroutine_threadsafe(is_out.wait(), loop).result(30)
        return scan_segment(task, *more)

    def is_old(task: ScanTask) -> bool:
        return f"hour={START_NS // HOUR % 24}/" in task.name

    monkeypatch.setattr(pages, "scan_segment", scan)
    app = make_app(QuerySettings(cluster=CLUSTER), written.bucket, clock_ns=lambda: NOW_NS)

    async def send(message: Any) -> None:
        sent.extend(message.get("body", b""))
        if b'"new"' in sent:
            is_out.set()

    messages: Iterator[Any] = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        if (message := next(messages, None)) is not None:
            return message
        return await asyncio.Future()

    query = str(httpx2.QueryParams({"from": EVER["from"], "to": EVER["to"]})).encode()
    asked = {
        "type": "http", "method": "GET", "path": "/v1/search", "query_string": query,
        "headers": [(b"host", b"127.0.0.1"), (b"accept", b"application/x-ndjson")],
        "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "root_path": "",
    }  # fmt: skip
    async with app.router.lifespan_context(app):
        await app(asked, receive, send)
    _, new, old, last = sent.splitlines()
    assert (json.loads(new)["message"], json.loads(old)["message"]) == ("new", "old")
    assert "completeness" in json.loads(last)
