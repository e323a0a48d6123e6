"""Compaction: rows lie together, none is lost, doubled or changed, and what is wrong stays."""

import io
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import NotBalanced, PositionMoved, SegmentUnsorted
from indexer.keeper.compact import CompactionLimits, plan_compactions
from indexer.schema import SEGMENT_SCHEMA
from indexer.segment.conserve import check, row_hashes, tally
from indexer.segment.merge import in_row_groups, merge
from indexer.segment.parquet import ROW_GROUP_ROWS
from indexer.segment.write import SegmentWriter
from indexer.store.bucket import Bucket
from indexer.table.table import Live
from tests.examples import examples
from tests.indexer.counted import reader_of
from tests.indexer.kept import A_DAY_LATER, Kept, PodFile, before_commit
from tests.way import cri, lines

LIMITS = CompactionLimits(target_bytes=1000, inputs_min=4, memory_bytes=32 << 25, settle_ms=60_000)
NOON = ("2026-09-21", 12)


@pytest.fixture
def kept(store: Bucket) -> Kept:
    """A table without rows."""
    return Kept(store)


# -- what to compact -------------------------------------------------------------------------


def segments(*sizes: int, hour: tuple[str, int] = NOON) -> list[Live]:
    return [Live(f"{hour}-{n}-{size}", size, *hour) for n, size in enumerate(sizes)]


def planned(objects: list[Live], now_ns: int = A_DAY_LATER, **more: int) -> list[list[int]]:
    plans = plan_compactions(objects, now_ns, replace(LIMITS, **more))
    return [[each.size for each in plan.segments] for plan in plans]


def test_segments_of_one_hour_are_merged_and_large_ones_left() -> None:
    other = segments(30, 40, hour=("2026-09-21", 13))
    coverage = Live("date=__HIVE_DEFAULT_PARTITION__/x", 10)
    objects = [*segments(500, 20, 10, 30), *other, coverage]
    assert planned(objects) == [[10, 20, 30], [30, 40]]


def test_an_hour_that_still_grows_waits_for_more_segments() -> None:
    at_noon = int(datetime(2026, 9, 21, 12, 30, tzinfo=UTC).timestamp()) * 10**9
    assert planned(segments(10, 20, 30), at_noon) == []
    assert planned(segments(10, 20, 30, 40), at_noon) == [[10, 20, 30, 40]]


def test_a_merger_grows_up_to_its_target_and_its_memory() -> None:
    assert planned(segments(*[400] * 5)) == [[400, 400], [400, 400]]
    assert planned(segments(*[1] * 7), memory_bytes=3 * (32 << 20)) == [[1] * 3, [1] * 3]


def test_a_late_small_segment_does_not_rewrite_a_large_one() -> None:
    assert planned(segments(400, 5)) == []
    assert planned(segments(400, 5, 6)) == [[5, 6]]
    assert planned(segments(400, 90, 80)) == [[80, 90, 400]]


@given(sizes=st.lists(st.integers(1, 2000), max_size=60), most=st.integers(2, 9))
def test_no_segment_is_in_two_plans_and_plans_keep_to_their_limits(
    sizes: list[int], most: int
) -> None:
    plans = plan_compactions(
        segments(*sizes), A_DAY_LATER, replace(LIMITS, memory_bytes=most * (32 << 20))
    )
    names = [each.name for plan in plans for each in plan.segments]
    assert len(names) == len(set(names))
    for plan in plans:
        of_plan = [each.size for each in plan.segments]
        assert 2 <= len(of_plan) <= most
        assert sum(of_plan) <= LIMITS.target_bytes
        assert max(of_plan) < LIMITS.target_bytes / 2


# -- merging ---------------------------------------------------------------------------------


def table_of(rows: list[tuple[str, str, bytes, int, int, str]]) -> pa.Table:
    """Return rows of (namespace, pod, file_id, epoch, offset, message) in the table's order."""
    rows = sorted(rows)
    columns = {
        "time": pa.array([row[4] for row in rows], pa.timestamp("us", tz="UTC")),
        "time_ns": pa.array([row[4] % 1000 for row in rows], pa.int16()),
        "raw": pa.array([b"\xff" if row[4] % 3 == 0 else None for row in rows], pa.binary()),
        "partial": pa.array([row[4] % 2 == 0 for row in rows]),
        "namespace": [row[0] for row in rows],
        "container": ["app"] * len(rows),
        "pod": [row[1] for row in rows],
        "message": [row[5] for row in rows],
        "file_id": pa.array([row[2] for row in rows], pa.binary(16)),
        "epoch": pa.array([row[3] for row in rows], pa.int32()),
        "offset": [row[4] for row in rows],
        "event_offset": [row[4] // 2 if row[4] % 3 else None for row in rows],
        "restart": pa.array([0] * len(rows), pa.int32()),
    }
    for name in SEGMENT_SCHEMA.names:
        if name not in columns:
            columns[name] = [f"{name}-{row[4] % 5}" for row in rows]
    arrays = []
    for kind in SEGMENT_SCHEMA:
        values = columns[kind.name]
        array = values if isinstance(values, pa.Array) else pa.array(values)
        arrays.append(array.dictionary_encode() if pa.types.is_dictionary(kind.type) else array)
    return pa.table(arrays, schema=SEGMENT_SCHEMA)


def segment_of(rows: pa.Table, row_group_rows: int = 1000) -> bytes:
    writer = SegmentWriter()
    for start in range(0, rows.num_rows, row_group_rows):
        writer.append(rows.slice(start, row_group_rows))
    return writer.finish()


def read(data: bytes) -> list[dict]:
    rows: list[dict] = pq.read_table(io.BytesIO(data)).to_pylist()
    return rows


ROW = st.tuples(
    st.sampled_from(["a", "b", "ü"]),
    st.sampled_from(["p", "q"]),
    st.sampled_from([bytes(16), b"f" * 16, b"\xff" * 16]),
    st.integers(0, 1),
    st.integers(0, 10**6),
    st.text(max_size=20),
)


@examples(40)
@given(
    rows=st.lists(ROW, min_size=1, max_size=80, unique_by=lambda row: row[:5]),
    sources=st.integers(1, 5),
    row_group_rows=st.integers(1, 30),
    seed=st.randoms(use_true_random=False),
)
def test_a_merger_has_the_rows_of_its_sources_in_the_tables_order(
    rows: list, sources: int, row_group_rows: int, seed: random.Random
) -> None:
    seed.shuffle(rows)
    parts = [part for n in range(sources) if (part := rows[n::sources])]
    merged = merge([reader_of(segment_of(table_of(part), row_group_rows)) for part in parts])
    assert read(merged) == table_of(rows).to_pylist()


@pytest.mark.slow
def test_row_groups_keep_to_their_rows_and_bytes() -> None:
    many = [("a", "p", bytes(16), 0, at, "x") for at in range(ROW_GROUP_ROWS + 10)]
    sources = [segment_of(table_of(many[::2]), 70_000), segment_of(table_of(many[1::2]))]
    merged = merge([reader_of(each) for each in sources])
    footer = pq.read_metadata(io.BytesIO(merged))
    sizes = [footer.row_group(n).num_rows for n in range(footer.num_row_groups)]
    assert sizes == [ROW_GROUP_ROWS, 10]
    large = table_of([("a", "p", bytes(16), 0, at, "x" * (9 << 20)) for at in range(7)])
    assert [part.num_rows for part in in_row_groups(large)] == [3, 3, 1]


def test_a_source_in_no_order_is_refused() -> None:
    rows = table_of([("a", "p", bytes(16), 0, at, "x") for at in range(4)])
    shuffled = rows.take(pa.array([0, 2, 1, 3]))
    with pytest.raises(SegmentUnsorted):
        merge([reader_of(segment_of(rows)), reader_of(segment_of(shuffled))])
    twice = rows.take(pa.array([0, 1, 1, 2]))
    with pytest.raises(SegmentUnsorted):
        merge([reader_of(segment_of(twice))])


# -- conservation ----------------------------------------------------------------------------


def change_of(name: str) -> Callable[[pa.Table], pa.Table]:
    def change(rows: pa.Table) -> pa.Table:
        at = rows.schema.get_field_index(name)
        kind = rows.schema.field(name)
        values = rows.column(name).to_pylist()
        other = {
            "raw": b"other", "partial": not values[7], "file_id": b"o" * 16, "message": "other",
        }  # fmt: skip
        if pa.types.is_dictionary(kind.type):
            values[7] = "other"
            array = pa.array(values).dictionary_encode()
        else:
            new = other.get(name, 999)
            values[7] = new if name != "time" else values[8]
            array = pa.array(values, kind.type)
        return rows.set_column(at, kind, array)

    return change


@pytest.mark.parametrize("name", SEGMENT_SCHEMA.names)
def test_a_change_of_one_value_of_one_row_does_not_add_up(name: str) -> None:
    rows = table_of([("a", "p", bytes(16), 0, at + 1, f"m{at}") for at in range(20)])
    before: dict = {}
    tally(rows, before)
    check(before, [segment_of(rows, 6)], {}, "nothing")
    with pytest.raises(NotBalanced, match="nothing does not balance"):
        check(before, [segment_of(change_of(name)(rows), 6)], {}, "nothing")


def test_a_row_that_is_missing_doubled_or_exchanged_does_not_add_up() -> None:
    rows = table_of([("a", "p", bytes(16), 0, at, f"m{at % 3}") for at in range(20)])
    before: dict = {}
    tally(rows, before)
    order = np.arange(20)
    for wrong in (order[1:], np.append(order, 3), np.where(order == 4, 5, order)):
        with pytest.raises(NotBalanced):
            check(before, [segment_of(rows.take(pa.array(wrong)))], {}, "it")


@given(st.lists(st.text(max_size=40), min_size=1, max_size=30))
def test_the_hash_of_a_row_does_not_depend_on_its_place_or_its_dictionary(
    messages: list[str],
) -> None:
    rows = table_of([("a", "p", bytes(16), 0, at, m) for at, m in enumerate(messages)])
    padded = pa.concat_tables([rows, rows]).unify_dictionaries().slice(len(messages) // 2)
    whole, part = row_hashes(rows), row_hashes(padded.slice(0, len(messages)).combine_chunks())
    assert sorted(whole.tolist()) == sorted(part.tolist())
    assert len(set(whole.tolist())) == len(messages)


# -- the table -------------------------------------------------------------------------------


def test_a_compaction_changes_no_row_and_leaves_fewer_segments(kept: Kept) -> None:
    for pod in "abc":
        kept.commit(PodFile(lines(0, 40), pod=pod), count=9)
        kept.commit(PodFile(lines(0, 40), pod=pod))
    before = kept.rows()
    assert len(kept.segments()) == 6
    kept.jobs().compact()
    assert len(kept.segments()) == 1
    assert kept.rows() == before
    assert kept.table.snapshot().transaction_version("keeper") == 0
    kept.jobs().compact()  # nothing is left to do
    assert kept.table.snapshot().transaction_version("keeper") == 0
    [segment] = kept.segments()
    assert segment.stats["pod"] == ("a", "c")
    assert kept.ledger().version == 7


def test_rows_that_were_compacted_are_no_change_to_those_who_follow_the_table(kept: Kept) -> None:
    kept.commit(PodFile(lines(0, 10), pod="a"), PodFile(lines(0, 10), pod="b"))
    kept.jobs().compact()
    log = kept.bucket.get(f"{kept.table.folder}_delta_log/{3:020d}.json")
    assert log.count(b'"dataChange":false') == 3
    assert b'"dataChange":true' not in log


def test_appends_and_a_compaction_at_once_keep_all_rows(kept: Kept) -> None:
    kept.commit(PodFile(lines(0, 10), pod="a"), PodFile(lines(0, 10), pod="b"))
    jobs = kept.jobs()
    before_commit(jobs, lambda: kept.commit(PodFile(lines(0, 10), pod="c")))
    jobs.compact()
    assert len(kept.rows()) == 30
    assert len(kept.segments()) == 2


def test_of_two_keepers_that_compact_the_same_segments_one_is_refused(kept: Kept) -> None:
    kept.commit(PodFile(lines(0, 10), pod="a"), PodFile(lines(0, 10), pod="b"))
    before = kept.rows()
    slow, fast = kept.jobs(), kept.jobs()
    before_commit(slow, fast.compact)
    with pytest.raises(PositionMoved):
        slow.compact()
    assert kept.rows() == before
    assert len(kept.segments()) == 1


def test_a_damaged_segment_is_left_as_it_is_and_its_hour_goes_on(kept: Kept) -> None:
    for pod in "abcd":
        kept.commit(PodFile(lines(0, 10), pod=pod))
    victim = kept.segments()[0]
    kept.bucket.delete(kept.table.folder + victim.name)
    jobs = kept.jobs()
    jobs.compact()
    assert len(kept.segments()) == 4  # its group is given up whole
    assert jobs.metrics.compactions_refused._value.get() == 1
    jobs.compact()
    assert jobs.metrics.compactions_refused._value.get() == 1  # and not tried again


def test_a_compaction_that_would_drop_a_row_is_refused(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.commit(PodFile(lines(0, 10), pod="a"), PodFile(lines(0, 10), pod="b"))
    append = SegmentWriter.append
    monkeypatch.setattr(
        SegmentWriter, "append", lambda self, rows: append(self, rows.slice(0, rows.num_rows - 1))
    )
    jobs = kept.jobs()
    jobs.compact()
    assert jobs.metrics.compactions_refused._value.get() == 1
    assert len(kept.segments()) == 2
    assert len(kept.rows()) == 20


def test_fragments_and_invalid_bytes_survive_a_compaction(kept: Kept) -> None:
    for pod in "ab":
        data = (
            cri(1, "head ", tag="P")
            + cri(2, "tail")
            + cri(3, "bytes").replace(b"bytes", b"\xff\xfe")
            + b"no header\n"
        )
        kept.commit(PodFile(data, pod=pod))
    before = kept.rows()
    kept.jobs().compact()
    assert kept.rows() == before
    assert {row["time_source"] for row in before} == {"line", "previous"}
    assert b"\xff\xfe" in {row["raw"] for row in before}
