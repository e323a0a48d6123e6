"""Values of fields are counted as whoever reads all rows would count them, and said when not."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.query.fields import named_values
from query_api.questions.facets import Facets, Fields
from query_api.scan import facet
from query_api.scan.facet import VALUES, most_frequent
from tests.query_api.conftest import served
from tests.query_api.drawn import EVER, NOW_NS, all_rows, ship
from tests.query_api.questions.test_context import keeper
from tests.query_api.written import HOUR, START_NS, Line, Written

NAMES = ("level", "pod", "restart", "status", "user.name", "tags", "tags.deep.x", "x", "nowhere")


def at(found: Any, parts: list[str]) -> Iterator[Any]:
    if isinstance(found, list):
        for each in found:
            yield from at(each, parts)
    elif not parts:
        yield found
    elif isinstance(found, dict):
        for length in range(1, len(parts) + 1):
            if (key := ".".join(parts[:length])) in found:
                yield from at(found[key], parts[length:])


def values(row: dict[str, Any], name: str) -> set[str]:
    """Return the values of a field of a row, by another way than the service's."""
    if name in ("level", "pod", "restart"):
        return {str(row[name])}
    try:
        found = at(json.loads(row["message"]), name.split("."))
        texts = [v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for v in found]
    except ValueError:
        pairs = re.findall(
            rf'(?:^|[\s,;({{\[]){re.escape(name)}=(?:"((?:\\.|[^"\\])*)"|([^\s,;"]*))',
            row["message"],
        )
        texts = [quoted.replace('\\"', '"') or bare for quoted, bare in pairs]
    return set(texts)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("asked", [{}, {"query": "status:*", "pod": "api-*"}, {"level": "error"}])
async def test_facets_are_what_a_reader_of_all_rows_counts(
    written: Written, seed: int, compacted: bool, asked: dict[str, Any]
):
    ship(written, seed)
    if compacted:
        keeper(written).compact()
    async with served(written.bucket, NOW_NS) as client:
        given_ = {**EVER, **asked, "field": ",".join(NAMES), "limit": 3}
        answer = (await client.get("/v1/facets", params=given_)).json()
        rows = await all_rows(client, **asked)
    Facets.model_validate(answer)
    assert (answer["rows"], answer["of"]) == (len(rows), None)
    assert [each["field"] for each in answer["facets"]] == list(NAMES)
    for told in answer["facets"]:
        of_rows = [values(row, told["field"]) for row in rows]
        counts = Counter(value for each in of_rows for value in each)
        expected = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0].encode()))
        shown = [(each["value"], each["rows"]) for each in told["values"]]
        assert shown == expected[:3]
        assert told["rows"] == sum(map(bool, of_rows))
        assert told["others"] == sum(count for _, count in expected[3:])
        assert told["missed"] == 0
    assert answer["completeness"]["verdict"] == "complete"


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=30), max_size=8), st.integers(1, 8))
def test_what_is_let_go_of_is_told_and_bounds_what_is_missed(segments: list[list[str]], most: int):
    held, counts = VALUES.empty_table(), Counter(word for words in segments for word in words)
    for words in segments:
        each = [
            {"field": 0, "value": value, "rows": rows, "dropped": 0, "missed": 0}
            for value, rows in Counter(words).items()
        ]
        held = most_frequent([held, pa.Table.from_pylist(each, VALUES)], most)
    found = held.to_pylist()
    shown = {each["value"]: each["rows"] for each in found if each["value"] is not None}
    missed = sum(each["missed"] for each in found)
    assert len(shown) <= most
    for value, rows in counts.items():
        assert shown.get(value, 0) <= rows <= shown.get(value, 0) + missed
    assert counts.total() == sum(shown.values()) + sum(each["dropped"] for each in found)
    if len(counts) <= most:
        assert missed == 0


async def test_more_values_than_are_held_are_said(written: Written):
    for n in range(5):
        written.ship(*(Line(START_NS + m, f"id={n}-{m} kind=k") for m in range(100)))
    async with served(written.bucket, NOW_NS, facet_values=20) as client:
        asked = {**EVER, "field": ["id", "kind"], "limit": 1_000}
        ids, kinds = (await client.get("/v1/facets", params=asked)).json()["facets"]
    assert (ids["rows"], len(ids["values"]), ids["others"]) == (500, 10, 490)
    assert ids["missed"] > 0
    assert (kinds["values"], kinds["missed"]) == ([{"value": "k", "rows": 500}], 0)


async def test_a_time_limit_is_said_with_the_rows_that_were_counted(written: Written, monkeypatch):
    monkeypatch.setattr("indexer.segment.write.ROW_GROUP_ROWS", 10)
    for n in range(4):
        written.ship(*(Line(START_NS + n * HOUR // 2 + m, f"n={n}") for m in range(30)))
    written.inventory(NOW_NS)
    now_s, values_of = 100.0, facet._values

    def slow(*given_: Any) -> pa.Table:
        nonlocal now_s
        now_s += 3
        return values_of(*given_)

    monkeypatch.setattr(facet, "_values", slow)
    more = {"facet_ms": 10_000, "store_reads": 1}
    async with served(written.bucket, NOW_NS, monotonic=lambda: now_s, **more) as client:
        answer = (await client.get("/v1/facets", params={**EVER, "field": "n"})).json()
        metrics = (await client.get("/metrics")).text
    assert (answer["rows"], answer["of"]) == (40, 40)
    [told] = answer["facets"]
    assert told["values"] == [{"value": "3", "rows": 30}, {"value": "2", "rows": 10}]
    assert answer["completeness"]["verdict"] == "incomplete"
    assert "left 3 segment(s) unread, or read in part" in answer["completeness"]["scan"]["cut_off"]
    assert 'everyline_query_limit_reached_total{limit="facet_ms"} 1.0' in metrics


async def test_fields_are_told_of_the_newest_rows(written: Written):
    ship(written, 1)
    async with served(written.bucket, NOW_NS, field_rows=50) as client:
        answer = (await client.get("/v1/fields", params=EVER)).json()
        rows = (await client.get("/v1/search", params={**EVER, "limit": 50})).json()["rows"]
    Fields.model_validate(answer)
    assert (answer["sampled_rows"], answer["more_rows"], answer["others"]) == (50, True, 0)
    told = {each["name"]: each for each in answer["fields"]}
    for name in ("status", "user.name", "tags.deep.x", "x"):
        of_rows = [values(row, name) for row in rows]
        assert told[name]["rows"] == sum(map(bool, of_rows))
        assert told[name]["values"] == len(set().union(*of_rows))
        assert told[name]["example"] in set().union(*of_rows)
        assert told[name]["source"] == "message"
    assert told["status"]["type"] == "mixed"
    assert told["pod"] == {
        "name": "pod", "source": "column", "type": "string", "rows": 50, "values": 3,
        "example": Counter(row["pod"] for row in rows).most_common(1)[0][0],
    }  # fmt: skip
    assert "level" in told
    assert sum(each["name"] == "level" for each in answer["fields"]) == 1


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda each: (
            st.lists(each, max_size=3)
            | st.dictionaries(st.text(min_size=1, max_size=5), each, max_size=3)
        ),
        max_leaves=10,
    )
)
def test_each_name_that_is_told_of_a_message_has_that_value(found: Any):
    told = list(named_values(json.dumps({"field": found})))
    for name, value in told:
        assert value in list(at({"field": found}, name.split(".")))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "field"),
        ({"field": ""}, "field has an empty value"),
        ({"field": [str(n) for n in range(11)]}, "field"),
        ({"field": "pod", "limit": 0}, "limit='0'"),
        ({"field": "pod", "from": "now", "to": "-1h"}, "is not before"),
    ],
)
async def test_a_wrong_parameter_of_facets_is_named(written: Written, asked: Any, says: str):
    async with served(written.bucket, NOW_NS) as client:
        response = await client.get("/v1/facets", params=asked)
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]


async def test_facets_and_fields_of_nothing_are_empty(written: Written):
    async with served(written.bucket, NOW_NS) as client:
        facets = (await client.get("/v1/facets", params={**EVER, "field": "pod,x"})).json()
        fields = (await client.get("/v1/fields", params=EVER)).json()
    assert [each["values"] for each in facets["facets"]] == [[], []]
    assert facets["rows"] == fields["sampled_rows"] == 0
    assert {each["source"] for each in fields["fields"]} == {"column"}
    assert {each["type"] for each in fields["fields"]} == {None}
    assert facets["completeness"]["verdict"] == fields["completeness"]["verdict"] == "unknown"
