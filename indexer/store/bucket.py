"""Objects on storage: what every bucket promises.

Bytes go in under a name that is never used twice and come out whole or by range. ``put`` never
overwrites; what it has returned from survives a crash.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from indexer.errors import BucketUnavailable, ObjectExists, ObjectMissing


@dataclass(frozen=True, slots=True)
class BucketLimits:
    """How patient a bucket is with its store, and how many requests may be made at once.

    A call is given up after ``attempts`` times both waits, and pauses of at most 20 s in between.
    """

    connect_ms: int = 5_000
    read_ms: int = 30_000
    attempts: int = 5
    upload_threads: int = 4
    connections: int = 32  # that are kept open


class Ranges(Protocol):
    """What a reader of segments needs of a bucket; may raise BucketUnavailable (retriable)."""

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``; raise ObjectMissing, or BucketError if short."""
        ...


class Bucket(Ranges, Protocol):
    """Immutable objects by name; every method may raise BucketUnavailable (retriable)."""

    @property
    def uri(self) -> str:
        """What Delta Lake's readers call the place."""
        ...

    @property
    def storage_options(self) -> dict[str, str]:
        """What Delta Lake's readers need besides; holds no secret."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Store an object; raise ObjectExists if there is one of that name already."""
        ...

    def get(self, name: str) -> bytes:
        """Return an object; raise ObjectMissing if there is none."""
        ...

    def size(self, name: str) -> int:
        """Return an object's size in bytes; raise ObjectMissing if there is none."""
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names that start with ``prefix``, in any order."""
        ...

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there is not an error."""
        ...

    def sweep(self, prefix: str, before_ns: int) -> int:
        """Delete what puts below ``prefix`` have left that began earlier and never ended.

        ``before_ns`` is in ns since 1970, by the store's clock. Returns how many there were.
        """
        ...


def put_own(bucket: Bucket, name: str, data: bytes) -> None:
    """Store an object under a name that nobody else uses.

    One that is there already with the same content is its own, for an answer may get lost and a
    retry then meets what it has stored. Raises ObjectExists if it has another content, and
    BucketUnavailable if the store has acknowledged what it has not got: try another name.
    """
    try:
        bucket.put(name, data)
    except ObjectExists:
        if bucket.size(name) != len(data) or bucket.get(name) != data:
            raise
    try:
        size = bucket.size(name)
    except ObjectMissing:
        size = 0
    if size != len(data):
        raise BucketUnavailable(
            f"{bucket.uri} has {size} of {len(data)} bytes that it took: {name}"
        )
