"""One suite for both implementations of the bucket, and what only one of them can suffer."""

import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from indexer.errors import (
    BucketError,
    BucketUnavailable,
    ObjectExists,
    ObjectMissing,
    TableUnavailable,
)
from indexer.ledger.streams import StreamsTable
from indexer.store.bucket import Bucket, BucketLimits, put_own
from indexer.store.local import LocalBucket
from indexer.store.open import open_bucket
from indexer.store.probe import probe
from indexer.store.s3 import MULTIPART_BYTES, PART_BYTES
from indexer.table.table import Table
from tests.real_parts.guard import free_port
from tests.real_parts.s3 import Bucket as RealBucket
from tests.way import environment, eventually

WRITERS = 16


def test_what_was_put_comes_out_whole_and_by_range(store: Bucket) -> None:
    data = bytes(range(256)) * 40
    store.put("logs/date=2026-03-01/hour=7/a.parquet", data)
    name = "logs/date=2026-03-01/hour=7/a.parquet"
    assert store.get(name) == data
    assert store.size(name) == len(data)
    assert store.get_range(name, 0, len(data)) == data
    assert store.get_range(name, 3, 5) == data[3:8]
    assert store.get_range(name, len(data) - 1, 1) == data[-1:]
    assert store.get_range(name, 7, 0) == b""


def test_an_empty_object_is_an_object(store: Bucket) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert store.size("empty") == 0


@pytest.mark.parametrize(("start", "length"), [(5, 6), (10, 1), (11, 1), (0, 11)])
def test_a_range_past_the_end_is_an_error_that_names_the_object(
    store: Bucket, start: int, length: int
) -> None:
    store.put("ten", b"0123456789")
    with pytest.raises(BucketError, match="ten") as refused:
        store.get_range("ten", start, length)
    assert not isinstance(refused.value, ObjectMissing)
    assert not refused.value.retriable


def test_a_missing_object_is_named(store: Bucket) -> None:
    for read in (store.get, store.size, lambda name: store.get_range(name, 0, 1)):
        with pytest.raises(ObjectMissing, match="no object not/here"):
            read("not/here")


def test_a_put_never_overwrites(store: Bucket) -> None:
    store.put("a/name", b"first")
    with pytest.raises(ObjectExists, match="a/name"):
        store.put("a/name", b"second")
    assert store.get("a/name") == b"first"


def test_of_sixteen_that_put_one_name_at_once_one_wins(store: Bucket) -> None:
    def put(attempt: tuple[int, int]) -> tuple[int, bytes] | None:
        key, writer = attempt
        try:
            store.put(f"log/{key}", body := f"writer {writer}".encode() * 1000)
        except (ObjectExists, BucketUnavailable):
            return None
        return key, body

    attempts = [(key, writer) for key in range(5) for writer in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        won = [win for win in pool.map(put, attempts) if win]
    assert Counter(key for key, _ in won) == dict.fromkeys(range(5), 1)
    for key, body in won:
        assert store.get(f"log/{key}") == body
    assert sorted(store.names("")) == [f"log/{key}" for key in range(5)]


def test_names_are_those_below_a_prefix_at_any_depth(store: Bucket) -> None:
    names = {f"c/logs/hour={n % 24}/{n:04}.parquet" for n in range(300)}
    names |= {"c/logs2/x", "c/log", "c/logs/coverage/deep/er/y", "d"}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b"1"), sorted(names)))
    for prefix in ("", "c/", "c/logs", "c/logs/", "c/logs/hour=1", "c/logs/hour=1/", "nothing/at"):
        found = list(store.names(prefix))
        assert len(found) == len(set(found))
        assert set(found) == {name for name in names if name.startswith(prefix)}, prefix


def test_names_of_an_empty_bucket_are_none(store: Bucket) -> None:
    assert list(store.names("")) == []


def test_delete_removes_and_is_no_error_twice(store: Bucket) -> None:
    store.put("a/b", b"1")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    assert list(store.names("")) == []
    with pytest.raises(ObjectMissing):
        store.get("a/b")


@pytest.mark.parametrize("size", [MULTIPART_BYTES, MULTIPART_BYTES + 1, 3 * PART_BYTES])
def test_a_large_object_comes_out_as_it_was_put_and_is_never_overwritten(
    store: Bucket, size: int
) -> None:
    data = Random(size).randbytes(size)
    store.put("large", data)
    assert store.get("large") == data
    with pytest.raises(ObjectExists, match="large"):
        store.put("large", data[::-1])
    assert store.get("large") == data
    assert store.sweep("", time.time_ns() + 10**12) == 0


def test_of_four_that_put_a_large_object_at_once_one_wins(store: Bucket) -> None:
    def put(writer: int) -> bytes | None:
        try:
            store.put("large", body := b"%d" % writer * (MULTIPART_BYTES + 1))
        except (ObjectExists, BucketUnavailable):
            return None
        return body

    with ThreadPoolExecutor(4) as pool:
        [won] = [body for body in pool.map(put, range(4)) if body is not None]
    assert store.get("large") == won
    assert store.sweep("", time.time_ns() + 10**12) == 0


def test_a_put_that_meets_its_own_object_has_succeeded_and_one_of_other_bytes_has_not(
    store: Bucket,
) -> None:
    put_own(store, "a", b"first")
    put_own(store, "a", b"first")
    for other in (b"other", b"longer than it", b""):
        with pytest.raises(ObjectExists):
            put_own(store, "a", other)
    assert store.get("a") == b"first"


def test_a_url_of_another_scheme_is_refused() -> None:
    with pytest.raises(BucketError, match="expected a directory or s3://BUCKET/PREFIX"):
        open_bucket("gs://bucket")


REFUSED = ["pc%20t", "%41", "a%2fb", "[x]", "x^", "a|b", "a\\b", "tab\tx", "line\nx", "x\udcff"]
TAKEN = ["100%", "%zz", "a b", "ü", "日本", "x#y?z&", "a:b", "~x", "*s", "{b}", "q'u\"o`te", "a@b"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_path_that_delta_lake_does_not_take_is_refused_by_name(tmp_path: Path, name: str) -> None:
    for url in (str(tmp_path / name), f"file://{tmp_path}/{name}", f"s3://logs/{name}"):
        with pytest.raises(BucketError, match="does not take"):
            open_bucket(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", TAKEN)
def test_a_path_of_any_other_characters_holds_a_table(tmp_path: Path, name: str) -> None:
    bucket = open_bucket(str(tmp_path / name))
    probe(bucket, "cluster")
    table = Table(bucket, "cluster")
    table.make()
    assert table.version() == table.snapshot().version() == 0
    rows = StreamsTable(bucket, "cluster")
    assert (rows.fold(table, 0), rows.read().num_rows, rows.sweep()) == (0, 0, 0)


# -- only on S3 ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_that_is_away_is_named_and_secrets_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASECRETID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    away = open_bucket("s3://logs/prefix")
    calls = (
        lambda: away.put("x", b"1"),
        lambda: away.get("x"),
        lambda: list(away.names("x")),
    )
    for call in calls:
        with pytest.raises(BucketUnavailable, match="cannot reach s3://logs/prefix") as gone:
            call()
        assert gone.value.retriable
        assert "EndpointConnectionError" in str(gone.value)
        assert "SECRET" not in str(gone.value)
        assert "hunter2" not in str(gone.value)
    assert "hunter2hunter2" not in str(away.storage_options)


@pytest.mark.real
def test_wrong_credentials_are_refused_for_good_and_not_repeated(
    bucket: RealBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(bucket).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    with pytest.raises(BucketError, match="check bucket and credentials") as refused:
        open_bucket(f"s3://{bucket.name}").put("x", b"1")
    assert not refused.value.retriable
    assert "hunter2" not in str(refused.value)


@pytest.mark.real
def test_a_bucket_that_does_not_exist_is_no_missing_object(
    bucket: RealBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(bucket).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BucketError, match="NoSuchBucket") as refused:
        open_bucket("s3://no-such-bucket-here").put("x", b"1")
    assert not isinstance(refused.value, ObjectMissing)


@pytest.mark.real
def test_parts_of_uploads_that_never_ended_are_swept_when_they_are_old(
    bucket: RealBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(bucket).items():
        monkeypatch.setenv(name, value)
    client = bucket.client()
    for key in ("ours/c/logs/a", "ours/c/logs/b", "theirs/c"):
        upload = client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
        client.upload_part(Bucket=bucket.name, Key=key, UploadId=upload, PartNumber=1, Body=b"1")
    ours = open_bucket(f"s3://{bucket.name}/ours")
    assert ours.sweep("c/", time.time_ns() - 10**12) == 0
    assert ours.sweep("c/", time.time_ns() + 10**12) == 2
    left = client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
    assert [each["Key"] for each in left] == ["theirs/c"]


@pytest.mark.slow
def test_a_store_that_never_answers_is_given_up_after_the_patience_that_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
        limits = BucketLimits(connect_ms=200, read_ms=200, attempts=2)
        away = open_bucket("s3://logs", limits)
        for call in (lambda: away.put("x", b"1"), Table(away, "c").snapshot):
            began = time.monotonic()
            with pytest.raises((BucketUnavailable, TableUnavailable)) as gone:
                call()
            assert gone.value.retriable
            assert time.monotonic() - began < 10


# -- only on a directory ---------------------------------------------------------------------


@pytest.mark.real
def test_a_file_size_limit_leaves_no_object_and_no_temporary_file(tmp_path: Path) -> None:
    """As a full disk does: the write fails in the middle."""
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from indexer.store.local import LocalBucket\n"
        "from indexer.errors import BucketUnavailable\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: LocalBucket(Path(sys.argv[1])).put('a', bytes(200_000))\n"
        "except BucketUnavailable as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "cannot store a in" in done.stdout
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_said() -> None:
    with pytest.raises(BucketUnavailable, match="cannot store a/b in /proc/nothing") as refused:
        LocalBucket(Path("/proc/nothing")).put("a/b", b"1")
    assert refused.value.retriable


def test_a_directory_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "bucket").write_text("no directory")
    bucket = LocalBucket(tmp_path / "bucket")
    with pytest.raises(BucketUnavailable, match="cannot store a"):
        bucket.put("a", b"1")
    with pytest.raises(BucketUnavailable, match="cannot read a"):
        bucket.get("a")
    with pytest.raises(BucketUnavailable, match="cannot list"):
        list(bucket.names(""))


@pytest.mark.real
def test_a_put_that_is_killed_leaves_no_object_under_the_name(tmp_path: Path) -> None:
    """Objects are there whole or not at all, whenever the process ends."""
    program = (
        "import itertools, sys; from pathlib import Path\n"
        "from indexer.store.local import LocalBucket\n"
        "bucket = LocalBucket(Path(sys.argv[1]))\n"
        "for n in itertools.count(): bucket.put(f'o/{sys.argv[2]}-{n}', b'x' * 2_000_000)\n"
    )
    bucket = LocalBucket(tmp_path)
    for round_ in range(3):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(round_)])
        try:
            eventually(lambda r=round_: list(bucket.names(f"o/{r}-")))  # type: ignore[misc]
            time.sleep(0.003 * round_)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    names = list(bucket.names(""))
    assert len(names) >= 3
    assert {bucket.size(name) for name in names} == {2_000_000}


def test_temporary_files_of_a_put_that_was_killed_are_swept_when_they_are_old(
    tmp_path: Path,
) -> None:
    bucket = LocalBucket(tmp_path)
    bucket.put("c/logs/a", b"1")
    stale = tmp_path / "c" / "logs" / f".{'0f' * 16}.tmp"
    stale.write_bytes(b"half")
    assert bucket.sweep("c/", time.time_ns() - 10**12) == 0
    assert bucket.sweep("d/", time.time_ns() + 10**12) == 0
    assert bucket.sweep("c/", time.time_ns() + 10**12) == 1
    assert not stale.exists()
    assert bucket.get("c/logs/a") == b"1"
