"""Fixtures for the indexer's tests: both implementations of the bucket."""

from pathlib import Path

import pytest

from indexer.store.bucket import Bucket
from indexer.store.open import open_bucket
from tests.real_parts.s3 import Bucket as RealBucket
from tests.way import environment

REAL = pytest.param("s3", marks=pytest.mark.real)


@pytest.fixture(params=["local", REAL])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Bucket:
    """An empty bucket: a local directory, or a prefix on a real S3 server."""
    if request.param == "local":
        return open_bucket(str(tmp_path / "bucket"))
    real: RealBucket = request.getfixturevalue("bucket")
    for name, value in environment(real).items():
        monkeypatch.setenv(name, value)
    return open_bucket(f"s3://{real.name}/a/prefix")
