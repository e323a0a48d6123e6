"""One suite for the table on both buckets: positions move once, or not at all."""

import itertools
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deltalake import DeltaTable

from indexer.errors import PositionMoved, TableError, TableUnavailable, VersionGone
from indexer.object_names import COVERAGE_FOLDER
from indexer.store.bucket import Bucket
from indexer.store.local import LocalBucket
from indexer.store.open import open_bucket
from indexer.table.coverage import Balance, Coverage, Position, to_object
from indexer.table.table import CLOSED, TABLE_SCHEMA, Added, Table, in_order
from tests.indexer.shipped import CLUSTER, File, Run, Way
from tests.real_parts.guard import free_port
from tests.way import lines

A, B = "logs/0/0", "logs/0/1"
NO_ROWS = '{"numRecords": 0}'


@pytest.fixture
def table(store: Bucket) -> Table:
    """An empty table."""
    table = Table(store, CLUSTER)
    table.make()
    return table


def upload(table: Table, rows: int = 0) -> list[Added]:
    """Store what a commit of ``rows`` lines adds: segments, and always a coverage object."""
    way = Way()
    if rows:
        file = File(lines(0, rows))
        way.commit(Run().batch(*file.ranges([]), of=[file]))
    else:
        way.commit()
    added = []
    for segment in way.done[0].segments:
        name = f"date={segment.date}/hour={segment.hour}/{uuid.uuid4().hex}.parquet"
        table.bucket.put(table.folder + name, segment.data)
        added.append(Added(name, len(segment.data), segment.stats, segment.date, segment.hour))
    data = to_object(way.commits[0])
    name = f"{COVERAGE_FOLDER}{uuid.uuid4().hex}.parquet"
    table.bucket.put(table.folder + name, data)
    return [*added, Added(name, len(data), NO_ROWS)]


def add_coverage(table: Table, coverage: Coverage) -> int:
    """Commit a coverage object alone."""
    data = to_object(coverage)
    name = f"{COVERAGE_FOLDER}{uuid.uuid4().hex}.parquet"
    table.bucket.put(table.folder + name, data)
    return table.commit([Added(name, len(data), NO_ROWS)], {}, {})


def position(table: Table, app_id: str) -> int | None:
    return table.snapshot().transaction_version(app_id)


def test_a_commit_adds_objects_and_moves_positions_at_once(table: Table) -> None:
    added = upload(table, 10)
    version = table.commit(added, {A: None, B: None}, {A: 7, B: 9})
    now = table.snapshot()
    assert now.version() == version == 1
    assert (position(table, A), position(table, B)) == (7, 9)
    assert set(now.get_add_actions().column("path").to_pylist()) == {each.name for each in added}
    assert table.commit(upload(table), {A: 7}, {A: 8}) == 2
    assert (position(table, A), position(table, B)) == (8, 9)


def test_a_commit_from_a_position_that_is_not_the_tables_is_refused_whole(table: Table) -> None:
    table.commit(upload(table), {A: None, B: None}, {A: 5, B: 5})
    for expected in ({A: None}, {A: 4}, {A: 6}, {A: 5, B: 4}):
        with pytest.raises(PositionMoved, match="logs/0/"):
            table.commit(upload(table, 3), expected, dict.fromkeys(expected, 9))
    assert table.snapshot().version() == 1
    assert (position(table, A), position(table, B)) == (5, 5)


def test_a_lower_or_equal_position_is_no_way_back(table: Table) -> None:
    """A writer that was paused holds an older position, whatever it wants to store."""
    table.commit(upload(table), {A: None}, {A: 5})
    table.commit(upload(table), {A: 5}, {A: 9})
    with pytest.raises(PositionMoved):
        table.commit(upload(table, 1), {A: 5}, {A: 9})
    with pytest.raises(PositionMoved):
        table.commit(upload(table, 1), {A: None}, {A: 3})
    assert position(table, A) == 9


def test_an_own_commit_that_seemed_to_fail_is_not_made_twice(table: Table) -> None:
    """The answer was lost: whoever tries again finds the position moved."""
    added = upload(table, 5)
    table.commit(added, {A: None}, {A: 5})
    with pytest.raises(PositionMoved):
        table.commit(added, {A: None}, {A: 5})
    assert rows_of(table) == 5


def test_of_commits_that_race_for_one_position_one_wins(table: Table) -> None:
    def commit(added: list[Added]) -> bool:
        try:
            Table(table.bucket, CLUSTER).commit(added, {A: at}, {A: at + 1 if at else 1})
        except PositionMoved:
            return False
        return True

    at: int | None = None
    for round_ in range(3):
        rivals = [upload(table, 2) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(commit, rivals)) == 1
        at = position(table, A)
        assert at == round_ + 1
    assert rows_of(table) == 3 * 2


def test_commits_of_different_partitions_race_and_all_succeed(table: Table) -> None:
    def commit(each: tuple[int, list[Added]]) -> int:
        app_id = f"logs/0/{each[0]}"
        for _ in range(20):
            try:
                return Table(table.bucket, CLUSTER).commit(each[1], {app_id: None}, {app_id: 3})
            except PositionMoved:
                assert position(table, app_id) is None
        raise AssertionError("no commit within twenty tries")

    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(commit, enumerate([upload(table, 2) for _ in range(6)])))
    assert {position(table, f"logs/0/{p}") for p in range(6)} == {3}
    assert table.snapshot().version() == 6
    assert max(versions) == 6
    assert rows_of(table) == 6 * 2


def test_nobody_goes_on_under_a_closed_generation(table: Table) -> None:
    table.commit(upload(table), {A: None}, {A: 5})
    table.commit(upload(table), {A: 5, "logs/1/0": None}, {A: CLOSED, "logs/1/0": 0})
    assert position(table, A) == CLOSED
    for stale in (5, None, 0):
        with pytest.raises(PositionMoved):
            table.commit(upload(table), {A: stale}, {A: 6})
    assert position(table, "logs/1/0") == 0


def test_the_log_says_what_each_version_added(table: Table) -> None:
    first, second = upload(table, 4), upload(table)
    table.commit(first, {A: None}, {A: 1})
    table.commit(second, {A: 1}, {A: 2})
    found = list(table.log(-1, 2))
    assert [entry.version for entry in found] == [0, 1, 2]
    assert [set(entry.added) for entry in found] == [
        set(), {each.name for each in first}, {each.name for each in second},
    ]  # fmt: skip
    assert [entry.removed for entry in found] == [(), (), ()]
    assert [entry.coverage for entry in found] == [(), (first[-1].name,), (second[-1].name,)]
    assert list(table.log(2, 2)) == []
    assert [each.balance for each in table.coverage(second[-1].name)] == [Balance()]


def test_a_version_that_is_not_kept_is_named(table: Table, store: Bucket) -> None:
    table.commit(upload(table), {A: None}, {A: 1})
    assert table.snapshot(0).version() == 0
    with pytest.raises(VersionGone, match="version 7"):
        table.snapshot(7)
    with pytest.raises(VersionGone, match="starts after 2"):
        list(table.log(1, 2))
    store.delete(f"{table.folder}_delta_log/{0:020d}.json")
    with pytest.raises(VersionGone):
        list(table.log(-1, 1))
    assert len(list(table.log(0, 1))) == 1


def test_a_table_that_is_not_there_is_no_empty_table(store: Bucket) -> None:
    with pytest.raises(TableError, match="start an indexer first"):
        Table(store, "nobody").snapshot()


@pytest.mark.real
def test_eight_processes_make_one_table(store: Bucket) -> None:
    program = """\
import os, sys
from indexer.store.open import open_bucket
from indexer.table.table import Table
children = []
for _ in range(8):
    if not (child := os.fork()):
        table = Table(open_bucket(sys.argv[1]), "test")
        table.make()
        os._exit(table.snapshot().version())
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""
    command = [sys.executable, "-c", program, store.uri]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str([0] * 8)
    table = Table(store, CLUSTER)
    table.make()
    assert table.snapshot().version() == 0


def rows_of(table: Table) -> int:
    options = table.bucket.storage_options
    return int(DeltaTable(table.uri, storage_options=options).to_pyarrow_table().num_rows)


def away() -> Bucket:
    return open_bucket(f"s3://logs-{uuid.uuid4().hex[:8]}")


@pytest.mark.real
def test_a_bucket_that_is_away_is_retriable_and_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASECRETID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    table = Table(away(), CLUSTER)
    with pytest.raises(TableUnavailable, match="cannot read s3://logs-") as gone:
        table.make()
    assert gone.value.retriable
    assert "\n" not in str(gone.value)
    assert "\x1b" not in str(gone.value)
    assert "hunter2" not in str(gone.value)


def test_a_table_in_a_directory_that_cannot_be_made_is_said() -> None:
    with pytest.raises(TableError, match="/proc/nothing"):
        Table(LocalBucket(Path("/proc/nothing")), CLUSTER).make()


def test_a_table_of_another_version_is_refused_with_the_columns_that_are_others(
    tmp_path: Path,
) -> None:
    table = Table(LocalBucket(tmp_path), CLUSTER)
    at = TABLE_SCHEMA.get_field_index("event_offset")
    other = TABLE_SCHEMA.set(at, TABLE_SCHEMA.field(at).with_nullable(False))
    other = other.remove(other.get_field_index("epoch"))
    DeltaTable.create(table.uri, other, partition_by=["date", "hour"])
    with pytest.raises(TableError, match="other columns event_offset, epoch; move it") as refused:
        table.make()
    assert not refused.value.retriable


def of_positions(committed_ns: int, *places: tuple[int, int, int, int]) -> Coverage:
    """Return coverage of (partition, generation, start, end)."""
    positions = [Position("logs", "id", g, p, start, end, None) for p, g, start, end in places]
    return Coverage(committed_ns, positions, [], [], [], [], Balance())


def test_coverage_is_ordered_by_positions_where_clocks_disagree() -> None:
    ordered = [
        of_positions(50, (0, 0, 0, 5), (1, 0, 0, 3)),
        of_positions(40, (0, 0, 5, 9)),
        of_positions(45, (1, 0, 3, 4)),
        of_positions(30, (0, 1, 0, 0), (1, 0, 4, 8)),
        of_positions(20, (0, 1, 0, 2)),
        of_positions(60, (2, 0, 0, 1)),
    ]
    for shuffled in itertools.permutations(ordered):
        found = in_order(list(shuffled))
        assert sorted(map(id, found)) == sorted(map(id, ordered))
        for partition in (0, 1):
            places = [
                (p.generation, p.start, p.end)
                for c in found for p in c.positions if p.partition == partition
            ]  # fmt: skip
            assert places == sorted(places)


def test_commits_that_share_several_partitions_come_once_each() -> None:
    ordered = [of_positions(n, (0, 0, n, n + 1), (1, 0, n, n + 1)) for n in range(20)]
    assert list(map(id, in_order(reversed(ordered)))) == list(map(id, ordered))
