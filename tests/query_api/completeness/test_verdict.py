"""What an answer says it may be missing, for each way in which something can be."""

from dataclasses import replace
from typing import Any

import pytest

from collector.wire.batch import Unborn, Unseen
from indexer.table.coverage import Balance, Coverage, Deleted, Expired
from query_api.completeness.statement import Completeness
from query_api.completeness.verdict import no_better_than
from query_api.questions.answer import Gaps, Status, StreamList
from tests.query_api.conftest import NOW_NS, served
from tests.query_api.written import HOUR, SECOND, START_NS, Line, Written

LINE = Line(START_NS + SECOND, "line")
UNTIL_NS = START_NS + 60 * SECOND
ASKED = {"from": START_NS, "to": UNTIL_NS}


async def verdict(written: Written, **asked) -> Any:
    async with served(written.bucket) as client:
        answer = (await client.get("/v1/search", params={**ASKED, **asked})).json()
    Completeness.model_validate(answer["completeness"])
    return answer["completeness"]


async def gaps(written: Written, **asked) -> Any:
    async with served(written.bucket) as client:
        answer = (await client.get("/v1/gaps", params=asked)).json()
    Gaps.model_validate(answer)
    return answer["gaps"]


async def test_without_an_inventory_nothing_is_known(written):
    empty = await verdict(written)
    assert (empty["verdict"], empty["complete_until"]) == ("unknown", None)
    written.ship(LINE)
    found = await verdict(written)
    assert (found["verdict"], found["complete_until"]) == ("unknown", None)
    assert found["held_back_by"]["node"] == "node-1"
    assert found["streams"] == {"expected": 1, "covered": 0, "unknown": 1}


async def test_an_answer_is_complete_up_to_the_last_inventory(written):
    written.ship(LINE)
    written.inventory(UNTIL_NS)
    found = await verdict(written)
    assert found["verdict"] == "complete"
    assert found["complete_until"] == "2026-09-21T14:01:00.000000000Z"
    assert (found["reasons"], found["gaps"]) == ([], [])
    assert found["streams"] == {"expected": 1, "covered": 1, "unknown": 0}
    assert (await verdict(written, to=UNTIL_NS + 1))["verdict"] == "unknown"


async def test_the_slowest_node_in_scope_holds_an_answer_back(written):
    written.ship(LINE)
    written.ship(Line(START_NS, "other", pod="api-2"), node="node-2")
    written.inventory(UNTIL_NS)
    written.inventory(UNTIL_NS - 1, "node-2")
    found = await verdict(written)
    assert (found["verdict"], found["held_back_by"]["node"]) == ("unknown", "node-2")
    assert (await verdict(written, node="node-1"))["verdict"] == "complete"
    assert (await verdict(written, pod="api-1"))["verdict"] == "complete"
    assert (await verdict(written, pod="api-2"))["verdict"] == "unknown"
    assert (await verdict(written, node="node-3"))["verdict"] == "unknown"


async def test_a_file_without_a_first_line_holds_back_its_own_container_and_says_so(written):
    written.ship(LINE)
    written.ship(Line(START_NS, "other", pod="api-2"))
    written.inventory(START_NS + 2 * SECOND)
    stream = Line(START_NS, "", pod="api-2").stream
    written.inventory(UNTIL_NS, unborn=[Unborn(stream, 5)])
    assert (await verdict(written, pod="api-1"))["verdict"] == "complete"
    assert (await verdict(written, pod="api-2", to=START_NS + 2 * SECOND))["verdict"] == "complete"
    why = "shop/api-2/app: a file has no complete first line"
    for asked in ({"pod": "api-2"}, {"namespace": "shop"}, {}):
        found = await verdict(written, **asked)
        assert found["verdict"] == "unknown"
        assert found["held_back_by"]["why"] == why
        assert found["reasons"] == [f"node node-1 does not read {why}"]
        assert found["complete_until"] == "2026-09-21T14:00:02.000000000Z"
    async with served(written.bucket) as client:
        [node] = (await client.get("/v1/status")).json()["nodes"]
    assert node["held_back_by"] == why
    written.inventory(UNTIL_NS + SECOND)
    assert (await verdict(written))["verdict"] == "complete"


async def test_a_place_that_is_not_read_makes_its_own_streams_unknown_and_says_why(written):
    written.ship(LINE)
    written.ship(Line(START_NS, "other", pod="api-2"))
    written.ship(Line(START_NS, "other", namespace="pay"))
    written.inventory(START_NS + 2 * SECOND)
    place = Unseen("shop", "api-2", "", "/pods/shop_api-2_1", "Permission denied")
    written.inventory(UNTIL_NS, unseen=[place])
    for asked in ({"pod": "api-1"}, {"namespace": "pay"}, {"to": START_NS + 2 * SECOND}):
        assert (await verdict(written, **asked))["verdict"] == "complete"
    for asked in ({"pod": "api-2"}, {"namespace": "shop"}, {"container": "app"}, {}):
        found = await verdict(written, **asked)
        assert found["verdict"] == "unknown"
        why = "shop/api-2: /pods/shop_api-2_1: Permission denied"
        assert found["reasons"] == [f"node node-1 does not read {why}"]
        assert found["held_back_by"]["why"] == why
    # A pod that nobody has heard of may be what a whole namespace hides.
    written.inventory(UNTIL_NS, unseen=[replace(place, pod="")])
    for pod in ("api-2", "api-9"):
        assert (await verdict(written, pod=pod, namespace="shop"))["verdict"] == "unknown"
    async with served(written.bucket) as client:
        [node] = (await client.get("/v1/status")).json()["nodes"]
    assert node["errors"] == ["shop: /pods/shop_api-2_1: Permission denied"]
    written.inventory(
        UNTIL_NS + SECOND, unseen=[replace(place, container=f"c-{i}") for i in range(12)]
    )
    reasons = (await verdict(written))["reasons"]
    assert (len(reasons), reasons[-1]) == (11, "and 2 more that nodes do not read")


async def test_each_partition_that_a_node_lists_must_have_an_inventory(written):
    written.ship(LINE)
    written.inventory(UNTIL_NS, partitions=(0, 1))
    found = await verdict(written)
    assert (found["verdict"], found["held_back_by"]["partition"]) == ("unknown", 1)


async def test_a_scan_that_could_not_look_proves_nothing(written):
    written.ship(LINE)
    written.inventory(UNTIL_NS, errors=["no permission for /logs/a"])
    found = await verdict(written)
    assert (found["verdict"], found["complete_until"]) == ("unknown", None)
    assert found["held_back_by"]["why"] == "no permission for /logs/a"


async def test_lost_bytes_make_incomplete_what_they_touch(written):
    written.ship(LINE, Line(START_NS, "well", pod="api-2"))
    written.lose(LINE.stream, 900, False, START_NS, START_NS + 5 * SECOND)
    written.inventory(UNTIL_NS)
    found = await verdict(written)
    assert (found["verdict"], found["gaps_total"]) == ("incomplete", 1)
    assert found["streams"] == {"expected": 2, "covered": 1, "unknown": 0}
    [gap] = found["gaps"]
    size = len(LINE.bytes)
    assert (gap["type"], gap["state"], gap["pod"]) == ("LOST_ROTATED", "LOST", "api-1")
    assert (gap["start"], gap["end"], gap["end_exact"], gap["bytes"]) == (
        size,
        900,
        False,
        900 - size,
    )
    assert gap["cluster"] == "test"
    assert gap["from"] == "2026-09-21T14:00:00.000000000Z"  # a second before the line before it
    assert (await verdict(written, pod="api-2"))["verdict"] == "complete"
    later = {"from": START_NS + 10 * SECOND}
    assert (await verdict(written, **later))["verdict"] == "complete"


async def test_an_end_that_nobody_saw_is_an_unknown_gap_and_incomplete(written):
    written.ship(LINE)
    written.lose(LINE.stream, len(LINE.bytes), False, START_NS, START_NS + 5 * SECOND)
    written.inventory(UNTIL_NS)
    found = await verdict(written)
    assert (found["verdict"], found["gaps"][0]["state"]) == ("incomplete", "UNKNOWN")


async def test_what_comes_later_closes_its_gap(written):
    written.ship(LINE)
    size = len(LINE.bytes)
    more = Line(START_NS + 2 * SECOND, "more")
    written.lose(LINE.stream, size + len(more.bytes), True, START_NS, START_NS + 5 * SECOND)
    [before] = await gaps(written)
    written.ship(more)
    written.inventory(UNTIL_NS)
    [gap] = await gaps(written)
    assert (before["state"], gap["state"]) == ("LOST", "RECOVERED")
    assert before["id"] == gap["id"]
    assert (await verdict(written))["verdict"] == "complete"
    assert await gaps(written, state="LOST") == []
    assert await gaps(written, state="RECOVERED", type="LOST_ROTATED") == [gap]


async def test_half_of_a_gap_that_comes_later_leaves_the_other_half(written):
    written.ship(LINE)
    size = len(LINE.bytes)
    more = Line(START_NS + 2 * SECOND, "more")
    end = size + len(more.bytes) + 100
    written.lose(LINE.stream, end, True, START_NS, START_NS + 5 * SECOND)
    written.ship(more)
    [gap] = await gaps(written)
    assert (gap["state"], gap["start"], gap["end"]) == ("LOST", size + len(more.bytes), end)


async def test_acknowledged_bytes_that_never_came_are_lost(written):
    written.ship(LINE)
    written.seal(LINE.stream, 500)
    written.inventory(UNTIL_NS)
    found = await verdict(written)
    [gap] = found["gaps"]
    assert (found["verdict"], gap["type"], gap["state"]) == ("incomplete", "LOST_TOPIC", "LOST")
    assert (gap["start"], gap["end"], gap["end_exact"]) == (len(LINE.bytes), 500, True)


async def test_a_hole_in_a_lane_counts_until_an_inventory_explains_it(written):
    written.ship(LINE)
    written.node().sequence += 2  # two batches that never come
    written.ship(Line(START_NS + 2 * SECOND, "after"))
    found = await verdict(written)
    [gap] = found["gaps"]
    assert (found["verdict"], gap["type"], gap["batches"]) == ("incomplete", "LOST_TOPIC", [1, 2])
    assert (gap["node"], gap["explained"], gap["pod"]) == ("node-1", False, None)
    assert (await verdict(written, node="node-2"))["gaps"] == []
    written.inventory(UNTIL_NS)
    assert (await verdict(written))["verdict"] == "complete"
    [gap] = await gaps(written)
    assert gap["explained"]


@pytest.mark.parametrize("kind", ["LOST_RETENTION", "UNPARSED", "TOPIC_RESET"])
async def test_positions_passed_over_count_until_every_node_explains_them(written, kind):
    written.ship(LINE)
    written.inventory(START_NS)
    written.jump(kind, 3)
    written.inventory(UNTIL_NS, "node-2")
    found = await verdict(written)
    [gap] = found["gaps"]
    assert (found["verdict"], gap["type"], gap["positions"]) == ("incomplete", kind, [2, 5])
    written.inventory(UNTIL_NS)
    assert (await verdict(written))["verdict"] == "complete"


async def test_positions_passed_over_before_any_node_was_known_may_be_anyones(written):
    written.jump("LOST_RETENTION", 3)
    found = await verdict(written, node="node-7")
    assert (found["verdict"], found["gaps"][0]["node"]) == ("incomplete", None)


async def test_streams_say_what_they_have_and_what_is_missing(written):
    other = Line(START_NS, "other", pod="api-2")
    written.ship(LINE, other)
    written.ship(Line(START_NS + 3 * SECOND, "more"))
    written.lose(other.stream, 300, True, START_NS, START_NS + SECOND)
    written.inventory(UNTIL_NS)
    async with served(written.bucket) as client:
        answer = (await client.get("/v1/streams", params={"namespace": "shop"})).json()
        one = (await client.get("/v1/streams", params={"limit": 1})).json()
        none = (await client.get("/v1/streams", params={"pod": "none"})).json()
    StreamList.model_validate(answer)
    first, second = answer["streams"]
    assert (first["pod"], first["rows"], first["missing_bytes"]) == ("api-1", 2, 0)
    assert first["first_time"] == "2026-09-21T14:00:01.000000000Z"
    assert first["last_time"] == "2026-09-21T14:00:03.000000000Z"
    assert first["complete_until"] == "2026-09-21T14:01:00.000000000Z"
    assert first["files"] == 1
    assert (second["pod"], second["missing_bytes"]) == ("api-2", 300 - len(other.bytes))
    assert (len(one["streams"]), one["total"], none["total"]) == (1, 2, 0)


async def test_the_status_shows_nodes_partitions_and_the_data(written):
    written.ship(LINE)
    written.inventory(NOW_NS - SECOND)
    written.ship(Line(START_NS + HOUR // 2, "late"))
    async with served(written.bucket) as client:
        status = (await client.get("/v1/status")).json()
        assert (await client.get("/readyz")).status_code == 200
    Status.model_validate(status)
    assert status["healthy"]
    assert (status["rows"], status["segments"], status["open_gaps"]) == (2, 2, 0)
    assert status["first_time"] == "2026-09-21T14:00:01.000000000Z"
    assert status["last_time"] == "2026-09-21T14:30:00.000000000Z"
    [node] = status["nodes"]
    assert (node["node"], node["lag_ms"], node["partitions"]) == ("node-1", 1000, [0])
    [partition] = status["partitions"]
    assert (partition["topic"], partition["position"]) == ("logs", 3)


async def test_a_refresh_sees_what_was_committed_since(written):
    async with served(written.bucket) as client:
        for n in range(3):
            written.ship(Line(START_NS + n, f"line {n}"))
            written.inventory(UNTIL_NS + n)

            async def seen() -> Any:
                return (await client.get("/v1/search", params=ASKED)).json()

            answer = await seen()
            while answer["version"] < written.version:
                answer = await seen()
            assert len(answer["rows"]) == n + 1
            assert answer["completeness"]["verdict"] == "complete"


async def test_rows_that_were_removed_on_purpose_are_named_and_are_no_gap(written):
    written.ship(LINE)
    written.inventory(UNTIL_NS)
    hour = START_NS // HOUR
    removed = Coverage(
        START_NS, [], [], [], [], [], Balance(),
        expired=[Expired("dev", hour, 7, "dev=24"), Expired("dev", hour - 5, 1, "dev=24")],
        deleted=[Deleted("r-1", "shop", "api-1", "app", bytes(16), 0, [0, 9], START_NS, START_NS)],
    )  # fmt: skip
    written.add(removed)
    found = await verdict(written)
    assert found["verdict"] == "incomplete"
    assert found["reasons"] == [
        "rows of dev have expired", "rows of shop were deleted on request",
    ]  # fmt: skip
    assert found["gaps"] == []
    assert [(each["kind"], each["namespace"], each["rows"]) for each in found["removed"]] == [
        ("EXPIRED", "dev", None), ("DELETED", "shop", 2),
    ]  # fmt: skip
    assert found["removed"][1]["why"] == "request r-1"
    shop = await verdict(written, namespace="shop")
    assert [each["kind"] for each in shop["removed"]] == ["DELETED"]
    other = await verdict(written, namespace="shop", pod="api-2")
    assert other["removed"] == []
    later = {"from": START_NS + SECOND // 2, "namespace": "shop"}
    assert (await verdict(written, **later))["verdict"] == "complete"


@pytest.mark.parametrize(
    ("first", "newest", "says"),
    [
        ("complete", "complete", "complete"),
        ("unknown", "complete", "unknown"),
        ("incomplete", "complete", "incomplete"),
        ("incomplete", "unknown", "incomplete"),
        ("complete", "incomplete", "incomplete"),
        ("", "complete", "complete"),
    ],
)
def test_a_later_ledger_makes_the_rows_of_an_earlier_version_no_more_complete(first, newest, says):
    found = Completeness.model_construct(verdict=newest, reasons=[])
    shown = no_better_than(first, found)
    assert shown.verdict == says
    assert bool(shown.reasons) == (says != newest)


@pytest.mark.parametrize(("hours", "healthy"), [(1, False), (24 * 400, True)])
async def test_a_gap_makes_the_pipeline_unhealthy_for_a_day_and_not_for_ever(
    written, hours, healthy
):
    written.ship(LINE)
    written.inventory(NOW_NS)
    written.lose(LINE.stream, 10_000, True, START_NS, START_NS + SECOND)
    async with served(written.bucket, START_NS + hours * HOUR) as client:
        status = (await client.get("/v1/status")).json()
    assert status["open_gaps"] == 1
    assert status["healthy"] == healthy
