"""Objects in an S3-compatible bucket, by boto3.

Large objects go up in parts, several at a time; whole or in parts, an object comes to be only where
none of its name is yet. Answers of the store come out as this package's errors, without secrets.
"""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from indexer.errors import BucketError, BucketUnavailable, ObjectExists, ObjectMissing
from indexer.store.bucket import BucketLimits
from indexer.times import from_datetime

MULTIPART_BYTES = 16 << 20
"""Larger objects go up in parts."""

PART_BYTES = 8 << 20
"""Size of a part; S3 takes none below 5 MiB but the last, and 10,000 of an object."""


class S3Bucket:
    """Objects below a prefix of an S3-compatible bucket."""

    def __init__(self, bucket: str, prefix: str, limits: BucketLimits) -> None:
        """Connect with what boto3 finds in the environment."""
        self._bucket = bucket
        self._prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._threads = limits.upload_threads
        region = os.environ.get("AWS_REGION") or "us-east-1"
        # A session of its own: the default one keeps the first credentials that it has seen.
        self._client: Any = boto3.Session().client(
            "s3",
            region_name=region,
            config=Config(
                connect_timeout=limits.connect_ms / 1000,
                read_timeout=limits.read_ms / 1000,
                retries={"mode": "standard", "total_max_attempts": limits.attempts},
                max_pool_connections=limits.connections,
                s3={"addressing_style": "path"},
            ),
        )
        self.uri = f"s3://{bucket}/{self._prefix}".rstrip("/")
        self.storage_options = {
            "aws_conditional_put": "etag",
            "region": region,
            "connect_timeout": f"{limits.connect_ms}ms",
            "timeout": f"{limits.read_ms}ms",
            "max_retries": str(limits.attempts - 1),
        }
        if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
            self.storage_options["allow_http"] = "true"

    def put(self, name: str, data: bytes) -> None:
        """Store with ``If-None-Match: *``; boto3 adds checksums that the server verifies."""
        at = {"Bucket": self._bucket, "Key": self._prefix + name}
        try:
            if len(data) <= MULTIPART_BYTES:
                self._client.put_object(**at, Body=data, IfNoneMatch="*")
            else:
                self._put_parts(at, name, data)
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._meaning(error, name) from error

    def _put_parts(self, at: dict[str, str], name: str, data: bytes) -> None:
        """Store in parts; whatever goes wrong, none of them stays."""
        upload = self._client.create_multipart_upload(**at, ChecksumAlgorithm="CRC32")
        at = {**at, "UploadId": upload["UploadId"]}

        def put_part(number: int) -> dict[str, Any]:
            body = data[(number - 1) * PART_BYTES : number * PART_BYTES]
            answer = self._client.upload_part(
                **at, PartNumber=number, Body=body, ChecksumAlgorithm="CRC32"
            )
            return {
                "PartNumber": number,
                "ETag": answer["ETag"],
                "ChecksumCRC32": answer["ChecksumCRC32"],
            }

        try:
            with ThreadPoolExecutor(self._threads) as pool:
                parts = list(pool.map(put_part, range(1, -(-len(data) // PART_BYTES) + 1)))
            # For a store that keeps the condition of a put and ignores that of the last call here.
            with contextlib.suppress(ObjectMissing):
                self.size(name)
                raise self._exists(name)
            self._client.complete_multipart_upload(
                **at, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
            )
        except BaseException as error:
            with contextlib.suppress(ClientError, BotoCoreError, OSError):
                self._client.abort_multipart_upload(**at)
            if isinstance(error, ClientError) and _code(error) == "NoSuchUpload":
                # The upload has ended: an answer was lost and a retry came, or it was aborted.
                with contextlib.suppress(ObjectMissing):
                    self.size(name)
                    raise self._exists(name) from error
            raise

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
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._meaning(error, name) from error

    def size(self, name: str) -> int:
        """Return the object's size by a HEAD."""
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)
            return int(head["ContentLength"])
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._meaning(error, name) from error

    def names(self, prefix: str) -> Iterator[str]:
        """Yield names, a page of a thousand at a time."""
        pages = self._client.get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", ()):
                    yield item["Key"][len(self._prefix) :]
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._meaning(error, prefix) from error

    def delete(self, name: str) -> None:
        """Delete the object."""
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._meaning(error, name) from error

    def sweep(self, prefix: str, before_ns: int) -> int:
        """Abort uploads in parts whose process was killed."""
        swept = 0
        pages = self._client.get_paginator("list_multipart_uploads")
        try:
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for each in page.get("Uploads", ()):
                    if from_datetime(each["Initiated"]) < before_ns:
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=each["Key"], UploadId=each["UploadId"]
                        )
                        swept += 1
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._meaning(error, prefix) from error
        return swept

    def _exists(self, name: str) -> ObjectExists:
        return ObjectExists(f"object {name} exists already in {self.uri}")

    def _meaning(self, error: Exception, name: str) -> BucketError:
        """Return this package's error for one of boto3's."""
        if isinstance(error, ClientError):
            code = _code(error)
            if code in ("404", "NoSuchKey"):
                return ObjectMissing(f"no object {name} in {self.uri}")
            if code in ("412", "PreconditionFailed"):
                return self._exists(name)
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            # 409: another writer is at it at this moment, and may still fail.
            gone = code in ("SlowDown", "RequestTimeout", "NoSuchUpload")
            if status >= 500 or status == 409 or gone:
                return BucketUnavailable(f"{self.uri} answered {code} for {name}")
            return BucketError(f"{self.uri} refused {name}: {code}; check bucket and credentials")
        return BucketUnavailable(f"cannot reach {self.uri} for {name}: {type(error).__name__}")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
