"""Work that is cancelled at one of its waits, as a stop may be whose time is over.

A coroutine goes in with the number of a wait; it is cancelled there, as it begins to wait or just
as what it waits for has happened. Whoever counts up from 1 has soon cancelled it everywhere.
"""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class _Driven:
    """An awaitable that does the work of another, and counts how often that waits."""

    def __init__(self, work: Coroutine[Any, Any, Any], wait: int, *, late: bool) -> None:
        self._work = work
        self._wait = wait
        self._late = late
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        step, given = self._work.send, None
        while True:
            try:
                waited_for = step(given)
            except StopIteration as end:
                return end.value
            self.waits += 1
            if self.waits == self._wait:
                self._cancel(waited_for)
            try:
                yield waited_for
                step, given = self._work.send, None
            except BaseException as error:  # what the work is to be told
                step, given = self._work.throw, error

    def _cancel(self, waited_for: "asyncio.Future[Any] | None") -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._late and waited_for is not None:
            waited_for.add_done_callback(lambda _: task.cancel())  # it comes before the task's own
        else:
            task.cancel()


async def cancelled_at(wait: int, work: Coroutine[Any, Any, Any], *, late: bool) -> bool:
    """Do work, and cancel it at its ``wait``-th wait; return whether it has as many.

    ``late``: just as what it waits for has happened, so that it does not learn what that was.
    """
    driven = _Driven(work, wait, late=late)

    async def do() -> None:
        await driven

    task = asyncio.create_task(do())
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
    return driven.waits >= wait
