"""The Delta log as Everyline writes it: one version each, in nobody's way, for every reader."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.transaction import AddAction

from indexer.errors import ObjectExists, ObjectMissing, PositionMoved, TableDamaged, TableError
from indexer.schema import PARTITION_COLUMNS
from indexer.store.bucket import Bucket
from indexer.table.delta_log import Action, DeltaLog
from indexer.table.table import TABLE_SCHEMA, Added, Live, Table
from tests.indexer.shipped import CLUSTER

STATS = json.dumps({"numRecords": 1})


@pytest.fixture
def table(store: Bucket) -> Table:
    """An empty table."""
    table = Table(store, CLUSTER)
    table.make()
    return table


def added(name: str) -> Added:
    return Added(f"date=2026-03-01/hour=12/{name}", 9, STATS, "2026-03-01", 12)


def paths(table: Table) -> set[str]:
    names = table.snapshot().get_add_actions().column("path").to_pylist()
    return {name.rpartition("/")[2] for name in names}


def by_library(table: Table, name: str, app_id: str, version: int) -> None:
    """Commit as any other Delta writer does."""
    DeltaTable(table.uri, storage_options=table.bucket.storage_options).create_write_transaction(
        [AddAction(added(name).name, 9, {"date": "2026-03-01", "hour": "12"}, 0, True, STATS)],
        mode="append",
        schema=TABLE_SCHEMA,
        partition_by=list(PARTITION_COLUMNS),
        commit_properties=CommitProperties(app_transactions=[Transaction(app_id, version)]),
    )


def test_a_library_reads_what_is_committed_with_all_that_it_says(table: Table) -> None:
    table.commit([added("a"), added("b")], {"x": None}, {"x": 3})
    live = Live(added("a").name, 9, "2026-03-01", 12)
    table.commit([added("c")], {"x": 3, "y": None}, {"x": 4, "y": 1}, [live])
    snapshot = table.snapshot()
    assert snapshot.version() == 2
    assert paths(table) == {"b", "c"}
    assert (snapshot.transaction_version("x"), snapshot.transaction_version("y")) == (4, 1)
    actions = snapshot.get_add_actions(flatten=True)
    assert set(actions.column("partition.hour").to_pylist()) == {12}
    assert [entry["operation"] for entry in snapshot.history()][:2] == ["WRITE", "WRITE"]


def test_commits_of_a_library_and_own_ones_take_turns(table: Table) -> None:
    for number in range(3):
        before = number - 1 if number else None
        table.commit([added(f"own-{number}")], {"x": before}, {"x": number})
        by_library(table, f"other-{number}", "other", number)
    assert len(paths(table)) == 6
    by_library(table, "thief", "x", 9)
    with pytest.raises(PositionMoved, match="no longer at 2"):
        table.commit([added("late")], {"x": 2}, {"x": 3})


def test_a_writer_begins_at_the_last_checkpoint(table: Table, store: Bucket) -> None:
    for number in range(5):
        table.commit([added(str(number))], {}, {f"app-{number}": number})
    table.snapshot().create_checkpoint()
    table.commit([added("after")], {}, {"app-0": 7})
    for early in range(5):
        store.delete(f"{table.folder}_delta_log/{early:020d}.json")
    log = DeltaLog(store, table.folder)
    log.refresh()
    assert log.version == 6
    assert log.transactions == {"app-0": 7, **{f"app-{n}": n for n in range(1, 5)}}


def test_a_checkpoint_of_a_table_without_positions_is_read(table: Table, store: Bucket) -> None:
    table.commit([added("a")], {}, {})
    table.snapshot().create_checkpoint()
    log = DeltaLog(store, table.folder)
    log.refresh()
    assert (log.version, log.transactions) == (1, {})


class Asleep:
    """A bucket whose next put of the log comes after others went on and cleaned up the log."""

    def __init__(self, inner: Bucket, meanwhile: Callable[[], None]) -> None:
        self._inner, self._meanwhile = inner, [meanwhile]
        self.uri, self.get, self.delete = inner.uri, inner.get, inner.delete
        self.size, self.names = inner.size, inner.names

    def put(self, name: str, data: bytes) -> None:
        while self._meanwhile:
            self._meanwhile.pop()()
        self._inner.put(name, data)


@pytest.mark.parametrize("cleaned", [2, 5], ids=["not as far", "over it"])
def test_whoever_slept_over_a_clean_up_of_the_log_does_not_write_into_the_past(
    table: Table, store: Bucket, cleaned: int
) -> None:
    table.commit([added("before")], {"x": None}, {"x": 1})

    def meanwhile() -> None:
        for number in range(4):
            table.commit([added(f"while-{number}")], {}, {"y": number})
        table.snapshot().create_checkpoint()
        for early in range(cleaned):
            store.delete(f"{table.folder}_delta_log/{early:020d}.json")

    log = DeltaLog(Asleep(store, meanwhile), table.folder)  # type: ignore[arg-type]
    if cleaned == 5:
        with pytest.raises(PositionMoved, match="over for long"):
            log.commit(actions("late"), {"x": 1})
        with pytest.raises(ObjectMissing):
            store.get(f"{table.folder}_delta_log/{2:020d}.json")
    log.commit(actions("again"), {"x": 1})
    assert log.version == 6
    assert len(paths(table)) == 5


def test_a_reader_that_slept_over_a_clean_up_of_the_log_finds_the_newest_version(
    table: Table, store: Bucket
) -> None:
    sleeper = Table(store, CLUSTER)
    assert sleeper.version() == 0
    for number in range(3):
        table.commit([added(str(number))], {}, {"y": number})
    table.snapshot().create_checkpoint()
    for early in range(3):
        store.delete(f"{table.folder}_delta_log/{early:020d}.json")
    assert sleeper.version() == 3


class Forgetful:
    """A bucket whose answers to puts of the log are lost: stored, and met again by a retry."""

    def __init__(self, inner: Bucket) -> None:
        self._inner = inner
        self.uri, self.get, self.delete = inner.uri, inner.get, inner.delete
        self.size, self.names = inner.size, inner.names

    def put(self, name: str, data: bytes) -> None:
        self._inner.put(name, data)
        self._inner.put(name, data)  # raises ObjectExists, as a client's own retry does


def actions(name: str) -> list[Action]:
    return [{"commitInfo": {"txnId": name}}, {"txn": {"appId": "x", "version": 1}}]


def test_an_own_commit_whose_answer_was_lost_is_recognised(table: Table, store: Bucket) -> None:
    log = DeltaLog(Forgetful(store), table.folder)  # type: ignore[arg-type]
    log.commit(actions("mine"), {"x": None})
    assert log.version == 1
    assert store.get(f"{table.folder}_delta_log/{1:020d}.json").count(b"\n") == 1
    with pytest.raises(PositionMoved):
        DeltaLog(store, table.folder).commit(actions("other"), {"x": None})


def test_an_object_that_is_removed_meanwhile_is_not_removed_twice(table: Table) -> None:
    table.commit([added("a"), added("b")], {}, {})
    live = Live(added("a").name, 9, "2026-03-01", 12)
    slow, fast = Table(table.bucket, CLUSTER), Table(table.bucket, CLUSTER)
    slow.watch_removals()
    fast.commit([], {}, {}, [live])
    with pytest.raises(PositionMoved, match="removed already"):
        slow.commit([added("c")], {}, {}, [live], same_rows=True)
    assert paths(table) == {"b"}


def test_many_writers_add_one_version_each(table: Table) -> None:
    def write(number: int) -> int:
        own = Table(table.bucket, CLUSTER)
        return own.commit([added(str(number))], {f"p/{number}": None}, {f"p/{number}": 1})

    with ThreadPoolExecutor(8) as pool:
        versions = sorted(pool.map(write, range(24)))
    assert versions == list(range(1, 25))
    assert paths(table) == {str(number) for number in range(24)}


def test_a_log_that_is_not_there_is_no_table(store: Bucket) -> None:
    with pytest.raises(TableError, match="no table"):
        DeltaLog(store, "nobody/logs/").refresh()


def test_a_writer_does_not_go_on_in_a_table_that_was_made_anew(table: Table, store: Bucket) -> None:
    sleeper = Table(store, CLUSTER)
    for number in range(3):
        before = number - 1 if number else None
        sleeper.commit([added(f"old-{number}")], {"x": before}, {"x": number})
    for name in list(store.names(table.folder)):
        store.delete(name)
    table.make()
    Table(store, CLUSTER).commit([added("new")], {"x": None}, {"x": 0})
    with pytest.raises(PositionMoved, match="no longer at 2"):
        sleeper.commit([added("late")], {"x": 2}, {"x": 3})
    assert sleeper.commit([added("again")], {"x": 0}, {"x": 1}) == 2
    assert paths(table) == {"new", "again"}


def test_a_log_that_is_cleaned_up_to_its_checkpoint_is_gone_on_with(
    table: Table, store: Bucket
) -> None:
    table.commit([added("a")], {"x": None}, {"x": 1})
    table.snapshot().create_checkpoint()
    for early in range(2):
        store.delete(f"{table.folder}_delta_log/{early:020d}.json")
    assert table.commit([added("b")], {"x": 1}, {"x": 2}) == 2
    assert Table(store, CLUSTER).commit([added("c")], {"x": 2}, {"x": 3}) == 3
    assert paths(table) == {"a", "b", "c"}


class TakenBack(Forgetful):
    """A bucket in which somebody else's version is taken back just after it was in the way."""

    def put(self, name: str, data: bytes) -> None:
        if not self.refused:
            self.refused = True
            raise ObjectExists("injected")
        self._inner.put(name, data)

    refused = False


def test_a_version_that_was_in_the_way_and_is_gone_is_tried_again(
    table: Table, store: Bucket
) -> None:
    log = DeltaLog(TakenBack(store), table.folder)  # type: ignore[arg-type]
    log.commit(actions("mine"), {"x": None})
    assert log.version == 1


# -- objects that storage has damaged ------------------------------------------------------------


def spoilt(table: Table, store: Bucket, name: str, data: bytes | None) -> Table:
    """Put other bytes in the place of an object of the log; return the table as others open it."""
    store.delete(f"{table.folder}_delta_log/{name}")
    if data is not None:
        store.put(f"{table.folder}_delta_log/{name}", data)
    return Table(store, CLUSTER)


USES: list[Callable[[Table], object]] = [
    Table.version,
    Table.snapshot,
    lambda table: table.commit([added("late")], {}, {"z": 1}),
]


@pytest.mark.parametrize("use", USES, ids=["version", "snapshot", "commit"])
@pytest.mark.parametrize("at", [2, 4], ids=["between", "last"])
@pytest.mark.parametrize(
    "data",
    [b"", b"\n\n", b'{"commitInfo":{"ti', b"\xff\x00\x80", b"17", b"null", b'{"add":{"size":1}}',
     b"[" * 9],
)  # fmt: skip
def test_a_damaged_entry_is_named_and_nothing_older_is_shown(
    table: Table, store: Bucket, use: Callable[[Table], object], at: int, data: bytes
) -> None:
    for number in range(4):
        table.commit([added(str(number))], {}, {"x": number})
    name = f"{at:020d}.json"
    other = spoilt(table, store, name, data)
    with pytest.raises(TableDamaged, match=f"{name}.*restore it"):
        use(other)


@pytest.mark.parametrize("use", USES, ids=["version", "snapshot", "commit"])
def test_an_entry_that_is_missing_between_others_is_named(
    table: Table, store: Bucket, use: Callable[[Table], object]
) -> None:
    for number in range(4):
        table.commit([added(str(number))], {}, {"x": number})
    other = spoilt(table, store, f"{2:020d}.json", None)
    with pytest.raises(TableDamaged, match=f"{2:020d}.json.*is missing"):
        use(other)


@pytest.mark.parametrize("data", [b"", b'{"ver', b"[]", b"{}", b"7", b'{"version":"x"}', b"\xff"])
def test_a_damaged_word_of_the_last_checkpoint_is_made_up_for(
    table: Table, store: Bucket, data: bytes
) -> None:
    for number in range(4):
        table.commit([added(str(number))], {}, {f"app-{number}": number})
    table.snapshot().create_checkpoint()
    table.commit([added("after")], {}, {})
    other = spoilt(table, store, "_last_checkpoint", data)
    assert (other.last_checkpoint(), other.version()) == (4, 5)
    other.commit([added("late")], {"app-3": 3}, {"app-3": 4})
    assert paths(other) == {"0", "1", "2", "3", "after", "late"}


@pytest.mark.parametrize("use", USES, ids=["version", "snapshot", "commit"])
@pytest.mark.parametrize("data", [b"", b"PAR1 and no more", None])
@pytest.mark.parametrize(
    ("cleaned", "advice"), [(0, "delete it and _last_checkpoint"), (3, "restore it")]
)
def test_a_damaged_checkpoint_is_named_with_what_to_do(
    table: Table, store: Bucket, use: Callable[[Table], object], data: bytes | None,
    cleaned: int, advice: str,
) -> None:  # fmt: skip
    for number in range(4):
        table.commit([added(str(number))], {}, {"x": number})
    table.snapshot().create_checkpoint()
    for early in range(cleaned):
        store.delete(f"{table.folder}_delta_log/{early:020d}.json")
    name = f"{4:020d}.checkpoint.parquet"
    other = spoilt(table, store, name, data)
    with pytest.raises(TableDamaged, match=f"{name}.*{advice}"):
        use(other)
    if not cleaned:
        spoilt(table, store, name, None)
        other = spoilt(table, store, "_last_checkpoint", None)
        assert paths(other) == {"0", "1", "2", "3"}


def test_a_flipped_bit_of_a_checkpoint_is_named_before_a_library_decodes_it(
    table: Table, store: Bucket
) -> None:
    for number in range(4):
        table.commit([added(str(number))], {}, {"x": number})
    table.write_checkpoint()
    name = f"{4:020d}.checkpoint.parquet"
    whole = store.get(f"{table.folder}_delta_log/{name}")
    for at in range(0, len(whole), 97):
        flipped = whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]
        other = spoilt(table, store, name, flipped)
        for use in USES:
            with pytest.raises(TableDamaged, match=name):
                use(other)
    assert paths(spoilt(table, store, name, whole)) == {"0", "1", "2", "3"}


def test_what_vouches_for_a_checkpoint_goes_with_it(table: Table, store: Bucket) -> None:
    log = f"{table.folder}_delta_log/"
    for number in range(3):
        table.commit([added(str(number))], {}, {"x": number})
        table.write_checkpoint()
    store.delete(f"{log}{1:020d}.checkpoint.parquet")
    table.commit([added("3")], {}, {})
    table.write_checkpoint()
    names = {name.removeprefix(log) for name in store.names(log)}
    vouched = {name.removesuffix("crc32") for name in names if name.endswith(".crc32")}
    assert vouched == {f"{number:020d}.checkpoint." for number in (2, 3, 4)}
    assert DeltaTable(table.uri, storage_options=store.storage_options).version() == 4


def test_no_flipped_bit_of_a_version_and_no_cut_says_anything_else(
    table: Table, store: Bucket
) -> None:
    table.commit([added("a"), added("b")], {}, {"x": 1})
    log, name = DeltaLog(store, table.folder), f"{table.folder}_delta_log/{1:020d}.json"
    body, whole = store.get(name), log.read(1)
    assert [each["path"][-1] for each in whole.added] == ["a", "b"]
    flipped = [body[:at] + bytes([body[at] ^ 1 << at % 8]) + body[at + 1 :]
               for at in range(len(body))]  # fmt: skip
    for data in (*flipped, *(body[:at] for at in range(len(body))), body[:-9] + bytes(9)):
        store.delete(name)
        store.put(name, data)
        with pytest.raises(TableDamaged, match=name):
            log.read(1)


def test_a_table_that_is_not_made_yet_is_no_damage(store: Bucket) -> None:
    DeltaLog(store, "nowhere/").explain()
