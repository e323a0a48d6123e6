"""An object store that does what it was asked and says otherwise: rows come once all the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.errors import BucketUnavailable
from indexer.store.bucket import Bucket, BucketLimits, put_own
from indexer.store.open import open_bucket
from indexer.store.s3 import MULTIPART_BYTES
from tests.indexer.test_index import Place, expected
from tests.real_parts.fault_proxy import (
    Action,
    FaultProxy,
    Hold,
    cutting,
    cutting_request,
    refusing,
)
from tests.real_parts.s3 import Bucket as RealBucket
from tests.way import environment

LIMITS = BucketLimits(connect_ms=1_000, read_ms=1_000, attempts=3)


@pytest.fixture
def behind_proxy(
    bucket: RealBucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> Bucket:
    """A real S3 server, and a proxy that comes between."""
    for name, value in environment(bucket).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", fault_proxy.endpoint)
    return open_bucket(f"s3://{bucket.name}", LIMITS)


ANSWERS: dict[str, Callable[[], Action]] = {
    "cut": lambda: cutting(done=True),
    "500": lambda: refusing(500, "InternalError", done=True),
    "late": lambda: Hold(done=True),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("path", ["date[^/]*2026", "HIVE_DEFAULT", "_delta_log/0+1.json"])
async def test_what_is_done_and_answered_otherwise_is_there_once(
    behind_proxy: Bucket, fault_proxy: FaultProxy, tmp_path: Path, path: str, answer: str
) -> None:
    """A segment, the coverage object or the commit itself."""
    place = Place(str(tmp_path / "topic"), behind_proxy)
    await place.ship(0, 0, 20)
    await place.ship(1, 0, 20)
    fault = fault_proxy.arm(ANSWERS[answer](), "PUT", path)
    async with place.indexer() as indexer:
        await place.drain(indexer)
        assert fault.struck == 1
        await place.ship(0, 20, 30)
        await place.drain(indexer)
    assert place.rows() == expected(30, 20)
    assert place.gaps() == []


@pytest.mark.parametrize("answer", [*ANSWERS, "half"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "uploads"), ("PUT", "partNumber=2"), ("POST", "uploadId=")],
    ids=["begin", "part", "end"],
)
def test_a_large_object_whose_upload_is_answered_otherwise_is_stored_and_leaves_no_parts(
    behind_proxy: Bucket, fault_proxy: FaultProxy, answer: str, method: str, path: str
) -> None:
    data = bytes(range(256)) * (MULTIPART_BYTES // 256 + 1)
    action = cutting_request() if answer == "half" else ANSWERS[answer]()
    fault = fault_proxy.arm(action, method, path)
    put_own(behind_proxy, "large", data)
    assert fault.struck == 1
    fault_proxy.disarm()
    assert behind_proxy.get("large") == data
    # One that was begun twice, as its first answer was lost, is left to the sweep.
    assert behind_proxy.sweep("", 2**62) == (path == "uploads")
    assert behind_proxy.sweep("", 2**62) == 0


def test_an_upload_that_is_given_up_leaves_no_parts_and_no_object(
    behind_proxy: Bucket, fault_proxy: FaultProxy
) -> None:
    fault_proxy.arm(refusing(503, "SlowDown"), "PUT", "partNumber=2", times=None)
    with pytest.raises(BucketUnavailable, match="SlowDown"):
        behind_proxy.put("large", bytes(MULTIPART_BYTES + 1))
    assert list(behind_proxy.names("")) == []
    assert behind_proxy.sweep("", 2**62) == 0
