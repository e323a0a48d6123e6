"""The parts of a benchmark measure what they name, on a table that an indexer has made."""

import asyncio
from pathlib import Path

import pytest

from collector.topic.local import LocalTopic
from collector.wire.batch import encode, record_headers
from indexer.keeper.fence import FencedTable
from indexer.store.open import open_bucket
from indexer.table.table import Table
from load_tests.bench import growth, table
from load_tests.bench.profile import Steps, profile
from tests.indexer.shipped import COMPRESSOR, File, Run

WORDS = "all goods are in stock and leave the house today " * 20


async def _ship(topic: Path, files: list[File]) -> None:
    local, run = LocalTopic(topic, partitions=1), Run()
    for file in files:
        batch = run.batch(*file.ranges(()), of=[file])
        await (await local.append(0, encode(batch, COMPRESSOR), record_headers(batch)))
    await local.close()


def _file(pod: str, day: int) -> File:
    lines = [
        f"2026-03-{day:02d}T10:00:{n:02d}Z stdout F order {n} of {pod}: {WORDS}\n"
        for n in range(60)
    ]
    return File("".join(lines).encode(), pod)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A topic of three files, indexed with a clock around each step."""
    folder = tmp_path_factory.mktemp("bench")
    asyncio.run(_ship(folder / "full", [_file("a", 1), _file("b", 1), _file("c", 2)]))
    found = profile(folder / "full", folder)
    assert all(cpu_s > 0 for cpu_s in found.values()), found
    return folder


def test_a_profile_leaves_the_topic_for_the_next_run(indexed: Path) -> None:
    files = {path.name for path in (indexed / "full" / "0").glob("*.log")}
    assert files
    assert files == {path.name for path in (indexed / "topic" / "0").glob("*.log")}


def test_shares_by_column_and_beside_columns_add_up_to_the_objects(indexed: Path) -> None:
    sizes = table.stored(indexed / "bucket")
    log = sizes.pop(table.LOG)
    assert log == sum(
        path.stat().st_size for path in (indexed / "bucket/local/logs/_delta_log").iterdir()
    )
    fenced = FencedTable(Table(open_bucket(str(indexed / "bucket")), "local"))
    assert sum(sizes.values()) == sum(each.size for each in fenced.take())
    assert sizes["message"] > 0
    assert sizes[table.BESIDE_COLUMNS] > 0
    assert sizes[table.FILTER] > 0


@pytest.mark.slow
def test_filters_let_few_absent_tokens_pass(indexed: Path) -> None:
    assert table.false_positives(indexed / "bucket") < 0.05


def test_a_scan_of_all_segments_takes_time(indexed: Path) -> None:
    assert table.scan_cpu_s(str(indexed / "bucket")) > 0


def test_a_benchmark_grows_a_table_of_so_many_segments_and_plans_one_hour_of_it(
    tmp_path: Path,
) -> None:
    grown = growth.grow(tmp_path, 2_000)
    assert grown.segments == 2_000
    assert min(grown.first_commit_s, grown.commit_s, grown.open_s, grown.plan_s) > 0
    snapshot = Table(open_bucket(str(tmp_path / "grown-2000")), "local").snapshot()
    assert snapshot.get_add_actions().num_rows > 2_000
    assert 0 < grown.planned < 10


def test_the_time_of_a_step_inside_another_is_its_own() -> None:
    times = iter([0.0, 1.0, 4.0, 10.0])
    steps = Steps(lambda: next(times))
    inner = steps.timed("inner", lambda: None)
    steps.timed("outer", inner)()
    assert steps.cpu_s == {"inner": 3.0, "outer": 7.0}


def test_an_awaited_step_counts_too() -> None:
    times = iter([0.0, 2.0])
    steps = Steps(lambda: next(times))

    async def step() -> str:
        return "done"

    assert asyncio.run(steps.timed("step", step)()) == "done"
    assert steps.cpu_s == {"step": 2.0}
