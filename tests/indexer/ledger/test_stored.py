"""The stored ledger: written by what was touched, split into live and past, and always the same."""

import itertools
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.wire.batch import Gone
from indexer.errors import BucketUnavailable, TableDamaged
from indexer.keeper.fold import Fold
from indexer.keeper.ledger_command import differences
from indexer.ledger.bring_up import bring_up
from indexer.ledger.entries import FileEntry
from indexer.ledger.folded import FoldedTable
from indexer.ledger.ledger import Ledger
from indexer.ledger.rows import LEDGER_SCHEMA
from indexer.ledger.stored import LedgerTable
from indexer.object_names import ledger_folder
from indexer.store.bucket import Bucket
from indexer.store.open import open_bucket
from indexer.table.coverage import Coverage
from indexer.table.table import Table
from tests.examples import examples
from tests.indexer.ledger.test_ledger import fold, histories
from tests.indexer.shipped import CLUSTER, SECOND, START_NS, File, Run, Way
from tests.indexer.table.test_table import add_coverage
from tests.way import lines

FILES = [File(lines(0, 12), pod=f"pod-{n}") for n in range(6)]
GOLDEN = Path(__file__).parents[2] / "golden" / "ledger-2"
DAY_NS = 86_400 * SECOND
LATER_NS = START_NS + 30 * DAY_NS


def shipped(partitions: int = 2) -> list[Coverage]:
    """Each file whole and in a commit of its own, then that the first three are gone: settled."""
    way = Way()
    for n, file in enumerate(FILES):
        run = Run(run=bytes([n]) * 16, partition=n % partitions)
        way.commit(run.batch(*file.ranges([]), of=[file]), partition=n % partitions)
    for n, file in enumerate(FILES[:3]):
        run = Run(run=bytes([n]) * 16, partition=n % partitions, sequence=1)
        gone = (Gone(file.id, 0),)
        way.commit(run.batch(of=[file], gone=gone), partition=n % partitions)
    return way.commits


def saved(store: Bucket, commits: Sequence[Coverage], gone_before_ns: int = 0) -> Ledger:
    ledger = fold(commits)
    assert LedgerTable(store, CLUSTER).save(ledger, -1, None, gone_before_ns)
    return ledger


def test_a_ledger_of_this_layout_is_still_read(request: pytest.FixtureRequest) -> None:
    store, commits = open_bucket(str(GOLDEN)), shipped()  # (the log names where it was made)
    if request.config.getoption("--update-golden"):
        shutil.rmtree(GOLDEN / CLUSTER, ignore_errors=True)
        ledger = fold(commits[:-1])
        assert LedgerTable(store, CLUSTER).save(ledger, -1)
        touched = ledger.apply(commits[-1], ledger.version + 1)
        assert LedgerTable(store, CLUSTER).save(ledger, ledger.version - 1, touched)
    stored, whole = LedgerTable(store, CLUSTER).load(), fold(commits)
    assert not list(differences(stored, whole))
    assert len(stored.files) == len(FILES)
    assert sum(file.settled_ns > 0 for file in stored.files.values()) == 3


def ids(files: Sequence[File]) -> set[bytes]:
    return {file.id for file in files}


def test_an_indexer_loads_only_files_of_its_partitions(store: Bucket) -> None:
    saved(store, shipped())
    ledger = LedgerTable(store, CLUSTER).load_live([1])
    assert {key[0] for key in ledger.files} == ids(FILES[1::2])
    assert set(ledger.positions) == {0, 1}
    assert LedgerTable(store, CLUSTER).load_live() == LedgerTable(store, CLUSTER).load()


def test_files_settled_long_ago_are_found_by_lookup_and_not_loaded(store: Bucket) -> None:
    whole = fold(shipped())
    held = saved(store, shipped(), LATER_NS)
    assert {key[0] for key in held.files} == ids(FILES[3:])
    table = LedgerTable(store, CLUSTER)
    assert table.load_live() == held
    assert held.past_ns == LATER_NS
    assert table.load() == whole
    wanted = {FILES[1].id, FILES[2].id, FILES[4].id, b"none".ljust(16)}
    found = {key: whole.files[key] for key in [(FILES[1].id, 0), (FILES[2].id, 0)]}
    assert table.lookup(wanted) == found
    assert table.lookup(wanted) == found  # now with the ids at hand
    assert table.lookup([]) == {}


def test_a_file_that_is_settled_since_a_moment_stays_live(store: Bucket) -> None:
    held = saved(store, shipped(), START_NS)
    assert {key[0] for key in held.files} == ids(FILES)
    assert held.past_ns == 0


def test_of_a_ledger_that_was_never_folded_nothing_is_found(store: Bucket) -> None:
    table = LedgerTable(store, CLUSTER)
    assert table.load_live([0]) == Ledger()
    assert table.lookup([FILES[0].id]) == {}
    assert table.sweep() == 0


@examples(6)
@given(histories(), st.data())
def test_whatever_is_stored_when_and_split_where_loads_as_the_whole_fold(
    commits: list[Coverage], data: st.DataObject
) -> None:
    """By keepers that stop and start, with some files gone at each of the times."""
    with TemporaryDirectory() as folder:
        bucket = open_bucket(folder)
        logs = Table(bucket, CLUSTER)
        logs.make()
        keeper = None
        for coverage in (*commits, *goodbyes(commits)):
            add_coverage(logs, coverage)
            if keeper is None or data.draw(st.booleans()):
                now_ns = START_NS + data.draw(st.integers(0, 12)) * DAY_NS
                keeper = Fold(bucket, CLUSTER, 1, itertools.repeat(now_ns).__next__)
            if data.draw(st.booleans()):
                keeper.advance(logs)
        Fold(bucket, CLUSTER, 1, lambda: LATER_NS).advance(logs)
        version = logs.snapshot().version()
        assert LedgerTable(bucket, CLUSTER).load() == bring_up(Ledger(), logs, version)


def goodbyes(commits: Sequence[Coverage]) -> list[Coverage]:
    """Commits in which half the files go, and then all commits once more, as after a reset."""
    way = Way()
    found = {cover.file_id: cover for coverage in commits for cover in coverage.files}
    for cover in list(found.values())[::2]:
        file = File(lines(0, 12), pod=cover.pod, node=cover.node)
        run = Run(cover.node, b"x" * 16, cover.partition)
        way.commit(run.batch(of=[file], gone=(Gone(file.id, 0),)))
    return [*way.commits, *commits]


def test_a_settled_file_that_goes_on_goes_on_from_what_it_was(store: Bucket) -> None:
    logs = Table(store, CLUSTER)
    logs.make()
    commits = shipped()
    keeper = Fold(store, CLUSTER, 24, lambda: LATER_NS)
    for coverage in commits:
        add_coverage(logs, coverage)
    assert keeper.advance(logs)
    assert keeper.ledger is not None
    assert (FILES[0].id, 0) not in keeper.ledger.files
    add_coverage(logs, commits[0])  # sent again: it says nothing new
    assert keeper.advance(logs)
    assert (FILES[0].id, 0) not in keeper.ledger.files
    longer = File(lines(0, 20), pod="pod-0")
    assert longer.id == FILES[0].id
    way, run = Way(), Run(run=b"later".ljust(16))
    way.commit(
        run.batch(*longer.ranges([], start=len(lines(0, 12)), end=len(lines(0, 16))), of=[longer]),
        run.inventory([(longer, len(longer.data), len(lines(0, 18)))]),
    )
    add_coverage(logs, way.commits[0])
    assert keeper.advance(logs)
    version = logs.snapshot().version()
    whole = bring_up(Ledger(), logs, version)
    assert keeper.ledger.files[FILES[0].id, 0] == whole.files[FILES[0].id, 0]
    assert len(whole.files[FILES[0].id, 0].lost) == 1
    assert LedgerTable(store, CLUSTER).load() == whole
    assert Fold(store, CLUSTER, 24, lambda: LATER_NS + DAY_NS).advance(logs) is False


def test_folds_leave_few_objects_and_the_older_ones_alone(tmp_path: Path) -> None:
    bucket = open_bucket(str(tmp_path))
    table = LedgerTable(bucket, CLUSTER)
    ledger = Ledger()
    names: list[set[str]] = []
    for version in range(24):
        way = Way()
        file = File(lines(version, version + 2), pod="web")
        way.commit(Run().batch(*file.ranges([]), of=[file]))
        ledger.apply(way.commits[0], version)
        assert table.save(ledger, version - 1, {(file.id, 0)} if version else None)
        names.append(set(bucket.names(f"{CLUSTER}/ledger-2/open/")))
    assert table.load() == ledger
    opened = open_objects(table)
    assert len(opened) <= 5
    assert sum(rows for _, rows in opened) <= 24 * 1.1
    written = names[-1]
    assert len(written) == 24


def open_objects(table: LedgerTable) -> list[tuple[str, int]]:
    opened = table._open()
    assert opened is not None
    actions = opened.get_add_actions()
    found = zip(*(actions.column(n).to_pylist() for n in ("path", "num_records")), strict=True)
    return [(name, rows) for name, rows in found if name.startswith("open/")]


class Failing:
    """A bucket that stores no more than so many objects."""

    def __init__(self, inner: Bucket, left: int) -> None:
        self._inner, self._left = inner, left
        self.uri, self.storage_options = inner.uri, inner.storage_options
        self.size, self.names = inner.size, inner.names
        self.get, self.get_range = inner.get, inner.get_range

    def put(self, name: str, data: bytes) -> None:
        if not self._left:
            raise BucketUnavailable("injected")
        self._left -= 1
        self._inner.put(name, data)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_fold_that_fails_half_way_shows_nothing(tmp_path: Path, left: int) -> None:
    bucket = open_bucket(str(tmp_path))
    commits = shipped()
    before = saved(bucket, commits[:6])
    whole = fold(commits)
    failing: Any = Failing(bucket, left)
    with pytest.raises(BucketUnavailable):
        LedgerTable(failing, CLUSTER).save(whole, before.version, set(whole.files), LATER_NS)
    assert LedgerTable(bucket, CLUSTER).load() == before
    assert LedgerTable(bucket, CLUSTER).save(whole, before.version, set(whole.files), LATER_NS)
    assert LedgerTable(bucket, CLUSTER).load() == fold(commits)


def test_many_files_come_back_from_several_row_groups(tmp_path: Path) -> None:
    """Settled files are read by row groups; each file is in one, whatever its id."""
    bucket = open_bucket(str(tmp_path))
    ledger = Ledger(version=0)
    for n in range(10_000):
        file_id = (n * 0x9E3779B97F4A7C15 % (1 << 64)).to_bytes(8, "big") * 2
        for epoch in range(1 + (n % 100 == 0)):
            ledger.files[file_id, epoch] = FileEntry(
                file_id=file_id, epoch=epoch, partition=n % 4, node="n", namespace="a", pod="p",
                pod_uid="u", container="c", restart=0, settled_ns=DAY_NS if n % 2 else 0,
            )  # fmt: skip
    whole = dict(ledger.files)
    table = LedgerTable(bucket, CLUSTER)
    assert table.save(ledger, -1, None, START_NS)
    past = {key: file for key, file in whole.items() if file.settled_ns == DAY_NS}
    some = {file_id for file_id, _ in list(past)[::7]}
    assert table.lookup(some) == {key: file for key, file in past.items() if key[0] in some}
    assert table.lookup({key[0] for key in whole}) == past
    assert {**ledger.files, **past} == whole
    assert table.load().files == whole


@pytest.mark.parametrize("data", [b"", b'{"commitInfo":{"ti', b"17"])
@pytest.mark.parametrize("which", [-1, -2])
def test_a_damaged_log_of_the_ledger_is_named_with_what_to_do(
    store: Bucket, data: bytes, which: int
) -> None:
    commits = shipped()
    whole = saved(store, commits)
    LedgerTable(store, CLUSTER).save(whole, whole.version, set(whole.files))
    log = f"{CLUSTER}/ledger-2/_delta_log/"
    name = sorted(each for each in store.names(log) if each.endswith(".json"))[which]
    store.delete(name)
    store.put(name, data)
    for use in (LedgerTable.load, LedgerTable.load_live, LedgerTable.sweep):
        with pytest.raises(TableDamaged, match=f"{name}.*delete all of .*/ledger-2"):
            use(LedgerTable(store, CLUSTER))


def test_two_that_make_the_ledger_make_one_of_one_schema(store: Bucket) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [
            pool.submit(FoldedTable(store, ledger_folder(CLUSTER), LEDGER_SCHEMA).made)
            for _ in range(8)
        ]
    failed = [each for each in made if each.exception()]
    assert len(failed) < 8
    log = f"{CLUSTER}/ledger-2/_delta_log/"
    assert [each for each in store.names(log) if each.endswith(".json")] == [f"{log}{0:020d}.json"]
