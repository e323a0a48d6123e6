"""The service's border: errors, parameters, the page, and the description of the API."""

import asyncio
import base64
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.times import DAY_NS, format_time
from query_api.completeness.replica import Replica, Snapshot
from query_api.errors import BadParameter
from query_api.http.app import make_app
from query_api.questions.answer import ErrorAnswer
from query_api.questions.search import Found, Search
from query_api.settings import QuerySettings
from query_api.times import parse_time
from tests.query_api.conftest import served
from tests.query_api.written import START_NS, Line

GOLDEN = Path(__file__).parents[2] / "golden" / "openapi.json"


async def test_without_a_table_the_service_says_what_to_start(local):
    async with served(local) as client:
        response = await client.get("/v1/search")
        ready = await client.get("/readyz")
        healthy = await client.get("/healthz")
    assert (response.status_code, ready.status_code, healthy.status_code) == (503, 503, 200)
    error = response.json()["error"]
    assert error["code"] == "table_unavailable"
    assert "start an indexer first" in error["message"]


@pytest.mark.parametrize(
    ("path", "parameters", "says", "hint"),
    [
        ("search", {"namspace": "a"}, "unknown parameter 'namspace'", "'namespace'"),
        ("search", {"frm": "-1h"}, "unknown parameter 'frm'", "'from'"),
        ("status", {"pod": "a"}, "unknown parameter 'pod'", "known: none"),
        ("gaps", {"qwertz": "1"}, "unknown parameter 'qwertz'", "known: namespace"),
        ("search", {"limit": "many"}, "limit='many'", "/docs"),
        ("search", {"limit": "0"}, "limit='0'", "/docs"),
        ("search", {"limit": "10001"}, "limit is 10001, the maximum is 10000", "rows_max"),
        ("gaps", {"limit": "10001"}, "limit is 10001, the maximum is 10000", "list_max"),
        ("search", {"order": "up"}, "order='up'", "/docs"),
        ("search", {"level": "loud"}, "level='loud' is not a level", "warn"),
        ("gaps", {"state": "lost"}, "state='lost' is not a state", "LOST"),
        ("search", {"from": "last week"}, "from='last week' is no time", "yesterday|2026|-15m"),
        ("search", {"from": "now", "to": "-1h"}, "is not before", "swap"),
        ("search", {"cursor": "???"}, "cursor cannot be read", "next"),
        ("search", {"cursor": "e30"}, "cursor cannot be read", "next"),
        ("search", {"query": "x" * 4097}, "query is 4097", "query_characters"),
        ("search", {"namespace": ""}, "namespace has an empty value", "leave namespace out"),
        ("search", {"pod": " "}, "pod has an empty value", "leave pod out"),
        ("search", {"container": "app,"}, "container has an empty value", "give a value"),
        ("search", {"node": ["a", ""]}, "node has an empty value", "give a value"),
        ("search", {"level": ""}, "level has an empty value", "leave level out"),
        ("search", {"from": ""}, "from='' is no time", "RFC|2026|-15m"),
        ("search", {"to": ""}, "to='' is no time", "RFC|2026|-15m"),
        ("gaps", {"from": ""}, "from='' is no time", "RFC|2026|-15m"),
        ("gaps", {"type": ""}, "type has an empty value", "leave type out"),
        ("gaps", {"state": ""}, "state has an empty value", "leave state out"),
        ("streams", {"namespace": ""}, "namespace has an empty value", "leave namespace out"),
    ],
)
async def test_a_wrong_parameter_is_named_with_what_to_do(written, path, parameters, says, hint):
    async with served(written.bucket) as client:
        response = await client.get(f"/v1/{path}", params=parameters)
    assert response.status_code == 400
    ErrorAnswer.model_validate(response.json())
    error = response.json()["error"]
    assert error["code"] == "bad_parameter"
    assert says in error["message"]
    assert re.search(hint, error["hint"])


async def test_a_bad_query_is_an_error_with_its_column(written):
    async with served(written.bucket) as client:
        response = await client.get("/v1/search", params={"query": 'ok "open'})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["column"]) == ("bad_query", 4)


async def test_a_cursor_of_another_question_is_refused(written):
    written.ship(*(Line(START_NS + n, f"line {n}") for n in range(3)))
    async with served(written.bucket) as client:
        first = (await client.get("/v1/search", params={"from": "0", "limit": 1})).json()
        asked = {"from": "0", "limit": 1, "pod": "other", "cursor": first["next"]}
        response = await client.get("/v1/search", params=asked)
    assert response.status_code == 400
    assert "another question" in response.json()["error"]["message"]


async def test_a_cursor_that_a_client_has_changed_is_refused(written):
    written.ship(*(Line(START_NS + n, f"line {n}") for n in range(3)))
    asked: dict[str, str | int] = {"from": "0", "limit": 1}
    async with served(written.bucket) as client:
        first = (await client.get("/v1/search", params=asked)).json()["next"]
        signed = base64.urlsafe_b64decode(first + "=" * (-len(first) % 4))
        fields = json.loads(signed[16:])
        for changed in (
            signed[16:],
            bytes(16) + signed[16:],
            signed[:16] + json.dumps([fields[0] - 1, *fields[1:]]).encode(),
            signed[:16] + json.dumps([*fields[:-1], "complete"]).encode(),
            signed[:15],
            b"",
        ):
            text = base64.urlsafe_b64encode(changed).decode().rstrip("=") or "A"
            response = await client.get("/v1/search", params={**asked, "cursor": text})
            assert response.status_code == 400
            assert "cursor cannot be read" in response.json()["error"]["message"]
        response = await client.get("/v1/search", params={**asked, "cursor": first})
    assert response.status_code == 200


async def test_a_name_that_was_made_to_lead_here_gets_no_answer(written):
    async with served(written.bucket) as client:
        for host in ("localhost:8080", "[::1]:8080"):
            response = await client.get("/v1/status", headers={"Host": host})
            assert response.status_code == 200
        response = await client.get("/v1/status", headers={"Host": "evil.example"})
    assert response.status_code == 403
    ErrorAnswer.model_validate(response.json())


async def test_health_answers_while_searches_wait_for_a_slow_store(written, monkeypatch):
    written.ship(Line(START_NS, "line"))
    answer_now = threading.Event()
    rows, waiting = Search.rows, threading.Semaphore(0)

    def slow(self: Search, found: Found) -> Iterator[Any]:
        waiting.release()
        answer_now.wait()
        return rows(self, found)

    monkeypatch.setattr(Search, "rows", slow)
    async with served(written.bucket, requests_max=40) as client:
        await client.get("/v1/status")
        searches = [asyncio.create_task(client.get("/v1/search")) for _ in range(40)]
        try:
            for _ in searches:
                await asyncio.to_thread(waiting.acquire)
            refused = await client.get("/v1/status")
            codes = [
                (await asyncio.wait_for(client.get(path), 30)).status_code
                for path in ("/healthz", "/readyz", "/metrics")
            ]
        finally:
            answer_now.set()
            found = await asyncio.gather(*searches)
        metrics = (await client.get("/metrics")).text
    assert codes == [200, 200, 200]
    assert {response.status_code for response in found} == {200}
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    ErrorAnswer.model_validate(refused.json())
    assert "requests_max" in refused.json()["error"]["hint"]
    assert 'everyline_query_limit_reached_total{limit="requests_max"} 1.0' in metrics


async def test_a_request_waits_for_a_look_at_the_table_without_a_thread(written, monkeypatch):
    written.ship(Line(START_NS, "line"))
    look_now, looks = threading.Event(), []
    refresh = Replica.refresh

    def slow(self: Replica) -> Snapshot:
        looks.append(self)
        look_now.wait()
        return refresh(self)

    monkeypatch.setattr(Replica, "refresh", slow)
    async with served(written.bucket, refresh_ms=60_000, requests_max=100) as client:
        searches = [asyncio.create_task(client.get("/v1/search")) for _ in range(100)]
        try:
            while not looks:
                await asyncio.sleep(0)
            codes = [(await client.get(path)).status_code for path in ("/healthz", "/readyz")]
        finally:
            look_now.set()
            found = await asyncio.gather(*searches)
    assert codes == [200, 503]
    assert {response.status_code for response in found} == {200}
    assert len(looks) == 1


async def test_a_table_that_does_not_answer_in_time_is_an_error(written, monkeypatch):
    written.ship(Line(START_NS, "line"))
    look_now = threading.Event()
    monkeypatch.setattr(Replica, "refresh", lambda _: look_now.wait())
    async with served(written.bucket, refresh_timeout_ms=50) as client:
        try:
            response = await client.get("/v1/search")
        finally:
            look_now.set()
    assert response.status_code == 503
    assert "has not answered for 0.05 s" in response.json()["error"]["message"]


async def test_an_unknown_path_has_the_same_shape_of_error(written):
    async with served(written.bucket) as client:
        response = await client.get("/v2/search")
    assert response.status_code == 404
    ErrorAnswer.model_validate(response.json())


async def test_metrics_count_answers_and_requests(written):
    async with served(written.bucket) as client:
        await client.get("/v1/search")
        metrics = (await client.get("/metrics")).text
    assert 'everyline_query_answers_total{verdict="unknown"} 1.0' in metrics
    assert (
        'everyline_query_request_seconds_count{endpoint="/v1/search",status="200"} 1.0' in metrics
    )


async def test_the_page_of_the_api_loads_nothing_from_elsewhere(written):
    async with served(written.bucket) as client:
        page = (await client.get("/docs")).text
        described = (await client.get("/openapi.json")).json()
    assert not re.search(r"//\w|\bsrc=|@import|url\(", page)
    assert "openapi.json" in page
    paths = {"/v1/search", "/v1/histogram", "/v1/gaps", "/v1/streams", "/v1/status"}
    paths |= {"/v1/deletions", "/v1/context", "/v1/facets", "/v1/fields", "/v1/export"}
    assert set(described["paths"]) == paths


def test_the_api_is_what_it_was(local, request):
    described = make_app(QuerySettings(), local).openapi()
    del described["info"]["version"]
    text = json.dumps(described, indent=2, sort_keys=True) + "\n"
    if request.config.getoption("--update-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "if this change is meant: pytest --update-golden"


NOW_NS = 1_790_000_000_123_456_789


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("now", NOW_NS),
        ("-15m", NOW_NS - 900 * 10**9),
        ("now-2h", NOW_NS - 7_200 * 10**9),
        ("-5ms", NOW_NS - 5 * 10**6),
        ("1700000000", 1_700_000_000 * 10**9),
        ("1700000000.25", 1_700_000_000_250_000_000),
        ("1700000000123", 1_700_000_000_123 * 10**6),
        ("1700000000123456", 1_700_000_000_123_456 * 10**3),
        ("1700000000123456789", 1_700_000_000_123_456_789),
        ("2023-11-14T22:13:20Z", 1_700_000_000 * 10**9),
        ("2023-11-14t23:13:20.000000001+01:00", 1_700_000_000 * 10**9 + 1),
        ("1969-12-31T23:59:59.5Z", -500_000_000),
        ("2023-11-14", 1_699_920_000 * 10**9),
        ("2023-11", 1_698_796_800 * 10**9),
        ("2023", 1_672_531_200 * 10**9),
        ("2023-11-14 22:13", 1_699_999_980 * 10**9),
        ("2023-11-14T22:13:20", 1_700_000_000 * 10**9),
        ("2023-11-14 22:13:20.5", 1_700_000_000_500_000_000),
        ("today", NOW_NS // DAY_NS * DAY_NS),
        ("yesterday", NOW_NS // DAY_NS * DAY_NS - DAY_NS),
        ("10:30", NOW_NS // DAY_NS * DAY_NS + 37_800 * 10**9),
        ("10:30:01.25", NOW_NS // DAY_NS * DAY_NS + 37_801_250_000_000),
        ("0", 0),
    ],
)
def test_times_are_read_in_each_form(text, time_ns):
    assert parse_time(text, "from", NOW_NS) == time_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2023-11-14T22",
        "2023-13",
        "25:00",
        "2023-02-30T00:00:00Z",
        "2023-02-30",
        "-1y",
        "9" * 19,
    ],
)
def test_what_is_no_time_is_an_error(text):
    with pytest.raises(BadParameter, match="from="):
        parse_time(text, "from", NOW_NS)


def test_times_are_written_so_that_they_sort():
    assert format_time(-1) == "1969-12-31T23:59:59.999999999Z"
    assert parse_time(format_time(NOW_NS), "to", 0) == NOW_NS
