"""A histogram counts what a search finds, step by step, and says what may be missing."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.query.scope import Scope
from indexer.times import DAY_NS, HOUR_NS, from_rfc_3339
from query_api.questions.histogram import VALUES_MAX, steps_of
from tests.query_api.conftest import served
from tests.query_api.written import HOUR, SECOND, START_NS, Line, Written

LEVELS = ("INFO", "ERROR", "WARN", "plain")


def lines(count: int, seed: int) -> list[Line]:
    draw = random.Random(seed)
    return [
        Line(
            START_NS + draw.randrange(HOUR),
            f"{draw.choice(LEVELS)} {draw.choice(['alpha', 'beta'])} {n}",
            pod=f"api-{draw.randrange(3)}",
        )
        for n in range(count)
    ]


async def ask(written: Written, **asked: Any) -> dict[str, Any]:
    given_ = {"from": START_NS, "to": START_NS + HOUR, **asked}
    async with served(written.bucket, START_NS + 2 * HOUR) as client:
        response = await client.get("/v1/histogram", params=given_)
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"by": "pod"},
        {"by": "", "steps": 1},
        {"by": "level", "query": "alpha -error", "steps": 7},
        {
            "pod": "api-1",
            "steps": 13,
            "from": START_NS + 7 * SECOND,
            "to": START_NS + HOUR // 2,
        },
        {"pod": "api-*", "level": "error,warn", "steps": 100},
        {"query": "nowhere"},
    ],
)
async def test_it_counts_the_rows_that_a_search_finds(written: Written, asked: dict[str, Any]):
    for seed in range(4):
        written.ship(*lines(50, seed))
    written.inventory(START_NS + 2 * HOUR)
    found = await ask(written, **asked)
    row_words = {name: value for name, value in asked.items() if name not in ("by", "steps")}
    scope = {"from": START_NS, "to": START_NS + HOUR, "limit": 1_000, **row_words}
    async with served(written.bucket, START_NS + 2 * HOUR) as client:
        rows = (await client.get("/v1/search", params=scope)).json()["rows"]
    assert found["rows"] == len(rows)
    assert len(found["steps"]) <= asked.get("steps", 60)
    times = [from_rfc_3339(row["time"]) for row in rows]
    by = asked.get("by", "level")
    at_ns = int(scope["from"])
    for step in found["steps"]:
        from_ns, to_ns = from_rfc_3339(step["from"]), from_rfc_3339(step["to"])
        assert from_ns == at_ns
        at_ns = to_ns
        here = [row for row, ns in zip(rows, times, strict=True) if from_ns <= ns < to_ns]
        assert step["rows"] == len(here)
        assert step["by"] == (Counter(row[by] for row in here) if by else {})
    assert at_ns == int(scope["to"])
    assert found["completeness"]["verdict"] == "complete"


async def test_row_groups_within_one_step_are_counted_by_their_footers(written: Written):
    written.ship(*(Line(START_NS + n, "x" * 5_000) for n in range(500)))
    whole = await ask(written, by="", steps=1)
    told_apart = await ask(written, by="", query="x*")
    assert whole["rows"] == told_apart["rows"] == 500
    assert whole["cost"]["bytes"] <= told_apart["cost"]["bytes"]


async def test_the_rarest_of_many_values_are_counted_as_one(written: Written):
    for n in range(VALUES_MAX + 5):
        written.ship(Line(START_NS + n, "x", pod=f"p-{n:03}"), Line(START_NS, "y", pod=f"p-{n:03}"))
    written.ship(Line(START_NS, "z", pod="p-last"))
    found = await ask(written, by="pod", steps=1)
    [step] = found["steps"]
    assert found["others"] == 6
    assert len(step["by"]) == VALUES_MAX + 1
    assert sum(step["by"].values()) == found["rows"] == 2 * (VALUES_MAX + 5) + 1


async def test_a_segment_that_is_gone_is_said(written: Written):
    written.ship(Line(START_NS, "x"))
    written.inventory(START_NS + 2 * HOUR)
    for name in list(written.bucket.names(written.table.folder + "date=2")):
        written.bucket.delete(name)
    found = await ask(written)
    assert found["completeness"]["verdict"] == "incomplete"
    refused = await ask(written, require="complete")
    assert refused["error"]["code"] == "not_complete"


def test_a_scope_that_reaches_over_1970_has_steps():
    for most in (1, 2, 60):
        steps = steps_of(Scope(-5, 5, {}), most, "")
        assert steps.from_ns <= -5
        assert steps.from_ns + most * steps.length_ns >= 5


@given(st.integers(0, 2**62), st.integers(1, 400 * DAY_NS), st.integers(1, 500))
def test_steps_are_round_and_span_the_scope(from_ns: int, span_ns: int, most: int):
    scope = Scope(from_ns, from_ns + span_ns, {})
    steps = steps_of(scope, most, "")
    assert steps.from_ns <= from_ns < steps.from_ns + steps.length_ns
    assert steps.from_ns % steps.length_ns == 0
    assert scope.to_ns <= steps.from_ns + most * steps.length_ns
    assert DAY_NS % steps.length_ns == 0 or steps.length_ns % DAY_NS == 0 or most == 0
    assert steps.length_ns >= 10**6
    assert HOUR_NS % steps.length_ns == 0 or steps.length_ns % HOUR_NS == 0
