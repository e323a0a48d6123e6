"""Retention: rows go by the rule of their namespace, and the ledger says which hours went."""

import pytest

from collector.errors import SettingError
from indexer.bucket import Bucket
from indexer.entries import ExpiredEntry
from indexer.errors import PositionMoved
from indexer.expire import RetentionRule, hour_of, parse_retention, rule_of
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
