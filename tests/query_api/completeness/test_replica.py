"""A replica follows the table version by version, and holds what one opened again would hold."""

import time

import pytest

from indexer.errors import VersionGone
from indexer.keeper.fold import Fold
from indexer.query.scope import Scope
from indexer.store.bucket import Bucket
from indexer.table.coverage import Balance, Coverage, Expired
from indexer.table.table import Table, live
from indexer.times import HOUR_NS
from query_api.completeness.replica import Replica, Snapshot
from tests.query_api.written import CLUSTER, SECOND, START_NS, Line, Written

ALL = Scope(START_NS - HOUR_NS, START_NS + HOUR_NS, {})


def replica_of(bucket: Bucket) -> Replica:
    return Replica(bucket, CLUSTER, 4)


def fresh(bucket: Bucket, cluster: str = CLUSTER) -> Replica:
    """A replica that has read the table once."""
    replica = Replica(bucket, cluster, 4)
    replica.refresh()
    return replica


def line(second: int, pod: str = "api-1") -> Line:
    return Line(START_NS + second * SECOND, f"line {second}", pod=pod)


def same(one: Snapshot, two: Snapshot) -> bool:
    """Whether two snapshots are of one version and say the same of it."""
    plans = [sorted(each.segments.plan(ALL), key=lambda p: p.name) for each in (one, two)]
    return (
        one.version == two.version
        and one.ledger == two.ledger
        and one.gaps == two.gaps
        and plans[0] == plans[1]
        and one.segments.time_bounds_ns == two.segments.time_bounds_ns
        and one.segments.rows == two.segments.rows
    )


def test_each_refresh_is_what_a_replica_of_that_version_opens(written: Written) -> None:
    written.ship(line(0))
    replica = replica_of(written.bucket)
    held = [replica.refresh()]
    stream = line(0).stream
    for act in (
        lambda: written.ship(line(1), line(2, "api-2")),
        lambda: written.lose(stream, 1_000, True, START_NS, START_NS + SECOND),
        lambda: written.ship(line(3)),
        lambda: written.inventory(START_NS + 10 * SECOND),
        lambda: written.seal(stream, 2_000),
        lambda: written.add(
            Coverage(
                START_NS, [], [], [], [], [], Balance(), expired=[Expired("shop", 1, 2, "*=1")]
            )
        ),
    ):
        act()
        held.append(replica.refresh())
        assert held[-1].version == written.version
    assert replica.refresh() is held[-1]
    for snapshot in held:
        assert same(snapshot, fresh(written.bucket).at(snapshot.version)[0])


def test_a_refresh_looks_only_at_what_has_come(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    for second in range(5):
        written.ship(line(second))
    replica = replica_of(written.bucket)
    replica.refresh()
    written.ship(line(6))
    replica.refresh()  # the log is at hand now
    written.ship(line(7))
    reads: list[str] = []
    get = written.bucket.get

    def noted(_: Bucket, name: str) -> bytes:
        reads.append(name)
        return get(name)

    monkeypatch.setattr(type(written.bucket), "get", noted)
    monkeypatch.setattr("indexer.table.table.Table.snapshot", None)
    assert replica.refresh().version == written.version
    logs = [name for name in reads if "_delta_log" in name]
    assert {name.rpartition("/")[2] for name in logs} <= {
        f"{written.version:020d}.json", f"{written.version + 1:020d}.json", "_last_checkpoint",
    }  # fmt: skip
    assert len(reads) - len(logs) == 1  # the coverage of the new version


def test_segments_that_were_exchanged_are_planned_no_more(written: Written) -> None:
    written.ship(line(0))
    replica = replica_of(written.bucket)
    before = replica.refresh()
    [old] = before.segments.plan(ALL)
    written.ship(line(1))
    objects = [each for each in live(written.table.snapshot()) if not each.is_coverage]
    written.table.commit([], {}, {}, [each for each in objects if each.name == old.name])
    after = replica.refresh()
    assert [each.name for each in before.segments.plan(ALL)] == [old.name]
    assert old.name not in {each.name for each in after.segments.plan(ALL)}
    assert len(after.segments) == 1
    assert same(after, replica_of(written.bucket).refresh())


def test_a_replica_far_behind_goes_on_from_what_it_holds(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("query_api.completeness.replica._FAR_BEHIND", 2)
    written.ship(line(0))
    replica = replica_of(written.bucket)
    before = replica.refresh()
    for second in range(1, 5):
        written.ship(line(second))
    assert same(replica.refresh(), replica_of(written.bucket).refresh())
    assert same(before, fresh(written.bucket).at(before.version)[0])


def test_a_log_that_was_cleaned_up_is_not_followed(written: Written) -> None:
    written.ship(line(0))
    replica = replica_of(written.bucket)
    first = replica.refresh()
    for second in range(1, 4):
        written.ship(line(second))
    written.table.snapshot().create_checkpoint()
    for number in range(written.version):
        written.bucket.delete(f"{written.table.folder}_delta_log/{number:020d}.json")
    after = replica.refresh()
    assert after.version == written.version
    assert len(after.segments) == 4
    assert after.ledger.files == written.ledger.files
    assert replica.at(after.version) == (after, True)
    with pytest.raises(VersionGone):
        fresh(written.bucket).at(first.version)


def test_a_version_before_the_stored_ledger_costs_no_fold_of_all_commits(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    for second in range(40):
        written.ship(line(second))
    version = written.version
    written.ship(line(50, "late"))
    Fold(written.bucket, CLUSTER, 192, time.time_ns).advance(Table(written.bucket, CLUSTER))
    replica = replica_of(written.bucket)
    latest = replica.refresh()
    read: list[str] = []
    coverage = Table.coverage

    def noted(self: Table, name: str) -> list[Coverage]:
        read.append(name)
        return coverage(self, name)

    monkeypatch.setattr(Table, "coverage", noted)
    snapshot, same_ledger = replica.at(version)
    assert (snapshot.version, len(snapshot.segments)) == (version, 40)
    assert (snapshot.ledger is latest.ledger, same_ledger, read) == (True, False, [])


def test_replicas_sign_with_one_secret_that_another_table_does_not_have(
    written: Written,
) -> None:
    written.ship(line(0))
    other = Written(written.bucket, "other")
    other.ship(line(0))
    one, two = fresh(written.bucket), fresh(written.bucket)
    assert len(one.secret) == 32
    assert one.secret == two.secret
    assert one.secret != fresh(written.bucket, "other").secret
