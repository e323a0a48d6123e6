"""Which bucket a URL names: a local directory, or one of S3.

A URL goes in, a ``Bucket`` comes out; nothing is asked of it before it is used. A place that Delta
Lake's library would look for under another name, or not find, is refused by name.
"""

import re
from pathlib import Path

from indexer.errors import BucketError
from indexer.store.bucket import Bucket, BucketLimits
from indexer.store.local import LocalBucket

# The library takes paths for URLs, and undoes what looks encoded, however often it is encoded.
_NOT_TAKEN = re.compile(r"%[0-9A-Fa-f]{2}|[\x00-\x1f\x7f\\\[\]^|\ud800-\udfff]")


def open_bucket(url: str, limits: BucketLimits | None = None) -> Bucket:
    """Return the bucket at ``url``: ``s3://BUCKET[/PREFIX]`` or a directory.

    S3's endpoint, region and credentials come from the environment that boto3 reads
    (``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, …), never from ``url``. Raises
    BucketError for any other URL, and for a path that Delta Lake's library does not take.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "s3":
        from indexer.store.s3 import S3Bucket  # boto3 takes half a second

        bucket, _, prefix = rest.partition("/")
        _check(url, prefix)
        return S3Bucket(bucket, prefix, limits or BucketLimits())
    if separator and scheme != "file":
        raise BucketError(f"bucket {url!r}: expected a directory or s3://BUCKET/PREFIX")
    root = Path(rest if separator else url)
    _check(url, str(root.absolute()))
    return LocalBucket(root)


def _check(url: str, path: str) -> None:
    if found := _NOT_TAKEN.search(path):
        raise BucketError(
            f"bucket {url!r}: Delta Lake's library does not take {found[0]!r} in the path "
            f"{path!r}; choose one without % before two hexadecimal digits, [, ], ^, | and \\, "
            "control characters, and bytes that are not UTF-8"
        )
