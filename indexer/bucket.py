"""Objects on storage: one interface, two bodies, a local directory and an S3 bucket.

Bytes go in under a name that is never used twice and come out whole or by range. ``put`` never
overwrites; what it has returned from survives a crash.
"""

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from indexer.errors import BucketError, BucketUnavailable, ObjectExists, ObjectMissing

_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")


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


def open_bucket(url: str) -> Bucket:
    """Return the bucket at ``url``: ``s3://BUCKET[/PREFIX]`` or a directory.

    S3's endpoint, region and credentials come from the environment that boto3 reads
    (``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, …), never from ``url``.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        return S3Bucket(bucket, prefix)
    if separator and scheme != "file":
        raise BucketError(f"bucket {url!r}: expected a directory or s3://BUCKET/PREFIX")
    return LocalBucket(Path(rest if separator else url))


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


class S3Bucket:
    """Objects below a prefix of an S3-compatible bucket."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        """Connect with what boto3 finds in the environment."""
        import boto3
        from botocore.config import Config

        self._bucket = bucket
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        # A session of its own: the default one keeps the first credentials that it has seen.
        self._client: Any = boto3.Session().client(
            "s3",
            region_name=os.environ.get("AWS_REGION") or "us-east-1",
            config=Config(
                connect_timeout=5,
                read_timeout=30,
                retries={"mode": "standard", "max_attempts": 4},
                s3={"addressing_style": "path"},
            ),
        )
        self.uri = f"s3://{bucket}/{self._prefix}".rstrip("/")
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
        self.storage_options = {
            "aws_conditional_put": "etag",
            "region": os.environ.get("AWS_REGION") or "us-east-1",
        }
        if endpoint.startswith("http://"):
            self.storage_options["allow_http"] = "true"

    def put(self, name: str, data: bytes) -> None:
        """Store with ``If-None-Match: *``; boto3 adds a checksum that the server verifies."""
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=self._prefix + name, Body=data, IfNoneMatch="*"
            )
        except Exception as error:
            raise self._meaning(error, name) from error

    def get(self, name: str) -> bytes:
        """Return the object."""
        return self._get(name)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return a part of the object by one ranged GET."""
        if length == 0:
            return b""
        data = self._get(name, Range=f"bytes={start}-{start + length - 1}")
        if len(data) != length:
            raise BucketError(f"object {name} ends before byte {start + length}")
        return data

    def _get(self, name: str, **more: str) -> bytes:
        try:
            key = self._prefix + name
            answer = self._client.get_object(Bucket=self._bucket, Key=key, **more)
            body: bytes = answer["Body"].read()
            return body
        except Exception as error:
            raise self._meaning(error, name) from error

    def size(self, name: str) -> int:
        """Return the object's size by a HEAD."""
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
            return int(head["ContentLength"])
        except Exception as error:
            raise self._meaning(error, name) from error

    def names(self, prefix: str) -> Iterator[str]:
        """Yield names, a page of a thousand at a time."""
        pages = self._client.get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", ()):
                    yield item["Key"][len(self._prefix) :]
        except Exception as error:
            raise self._meaning(error, prefix) from error

    def delete(self, name: str) -> None:
        """Delete the object."""
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)
        except Exception as error:
            raise self._meaning(error, name) from error

    def _meaning(self, error: Exception, name: str) -> BucketError:
        """Return this package's error for one of boto3's."""
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("404", "NoSuchKey"):
                return ObjectMissing(f"no object {name} in {self.uri}")
            if code in ("412", "PreconditionFailed"):
                return ObjectExists(f"object {name} exists already in {self.uri}")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            # 409: another writer is at it at this moment, and may still fail.
            if status >= 500 or status == 409 or code in ("SlowDown", "RequestTimeout"):
                return BucketUnavailable(f"{self.uri} answered {code} for {name}")
            return BucketError(f"{self.uri} refused {name}: {code}; check bucket and credentials")
        if isinstance(error, BotoCoreError | OSError):
            return BucketUnavailable(f"cannot reach {self.uri} for {name}: {type(error).__name__}")
        raise error
