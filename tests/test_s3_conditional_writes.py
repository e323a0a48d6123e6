"""The S3 server keeps the conditions that commits and segments rely on, under real contention."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from tests.real_parts.s3 import Bucket

WRITERS = 16
KEYS = 20


def test_one_of_many_writers_creates_a_key(bucket: Bucket) -> None:
    client = bucket.client()

    def write(attempt: tuple[str, int]) -> tuple[str, bytes] | None:
        key, writer = attempt
        body = f"writer {writer}".encode()
        try:
            client.put_object(Bucket=bucket.name, Key=key, Body=body, IfNoneMatch="*")
        except ClientError as error:
            # 412: the key is there; 409: another writer is creating it at this moment.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (409, 412):
                raise
            return None
        return key, body

    attempts = [(f"_delta_log/{key:020}.json", w) for key in range(KEYS) for w in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        won = [win for win in pool.map(write, attempts) if win]
    assert len(won) == KEYS
    assert set(Counter(key for key, _ in won).values()) == {1}
    for key, body in won:
        assert client.get_object(Bucket=bucket.name, Key=key)["Body"].read() == body


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("bytes=0-0", b"0"), ("bytes=3-5", b"345"), ("bytes=7-", b"789"), ("bytes=-2", b"89")],
)
def test_a_ranged_read_returns_these_bytes_only(
    bucket: Bucket, asked: str, expected: bytes
) -> None:
    client = bucket.client()
    client.put_object(Bucket=bucket.name, Key="segment.parquet", Body=b"0123456789")
    answer = client.get_object(Bucket=bucket.name, Key="segment.parquet", Range=asked)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert answer["Body"].read() == expected


def test_a_write_over_a_newer_object_is_refused(bucket: Bucket) -> None:
    client = bucket.client()
    name, key = bucket.name, "checkpoint"
    stale = client.put_object(Bucket=name, Key=key, Body=b"first")["ETag"]
    fresh = client.put_object(Bucket=name, Key=key, Body=b"second", IfMatch=stale)["ETag"]
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=name, Key=key, Body=b"third", IfMatch=stale)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert client.get_object(Bucket=name, Key=key)["Body"].read() == b"second"
    assert client.head_object(Bucket=name, Key=key)["ETag"] == fresh
