"""When to ask for labels next, so that a thousand collectors never ask at once.

What became of the last request goes in, the seconds to wait come out. Pure: time is the caller's
and randomness is passed in, so a whole fleet can be run in simulated time.
"""

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Schedule:
    """The waits of one collector, in seconds.

    Whatever may strike a whole fleet in one moment (its start, a server that goes away, a version
    that is forgotten) is followed by a wait drawn from all of a window: of ``spread_s`` at first,
    twice as long after each failure, up to ``retry_most_s`` (back-off with full jitter).
    """

    random: random.Random
    spread_s: float
    retry_most_s: float
    watch_s: float
    poll_s: float
    failures: int = 0

    def first(self) -> float:
        """Return the wait before the first request of a run."""
        return self.random.uniform(0, self.spread_s)

    def worked(self) -> None:
        """Take note that the server gives what is asked for."""
        self.failures = 0

    def again(self, retry_after_s: float = 0.0) -> float:
        """Return the wait after a failure, or after an end that others may have seen too.

        What the server asks for comes on top, up to the longest wait.
        """
        window_s = min(self.spread_s * 2.0 ** min(self.failures, 32), self.retry_most_s)
        self.failures += 1
        return min(retry_after_s, self.retry_most_s) + self.random.uniform(0, window_s)

    def next_poll(self) -> float:
        """Return the wait between two lists where nothing can be watched."""
        return self.random.uniform(0.5, 1.5) * self.poll_s

    def next_watch(self) -> int:
        """Return for how long to watch: at random, as client-go does, so that ends spread."""
        return round(self.random.uniform(1, 2) * self.watch_s)
