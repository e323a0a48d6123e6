"""Whose turn it is to be read: fair in bytes, and what is deleted soonest comes first.

Files with news go in, ranges come out, to be shipped. No pod gets more than its share of a round
while others wait (deficit round-robin), and once the spool is full, only what would be lost is
read, if a larger pod can make room for it.
"""

from collections.abc import Callable, Iterable

from collector.files.tail import ReadLimits, Tail, is_same_content, read_range
from collector.files.time_left import Growth, Rotation, lifetimes
from collector.files.watch import Watch
from collector.policy.apply import Policy
from collector.ship.shipper import Shipper
from collector.wire.batch import Elided

_SOON_S = 15.0  # longer than a scan, and than the kubelet waits between two looks


class Reader:
    """The files that have news, and what each pod may still read in this round."""

    def __init__(
        self,
        watch: Watch,
        shipper: Shipper,
        limits: ReadLimits,
        rotation: Rotation,
        policy: Policy,
        clock: Callable[[], int],
    ) -> None:
        """``limits.read_bytes`` is both the maximum of one read and a pod's share of a round."""
        self._watch = watch
        self._shipper = shipper
        self._limits = limits
        self._rotation = rotation
        self._policy = policy
        self._clock = clock
        self._growth = Growth()
        self._ready: list[Tail] = []
        self._left_s: dict[tuple[int, int], float] = {}
        self._deficits: dict[str, int] = {}
        self.seconds_left = float("inf")  # until the first unread bytes are deleted
        self.read_bytes = self.redacted_ranges = 0
        self.elided: dict[str, tuple[int, int]] = {}  # bytes and lines by rule

    def scanned(self, ready: list[Tail], moved: Iterable[Tail]) -> None:
        """Take the files that have news, as of a scan, the one that is deleted soonest first."""
        rates = self._growth.note(ready, self._clock())
        self._left_s = lifetimes(ready, moved, rates, self._rotation)
        self._ready = sorted(ready, key=lambda tail: self._left_s[tail.inode])
        self.seconds_left = min(self._left_s.values(), default=float("inf"))
        soon = any(left_s < _SOON_S for left_s in self._left_s.values())
        self._shipper.urgent = soon and self._shipper.pressed

    def _may_read(self, tail: Tail) -> bool:
        if self._shipper.has_room:
            return True
        soon = self._left_s.get(tail.inode, float("inf")) < _SOON_S
        return soon and self._shipper.may_displace(tail.stream.pod_uid)

    async def read(self) -> bool:
        """Let each pod read its share once; return whether there is more to do at once."""
        share = self._limits.read_bytes
        waiting = {tail.stream.pod_uid for tail in self._ready}
        self._deficits = {pod: min(self._deficits.get(pod, 0) + share, share) for pod in waiting}
        more, stuck = [], []
        for tail in self._ready:
            if not self._may_read(tail):
                stuck.append(tail)
            elif self._deficits[tail.stream.pod_uid] <= 0 or await self._take(tail):
                more.append(tail)
        self._ready = [*more, *stuck]
        return bool(more)

    async def _take(self, tail: Tail) -> bool:
        """Read one range of a file; return whether it has more."""
        now = self._clock()
        try:
            if not is_same_content(tail):
                self._watch.truncated(tail, now)
                return False
            taken = read_range(tail, self._limits, now, ended=self._watch.has_ended(tail, now))
        except OSError as error:
            self._watch.cannot_read(tail, error)
            return False
        if taken is None:
            return False
        self._deficits[tail.stream.pod_uid] -= len(taken.data)
        self.read_bytes += len(taken.data)
        for piece in self._policy.apply(tail.stream, taken):
            self._shipper.add(tail.partition, tail.stream, piece)
            if isinstance(piece, Elided):
                size, lines = self.elided.get(piece.rule, (0, 0))
                self.elided[piece.rule] = (size + piece.end - piece.start, lines + piece.lines)
            elif piece.redacted:
                self.redacted_ranges += 1
        await self._shipper.flush()
        return tail.read_mark.offset < tail.size
