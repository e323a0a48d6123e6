"""A keeper that stops, or dies, at any point of its jobs: the next goes on, each row stays once."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import prometheus_client
import pytest

from indexer.keeper.jobs import Jobs
from indexer.keeper.metrics import KeeperMetrics
from indexer.keeper.run import Keeper
from indexer.keeper.settings import KeeperSettings
from indexer.store.bucket import Bucket
from indexer.store.open import open_bucket
from tests.indexer.kept import FAST, Kept, PodFile
from tests.indexer.place import check_log
from tests.indexer.shipped import CLUSTER
from tests.way import lines

pytestmark = pytest.mark.slow  # a run for each wait


class Died(BaseException):
    """The process is no more."""


class Counted:
    """Says no until it has been asked so often; then yes."""

    def __init__(self, until: int) -> None:
        self._left = until
        self.reached = False

    def __call__(self) -> bool:
        self._left -= 1
        self.reached = self.reached or self._left <= 0
        return self.reached


class Dying:
    """A bucket that the process does not survive: at the n-th request, before or after it."""

    def __init__(self, inner: Bucket, at: int, *, done: bool) -> None:
        self._inner = inner
        self._counted = Counted(at)
        self._done = done
        self.uri = inner.uri
        self.storage_options = inner.storage_options

    @property
    def reached(self) -> bool:
        return self._counted.reached

    def put(self, name: str, data: bytes) -> None:
        self._die(False)
        self._inner.put(name, data)
        self._die(True)

    def delete(self, name: str) -> None:
        self._die(False)
        self._inner.delete(name)
        self._die(True)

    def _die(self, done: bool) -> None:
        if done is self._done and self._counted():
            raise Died

    def get(self, name: str) -> bytes:
        return self._inner.get(name)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        return self._inner.get_range(name, start, length)

    def size(self, name: str) -> int:
        return self._inner.size(name)

    def names(self, prefix: str) -> Iterator[str]:
        return self._inner.names(prefix)

    def sweep(self, prefix: str, before_ns: int) -> int:
        return self._inner.sweep(prefix, before_ns)


def new_kept(folder: Path) -> Kept:
    kept = Kept(open_bucket(str(folder)))
    kept.commit(*(PodFile(lines(0, 10), pod=pod) for pod in "ab"))
    return kept


def keeper_of(kept: Kept, bucket: Bucket, stopped: Counted | None = None) -> Keeper:
    settings = msgspec.convert({"cluster": CLUSTER, **FAST}, KeeperSettings)
    metrics = KeeperMetrics(prometheus_client.CollectorRegistry())
    stops = {"stopped": stopped} if stopped else {}
    return Keeper(Jobs(settings, bucket, metrics, clock=lambda: kept.now_ns, **stops))


def check_next(kept: Kept) -> None:
    """Let a new keeper do all its jobs."""
    before = kept.rows()
    assert len(before) == 20
    keeper = keeper_of(kept, kept.bucket)
    keeper.turn()
    assert keeper.status()["failing"] == {}
    assert (len(kept.segments()), len(kept.coverage())) == (1, 1)
    assert kept.rows() == before
    check_log(kept.table)


def test_a_keeper_may_be_told_to_stop_wherever_it_asks(tmp_path: Path) -> None:
    asked, is_left = 0, True
    while is_left:
        asked += 1
        kept = new_kept(tmp_path / str(asked))
        stopped = Counted(asked)
        keeper_of(kept, kept.bucket, stopped).turn()
        is_left = stopped.reached
        check_next(kept)
    assert asked > 3


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_keeper_may_die_at_any_request_that_changes_something(tmp_path: Path, done: bool) -> None:
    at, is_left = 0, True
    while is_left:
        at += 1
        kept = new_kept(tmp_path / str(at))
        dying = Dying(kept.bucket, at, done=done)
        try:
            keeper_of(kept, dying).turn()
        except Died:
            assert dying.reached
        is_left = dying.reached
        check_next(kept)
    assert at > 3
