"""The one task that follows the table: what it says, and that it can be stopped anywhere."""

import asyncio
import time

import prometheus_client
import pytest

from indexer.errors import TableError
from indexer.store.bucket import Bucket
from query_api.completeness.replica import Replica
from query_api.http.view import View
from query_api.metrics import QueryMetrics
from query_api.settings import QuerySettings
from tests.cancelling import cancelled_at
from tests.query_api.written import CLUSTER, START_NS, Line


def view_of(bucket: Bucket, refresh_ms: int) -> View:
    metrics = QueryMetrics(prometheus_client.CollectorRegistry())
    settings = QuerySettings(refresh_ms=refresh_ms, refresh_timeout_ms=10_000)
    return View(Replica(bucket, CLUSTER, 4), settings, metrics, time.monotonic)


@pytest.mark.parametrize("late", [False, True])
async def test_a_view_that_is_stopped_anywhere_is_followed_by_another(written, late):
    written.ship(Line(START_NS, "line"))
    for wait in range(1, 7):
        stopped = view_of(written.bucket, 10)
        assert await cancelled_at(wait, stopped.keep_up(), late=late)
        following = view_of(written.bucket, 10)
        keeping = asyncio.create_task(following.keep_up())
        assert (await following.latest()).version == written.version
        keeping.cancel()
        await asyncio.wait([keeping])


async def test_the_error_of_the_last_look_is_everybodys(local):
    view = view_of(local, 60_000)  # which has no table
    keeping = asyncio.create_task(view.keep_up())
    try:
        for _ in range(3):
            with pytest.raises(TableError, match="no table at"):
                await view.latest()
        assert "no table at" in view.trouble
        assert view.held is None
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
