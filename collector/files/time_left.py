"""How long the kubelet will still keep a file: the time in which it can be read without loss.

A file's place in its rotation and the speed at which its container writes go in, seconds come out.
They are an estimate from the kubelet's algorithm: it looks at each container's file once in a
while, rotates it when it is too large, and then deletes the oldest
(pkg/kubelet/logs/container_log_manager.go).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from collector.files.life_cycle import Stage
from collector.files.tail import Tail
from collector.wire.range import Stream

_Container = tuple[str, str]  # pod uid and name


@dataclass(frozen=True, slots=True)
class Rotation:
    """Its settings: ``containerLogMaxSize``, ``…MaxFiles`` and ``…MonitorInterval``."""

    log_bytes: int
    log_files: int
    check_s: float

    def seconds_left(self, newer: int, current_bytes: int, bytes_per_s: float) -> float:
        """Return when a file is deleted that has ``newer`` files after it in its stream.

        ``current_bytes`` is the size of the one that is written to, at ``bytes_per_s``. Infinity
        where nobody writes.
        """
        if bytes_per_s <= 0:
            return math.inf
        first_s = max(self.log_bytes - current_bytes, 0) / bytes_per_s
        period_s = max(self.check_s, self.log_bytes / bytes_per_s)
        return first_s + max(self.log_files - newer - 1, 0) * period_s


class Growth:
    """How fast each container writes, as the scans see it."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._noted_ns = 0
        self._rates: dict[_Container, float] = {}

    def note(self, grown: Iterable[Tail], now_ns: int) -> Mapping[_Container, float]:
        """Return bytes per second of the containers of ``grown``; half of it is the last scan's."""
        written: dict[_Container, int] = {}
        for tail in grown:
            key = _container(tail)
            written[key] = written.get(key, 0) + max(tail.size - tail.noted_bytes, 0)
            tail.noted_bytes = tail.size
        since_s = (now_ns - self._noted_ns) / 1e9
        before, self._noted_ns = self._rates, now_ns
        if since_s > 0:
            self._rates = {k: (before.get(k, 0.0) + n / since_s) / 2 for k, n in written.items()}
        return self._rates


def lifetimes(
    unread: Sequence[Tail],
    moved: Iterable[Tail],
    rates: Mapping[_Container, float],
    rotation: Rotation,
) -> dict[tuple[int, int], float]:
    """Return, by inode, in how many seconds each file of ``unread`` is deleted; 0: it is already.

    ``moved`` are all files that were renamed, in the order in which they were found.
    """
    rotated: dict[Stream, list[tuple[int, int]]] = {}
    for tail in moved:
        rotated.setdefault(tail.stream, []).append(tail.inode)
    current = {tail.stream: tail.size for tail in unread if tail.stage is Stage.FOLLOWED}
    found = {}
    for tail in unread:
        files = rotated.get(tail.stream, [])
        newer = len(files) - files.index(tail.inode) if tail.inode in files else 0
        rate = rates.get(_container(tail), 0.0)
        left_s = rotation.seconds_left(newer, current.get(tail.stream, 0), rate)
        found[tail.inode] = left_s if tail.linked else 0.0
    return found


def _container(tail: Tail) -> _Container:
    return tail.stream.pod_uid, tail.stream.container
