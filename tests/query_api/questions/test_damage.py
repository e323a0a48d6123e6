"""Damage by storage: no altered row, no end of the service, and everywhere the segment is named."""

from dataclasses import replace

import msgspec
import pytest

from indexer.query.parse import parse_query
from indexer.query.tree import EVERYTHING
from indexer.store.checked_file import checked_name
from indexer.table.damage import Damage, Round
from query_api.scan.segment import ScanTask, scan_segment
from tests.query_api.conftest import served
from tests.query_api.written import CLUSTER, HOUR, SECOND, START_NS, Line, Written

NOW_NS = START_NS + HOUR
ASKED = {"from": "2026-09-01T00:00:00Z", "to": "2026-10-30T00:00:00Z", "order": "asc"}


def spoil(written: Written, name: str, at: int, bit: int = 0) -> None:
    data = bytearray(written.bucket.get(name))
    data[at] ^= 1 << bit
    written.bucket.delete(name)
    written.bucket.put(name, bytes(data))


def shipped(written: Written) -> list[str]:
    """Two segments of an hour each; return their names in the order of time."""
    first = Line(START_NS, "line one")
    second = Line(START_NS + HOUR, "line two", pod="api-2")
    written.ship(first)
    [one] = written.bucket.names(written.table.folder + "date=2")
    written.ship(second)
    [two] = set(written.bucket.names(written.table.folder + "date=2")) - {one}
    written.inventory(START_NS + 2 * HOUR)
    return [one, two]


@pytest.mark.parametrize("is_large", [False, True])
def test_no_flipped_bit_of_a_segment_changes_a_row_of_an_answer(written, monkeypatch, is_large):
    if is_large:
        monkeypatch.setattr("indexer.store.checked_file.BLOCK_BYTES", 100)
        monkeypatch.setattr("indexer.segment.reader.WHOLE_BYTES", 0)
        monkeypatch.setattr("indexer.segment.reader.TAIL_BYTES", 2000)
        monkeypatch.setattr("indexer.store.checked_file._TOGETHER_BYTES", 0)
    written.ship(*(Line(START_NS + n, f"line {n} of {n % 7}") for n in range(40)))
    [name] = written.bucket.names(written.table.folder + "date=2")
    data = written.bucket.get(name)
    task = ScanTask(
        "", name, len(data), START_NS, START_NS + 9, (), EVERYTHING, True, None, 20, 1 << 20
    )
    asked = [
        task,
        replace(task, query=parse_query("line 5")),
        replace(task, equals=(("pod", ("api-1",)),)),
    ]
    whole = [scan_segment(each, written.bucket).rows for each in asked]
    assert [len(rows) for rows in whole] == [9, 1, 9]
    damaged = 0
    for at in range(0, len(data), 13):
        spoil(written, name, at, at % 8)
        for each, rows in zip(asked, whole, strict=True):
            found = scan_segment(each, written.bucket)
            assert found.error or found.rows.equals(rows)
            assert bool(found.error) == found.damaged
            assert not found.error or name in found.error
            damaged += found.damaged
        spoil(written, name, at, at % 8)
    assert damaged > len(data) // 13  # of the large ones, what is not read is not seen


async def test_a_damaged_segment_is_the_reason_and_the_others_answer(written):
    one, _ = shipped(written)
    async with served(written.bucket, START_NS + 3 * HOUR) as client:
        whole = (await client.get("/v1/search", params=ASKED)).json()
        assert [row["message"] for row in whole["rows"]] == ["line one", "line two"]
        assert whole["completeness"]["scan"]["segments_failed"] == 0
        status = (await client.get("/v1/status")).json()
        assert status["damaged"] == []
        spoil(written, one, 1000)
        found = (await client.get("/v1/search", params=ASKED)).json()
        assert [row["message"] for row in found["rows"]] == ["line two"]
        assert found["completeness"]["verdict"] == "incomplete"
        assert any(one in reason for reason in found["completeness"]["reasons"])
        status = (await client.get("/v1/status")).json()
        [damaged] = status["damaged"]
        assert (damaged["object"], status["healthy"]) == (one, False)
        gaps = (await client.get("/v1/gaps", params={"from": ASKED["from"]})).json()
        assert [each["object"] for each in gaps["damaged"]] == [one]
        assert gaps["completeness"]["verdict"] == "incomplete"
        elsewhere = {"from": "2026-09-01T00:00:00Z", "to": "2026-09-02T00:00:00Z"}
        gaps = (await client.get("/v1/gaps", params=elsewhere)).json()
        assert gaps["damaged"] == []


async def test_what_the_scrubber_has_found_is_told_without_a_search(written):
    _, two = shipped(written)
    name = two.removeprefix(written.table.folder)
    checked = Round(complete_ns=START_NS, damaged={name: Damage("is missing", START_NS + SECOND)})
    written.bucket.put(f"{CLUSTER}/scrub/{START_NS:020d}.json", msgspec.json.encode(checked))
    async with served(written.bucket, START_NS + 3 * HOUR) as client:
        status = (await client.get("/v1/status")).json()
        gaps = (await client.get("/v1/gaps", params={"from": ASKED["from"]})).json()
    [damaged] = status["damaged"]
    assert (damaged["object"], damaged["fault"]) == (two, "is missing")
    assert gaps["damaged"] == status["damaged"]


async def test_a_later_round_of_the_scrubber_ends_what_a_search_has_met(written):
    one, _ = shipped(written)
    async with served(written.bucket, START_NS + 3 * HOUR) as client:
        spoil(written, one, 1000)
        await client.get("/v1/search", params=ASKED)
        assert len((await client.get("/v1/status")).json()["damaged"]) == 1
        spoil(written, one, 1000)
        later = Round(complete_ns=START_NS + 4 * HOUR)
        written.bucket.put(f"{CLUSTER}/scrub/{START_NS:020d}.json", msgspec.json.encode(later))
        assert (await client.get("/v1/status")).json()["damaged"] == []


async def test_damaged_coverage_is_refused_by_name(written):
    shipped(written)
    [*_, name] = sorted(written.bucket.names(written.table.folder + "date=__HIVE"))
    spoil(written, name, 200)
    async with served(written.bucket, START_NS + 3 * HOUR) as client:
        answer = await client.get("/v1/search", params=ASKED)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "table_damaged"
    assert name in answer.json()["error"]["message"]


def test_names_of_segments_vouch_for_their_ends(written):
    [one, _] = shipped(written)
    data = written.bucket.get(one)
    assert len(checked_name("", data).split("-")) == len(one.rpartition("/")[2].split("-")) == 3
