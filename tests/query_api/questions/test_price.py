"""A dry run says what an answer takes at most, and reads nothing for it."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_api.questions.answer import DryRun
from query_api.questions.price import at_most
from query_api.scan.plan import Planned
from tests.query_api.conftest import served
from tests.query_api.written import HOUR, START_NS, Line, Written

EVER: dict[str, Any] = {"from": "0", "to": START_NS + 50 * HOUR}
NOW_NS = START_NS + 50 * HOUR


def ship(written: Written) -> None:
    for n in range(5):
        written.ship(*(Line(START_NS + n * HOUR + m, f"hour{n} line {m}") for m in range(50)))
    # More than what is read at once: its columns are read one by one.
    draw = random.Random(1)
    written.ship(
        *(
            Line(START_NS + m, f"large {draw.randbytes(300).hex()} {m}", pod=f"api-{m % 9}")
            for m in range(6_000)
        )
    )


@pytest.mark.parametrize("path", ["search", "histogram", "facets", "fields"])
@pytest.mark.parametrize(
    "asked", [{}, {"query": "hour3"}, {"query": "large -hour1"}, {"query": "nowhere"}, {"pod": "x"}]
)
async def test_an_answer_takes_no_more_than_its_dry_run_says(
    written: Written, path: str, asked: dict[str, Any]
):
    ship(written)
    asked = {**EVER, **asked} | ({"field": "pod,large"} if path == "facets" else {})
    prices: dict[str, Any] = {"price_per_1000_gets_usd": 4.0, "price_per_gb_read_usd": 0.5}
    async with served(written.bucket, NOW_NS, **prices) as client:
        for _ in range(3):  # what is remembered of segments changes the plan
            url = f"/v1/{path}"
            dry = (await client.get(url, params={**asked, "dry_run": "true"})).json()
            read = (await client.get(url, params=asked)).json()
            plan, cost = DryRun.model_validate(dry).plan, read["cost"]
            assert cost["gets"] <= plan.gets_at_most
            assert cost["bytes"] <= plan.bytes_at_most
            assert cost["usd"] <= plan.usd_at_most
            assert cost["segments_read"] <= plan.segments_planned
            assert plan.segments_considered == plan.segments_pruned + plan.segments_planned
            usd = cost["gets"] * 0.004 + cost["bytes"] / 10**9 * 0.5
            assert cost["usd"] == pytest.approx(usd, abs=1e-9)


async def test_a_dry_run_reads_nothing_and_says_which_names_nobody_has(written: Written):
    ship(written)
    for name in list(written.bucket.names(written.table.folder + "date=2")):
        written.bucket.delete(name)
    async with served(written.bucket, NOW_NS) as client:
        asked = {**EVER, "dry_run": "true", "pod": "api-11"}
        dry = await client.get("/v1/search", params=asked)
        metrics = (await client.get("/metrics")).text
    assert dry.status_code == 200
    assert dry.json()["hints"]
    assert "everyline_query_gets_total 0.0" in metrics


@pytest.mark.parametrize("path", ["search", "histogram"])
async def test_a_query_that_may_read_too_much_is_refused_until_it_is_narrowed(
    written: Written, path: str
):
    ship(written)
    async with served(written.bucket, NOW_NS, plan_bytes_max=100_000) as client:
        refused = await client.get(f"/v1/{path}", params=EVER)
        dry = await client.get(f"/v1/{path}", params={**EVER, "dry_run": "true"})
        narrowed = await client.get(f"/v1/{path}", params={**EVER, "from": START_NS + 2 * HOUR})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert "the query would read too many bytes" in error["message"]
    assert str(dry.json()["plan"]["bytes_at_most"]) in error["message"]
    assert "plan_bytes_max" in error["hint"]
    assert dry.json()["plan"]["bytes_at_most"] > 100_000
    assert narrowed.status_code == 200


@given(st.integers(1, 1 << 30), st.integers(0, 10**8), st.integers(1, 99), st.booleans())
def test_more_to_read_is_never_said_to_take_less(size: int, rows: int, groups: int, asks: bool):
    one = Planned("one", size, rows, 0, 1)
    some = Planned("some", size, rows, 0, 1, tuple(range(groups)))
    for each in (one, some):
        single = at_most([each], by_filter=asks)
        twice = at_most([each, each], by_filter=asks)
        assert (twice.gets, twice.bytes) == (2 * single.gets, 2 * single.bytes)
        assert single.gets >= 1
        assert at_most([each], by_filter=False).gets <= single.gets
