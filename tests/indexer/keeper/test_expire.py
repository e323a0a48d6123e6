"""Retention: rows go by the rule of their namespace, and the ledger says which hours went."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from collector.errors import SettingError
from indexer.errors import ObjectMissing, PositionMoved, SegmentDamaged
from indexer.keeper.expire import RetentionRule, parse_retention, rule_of
from indexer.keeper.footer import namespaces_of
from indexer.ledger.entries import ExpiredEntry
from indexer.segment import write as segment
from indexer.segment.reader import SegmentReader
from indexer.store.bucket import Bucket
from indexer.times import hour_of
from tests.indexer.counted import Counted, read_apart
from tests.indexer.kept import HOUR_NS, Kept, PodFile, before_commit
from tests.way import lines

NOON = hour_of("2026-03-01", 12)  # of every line


@pytest.fixture
def kept(store: Bucket) -> Kept:
    """Rows of three namespaces, two of them in one segment."""
    kept = Kept(store)
    for namespace in ("bank", "dev-1", "dev-2"):
        kept.commit(PodFile(lines(0, 10), namespace=namespace))
    kept.jobs(compact_target_bytes=1 << 20).compact()
    kept.commit(PodFile(lines(0, 10), pod="alone", namespace="dev-1"))
    return kept


def test_the_first_rule_that_fits_a_namespace_counts() -> None:
    rules = parse_retention("dev-1=24, dev-*=72,*=720")
    assert rules == (
        RetentionRule("dev-1", 24),
        RetentionRule("dev-*", 72),
        RetentionRule("*", 720),
    )
    assert [str(rule_of(name, rules)) for name in ("dev-1", "dev-2", "bank")] == [
        "dev-1=24", "dev-*=72", "*=720",
    ]  # fmt: skip
    assert rule_of("bank", rules[:2]) is None
    assert parse_retention("") == ()


@pytest.mark.parametrize("text", ["dev", "dev=", "=3", "dev=0", "dev=-1", "dev=1.5", "a=1,b"])
def test_a_rule_that_is_none_is_named(text: str) -> None:
    with pytest.raises(SettingError, match="NAMESPACE_GLOB=HOURS"):
        parse_retention(text)


def test_rows_go_when_their_hour_has_been_over_for_so_long(kept: Kept) -> None:
    before = kept.rows()
    assert len(kept.segments()) == 2
    kept.now_ns = (NOON + 1 + 24) * HOUR_NS - 1
    kept.jobs(retention="dev-1=24").expire()
    assert kept.rows() == before
    kept.now_ns += 1
    jobs = kept.jobs(retention="dev-1=24")
    jobs.expire()
    assert kept.rows() == [row for row in before if row["namespace"] != "dev-1"]
    assert len(kept.segments()) == 1  # one was rewritten, one had nothing left
    assert jobs.metrics.expired_rows._value.get() == 20
    assert kept.ledger().expired == {
        ("dev-1", "dev-1=24"): ExpiredEntry("dev-1", "dev-1=24", [(NOON, NOON + 1)], 20)
    }
    version = kept.table.snapshot().version()
    kept.jobs(retention="dev-1=24").expire()
    assert kept.table.snapshot().version() == version


def test_without_a_rule_nothing_expires(kept: Kept) -> None:
    kept.now_ns = (NOON + 10**6) * HOUR_NS
    version = kept.table.snapshot().version()
    kept.jobs().expire()
    assert kept.table.snapshot().version() == version


def test_what_has_expired_and_is_sent_again_is_trimmed(kept: Kept) -> None:
    kept.now_ns = (NOON + 100) * HOUR_NS
    kept.jobs(retention="dev-*=24").expire()
    left = kept.rows()
    kept.commit(PodFile(lines(0, 10), pod="alone", namespace="dev-1"))
    assert kept.rows() == left
    assert kept.way.commits[-1].balance.trimmed_bytes == len(lines(0, 10))


def test_expiry_loses_against_another_keeper_and_changes_nothing(kept: Kept) -> None:
    kept.now_ns = (NOON + 100) * HOUR_NS
    slow, fast = kept.jobs(retention="dev-1=24"), kept.jobs(retention="bank=24")
    before_commit(slow, fast.expire)
    with pytest.raises(PositionMoved):
        slow.expire()
    assert {row["namespace"] for row in kept.rows()} == {"dev-1", "dev-2"}
    slow = kept.jobs(retention="dev-1=24")
    slow.expire()
    assert {row["namespace"] for row in kept.rows()} == {"dev-2"}
    assert {key[0] for key in kept.ledger().expired} == {"bank", "dev-1"}


@pytest.fixture
def grouped(store: Bucket, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """One segment of four row groups: bank, bank and dev-1, dev-1 and dev-2, dev-2."""
    # Each byte has a checksum of its own, so that no more than what is asked for is read.
    monkeypatch.setattr("indexer.store.checked_file.BLOCK_BYTES", 1)
    kept = Kept(store)
    for namespace in ("bank", "dev-1", "dev-2"):
        kept.commit(PodFile(lines(0, 10), namespace=namespace))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "ROW_GROUP_ROWS", 8)
        kept.jobs(compact_target_bytes=1 << 20).compact()
    kept.now_ns = (NOON + 100) * HOUR_NS
    return kept


@pytest.fixture
def by_range(grouped: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments so small are read as large ones are: the footer at first, then what is asked for."""
    [only] = grouped.segments()
    read_apart(monkeypatch, grouped.bucket.get(grouped.table.folder + only.name))


@pytest.mark.usefixtures("by_range")
def test_a_segment_that_goes_whole_is_not_read(grouped: Kept) -> None:
    [whole] = grouped.segments()
    grouped.commit(PodFile(lines(0, 10), pod="alone", namespace="dev-1"))
    [alone] = [each for each in grouped.segments() if each.name != whole.name]
    counted = Counted(grouped.bucket)
    jobs = grouped.jobs(counted, retention="*=24")
    jobs.expire()
    assert grouped.segments() == []
    assert counted.of(alone) == []  # the table's log says what it holds
    assert len(counted.of(whole)) == 3  # its footer, and a column of the two mixed row groups
    assert {key[0]: entry.rows for key, entry in grouped.ledger().expired.items()} == {
        "bank": 10, "dev-1": 20, "dev-2": 10,
    }  # fmt: skip
    assert jobs.metrics.expired_rows._value.get() == 40


@pytest.mark.usefixtures("by_range")
def test_row_groups_that_go_whole_are_not_read(grouped: Kept) -> None:
    [only] = grouped.segments()
    file = SegmentReader(grouped.bucket, grouped.table.folder + only.name, only.size)
    assert namespaces_of(file, only) == [
        Counter(bank=8), Counter({"bank": 2, "dev-1": 6}), Counter({"dev-1": 4, "dev-2": 4}),
        Counter({"dev-2": 6}),
    ]  # fmt: skip
    before = grouped.rows()
    last_start, last_end = file.place(3)
    counted = Counted(grouped.bucket)
    grouped.jobs(counted, retention="dev-2=24").expire()
    assert grouped.rows() == [row for row in before if row["namespace"] != "dev-2"]
    # But for the footer.
    reads = [(s, n) for s, n in counted.of(only) if s + n != only.size]
    assert all(start + length <= last_start for start, length in reads)
    assert last_end <= only.size
    assert (file.place(0)[0], last_start - file.place(0)[0]) in reads
    [entry] = grouped.ledger().expired.values()
    assert (entry.namespace, entry.rows) == ("dev-2", 10)


def test_row_groups_that_stay_are_read_around_those_that_go(grouped: Kept) -> None:
    before = grouped.rows()
    grouped.jobs(retention="bank=24,dev-2=24").expire()
    assert grouped.rows() == [row for row in before if row["namespace"] == "dev-1"]
    rules = sorted((entry.namespace, entry.rows) for entry in grouped.ledger().expired.values())
    assert rules == [("bank", 10), ("dev-2", 10)]


def test_a_footer_that_is_not_what_was_committed_removes_nothing(grouped: Kept) -> None:
    [only] = grouped.segments()

    def counted(**changes: Any) -> list[Counter[str]]:
        known = replace(only, **changes)
        name = grouped.table.folder + known.name
        return namespaces_of(SegmentReader(grouped.bucket, name, known.size), known)

    assert sum(map(Counter.total, counted())) == only.rows == 30
    for changes in ({"rows": 29}, {"stats": {"namespace": ("bank", "dev-1")}}):
        with pytest.raises(SegmentDamaged):
            counted(**changes)
    for size in (only.size - 1, only.size + 1, 3):
        with pytest.raises(SegmentDamaged):
            counted(size=size)
    with pytest.raises(ObjectMissing):
        counted(name="gone.parquet")


def test_one_damaged_segment_does_not_keep_others(grouped: Kept) -> None:
    [damaged] = grouped.segments()
    grouped.commit(PodFile(lines(0, 10), pod="alone", namespace="dev-1"))
    name = grouped.table.folder + damaged.name
    data = grouped.bucket.get(name)
    grouped.bucket.delete(name)
    grouped.bucket.put(name, data[: len(data) // 2])
    jobs = grouped.jobs(retention="dev-1=24")
    with pytest.raises(SegmentDamaged):
        jobs.expire()
    assert [each.name for each in grouped.segments()] == [damaged.name]
