"""The lines around a line: what stands in its file, up to a gap, whatever the table did with it."""

from dataclasses import dataclass, field
from typing import Any

import prometheus_client
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from collector.wire.batch import Open
from indexer.keeper.jobs import Jobs
from indexer.keeper.metrics import KeeperMetrics
from indexer.keeper.settings import KeeperSettings
from indexer.store.local import LocalBucket
from indexer.table.request import DeletionRequest, Requests
from query_api.questions.answer import Answer, Context
from tests.examples import examples
from tests.query_api.conftest import served
from tests.query_api.written import CLUSTER, HOUR, SECOND, START_NS, File, Line, Written

STREAM = Line(0, "").stream


def keeper(written: Written) -> Jobs:
    """Return the jobs of a keeper, which wait for nothing."""
    settings = KeeperSettings(
        cluster=CLUSTER, compact_inputs_min=2, compact_settle_ms=0, gather_objects_min=2
    )
    metrics = KeeperMetrics(prometheus_client.CollectorRegistry())
    return Jobs(settings, written.bucket, metrics, clock=lambda: written.now_ns)


def lose(written: Written, size: int) -> tuple[int, int]:
    """Let bytes behind what is covered of the file be lost; return where."""
    file = written.node().files[STREAM]
    start, end = file.size, file.size + size
    written.lose(STREAM, end, True, START_NS, START_NS + SECOND)
    file.size = end
    return start, end


@dataclass
class Source:
    """What stands in the file: stretches of (offset, message) with bytes lost between them."""

    stretches: list[list[tuple[int, str]]] = field(default_factory=lambda: [[]])
    lost: list[tuple[int, int]] = field(default_factory=list)


def shown(answer: dict[str, Any]) -> list[Any]:
    """Return the rows of an answer as a source has them."""
    return [
        (row["gap"]["start"], row["gap"]["end"])
        if "gap" in row
        else (row["offset"], row["message"])
        for row in answer["rows"]
    ]


async def ask(client: Any, file: File, offset: int, **more: Any) -> dict[str, Any]:
    asked = {"file_id": file.id.hex(), "epoch": 0, "offset": offset, **more}
    response = await client.get("/v1/context", params=asked)
    assert response.status_code == 200, response.text
    Context.model_validate(response.json())
    return dict(response.json())


lines = st.lists(
    st.tuples(
        st.integers(0, 3 * HOUR),
        st.sampled_from(["stdout", "stderr"]),
        st.sampled_from(["x", "né"]),
    ),
    min_size=1,
    max_size=6,
)
steps = st.lists(
    st.one_of(lines, st.integers(1, 40), st.sampled_from(["compact", "fold", "other"])),
    min_size=1,
    max_size=8,
)


@examples(40, suppress_health_check=list(HealthCheck))
@given(lines, steps, st.integers(0, 4), st.integers(0, 4), st.data())
async def test_the_context_of_a_line_is_what_stands_around_it_in_its_file(
    tmp_path_factory, first, then, before, after, data
):
    written = Written(LocalBucket(tmp_path_factory.mktemp("context")))
    source, number = Source(), 0
    jobs = keeper(written)
    for step in [first, *then]:
        if step == "compact":
            jobs.compact()
        elif step == "fold":
            jobs.fold()
        elif step == "other":
            written.ship(Line(START_NS + number, "of another", container="sidecar"))
        elif isinstance(step, int):
            source.lost.append(lose(written, step))
            source.stretches.append([])
        else:
            offset = written.node().files[STREAM].size if STREAM in written.node().files else 0
            made = [
                Line(START_NS + ns, f"{word} {number + n}", output=output)
                for n, (ns, output, word) in enumerate(step)
            ]
            number += len(made)
            for line in made:
                source.stretches[-1].append((offset, line.message))
                offset += len(line.bytes)
            written.ship(*made)
    file = written.node().files[STREAM]
    at = data.draw(st.sampled_from([n for n, rows in enumerate(source.stretches) if rows]))
    offset, _ = data.draw(st.sampled_from(source.stretches[at]))
    async with served(written.bucket, START_NS + 10 * HOUR) as client:
        answer = await ask(client, file, offset, before=before, after=after)
    assert [row["offset"] for row in answer["rows"] if row.get("anchor")] == [offset]
    rows = source.stretches[at]
    here = [place for place, _ in rows].index(offset)
    expected: list[Any] = rows[max(0, here - before) : here + after + 1]
    if here - before > 0:
        assert answer["begins_at"] == "limit"
    else:
        assert answer["begins_at"] == ("gap" if at else "file")
        expected = [*source.lost[:at][-1:], *expected]
    if here + after < len(rows) - 1:
        assert answer["ends_at"] == "limit"
    elif at < len(source.lost):
        assert answer["ends_at"] == "gap"
        expected = [*expected, source.lost[at]]
    else:
        assert answer["ends_at"] == "open"
    assert shown(answer) == expected
    edges = {answer["begins_at"], answer["ends_at"]}
    verdict = "incomplete" if "gap" in edges else "unknown" if "open" in edges else "complete"
    assert answer["completeness"]["verdict"] == verdict


async def test_every_row_of_a_search_names_its_place(written):
    written.ship(*(Line(START_NS + n, f"line {n}") for n in range(5)))
    async with served(written.bucket) as client:
        found = (await client.get("/v1/search", params={"from": "0", "query": "3"})).json()
        Answer.model_validate(found)
        [row] = found["rows"]
        asked = {name: row[name] for name in ("file_id", "epoch", "offset")}
        answer = (await client.get("/v1/context", params={**asked, "before": 1, "after": 0})).json()
    assert [row["message"] for row in answer["rows"]] == ["line 2", "line 3"]
    assert answer["rows"][1] == {**row, "anchor": True}
    assert (answer["begins_at"], answer["ends_at"]) == ("limit", "limit")
    assert (answer["namespace"], answer["pod"], answer["container"]) == ("shop", "api-1", "app")


@pytest.mark.parametrize("folded", [False, True])
async def test_a_file_that_has_ended_is_complete_to_its_end(written, folded):
    written.ship(*(Line(START_NS + n, f"line {n}") for n in range(3)))
    written.ship(Line(START_NS, "behind", pod="api-2"))
    file = written.node().files[STREAM]
    written.seal(STREAM, file.size)
    if folded:
        keeper(written).fold()
    async with served(written.bucket) as client:
        answer = await ask(client, file, 0, require="complete")
    assert shown(answer)[0] == (0, "line 0")
    assert len(answer["rows"]) == 3
    assert (answer["begins_at"], answer["ends_at"]) == ("file", "file")
    assert (answer["namespace"], answer["pod"]) == ("shop", "api-1")
    assert answer["completeness"]["verdict"] == "complete"


async def test_the_files_before_and_behind_are_named(written):
    written.ship(Line(START_NS, "first"))
    first = written.node().files.pop(STREAM)
    written.commit([written.batch("node-1", 0, files={first.id: STREAM}, seals=())])
    written.ship(Line(START_NS + 1, "second"))
    second = written.node().files[STREAM]
    opened = Open(second.id, 0, first.id, START_NS)
    written.commit([written.batch("node-1", 0, files={second.id: STREAM}, opens=(opened,))])
    async with served(written.bucket) as client:
        older, newer = await ask(client, first, 0), await ask(client, second, 0)
    assert older["next_file"] == {"file_id": second.id.hex(), "epoch": 0}
    assert newer["previous_file"] == {"file_id": first.id.hex(), "epoch": 0}
    assert (older["previous_file"], newer["next_file"]) == (None, None)
    assert [row["message"] for row in older["rows"]] == ["first"]


async def test_segments_of_other_times_and_names_are_not_read(written):
    for hour in range(4):
        written.ship(Line(START_NS + hour * HOUR, f"hour {hour}", pod=f"api-{hour}"))
    file = written.node().files[Line(0, "", pod="api-2").stream]
    async with served(written.bucket, START_NS + 10 * HOUR) as client:
        answer = await ask(client, file, 0)
    cost = answer["cost"]
    assert (cost["segments_considered"], cost["segments_pruned"], cost["segments_read"]) == (
        4,
        3,
        1,
    )


async def test_rows_that_were_deleted_make_it_incomplete(written):
    written.ship(*(Line(START_NS + n, f"line {n}") for n in range(3)))
    request = DeletionRequest(
        id="r-1", requested_ns=1, by="me", reason="test", from_ns=0, to_ns=2**62,
        namespace=("shop",), query="1",
    )  # fmt: skip
    Requests(written.bucket, CLUSTER).add(request)
    keeper(written).delete()
    file = written.node().files[STREAM]
    async with served(written.bucket) as client:
        answer = await ask(client, file, len(Line(START_NS, "line 0").bytes))
    assert [row["message"] for row in answer["rows"]] == ["line 0", "line 2"]
    assert not [row for row in answer["rows"] if row.get("anchor")]
    assert answer["completeness"]["verdict"] == "incomplete"
    assert answer["completeness"]["removed_total"] == 1


async def test_an_answer_has_no_more_bytes_than_a_page_and_keeps_the_line_itself(written):
    written.ship(*(Line(START_NS + n, f"{n} " + "x" * 1_000) for n in range(9)))
    file = written.node().files[STREAM]
    offset = 4 * len(Line(START_NS, "0 " + "x" * 1_000).bytes)
    async with served(written.bucket, page_bytes=2_500) as client:
        answer = await ask(client, file, offset)
    assert [row["message"][0] for row in answer["rows"]] == ["3", "4", "5"]
    assert (answer["begins_at"], answer["ends_at"]) == ("limit", "limit")


@pytest.mark.parametrize(
    ("asked", "says", "hint"),
    [
        ({"file_id": "xyz", "offset": 0}, "file_id='xyz' is no id", "32 hexadecimal"),
        ({"file_id": "00" * 16, "offset": 0}, "no file 0000", "take file_id"),
        ({"file_id": "00" * 16}, "offset", "/docs"),
        ({"file_id": "00" * 16, "offset": 0, "before": 1_001}, "before is 1001", "context_rows"),
        ({"file_id": "00" * 16, "offset": 0, "time": 0}, "unknown parameter 'time'", "file_id"),
    ],
)
async def test_a_place_that_is_none_is_an_error(written, asked, says, hint):
    async with served(written.bucket) as client:
        response = await client.get("/v1/context", params=asked)
    assert response.status_code == 400
    error = response.json()["error"]
    assert says in error["message"]
    assert hint in error["hint"]
