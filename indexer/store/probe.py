"""Whether a store keeps the conditions that exactly once depends on, tried before it is used.

Scratch objects go below a name of their own and are deleted again. A store that overwrites what it
was told not to is refused, however well it does otherwise.
"""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError

from indexer.errors import BucketError, BucketUnavailable, ObjectExists, StoreUnfit
from indexer.object_names import folder_uri, new_probe_folder
from indexer.store.bucket import Bucket

_WRITERS = 16
# A writer that looks before it writes may see who was first, although its store tells it nothing.
_RACES = 3
_SCHEMA = pa.schema([("probe", pa.int32())])


def probe(bucket: Bucket, cluster: str) -> None:
    """Try conditional writes below the cluster's folder, one by one and sixteen at a time.

    Raises StoreUnfit if the store ignores a condition, BucketUnavailable if it cannot tell now.
    """
    folder = new_probe_folder(cluster)
    try:
        _put_twice(bucket, folder + "twice")
        _race(bucket, "put", partial(_put, bucket, folder + "race"))
        for race in range(_RACES):
            uri = folder_uri(bucket.uri, f"{folder}table-{race}")
            make = partial(_make_table, uri, bucket.storage_options)
            _race(bucket, "commit to a Delta table", make)
    finally:
        # Whoever may not delete leaves some hundred bytes.
        with contextlib.suppress(BucketError):
            for name in list(bucket.names(folder)):
                bucket.delete(name)


def _put_twice(bucket: Bucket, name: str) -> None:
    bucket.put(name, b"first")
    with contextlib.suppress(ObjectExists):
        bucket.put(name, b"second")
        raise _unfit(bucket, "a second put to the same name was not refused")
    if bucket.get(name) != b"first":
        raise _unfit(bucket, "a put that was refused has overwritten what was there")


def _race(bucket: Bucket, what: str, write: Callable[[int], bool]) -> None:
    together = Barrier(_WRITERS)

    def run(writer: int) -> bool:
        together.wait()
        return write(writer)

    with ThreadPoolExecutor(_WRITERS) as pool:
        won = sum(pool.map(run, range(_WRITERS)))
    if won > 1:
        raise _unfit(bucket, f"{won} of {_WRITERS} writers won the same {what}")
    if won == 0:
        raise BucketUnavailable(f"{bucket.uri} let none of {_WRITERS} writers {what}")


def _put(bucket: Bucket, name: str, writer: int) -> bool:
    try:
        bucket.put(name, b"%d" % writer)
    except (ObjectExists, BucketUnavailable):
        return False
    return True


def _make_table(uri: str, options: dict[str, str], _: int) -> bool:
    try:
        DeltaTable.create(
            uri,
            _SCHEMA,
            storage_options=options,
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    except (DeltaError, OSError):
        return False
    return True


def _unfit(bucket: Bucket, why: str) -> StoreUnfit:
    return StoreUnfit(
        f"the store at {bucket.uri} ignores conditional writes (If-None-Match: *): {why}; use a"
        " store or gateway that keeps them, or lines would be lost and doubled in silence"
    )
