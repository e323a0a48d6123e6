"""An indexer whose stop is cut off at any wait: the next one goes on, and each row comes once."""

from pathlib import Path

import pytest

from indexer.index import Indexer
from indexer.store.open import open_bucket
from tests.cancelling import cancelled_at
from tests.indexer.place import check_log
from tests.indexer.test_index import Place, expected

pytestmark = pytest.mark.slow  # a run for each wait


async def stop(indexer: Indexer) -> None:
    """End as the process does: commit what has come, and leave."""
    try:
        await indexer.flush()
    finally:
        await indexer.close()


@pytest.mark.parametrize("late", [False, True], ids=["as it waits", "as the wait ends"])
@pytest.mark.parametrize("committing", [False, True], ids=["read", "a commit on its way"])
async def test_a_stop_may_be_cancelled_at_any_wait(
    tmp_path: Path, committing: bool, late: bool
) -> None:
    wait, is_left = 0, True
    while is_left:
        wait += 1
        folder = tmp_path / str(wait)
        place = Place(str(folder / "topic"), open_bucket(str(folder / "bucket")))
        await place.ship(0, 0, 20)
        await place.ship(1, 0, 20)
        indexer = place.new_indexer(flush_age_ms=10 if committing else 600_000)
        await indexer.start()
        await indexer.turn()
        if committing:
            indexer._begin()
            await place.ship(0, 20, 30)
            indexer._consumer.fetch(await indexer._topic.read({0: 2}, 1 << 20, 0))
            indexer._consumer.take(1 << 20, dense=True)
        is_left = await cancelled_at(wait, stop(indexer), late=late)
        await place.index()
        assert place.rows() == expected(30 if committing else 20, 20)
        check_log(place.table)
    assert wait > 2
