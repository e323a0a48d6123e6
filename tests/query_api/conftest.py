"""Buckets of both kinds, and a service over one that answers by HTTP without a port."""

import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from indexer.store.bucket import Bucket
from indexer.store.local import LocalBucket
from indexer.store.open import open_bucket
from query_api.http.app import make_app
from query_api.settings import QuerySettings
from tests.query_api.written import CLUSTER, HOUR, START_NS, Written


@pytest.fixture
def local(tmp_path) -> LocalBucket:
    """A bucket in a directory."""
    return LocalBucket(tmp_path / "bucket")


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.real)])
def any_bucket(request, tmp_path, monkeypatch) -> Iterator[Bucket]:
    """A bucket in a directory, then one on a real S3 server."""
    if request.param == "directory":
        yield LocalBucket(tmp_path / "bucket")
        return
    real = request.getfixturevalue("bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL", real.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", real.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", real.secret_key)
    monkeypatch.setenv("AWS_REGION", real.region)
    yield open_bucket(f"s3://{real.name}/{uuid.uuid4().hex}")


@pytest.fixture
def written(local) -> Written:
    """A table without a line."""
    return Written(local)


NOW_NS = START_NS + HOUR


@asynccontextmanager
async def served(
    bucket: Bucket,
    now_ns: int = NOW_NS,
    monotonic: Callable[[], float] = time.monotonic,
    **more,
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a service over a bucket; each request looks at the table again."""
    settings = QuerySettings(**{"cluster": CLUSTER, "refresh_ms": 10, **more})
    app = make_app(settings, bucket, clock_ns=lambda: now_ns, monotonic=monotonic)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client
