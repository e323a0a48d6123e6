"""Requests as Grafana, its Logs Drilldown and logcli send them have answers that these can read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from indexer.times import format_time
from query_api.http.loki import REQUIRE_HEADER
from query_api.loki.asking import BEHIND_NS_MAX
from tests.query_api.conftest import served
from tests.query_api.written import HOUR, SECOND, START_NS, Line, Written

API = "/loki/api/v1"
MINUTE = 60 * SECOND
GRAFANA = {"X-Loki-Response-Encoding-Flags": "categorize-labels", "X-Scope-OrgID": "other"}
END_NS = START_NS + HOUR
STREAM = {
    "cluster": "test", "container": "app", "namespace": "shop", "node": "node-1",
    "output": "stdout", "pod": "api-1", "pod_uid": "uid-api-1", "restart": "0",
    "service_name": "app",
}  # fmt: skip


@pytest.fixture
def shop(written: Written) -> Written:
    """Twenty lines, one a minute, of two pods and two levels; complete up to their end."""
    written.ship(
        *(
            Line(
                START_NS + n * MINUTE,
                f"{'ERROR' if n % 4 == 0 else 'INFO'} line {n}",
                pod=f"api-{1 + n % 2}",
                output="stdout" if n % 2 == 0 else "stderr",
            )
            for n in range(20)
        )
    )
    written.inventory(END_NS + HOUR)
    return written


@asynccontextmanager
async def client_of(written: Written, **more: Any) -> AsyncIterator[httpx2.AsyncClient]:
    async with served(written.bucket, END_NS + MINUTE, **more) as client:
        yield client


async def ask(
    client: httpx2.AsyncClient, path: str, headers: dict[str, str] | None = None, **asked: Any
) -> Any:
    response = await client.get(f"{API}/{path}", params=asked, headers=headers or {})
    assert response.status_code == 200, response.text
    return response.json()


def span(**more: Any) -> dict[str, Any]:
    return {"start": str(START_NS), "end": str(END_NS), **more}


def lines_of(answer: Any) -> list[tuple[int, str]]:
    found = [(int(v[0]), v[1]) for stream in answer["data"]["result"] for v in stream["values"]]
    return sorted(found)


async def test_the_data_source_is_found_healthy(shop):
    async with client_of(shop) as client:
        answer = await ask(
            client, "query", GRAFANA,
            direction="backward", query="vector(1)+vector(1)", time="4000000000",
        )  # fmt: skip
    assert answer["data"]["resultType"] == "vector"
    assert answer["data"]["result"] == [{"metric": {}, "value": [4_000_000_000, "2"]}]


async def test_explore_gets_lines_in_the_shape_that_it_reads(shop):
    async with client_of(shop) as client:
        response = await client.get(
            f"{API}/query_range",
            headers=GRAFANA,
            params=span(
                query='{namespace="shop"} |= `line 0`', limit=1000, direction="backward",
                step="14000ms",
            ),
        )  # fmt: skip
    answer = response.json()
    assert list(answer) == ["status", "data", "infos"]
    assert list(answer["data"]) == ["resultType", "encodingFlags", "result", "stats"]
    assert answer["data"]["encodingFlags"] == ["categorize-labels"]
    of_line = {"structuredMetadata": {"detected_level": "error"}}
    assert answer["data"]["result"] == [
        {"stream": STREAM, "values": [[str(START_NS), "ERROR line 0", of_line]]}
    ]
    summary = answer["data"]["stats"]["summary"]
    assert summary["totalLinesProcessed"] == 1
    assert summary["totalBytesProcessed"] > 0
    assert answer["infos"] == [f"complete until {format_time(END_NS + HOUR)}"]


async def test_each_value_has_three_elements_and_each_label_is_a_text(shop):
    async with client_of(shop) as client:
        answer = await ask(client, "query_range", GRAFANA, **span(query="{} | drop level"))
        for stream in answer["data"]["result"]:
            assert all(isinstance(value, str) for value in stream["stream"].values())
            for time, line, more in stream["values"]:
                assert time.isdigit()
                assert isinstance(line, str)
                assert isinstance(more, dict)
        answer = await ask(client, "query_range", GRAFANA, **span(query="{} | keep pod"))
    assert [stream["stream"] for stream in answer["data"]["result"]] == [
        {"pod": "api-2"},
        {"pod": "api-1"},
    ]
    assert {value[2] == {} for s in answer["data"]["result"] for value in s["values"]} == {True}


async def test_without_the_flag_values_have_two_elements_and_the_level_is_a_label(shop):
    async with client_of(shop) as client:
        answer = await ask(client, "query_range", **span(query='{pod="api-1"} |= "line 0"'))
    assert list(answer["data"]) == ["resultType", "result", "stats"]
    assert answer["data"]["result"] == [
        {
            "stream": {**STREAM, "detected_level": "error"},
            "values": [[str(START_NS), "ERROR line 0"]],
        }
    ]


async def test_both_directions_have_the_first_lines_in_exactly_reverse_order(shop):
    async with client_of(shop) as client:
        asked = span(query='{pod="api-1"} | drop detected_level', limit=10)
        newest = await ask(client, "query_range", **asked, direction="BACKWARD")
        oldest = await ask(client, "query_range", **asked, direction="FORWARD")
        three = await ask(client, "query_range", **{**asked, "limit": 3})
    [backward] = newest["data"]["result"]
    [forward] = oldest["data"]["result"]
    assert backward["values"] == forward["values"][::-1]
    assert len(backward["values"]) == 10
    assert three["data"]["result"][0]["values"] == backward["values"][:3]


async def test_no_line_is_doubled_or_lost_between_two_adjoining_windows(shop):
    async with client_of(shop) as client:
        whole = await ask(client, "query_range", **span(query="{}"))
        for cut in (START_NS, START_NS + 5 * MINUTE, START_NS + 5 * MINUTE + 1, END_NS):
            parts = [
                await ask(client, "query_range", query="{}", start=str(start), end=str(end))
                for start, end in ((START_NS, cut), (cut, END_NS))
            ]
            assert sorted([*lines_of(parts[0]), *lines_of(parts[1])]) == lines_of(whole)
    assert len(lines_of(whole)) == 20


async def test_times_are_in_seconds_nanoseconds_fractions_or_rfc_3339(shop):
    second = (START_NS + 5 * MINUTE) // SECOND
    async with client_of(shop) as client:
        for start in (second, f"{second}.000000000", second * SECOND, format_time(second * SECOND)):
            answer = await ask(client, "query_range", query="{}", start=start, end=str(END_NS))
            assert len(lines_of(answer)) == 15, start
        answer = await ask(client, "query_range", query="{}", end=str(END_NS), since="45m")
        assert len(lines_of(answer)) == 5


async def test_what_the_volume_histogram_asks_is_counted_by_level(shop):
    query = (
        "sum by (level, detected_level) (count_over_time({namespace=`shop`} | drop __error__[5m]))"
    )
    async with client_of(shop) as client:
        answer = await ask(
            client, "query_range", {**GRAFANA, "X-Query-Tags": "Source=logvolhist"},
            query=query, start=str(START_NS), end=str(START_NS + 20 * MINUTE), step="300000ms",
        )  # fmt: skip
    assert answer["data"]["resultType"] == "matrix"
    levels = {s["metric"]["detected_level"]: s["values"] for s in answer["data"]["result"]}
    seconds = [START_NS // SECOND + 300 * n for n in range(5)]
    # The first point holds its own line alone; a window ends with its point.
    assert levels["error"] == [
        [at, n] for at, n in zip(seconds, ("1", "1", "1", "1", "1"), strict=True)
    ]
    assert levels["info"] == [
        [at, n] for at, n in zip(seconds[1:], ("4", "4", "4", "3"), strict=True)
    ]


async def test_an_instant_query_counts_what_is_before_its_time(shop):
    async with client_of(shop) as client:

        async def value(query: str, at_ns: int) -> Any:
            answer = await ask(client, "query", query=query, time=str(at_ns))
            assert answer["data"]["resultType"] == "vector"
            return [
                (each["metric"], each["value"][1]) for each in answer["data"]["result"]
            ]  # fmt: skip

        at = START_NS + 10 * MINUTE
        assert await value("sum(count_over_time({}[10m]))", at) == [({}, "10")]
        assert await value("sum(count_over_time({}[10m]))", at - 1) == [({}, "10")]
        assert await value("sum(count_over_time({}[1m]))", at) == [({}, "1")]
        assert await value("sum(count_over_time({}[1m] offset 10m))", at) == [({}, "1")]
        assert await value("sum(count_over_time({} |= `nowhere` [1m]))", at) == []
        assert await value("sum by (pod) (rate({}[100s]))", at) == [
            ({"pod": "api-1"}, "0.01"),
            ({"pod": "api-2"}, "0.01"),
        ]
        size = len("INFO line 9") + len("INFO line 10")
        assert await value("sum(bytes_over_time({}[2m]))", at) == [({}, str(size))]
        assert await value("count(count_over_time({}[2m]))", at) == [({}, "2")]
        assert await value("sum(count_over_time({}[10m])) > 9", at) == [({}, "10")]
        assert await value("sum(count_over_time({}[10m])) > 10", at) == []
        assert await value("sum(count_over_time({}[10m])) > bool 10", at) == [({}, "0")]
        top = "topk(1, sum by (detected_level) (count_over_time({}[10m])))"
        assert await value(top, at) == [({"detected_level": "info"}, "8")]
        share = "sum(count_over_time({level=`error`}[10m])) / sum(count_over_time({}[10m])) * 100"
        assert await value(share, at) == [({}, "20")]
        assert await value('absent_over_time({pod="none"}[10m])', at) == [({"pod": "none"}, "1")]
        assert await value('absent_over_time({pod="api-1"}[10m])', at) == []
        [one] = await value("count_over_time({pod=`api-1`} | level=`error` [1m])", START_NS)
        assert one == ({**STREAM, "detected_level": "error"}, "1")


@pytest.mark.parametrize("range_s", [60, 300, 290, 7, 1_000])
@pytest.mark.parametrize("step_s", [60, 45, 600])
async def test_points_count_what_single_questions_do(shop, range_s, step_s):
    query = f"sum by (pod) (count_over_time({{}}[{range_s}s]))"
    start, end = START_NS + MINUTE, START_NS + 25 * MINUTE
    async with client_of(shop) as client:
        answer = await ask(
            client, "query_range", query=query, start=str(start), end=str(end), step=step_s
        )
        found = {
            (series["metric"]["pod"], at): value
            for series in answer["data"]["result"]
            for at, value in series["values"]
        }
        expected = {}
        for at in range(start // SECOND, end // SECOND + 1, step_s):
            single = await ask(client, "query", query=query, time=str(at))
            for each in single["data"]["result"]:
                expected[each["metric"]["pod"], at] = each["value"][1]
    assert found == expected


async def test_labels_their_values_and_series_are_told(shop):
    async with client_of(shop) as client:
        assert await ask(client, "labels", **span()) == {
            "status": "success", "data": sorted(STREAM),
        }  # fmt: skip
        assert (await ask(client, "label", start="0", end="1"))["data"] == []
        for name, values in [
            ("pod", ["api-1", "api-2"]), ("namespace", ["shop"]),
            ("output", ["stderr", "stdout", "unknown"]), ("cluster", ["test"]),
            ("service_name", ["app"]), ("restart", ["0"]),
            ("__stream_shard__", []),
        ]:  # fmt: skip
            answer = await ask(client, f"label/{name}/values", **span())
            assert answer == {"status": "success", "data": values}
        narrowed = await ask(client, "label/pod/values", **span(query='{pod=~".*2"}'))
        assert narrowed["data"] == ["api-2"]
        told = {name: value for name, value in STREAM.items() if name != "output"}
        other = {**told, "pod": "api-2", "pod_uid": "uid-api-2"}
        for asked in ({}, {"match[]": "{}"}, {"match": '{namespace="shop"}'}):
            assert (await ask(client, "series", **span(**asked)))["data"] == [told, other]
        both = {"match[]": ['{pod="api-1"}', '{pod_uid="uid-api-1"}']}
        assert (await ask(client, "series", **span(**both)))["data"] == [told]


async def test_a_form_is_taken_as_parameters_are(shop):
    async with client_of(shop) as client:
        response = await client.post(f"{API}/query_range", data=span(query='{pod="api-2"}'))
        assert len(lines_of(response.json())) == 10
        response = await client.post(f"{API}/series", data=span(**{"match[]": '{pod="api-2"}'}))
        assert len(response.json()["data"]) == 1
        response = await client.post(f"{API}/query", content=b"x" * (1 << 21))
        assert response.status_code == 400


async def test_an_answer_is_compressed_when_asked(shop):
    async with client_of(shop) as client:
        asked = span(query="{}")
        packed = await client.get(
            f"{API}/query_range", params=asked, headers={"Accept-Encoding": "gzip"}
        )
        assert packed.headers["content-encoding"] == "gzip"
        plain = await client.get(
            f"{API}/query_range", params=asked, headers={"Accept-Encoding": "identity"}
        )
        assert "content-encoding" not in plain.headers
    assert packed.json()["data"]["result"] == plain.json()["data"]["result"]


async def test_one_stable_sentence_warns_of_what_may_be_missing(shop):
    shop.lose(Line(START_NS, "").stream, 10**6, True, START_NS, END_NS)
    async with client_of(shop) as client:
        asked = {"query": "{} | drop __error__", "end": str(END_NS)}
        pieces = [
            await ask(client, "query_range", GRAFANA, **asked, start=str(START_NS + n * MINUTE))
            for n in range(3)
        ]
        counted = await ask(client, "query", query="count_over_time({}[1h])", time=str(END_NS))
        late = await ask(client, "query_range", GRAFANA, query="{}", start=str(END_NS + 2 * HOUR),
                         end=str(END_NS + 3 * HOUR))  # fmt: skip
    [warning] = pieces[0]["warnings"]
    assert warning.startswith("incomplete: lines are missing (LOST_")
    assert "/v1/gaps" in warning
    assert {tuple(each["warnings"]) for each in (*pieces, counted)} == {(warning,)}
    assert list(pieces[0]) == ["status", "data", "warnings", "infos"]
    assert late["warnings"][0].startswith("unknown: lines may still be on their way")


async def test_a_client_can_demand_a_complete_answer(shop):
    must, until = {REQUIRE_HEADER: "complete"}, {REQUIRE_HEADER: "complete-until"}
    known_ns = END_NS + HOUR
    asked: dict[str, Any] = {"query": "sum(count_over_time({}[2h]))"}
    async with client_of(shop) as client:

        async def instant(headers: dict[str, str], at_ns: int) -> httpx2.Response:
            params = {**asked, "time": str(at_ns)}
            return await client.get(f"{API}/query", params=params, headers=headers)

        assert (await instant(must, known_ns - 1)).json()["data"]["result"][0]["value"][1] == "20"
        refused = await instant(must, known_ns + MINUTE)
        assert refused.status_code == 409
        assert "unknown" in refused.text
        moved = (await instant(until, known_ns + MINUTE)).json()
        assert moved["data"]["result"][0]["value"][0] < known_ns / SECOND
        assert "warnings" not in moved
        assert (await instant(until, known_ns + 2 * BEHIND_NS_MAX)).status_code == 409
        assert (await instant({REQUIRE_HEADER: "x"}, known_ns)).status_code == 400
        bounds = {"start": str(known_ns - 3 * MINUTE), "end": str(known_ns + 3 * MINUTE)}
        points = await ask(client, "query_range", until, **asked, **bounds, step=60)
        assert len(points["data"]["result"][0]["values"]) == 3
        answer = await ask(client, "query_range", until, query="{}", start=str(START_NS),
                           end=str(known_ns + MINUTE))  # fmt: skip
        assert len(lines_of(answer)) == 20
        assert "warnings" not in answer


@pytest.mark.parametrize(
    ("path", "asked", "status", "says"),
    [
        ("query_range", {"query": '{a="b'}, 400, "not closed at column 4"),
        ("query_range", {}, 400, "an empty query at column 1"),
        ("query_range", {"query": "{}", "limit": "0"}, 400, "no positive number"),
        ("query_range", {"query": "{}", "limit": "20000"}, 400, "the maximum is 10000"),
        ("query_range", {"query": "{}", "direction": "up"}, 400, "backward or forward"),
        ("query_range", {"query": "{}", "start": "x"}, 400, "start='x' is no time"),
        ("query_range", {"query": "{}", "start": "3", "end": "2"}, 400, "end is before start"),
        ("query_range", {"query": "{}", "interval": "5s"}, 400, "interval is not supported"),
        ("query_range", {"query": "rate({}[1m])", "step": "0"}, 400, "no duration"),
        ("query_range", {"query": "rate({}[1m])", "step": "1ms"}, 400, "11,000 points"),
        ("query_range", {"query": "sum by (app) (rate({}[1m]))"}, 400, "grouping by 'app'"),
        ("query_range", {"query": '{app="x"}'}, 400, "no stream has the label"),
        ("query_range", {"query": "{} | label_format a=b"}, 400, "label_format is not supported"),
        ("query", {"query": "{}"}, 400, "not supported as an instant query type"),
        ("series", {"match[]": "rate({}[1m])"}, 400, "a query that counts"),
        ("delete", {}, 403, "everyline delete"),
        ("rules", {}, 404, "404 page not found"),
        ("nothing/of/that/kind", {}, 404, "404 page not found"),
    ],
)
async def test_an_error_is_a_text_that_a_user_can_act_upon(shop, path, asked, status, says):
    async with client_of(shop) as client:
        response = await client.get(f"{API}/{path}", params=asked)
    assert response.status_code == status
    assert response.headers["content-type"].startswith("text/plain")
    assert says in response.text
    assert "timeout" not in response.text


async def test_without_a_table_a_client_may_try_again(local):
    async with served(local) as client:
        response = await client.get(f"{API}/query", params={"query": "vector(1)+vector(1)"})
    assert response.status_code == 503
    assert "start an indexer first" in response.text


async def test_what_others_ask_of_loki_is_answered(shop):
    async with client_of(shop) as client:
        info = (await client.get(f"{API}/status/buildinfo")).json()
        rules = (await client.get("/prometheus/api/v1/rules")).json()
        requests = (await client.get("/metrics")).text
    assert list(info) == ["version", "revision", "branch", "buildUser", "buildDate", "goVersion"]
    assert rules == {"status": "success", "data": {"groups": []}}
    assert "everyline_query_request_seconds" in requests
