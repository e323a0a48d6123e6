"""Merged coverage: one object instead of many, and the ledger that comes of it is the same."""

import itertools

import pytest

from indexer.errors import PositionMoved
from indexer.keeper.gather import OBJECTS_MAX, plan_gathering
from indexer.ledger.bring_up import bring_up
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable
from indexer.object_names import COVERAGE_FOLDER, MERGED_FOLDER
from indexer.store.bucket import Bucket
from indexer.table.table import Live
from tests.indexer.kept import Kept, PodFile, before_commit
from tests.indexer.shipped import CLUSTER
from tests.way import lines


@pytest.fixture
def kept(store: Bucket) -> Kept:
    """Six commits, folded."""
    kept = Kept(store)
    for count in (7, None):
        kept.commit(*(PodFile(lines(0, 30), pod=pod) for pod in "abc"), count=count)
    return kept


def refolded(kept: Kept) -> Ledger:
    """Fold all coverage objects of the newest version, without the log."""
    version = kept.table.snapshot().version()
    ledger = Ledger()
    for coverage in kept.table.all_coverage(kept.table.snapshot()):
        ledger.apply(coverage, version)
    return ledger


def test_a_merged_object_holds_each_commit_with_its_version(kept: Kept) -> None:
    jobs = kept.jobs()
    jobs.fold()
    before = kept.ledger()
    jobs.gather()
    [merged] = kept.coverage()
    assert merged.name.startswith(MERGED_FOLDER)
    commits = kept.table.coverage(merged.name)
    assert [commit.version for commit in commits] == [1, 2, 3, 4, 5, 6]
    assert [commit.positions for commit in commits] == [c.positions for c in kept.way.commits]
    after = refolded(kept)
    after.version = before.version
    assert after == before
    assert len(kept.rows()) == 90


def test_only_what_the_stored_ledger_has_folded_is_merged(kept: Kept) -> None:
    jobs = kept.jobs()
    jobs.gather()
    assert len(kept.coverage()) == 6
    jobs.fold()
    kept.commit(PodFile(lines(0, 5), pod="z"))
    jobs.gather()
    assert len(kept.coverage()) == 2
    assert len(kept.ledger().files) == 4


def test_a_ledger_from_before_a_merger_is_brought_up_once(kept: Kept) -> None:
    """Whoever holds an older one has folded what was merged, or finds the objects still there."""
    jobs = kept.jobs()
    jobs.fold()
    half = bring_up(Ledger(), kept.table, 3)
    jobs.gather()
    kept.commit(PodFile(lines(0, 5), pod="z"))
    version = kept.table.snapshot().version()
    expected = bring_up(LedgerTable(kept.bucket, CLUSTER).load(), kept.table, version)
    assert bring_up(half, kept.table, version) == expected
    there = {kept.table.folder + each.name for each in kept.coverage()}
    gone = {*kept.bucket.names(kept.table.folder + COVERAGE_FOLDER)} - there
    assert len(gone) == 6
    for name in gone:  # as vacuumed
        kept.bucket.delete(name)
    assert bring_up(bring_up(Ledger(), kept.table, 0), kept.table, version) == expected


def test_marks_of_expiry_survive_a_merger(kept: Kept) -> None:
    jobs = kept.jobs(retention="*=1")
    jobs.expire()
    jobs.fold()
    expired = kept.ledger().expired
    assert expired
    jobs.gather()
    assert len(kept.coverage()) == 1
    assert refolded(kept).expired == expired


def test_a_new_keeper_goes_on_where_the_log_still_tells_versions(kept: Kept) -> None:
    kept.jobs().fold()
    kept.table.snapshot().create_checkpoint()
    for early in range(3):  # as a log that was cleaned up
        kept.bucket.delete(f"{kept.table.folder}_delta_log/{early:020d}.json")
    before = refolded(kept)
    jobs = kept.jobs()
    jobs.fold()
    kept.commit(PodFile(lines(0, 5), pod="z"))
    jobs.fold()
    jobs.gather()
    [merged] = kept.coverage()
    versions = [commit.version for commit in kept.table.coverage(merged.name)]
    assert versions == [2, 2, 3, 4, 5, 6, 7]
    assert refolded(kept).files.keys() > before.files.keys()


def test_of_two_keepers_that_merge_the_same_coverage_one_is_refused(kept: Kept) -> None:
    slow, fast = kept.jobs(), kept.jobs()
    slow.fold()
    fast.fold()
    before_commit(slow, fast.gather)
    with pytest.raises(PositionMoved):
        slow.gather()
    assert len(kept.coverage()) == 1
    assert len(kept.ledger().files) == 3


def test_runs_keep_to_their_limits_and_their_order() -> None:
    names = [f"{COVERAGE_FOLDER}{n}" for n in range(OBJECTS_MAX + 5)]
    objects = [Live(name, 10) for name in names]
    versions = {name: len(names) - at for at, name in enumerate(names)}
    runs = list(plan_gathering(objects, versions, 10**9, 2))
    assert [len(run) for run in runs] == [OBJECTS_MAX, 5]
    found = [versions[each.name] for each in itertools.chain(*runs)]
    assert found == sorted(found)
    large = [Live(name, 9 << 20) for name in names[:3]]
    assert [len(run) for run in plan_gathering(large, versions, 10**9, 2)] == [1, 1]
