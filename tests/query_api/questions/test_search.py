"""Searches over real tables: what is found, in which order, page by page, at which cost."""

import json
import pickle
import secrets
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from indexer.query.parse import parse_query
from indexer.query.tree import EVERYTHING
from indexer.store.local import LocalBucket
from query_api.questions.answer import Answer
from query_api.scan.segment import ScanTask, scan_segment
from tests.examples import examples
from tests.query_api.conftest import served
from tests.query_api.written import HOUR, SECOND, START_NS, Line, Written

EVER: dict[str, Any] = {"from": "0", "to": "now"}


def messages(answer) -> list[str]:
    return [row["message"] for row in answer["rows"]]


async def test_a_row_has_what_was_written(any_bucket):
    written = Written(any_bucket)
    line = Line(START_NS + 123_456_789, "ERROR caf\xe9", output="stderr")
    written.ship(line)
    async with served(any_bucket) as client:
        response = await client.get("/v1/search", params={"from": START_NS})
    assert response.status_code == 200
    answer = response.json()
    Answer.model_validate(answer)
    [row] = answer["rows"]
    [file] = written.node().files.values()
    assert row == {
        "time": "2026-09-21T14:00:00.123456789Z",
        "namespace": "shop",
        "pod": "api-1",
        "pod_uid": "uid-api-1",
        "container": "app",
        "restart": 0,
        "node": "node-1",
        "output": "stderr",
        "level": "error",
        "message": "ERROR caf\xe9",
        "file_id": file.id.hex(),
        "epoch": 0,
        "offset": 0,
    }
    assert answer["version"] == written.version
    assert answer["from"] == "2026-09-21T14:00:00.000000000Z"
    assert answer["next"] is None
    assert answer["cost"]["segments_read"] == 1
    assert answer["cost"]["gets"] >= 1
    assert answer["cost"]["bytes"] > 0


async def test_bytes_that_are_no_utf8_come_as_base64(written):
    written.ship(Line(START_NS, "a\udcffb"))
    async with served(written.bucket) as client:
        answer = (await client.get("/v1/search", params=EVER)).json()
    Answer.model_validate(answer)
    [row] = answer["rows"]
    assert (row["message"], row["raw"]) == ("a\ufffdb", "Yf9i")


async def test_filters_words_and_times_narrow_the_answer(written):
    written.ship(
        Line(START_NS, "INFO one two"),
        Line(START_NS + 1, "ERROR two", pod="db-1", namespace="data"),
        Line(START_NS + 2, "WARN three", container="sidecar"),
    )
    written.ship(Line(START_NS + 3, "INFO four"), node="node-2")
    asked: list[tuple[dict[str, Any], list[str]]] = [
        ({"query": "two"}, ["ERROR two", "INFO one two"]),
        ({"query": "two -error"}, ["INFO one two"]),
        ({"query": '*"WO"*'}, ["ERROR two", "INFO one two"]),
        ({"query": "wo"}, []),
        ({"query": '"WO"'}, []),
        ({"query": "(one OR three) -pod:db-*"}, ["WARN three", "INFO one two"]),
        ({"query": "level>=warn"}, ["WARN three", "ERROR two"]),
        ({"query": "node:node-2 OR /^ERR/"}, ["INFO four", "ERROR two"]),
        ({"namespace": "data"}, ["ERROR two"]),
        ({"namespace": "data,shop", "pod": ["db-1", "api-1"], "node": "node-1"},
         ["WARN three", "ERROR two", "INFO one two"]),
        ({"container": "sidecar"}, ["WARN three"]),
        ({"node": "node-2"}, ["INFO four"]),
        ({"level": "warn,error"}, ["WARN three", "ERROR two"]),
        ({"from": START_NS + 1, "to": START_NS + 3}, ["WARN three", "ERROR two"]),
        ({"pod": "none"}, []),
    ]  # fmt: skip
    async with served(written.bucket) as client:
        for parameters, expected in asked:
            answer = (await client.get("/v1/search", params={**EVER, **parameters})).json()
            assert messages(answer) == expected, parameters


async def test_segments_outside_of_the_time_are_not_read(written):
    for hour in range(4):
        written.ship(Line(START_NS + hour * HOUR, f"hour {hour}"))
    async with served(written.bucket, START_NS + 10 * HOUR) as client:
        asked: dict[str, Any] = {"from": START_NS + HOUR, "to": START_NS + 2 * HOUR}
        answer = (await client.get("/v1/search", params=asked)).json()
    assert messages(answer) == ["hour 1"]
    cost = answer["cost"]
    assert (cost["segments_considered"], cost["segments_pruned"], cost["segments_read"]) == (
        4,
        3,
        1,
    )


async def test_a_row_filed_under_another_hour_is_found_by_its_time(written):
    # Outside of what the table accepts, so it is filed under the hour of the commit.
    written.ship(Line(START_NS + 2_000 * HOUR, "from the future"))
    async with served(written.bucket, START_NS + 3_000 * HOUR) as client:
        asked: dict[str, Any] = {"from": START_NS + 1_999 * HOUR, "to": START_NS + 2_001 * HOUR}
        answer = (await client.get("/v1/search", params=asked)).json()
    assert messages(answer) == ["from the future"]


async def test_a_full_page_stops_before_older_segments(written):
    for hour in range(5):
        written.ship(*(Line(START_NS + hour * HOUR + n, f"{hour} {n}") for n in range(3)))
    async with served(written.bucket, START_NS + 10 * HOUR, scan_threads=1) as client:
        answer = (await client.get("/v1/search", params={**EVER, "limit": 2})).json()
        assert messages(answer) == ["4 2", "4 1"]
        assert answer["cost"]["segments_read"] == 1
        asked: dict[str, Any] = {**EVER, "limit": 2, "order": "asc"}
        answer = (await client.get("/v1/search", params=asked)).json()
        assert messages(answer) == ["0 0", "0 1"]
        assert answer["cost"]["segments_read"] == 1


times = st.integers(0, 6).map(lambda n: START_NS + n * (HOUR // 2) + n % 3)
commits = st.lists(
    st.lists(
        st.tuples(times, st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=6
    ),
    min_size=1,
    max_size=4,
)


@examples(25, suppress_health_check=list(HealthCheck))
@given(
    commits,
    st.integers(1, 5),
    st.integers(1, 12),
    st.sampled_from(["asc", "desc"]),
    st.sampled_from(["", "x"]),
)
async def test_pages_together_are_all_rows_in_order(
    tmp_path_factory, shipped, limit, page_bytes, order, query
):
    bucket = LocalBucket(tmp_path_factory.mktemp("pages"))
    written = Written(bucket)
    expected = []
    for lines in shipped:
        made = [Line(time_ns, f"{word} {n}", pod) for n, (time_ns, pod, word) in enumerate(lines)]
        at = {s: (f.id, f.size) for s, f in written.node().files.items()}
        written.ship(*made)
        for line in made:
            file = written.node().files[line.stream]
            offset = at.get(line.stream, (file.id, 0))[1]
            at[line.stream] = (file.id, offset + len(line.bytes))
            if query in line.message:
                expected.append((line.time_ns, file.id, offset, line.message))
    expected.sort(reverse=order == "desc")
    rows, cursor = [], ""
    limits = {"scan_threads": 2, "page_bytes": page_bytes}
    async with served(bucket, START_NS + 10 * HOUR, **limits) as client:
        asked: dict[str, Any] = {**EVER, "limit": limit, "order": order, "query": query}
        while True:
            answer = (await client.get("/v1/search", params={**asked, "cursor": cursor})).json()
            bytes_of = [len(row["message"]) for row in answer["rows"]]
            assert len(bytes_of) <= limit
            assert len(bytes_of) <= 1 or sum(bytes_of) <= page_bytes
            rows += answer["rows"]
            if not (cursor := answer["next"]):
                break
            assert len(bytes_of) == limit or sum(bytes_of) + 3 > page_bytes
    found = [(bytes.fromhex(row["file_id"]), row["offset"], row["message"]) for row in rows]
    assert found == [tuple(row[1:]) for row in expected]


async def test_a_page_ends_before_it_holds_too_many_bytes(written):
    written.ship(*(Line(START_NS + n, f"{n} " + "x" * 1_000) for n in range(8)))
    written.ship(Line(START_NS + 8, "y" * 5_000))
    asked: dict[str, Any] = {**EVER, "limit": 100}
    pages = []
    async with served(written.bucket, page_bytes=3_500) as client:
        while True:
            answer = (await client.get("/v1/search", params=asked)).json()
            pages.append([len(row["message"]) for row in answer["rows"]])
            if not answer["next"]:
                break
            asked["cursor"] = answer["next"]
        metrics = (await client.get("/metrics")).text
    assert pages == [[5_000], [1_002] * 3, [1_002] * 3, [1_002] * 2]
    assert 'everyline_query_limit_reached_total{limit="page_bytes"} 3.0' in metrics


async def test_a_cursor_stays_with_its_version(written):
    written.ship(*(Line(START_NS + n, f"old {n}") for n in range(4)))
    async with served(written.bucket) as client:
        asked: dict[str, Any] = {**EVER, "limit": 2}
        first = (await client.get("/v1/search", params=asked)).json()
        written.ship(Line(START_NS + 1, "new", pod="late"))
        asked["cursor"] = first["next"]
        second = (await client.get("/v1/search", params=asked)).json()
    assert messages(first) + messages(second) == ["old 3", "old 2", "old 1", "old 0"]
    assert second["version"] == first["version"] == written.version - 1


async def test_another_replica_answers_a_cursor_with_the_same_ledger(written):
    written.ship(*(Line(START_NS + n, f"old {n}") for n in range(3)))
    written.inventory(START_NS + SECOND)
    asked: dict[str, Any] = {"from": START_NS, "to": START_NS + 10, "limit": 2}
    async with served(written.bucket) as client:
        first = (await client.get("/v1/search", params=asked)).json()
    stream = next(iter(written.node().files))
    written.lose(stream, 10_000, False, START_NS, START_NS + SECOND)
    async with served(written.bucket) as client:
        asked["cursor"] = first["next"]
        second = (await client.get("/v1/search", params=asked)).json()
        del asked["cursor"]
        latest = (await client.get("/v1/search", params=asked)).json()
    assert messages(second) == ["old 0"]
    assert first["completeness"] == second["completeness"]
    assert second["completeness"]["verdict"] == "complete"
    assert latest["completeness"]["verdict"] == "incomplete"


async def test_a_version_that_is_gone_says_to_ask_again(written):
    written.ship(*(Line(START_NS + n, f"old {n}") for n in range(3)))
    asked: dict[str, Any] = {**EVER, "limit": 1}
    async with served(written.bucket) as client:
        first = (await client.get("/v1/search", params=asked)).json()
        for name in list(written.bucket.names(written.table.folder + "date=2")):
            written.bucket.delete(name)
        response = await client.get("/v1/search", params={**asked, "cursor": first["next"]})
    assert response.status_code == 410
    assert response.json()["error"]["code"] == "version_gone"
    assert "without a cursor" in response.json()["error"]["hint"]


async def test_a_word_is_looked_for_in_what_is_held_of_segments_from_the_second_time_on(written):
    for n in range(6):
        written.ship(Line(START_NS + n, f"only{n} " + "often " * 1_000))  # room for a filter
    async with served(written.bucket) as client:

        async def cost(query: str) -> Any:
            answer = (await client.get("/v1/search", params={**EVER, "query": query})).json()
            assert len(answer["rows"]) == (1 if query.startswith("only") else 0)
            return answer["cost"]

        assert (await cost("absent"))["segments_read"] == 6
        again, found = await cost("absent"), await cost("only3")
        metrics = (await client.get("/metrics")).text
    assert (again["segments_pruned"], again["segments_read"], again["gets"]) == (6, 0, 0)
    assert (found["segments_pruned"], found["segments_read"]) == (5, 1)
    assert "everyline_query_outline_bytes 0.0" not in metrics


async def test_segments_are_found_though_nothing_may_be_held_of_them(written):
    for n in range(6):
        written.ship(Line(START_NS + n, f"only{n} often"))
    async with served(written.bucket, outline_bytes=0) as client:
        for n in (*range(6), *range(6)):
            asked = {**EVER, "query": f"only{n}"}
            assert messages((await client.get("/v1/search", params=asked)).json())


async def test_a_segment_that_is_broken_makes_the_answer_incomplete(written):
    written.ship(Line(START_NS, "good"))
    written.inventory(START_NS + SECOND)
    written.ship(Line(START_NS + 1, "bad"))
    written.inventory(START_NS + 2 * SECOND)
    asked: dict[str, Any] = {"from": START_NS, "to": START_NS + SECOND}
    async with served(written.bucket) as client:
        whole = (await client.get("/v1/search", params=asked)).json()
        assert whole["completeness"]["verdict"] == "complete"
        paths = sorted(
            (written.bucket.get(name), name)
            for name in written.bucket.names(written.table.folder + "date=2")
        )
        data, name = next(each for each in paths if b"bad" in each[0])
        written.bucket.delete(name)
        written.bucket.put(name, b"x" * 20 + data[20:])
        answer = (await client.get("/v1/search", params=asked)).json()
    assert messages(answer) == ["good"]
    completeness = answer["completeness"]
    assert completeness["verdict"] == "incomplete"
    assert completeness["scan"]["segments_failed"] == 1
    assert name in completeness["scan"]["errors"][0]


async def test_a_search_that_takes_too_long_says_what_it_left_out(written):
    for n in range(30):
        written.ship(Line(START_NS + n * HOUR, f"hour {n}"))
    now_ns = START_NS + 50 * HOUR
    async with served(written.bucket, now_ns, query_timeout_ms=1, scan_threads=1) as client:
        answer = (await client.get("/v1/search", params=EVER)).json()
        metrics = (await client.get("/metrics")).text
    assert answer["completeness"]["verdict"] == "incomplete"
    assert "time limit" in answer["completeness"]["scan"]["cut_off"]
    assert answer["next"] is None
    assert 'everyline_query_limit_reached_total{limit="query_timeout_ms"} 1.0' in metrics


async def test_a_streamed_answer_ends_with_its_verdict(written):
    written.ship(*(Line(START_NS + n, f"line {n}") for n in range(3)))
    async with served(written.bucket) as client:
        response = await client.get(
            "/v1/search", params={**EVER, "limit": 2}, headers={"Accept": "application/x-ndjson"}
        )
    assert response.headers["content-type"].startswith("application/x-ndjson")
    header, *rows, last = (json.loads(line) for line in response.text.splitlines())
    assert header["version"] == written.version
    assert header["plan"]["segments_considered"] == 1
    assert [row["message"] for row in rows] == ["line 2", "line 1"]
    assert set(last) == {"next", "completeness", "cost", "hints"}
    assert last["completeness"]["verdict"] == "unknown"


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
async def test_who_requires_a_complete_answer_gets_it_or_an_error(written, accept):
    written.ship(Line(START_NS, "line"))
    written.inventory(START_NS + SECOND)
    async with served(written.bucket) as client:
        asked: dict[str, Any] = {"from": START_NS, "to": START_NS + 1, "require": "complete"}
        headers = {"Accept": accept}
        assert (await client.get("/v1/search", params=asked, headers=headers)).status_code == 200
        asked["to"] = START_NS + 2 * SECOND
        response = await client.get("/v1/search", params=asked, headers=headers)
    assert response.status_code == 409
    error = response.json()["error"]
    assert (error["code"], error["completeness"]["verdict"]) == ("not_complete", "unknown")


async def test_thousands_of_rows_in_several_row_groups_are_paged_in_order(written, monkeypatch):
    monkeypatch.setattr("indexer.segment.write.ROW_GROUP_ROWS", 500)
    count = 4_000
    lines = [
        Line(START_NS + (n * 7919 % count) * 1000, f"n {n}", f"pod-{n % 3}") for n in range(count)
    ]
    lines.sort(key=lambda line: line.pod)
    written.ship(*lines)
    async with served(written.bucket) as client:
        asked: dict[str, Any] = {**EVER, "limit": 1_500, "pod": "pod-1,pod-2"}
        rows = []
        while True:
            answer = (await client.get("/v1/search", params=asked)).json()
            rows += answer["rows"]
            if not answer["next"]:
                break
            asked["cursor"] = answer["next"]
    expected = sorted((ln for ln in lines if ln.pod != "pod-0"), key=lambda ln: -ln.time_ns)
    assert [row["message"] for row in rows] == [line.message for line in expected]


def test_a_scan_is_a_function_of_plain_values(written):
    written.ship(*(Line(START_NS + n, f"line {n}") for n in range(3)))
    folder = written.table.folder
    [name] = written.bucket.names(folder + "date=2")
    task = ScanTask(
        bucket=written.bucket.uri,
        name=name,
        size_bytes=written.bucket.size(name),
        from_ns=START_NS,
        to_ns=START_NS + 2,
        equals=(("pod", ("api-1",)),),
        query=parse_query("line"),
        newest_first=True,
        after=None,
        limit=10,
        page_bytes=1 << 20,
    )
    scanned = scan_segment(pickle.loads(pickle.dumps(task)))  # noqa: S301 - our own bytes
    assert scanned.rows.column("message").to_pylist() == ["line 1", "line 0"]
    assert (scanned.gets, scanned.bytes) == (1, task.size_bytes)


def test_a_scan_without_a_match_reads_no_more_than_what_shows_that(written, monkeypatch):
    monkeypatch.setattr("indexer.segment.reader.WHOLE_BYTES", 0)
    monkeypatch.setattr("indexer.store.checked_file._TOGETHER_BYTES", 0)
    written.ship(*(Line(START_NS + n, secrets.token_hex(50)) for n in range(10_000)))
    [name] = written.bucket.names(written.table.folder + "date=2")
    size = written.bucket.size(name)
    task = ScanTask(
        "", name, size, START_NS, START_NS + 10_000, (), EVERYTHING, True, None, 9, 1 << 20
    )
    whole = scan_segment(task, written.bucket)
    by_level = replace(task, equals=(("level", ("fatal",)),))
    by_time = replace(task, from_ns=START_NS + HOUR, to_ns=START_NS + 2 * HOUR)
    by_word = replace(task, query=parse_query("none"))
    read = [scan_segment(each, written.bucket) for each in (by_time, by_level, by_word)]
    assert [len(each.rows) for each in (whole, *read)] == [10, 0, 0, 0]
    assert [each.gets for each in read[:2]] == [1, 1]  # the footer's statistics say it
    assert read[0].bytes < size / 5
    assert read[2].bytes < whole.bytes


def test_the_token_filter_leaves_row_groups_unread_but_none_that_match(written, monkeypatch):
    monkeypatch.setattr("indexer.segment.write.ROW_GROUP_ROWS", 2_000)
    monkeypatch.setattr("indexer.segment.reader.WHOLE_BYTES", 0)
    much = " more" * 60  # text enough for a filter of its full size
    written.ship(
        *(Line(START_NS + n, f"{secrets.token_hex(20)} common n{n}{much}") for n in range(10_000))
    )
    [name] = written.bucket.names(written.table.folder + "date=2")
    size = written.bucket.size(name)
    task = ScanTask(
        "", name, size, START_NS, START_NS + 10_000, (), EVERYTHING, True, None, 9, 1 << 20
    )
    [row] = scan_segment(replace(task, query=parse_query("n4321")), written.bucket).rows.to_pylist()
    needle = row["message"].split()[0]
    for query, found in [
        (needle.upper(), 1),
        (f'"{needle} common"', 1),
        (f'*"{needle[5:]} Common n43"*', 1),  # its edges are parts of tokens
        (f'*"{needle[5:]}"*', 1),
        (f'"{needle[5:]}"', 0),
        (f"({needle} OR {secrets.token_hex(20)}) common", 1),
        (f"n4321 -{secrets.token_hex(20)}", 1),
        (f"{needle} common", 1),
        (f"{needle[5:]}", 0),
    ]:
        scanned = scan_segment(replace(task, query=parse_query(query)), written.bucket)
        assert len(scanned.rows) == found, query
    everything = scan_segment(replace(task, query=parse_query('*"nowhere"*')), written.bucket)
    footer = scan_segment(replace(task, equals=(("level", ("fatal",)),)), written.bucket)
    absent = scan_segment(replace(task, query=parse_query(secrets.token_hex(20))), written.bucket)
    assert len(everything.rows) == len(absent.rows) == 0
    assert everything.bytes > size / 2
    assert absent.bytes - footer.bytes <= 5 * 32 + size / 4  # one row group by chance
    assert absent.gets - footer.gets <= 3


async def test_words_are_found_in_segments_without_a_token_filter(written, monkeypatch):
    monkeypatch.setattr(
        "indexer.segment.tokens.TokenFilterWriter.finish", lambda writer, offset: None
    )
    written.ship(Line(START_NS, "INFO one two"))
    async with served(written.bucket) as client:
        asked: dict[str, Any] = {**EVER, "query": "one"}
        answer = (await client.get("/v1/search", params=asked)).json()
    assert messages(answer) == ["INFO one two"]


async def test_a_pattern_of_names_is_asked_of_rows_and_ledger_alike(written):
    for n, pod in enumerate(("api-1", "api-2", "web-1")):
        written.ship(Line(START_NS + n, f"of {pod}", pod=pod))
    async with served(written.bucket) as client:

        async def ask(path: str, **asked: Any) -> Any:
            return (await client.get(f"/v1/{path}", params={**EVER, **asked})).json()

        found = await ask("search", pod="api-*")
        assert messages(found) == ["of api-2", "of api-1"]
        assert found["completeness"]["streams"]["expected"] == 2
        assert messages(await ask("search", pod="*-1", query="web OR -web")) == [
            "of web-1",
            "of api-1",
        ]
        assert messages(await ask("search", pod="api-2,w*", query="of")) == ["of web-1", "of api-2"]
        streams = await ask("streams", pod="api-*")
        assert sorted(each["pod"] for each in streams["streams"]) == ["api-1", "api-2"]
        page = await ask("search", pod="api-*", limit=1)
        assert messages(await ask("search", pod="api-*", limit=1, cursor=page["next"])) == [
            "of api-1"
        ]
        for asked in ({"pod": 'a"*'}, {"level": "err*"}):
            assert "error" in await ask("search", **asked)


async def test_a_name_that_no_stream_has_is_said_with_the_nearest(written):
    written.ship(Line(START_NS, "x", namespace="payments"))
    async with served(written.bucket) as client:

        async def hints(**asked: Any) -> Any:
            return (await client.get("/v1/search", params={**EVER, **asked})).json()["hints"]

        assert await hints(namespace="paymnets") == [
            "no stream has the namespace 'paymnets'; near: payments"
        ]
        assert await hints(pod="zz*") == ["no stream has the pod 'zz*'"]
        assert await hints(namespace="payments", pod="api-*") == []


async def test_a_parameter_of_one_value_is_given_once(written):
    written.ship(Line(START_NS, "x"))
    async with served(written.bucket) as client:
        twice = await client.get("/v1/search?query=a&query=b")
        lists = await client.get("/v1/search?pod=a&pod=b")
        gaps = await client.get("/v1/gaps?type=NOSUCH")
        wrong_method = await client.put("/v1/search")
        incomplete = await client.get("/v1/search?node=nosuch&require=complete&from=0")
    assert twice.status_code == 400
    assert twice.json()["error"]["message"] == "query is given more than once"
    assert lists.status_code == 200
    assert "one of LOST_TOPIC" in gaps.json()["error"]["hint"]
    assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "GET")
    completeness = incomplete.json()["error"]["completeness"]
    assert completeness["complete_until"] is None
    assert "partition" in completeness["held_back_by"]
