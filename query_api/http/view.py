"""The service's view of the table: looked at again in the background, by one task alone.

A request gets a version that was looked for at most ``refresh_ms`` before it came, or the error of
that look. It waits for it without a thread, so that a slow store holds up no more than it must.
"""

import asyncio
import gc
import logging
from collections.abc import Callable

from indexer.errors import TableUnavailable
from query_api.completeness.replica import Replica, Snapshot
from query_api.metrics import QueryMetrics
from query_api.settings import QuerySettings

_log = logging.getLogger(__name__)


class View:
    """Follows a table; all of it belongs to one event loop, only the look at the table does not."""

    def __init__(
        self,
        replica: Replica,
        settings: QuerySettings,
        metrics: QueryMetrics,
        monotonic: Callable[[], float],
    ) -> None:
        """Look at nothing yet."""
        self._replica = replica
        self._refresh_s = settings.refresh_ms / 1000
        self._patience_s = settings.refresh_timeout_ms / 1000
        self._metrics = metrics
        self._monotonic = monotonic
        self._began_s = float("-inf")  # of the last look that has ended
        self._error: Exception | None = None  # that it has ended with
        self._ended = asyncio.Event()  # the look that is under way, or comes next
        self._wanted = asyncio.Event()  # somebody waits for one

    @property
    def held(self) -> Snapshot | None:
        """The version that was read last, at once."""
        return self._replica.held

    @property
    def trouble(self) -> str:
        """Why the last look has failed."""
        return str(self._error or "")

    async def latest(self) -> Snapshot:
        """Return the newest version, at most ``refresh_ms`` old.

        A table that is away for a moment is an error, never an old answer: whatever the last look
        has raised is raised here, and TableUnavailable if none ends in time.
        """
        oldest_s = self._monotonic() - self._refresh_s
        try:
            async with asyncio.timeout(self._patience_s):
                while self._began_s < oldest_s:
                    self._wanted.set()
                    await self._ended.wait()
        except TimeoutError:
            self._metrics.limit_reached.labels("refresh_timeout_ms").inc()
            raise TableUnavailable(
                f"{self._replica.table.uri} has not answered for {self._patience_s:g} s"
            ) from None
        if self._error is not None:
            raise self._error.with_traceback(None)  # the same one each time
        return self._replica.newest

    async def keep_up(self) -> None:
        """Look at the table each ``refresh_ms``, or when somebody waits, until cancelled."""
        while True:
            began_s, said = self._monotonic(), self.trouble
            try:
                snapshot = await asyncio.to_thread(self._replica.refresh)
                self._metrics.version.set(snapshot.version)
                if self._began_s == float("-inf"):
                    # A full collection would walk all of the ledger, a second in a large fleet.
                    gc.freeze()
                self._error = None
            except Exception as error:  # whatever it is: a later look may succeed, requests say it
                self._error = error
                if self.trouble != said:
                    what = "cannot refresh the view of the table"
                    _log.warning(what, extra={"error": self.trouble})
            self._metrics.refresh_failed.set(self._error is not None)
            self._began_s = began_s
            self._wanted.clear()  # who needs a later one says so again
            self._ended.set()
            self._ended = asyncio.Event()
            try:
                async with asyncio.timeout(self._refresh_s):
                    await self._wanted.wait()
            except TimeoutError:
                continue
