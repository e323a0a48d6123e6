"""Objects on storage: one interface, two bodies, a local directory and an S3 bucket.

Bytes go in under a name that is never used twice and come out whole or by range. ``put`` never
overwrites; what it has returned from survives a crash.
"""

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from indexer.errors import BucketError, BucketUnavailable, ObjectExists, ObjectMissing

_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")


@dataclass(frozen=True, slots=True)
class BucketLimits:
    """How patient a bucket is with its store, and how many requests one put may make at once.

    A call is given up after ``attempts`` times both waits, and pauses of at most 20 s in between.
    """

    connect_ms: int = 5_000
    read_ms: int = 30_000
    attempts: int = 5
    upload_threads: int = 4


class Bucket(Protocol):
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

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``; raise ObjectMissing, or BucketError if short."""
        ...

    def size(self, name: str) -> int:
        """Return an object's size in bytes; raise ObjectMissing if there is none."""
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the names that start with ``prefix``, in any order."""
        ...

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there is no error."""
        ...

    def sweep(self, prefix: str, before_ns: int) -> int:
        """Delete what puts below ``prefix`` have left that began earlier and never ended.

        ``before_ns`` is in ns since 1970, by the store's clock. Returns how many there were.
        """
        ...


def open_bucket(url: str, limits: BucketLimits | None = None) -> Bucket:
    """Return the bucket at ``url``: ``s3://BUCKET[/PREFIX]`` or a directory.

    S3's endpoint, region and credentials come from the environment that boto3 reads
    (``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, …), never from ``url``.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "s3":
        from indexer.store.s3 import S3Bucket

        bucket, _, prefix = rest.partition("/")
        return S3Bucket(bucket, prefix, limits or BucketLimits())
    if separator and scheme != "file":
        raise BucketError(f"bucket {url!r}: expected a directory or s3://BUCKET/PREFIX")
    return LocalBucket(Path(rest if separator else url))


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


class LocalBucket:
    """Objects as files below a directory."""

    def __init__(self, root: Path) -> None:
        """Use ``root``, made on first use."""
        self._root = root.absolute()
        self.storage_options: dict[str, str] = {}

    @property
    def uri(self) -> str:
        """The directory."""
        return str(self._root)

    def put(self, name: str, data: bytes) -> None:
        """Write aside, fsync, and link to the name: another object is never overwritten."""
        path = self._root / name
        temporary = path.parent / f".{uuid.uuid4().hex}.tmp"  # as _TEMPORARY
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise ObjectExists(f"object {name} exists already") from None
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise BucketUnavailable(f"cannot store {name} in {self._root}: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def get(self, name: str) -> bytes:
        """Return the file's bytes."""
        with self._reading(name):
            return (self._root / name).read_bytes()

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return a part of the file."""
        with self._reading(name), (self._root / name).open("rb") as file:
            data = os.pread(file.fileno(), length, start)
        if len(data) != length:
            raise BucketError(f"object {name} ends before byte {start + length}")
        return data

    def size(self, name: str) -> int:
        """Return the file's size."""
        with self._reading(name):
            return (self._root / name).stat().st_size

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the files' names."""
        below = prefix.rpartition("/")[0]
        for folder, _, files in os.walk(self._root / below, onerror=_not_listed):
            for file in files:
                name = (Path(folder) / file).relative_to(self._root).as_posix()
                if name.startswith(prefix) and not _TEMPORARY.fullmatch(file):
                    yield name

    def delete(self, name: str) -> None:
        """Unlink the file."""
        with contextlib.suppress(ObjectMissing), self._reading(name):
            (self._root / name).unlink()

    def sweep(self, prefix: str, before_ns: int) -> int:
        """Unlink temporary files of processes that were killed."""
        swept = 0
        for folder, _, files in os.walk(self._root / prefix.rpartition("/")[0]):
            for path in (Path(folder) / file for file in files if _TEMPORARY.fullmatch(file)):
                if not path.relative_to(self._root).as_posix().startswith(prefix):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime_ns < before_ns:
                        path.unlink()
                        swept += 1
        return swept

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise ObjectMissing(f"no object {name} in {self._root}") from None
        except OSError as error:
            raise BucketUnavailable(f"cannot read {name} in {self._root}: {error}") from error


def _not_listed(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise BucketUnavailable(f"cannot list {error.filename}: {error}") from error
