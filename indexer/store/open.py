"""Which bucket a URL names: a local directory, or one of S3.

A URL goes in, a ``Bucket`` comes out; nothing is asked of it before it is used.
"""

from pathlib import Path

from indexer.errors import BucketError
from indexer.store.bucket import Bucket, BucketLimits
from indexer.store.local import LocalBucket


def open_bucket(url: str, limits: BucketLimits | None = None) -> Bucket:
    """Return the bucket at ``url``: ``s3://BUCKET[/PREFIX]`` or a directory.

    S3's endpoint, region and credentials come from the environment that boto3 reads
    (``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, …), never from ``url``.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "s3":
        from indexer.store.s3 import S3Bucket  # boto3 takes half a second

        bucket, _, prefix = rest.partition("/")
        return S3Bucket(bucket, prefix, limits or BucketLimits())
    if separator and scheme != "file":
        raise BucketError(f"bucket {url!r}: expected a directory or s3://BUCKET/PREFIX")
    return LocalBucket(Path(rest if separator else url))
