"""Labels in the table `streams`: from META entries in any order, once, and on both buckets."""

import json
import threading
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from collector.wire.batch import Meta
from collector.wire.range import CRC_UNKNOWN
from indexer.errors import TableUnavailable, VersionGone
from indexer.ledger.streams import (
    HISTORY_SCHEMA,
    STREAMS_SCHEMA,
    News,
    StreamHistory,
    StreamsTable,
    history,
)
from indexer.object_names import COVERAGE_FOLDER
from indexer.store.bucket import Bucket
from indexer.store.local import LocalBucket
from indexer.table.coverage import Balance, Coverage, FileCover, Note, Span, note_body, to_object
from indexer.table.table import Added, Table

CLUSTER = "test"
T = 1_790_000_000 * 10**9


def meta(seen: int, app: str, pod: str = "api-1", **more: Any) -> Meta:
    """What Kubernetes says of a pod, `seen` ns after T."""
    said = {"annotations": {}, "owner_kind": "Deployment", "owner": "api", **more}
    return Meta("shop", pod, f"uid-{pod}", T + seen, {"app": app}, **said)


def file(pod: str = "api-1", container: str = "app", restart: int = 0, first: int = 0) -> FileCover:
    """A file whose first line is `first` ns after T; 0: of unknown time."""
    spans = [Span(0, 9, CRC_UNKNOWN, 1, 1, T + first, T + first)] if first else []
    identity = ("node-1", "shop", pod, f"uid-{pod}", container, restart)
    return FileCover(uuid.uuid4().bytes, 0, 0, *identity, spans)


def coverage(*entries: Meta | FileCover) -> Coverage:
    files = [each for each in entries if isinstance(each, FileCover)]
    notes = [
        Note(0, "node-1", b"run-1".ljust(16), 0, *note_body(each))
        for each in entries
        if isinstance(each, Meta)
    ]
    return Coverage(T, [], [], files, notes, [], Balance())


def told(rows: pa.Table) -> list[tuple[Any, ...]]:
    """Pod, container, restart, seen (since T) and app of each row, sorted."""
    found = [
        (
            row["pod"],
            row["container"],
            row["restart"],
            None if row["seen_ns"] is None else row["seen_ns"] - T,
            dict(row["labels"]).get("app"),
        )
        for row in rows.to_pylist()
    ]
    return sorted(found, key=repr)


def news(*coverages: Coverage) -> News:
    found = News()
    for each in coverages:
        found.learn(each)
    return found


def folded(*folds: Iterable[Coverage]) -> pa.Table:
    """The rows after these folds, by a keeper that is restarted between them."""
    rows = STREAMS_SCHEMA.empty_table()
    for each in folds:
        rows = pa.concat_tables([rows, StreamHistory.from_rows(rows).fold(news(*each))])
    return rows


def commit(table: Table, *entries: Meta | FileCover) -> int:
    """Commit what one coverage object says; return the table's version."""
    data = to_object(coverage(*entries))
    name = f"{COVERAGE_FOLDER}{uuid.uuid4().hex}.parquet"
    table.bucket.put(table.folder + name, data)
    return table.commit([Added(name, len(data), json.dumps({"numRecords": 0}))], {}, {})


@pytest.fixture
def logs(store: Bucket) -> Table:
    """An empty table `logs`."""
    table = Table(store, CLUSTER)
    table.make()
    return table


def stored(logs: Table) -> pa.Table:
    return opened(logs).to_pyarrow_table()


def opened(logs: Table) -> DeltaTable:
    uri = StreamsTable(logs.bucket, CLUSTER).uri
    return DeltaTable(uri, storage_options=logs.bucket.storage_options)


def test_each_stream_of_a_pod_has_a_row_with_what_is_known_of_the_pod():
    said = meta(5, "shop", annotations={"team": "a"}, owner_kind="StatefulSet", owner="db")
    rows = folded([coverage(file(first=2_500), file(container="sidecar"), said)])
    [first, second] = sorted(rows.to_pylist(), key=lambda row: row["container"])
    assert first["valid_from"].timestamp() == T / 1e9
    assert first["first_time"].microsecond == 2
    assert first["labels"] == [("app", "shop")]
    assert first["annotations"] == [("team", "a")]
    assert (first["owner_kind"], first["owner"]) == ("StatefulSet", "db")
    assert (first["namespace"], first["pod_uid"], first["node"]) == ("shop", "uid-api-1", "node-1")
    assert (second["container"], second["first_time"]) == ("sidecar", None)
    assert second["seen_ns"] == T + 5


@pytest.mark.parametrize("restarted", [False, True])
def test_labels_may_come_before_with_or_after_the_first_file_or_never(restarted):
    for parts in (
        [coverage(meta(5, "a")), coverage(file(first=9))],
        [coverage(meta(5, "a"), file(first=9))],
        [coverage(file(first=9)), coverage(meta(5, "a"))],
    ):
        rows = folded(*([each] for each in parts)) if restarted else folded(parts)
        assert told(history(rows)) == [("api-1", "app", 0, 5, "a")]
    rows = folded([coverage(file())])
    assert told(history(rows)) == told(rows) == [("api-1", "app", 0, None, None)]


def test_labels_of_a_pod_without_a_file_wait_and_are_no_stream():
    rows = folded([coverage(meta(5, "a"), meta(7, "b"))])
    assert told(rows) == [("api-1", None, None, 5, "a"), ("api-1", None, None, 7, "b")]
    assert history(rows).num_rows == 0


def test_what_repeats_the_version_before_adds_no_row():
    parts = [coverage(file(), meta(5, "a")), coverage(meta(5, "a")), coverage(meta(9, "a"))]
    assert told(folded(*([each] for each in parts))) == [("api-1", "app", 0, 5, "a")]
    rows = folded(*([each] for each in [*parts, coverage(meta(11, "b")), coverage(meta(20, "a"))]))
    assert [each[3:] for each in told(rows)] == [(11, "b"), (20, "a"), (5, "a")]


def test_an_older_version_that_comes_late_is_not_the_newest():
    rows = history(folded([coverage(file(), meta(9, "new"))], [coverage(meta(5, "old"))]))
    spans = {row["labels"][0][1]: (row["from_ns"], row["until_ns"]) for row in rows.to_pylist()}
    assert spans == {"old": (-(2**63), T + 9), "new": (T + 9, 2**63 - 1)}


def test_an_instance_has_the_versions_of_its_lifetime_only():
    parts = [
        coverage(file(first=10), meta(20, "a")),
        coverage(meta(30, "b")),
        coverage(file(restart=1, first=40_000)),
        coverage(meta(50_000, "c")),
        coverage(file(container="init", first=5), file(restart=2, first=60_000)),
    ]
    expected = [
        ("api-1", "app", 0, 20, "a"),
        ("api-1", "app", 0, 30, "b"),
        ("api-1", "app", 1, 30, "b"),
        ("api-1", "app", 1, 50_000, "c"),
        ("api-1", "app", 2, 50_000, "c"),
        ("api-1", "init", 0, 20, "a"),
        ("api-1", "init", 0, 30, "b"),
        ("api-1", "init", 0, 50_000, "c"),
    ]
    assert told(folded(*([each] for each in parts))) == told(folded(parts)) == expected


PODS = st.sampled_from(["api-1", "api-2"])
FILES = st.lists(
    st.tuples(PODS, st.sampled_from(["app", "init"]), st.integers(0, 2), st.integers(0, 50)),
    unique_by=lambda each: each[:3],
    max_size=8,
)
METAS = st.lists(
    st.tuples(PODS, st.integers(0, 400), st.sampled_from("ab")),
    unique_by=lambda each: each[:2],
    max_size=8,
)


@given(FILES, METAS, st.lists(st.integers(0, 16), max_size=3), st.randoms(use_true_random=False))
def test_however_it_is_cut_each_stream_has_the_newest_labels_at_each_moment_of_its_life(
    files, metas, cuts, chance
):
    """META entries of a pod come in order, files whenever they like."""
    begins = {each[:3]: each[3] and each[2] * 100_000 + each[3] * 1_000 for each in files}
    metas = sorted(((pod, seen * 1_000, app) for pod, seen, app in metas), key=lambda m: m[1])
    entries: list[Meta | FileCover] = [file(p, c, r, begins[p, c, r]) for p, c, r in begins]
    for at, (pod, seen, app) in zip(
        sorted(chance.randint(0, len(entries)) for _ in metas), metas, strict=True
    ):
        entries.insert(at + metas.index((pod, seen, app)), meta(seen, app, pod))
    places = sorted({0, len(entries), *(cut for cut in cuts if cut < len(entries))})
    parts = [[coverage(*entries[start:end])] for start, end in pairwise(places)]
    rows = folded(*parts)
    assert told(folded(*parts, *parts)) == told(rows)
    assert len(set(told(rows))) == rows.num_rows
    of: dict[tuple[str, str, int], list[dict[str, Any]]] = {instance: [] for instance in begins}
    for row in history(rows).to_pylist():
        of[row["pod"], row["container"], row["restart"]].append(row)
    for (pod, container, restart), told_of in of.items():
        known = [(T + seen, app) for name, seen, app in metas if name == pod]
        begin = T + begins[pod, container, restart]
        later = [
            begins[p, c, r] for p, c, r in begins if (p, c) == (pod, container) and r > restart
        ]
        end = min((T + first for first in later if first), default=T + 10**9)
        for moment in {begin, *(seen for seen, _ in known if begin <= seen < end)}:
            [found] = [row for row in told_of if row["from_ns"] <= moment < row["until_ns"]]
            newest = [app for seen, app in known if seen <= moment][-1:]
            expected = newest or [app for _, app in known[:1]]
            assert [app for _, app in found["labels"]] == expected


def test_a_table_says_what_was_folded_and_a_second_fold_adds_nothing(logs: Table):
    streams = StreamsTable(logs.bucket, CLUSTER)
    assert streams.read().schema.equals(HISTORY_SCHEMA)
    version = commit(logs, file(first=10), meta(20, "a"))
    assert streams.fold(logs, version) == 1
    assert streams.fold(logs, version) == 0
    assert StreamsTable(logs.bucket, CLUSTER).fold(logs, version) == 0
    version = commit(logs, file("api-2"))
    version = commit(logs, meta(30, "b"))
    assert StreamsTable(logs.bucket, CLUSTER).fold(logs, version) == 2
    assert streams.fold(logs, commit(logs, meta(40, "c"))) == 1
    found = streams.read()
    assert found.schema.equals(HISTORY_SCHEMA)
    assert (
        told(found)
        == told(stored(logs))
        == [
            ("api-1", "app", 0, 20, "a"),
            ("api-1", "app", 0, 30, "b"),
            ("api-1", "app", 0, 40, "c"),
            ("api-2", "app", 0, None, None),
        ]
    )


def test_a_keeper_that_is_overtaken_while_it_folds_adds_nothing(logs: Table, monkeypatch):
    version = commit(logs, file(), meta(20, "a"))
    slow, fast = StreamsTable(logs.bucket, CLUSTER), StreamsTable(logs.bucket, CLUSTER)
    real = StreamHistory.fold

    def overtaken(streams: StreamHistory, learned: News) -> pa.Table:
        monkeypatch.setattr(StreamHistory, "fold", real)
        assert fast.fold(logs, version) == 1
        return real(streams, learned)

    monkeypatch.setattr(StreamHistory, "fold", overtaken)
    assert slow.fold(logs, version) == 0
    assert slow.fold(logs, commit(logs, meta(30, "b"))) == 1
    assert told(stored(logs)) == [("api-1", "app", 0, 20, "a"), ("api-1", "app", 0, 30, "b")]


def test_of_keepers_that_fold_and_sweep_at_once_none_doubles_a_row(logs: Table):
    for number in range(4):
        version = commit(logs, *(file(f"api-{number}-{i}") for i in range(3)))
        keepers = [StreamsTable(logs.bucket, CLUSTER) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            folds = [pool.submit(keeper.fold, logs, version) for keeper in keepers[:3]]
            sweep = pool.submit(keepers[3].sweep)
        assert sum(fold.result() for fold in folds) <= 3
        assert sweep.result() == 0
        keepers[0].fold(logs, version)
        assert len(told(stored(logs))) == len(set(told(stored(logs)))) == 3 * (number + 1)


def test_of_keepers_that_make_the_table_at_once_all_have_it(store: Bucket):
    """Each tries to write version 0; those that are slower read what the first has written."""
    for number in range(8):
        logs = Table(store, f"{CLUSTER}-{number}")
        logs.make()
        version = commit(logs, file("api-1"))
        keepers = [StreamsTable(store, logs.cluster) for _ in range(4)]
        start = threading.Barrier(len(keepers))

        def fold(keeper: StreamsTable, start=start, logs=logs, version=version) -> int:
            start.wait()
            return keeper.fold(logs, version)

        with ThreadPoolExecutor(len(keepers)) as pool:
            added = list(pool.map(fold, keepers))
        assert sum(added) == 1


def test_a_sweep_joins_small_objects_and_changes_no_row(logs: Table):
    streams = StreamsTable(logs.bucket, CLUSTER)
    assert streams.sweep() == 0
    for number in range(5):
        streams.fold(logs, commit(logs, file(f"api-{number}"), meta(number, "a", f"api-{number}")))
    before = told(stored(logs))
    handle = opened(logs)
    assert handle.get_add_actions().num_rows == 5
    streams.sweep()
    handle.update_incremental()
    assert handle.get_add_actions().num_rows == 1
    assert handle.transaction_version("folded") == logs.snapshot().version()
    assert told(stored(logs)) == before
    assert streams.fold(logs, commit(logs, file("api-9"))) == 1


def test_coverage_whose_log_was_cleaned_is_folded_from_all_objects(logs: Table):
    streams = StreamsTable(logs.bucket, CLUSTER)
    streams.fold(logs, commit(logs, file(), meta(20, "a")))
    commit(logs, meta(30, "b"))
    version = commit(logs, file("api-2"))
    logs.snapshot().create_checkpoint()
    for number in range(version + 1):
        logs.bucket.delete(f"{logs.folder}_delta_log/{number:020d}.json")
    assert streams.fold(logs, version) == 2
    assert told(stored(logs)) == [
        ("api-1", "app", 0, 20, "a"),
        ("api-1", "app", 0, 30, "b"),
        ("api-2", "app", 0, None, None),
    ]


def test_streams_of_a_table_that_was_made_anew_are_not_mixed_with_it(local_logs: Table):
    streams = StreamsTable(local_logs.bucket, CLUSTER)
    commit(local_logs, file())
    streams.fold(local_logs, commit(local_logs, file("api-2")))
    with pytest.raises(VersionGone, match="recreated"):
        streams.fold(local_logs, 1)


@pytest.fixture
def local_logs(tmp_path) -> Table:
    """An empty table in a directory."""
    table = Table(LocalBucket(tmp_path / "bucket"), CLUSTER)
    table.make()
    return table


def test_streams_that_cannot_be_written_are_said_to_be_away(local_logs: Table, tmp_path):
    version = commit(local_logs, file())
    (tmp_path / "bucket" / CLUSTER / "streams").write_text("in the way")
    with pytest.raises(TableUnavailable, match="streams"):
        StreamsTable(local_logs.bucket, CLUSTER).fold(local_logs, version)


def test_a_fleet_of_pods_is_folded_in_time_that_grows_with_what_is_new():
    """Nothing is read of a pod that brings nothing new: a wall clock would only say so at times."""
    streams = StreamHistory()
    pods = [f"api-{n}" for n in range(2_000)]
    first = streams.fold(news(coverage(*map(file, pods), *(meta(1, "a", p) for p in pods))))
    assert first.num_rows == 2_000
    assert streams.fold(news(coverage(*map(file, pods)))).num_rows == 0
    restarts = streams.fold(news(coverage(*(file(pod, restart=1) for pod in pods[:10]))))
    assert told(restarts) == sorted((pod, "app", 1, 1, "a") for pod in pods[:10])
