"""Which partition of the topic a file goes to, for its whole life.

A node's name, a pod's uid and the time of a file's first line go in; a partition comes out, the
same on every start. More partitions are used by an entry appended to a list, from its time on.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise, zip_longest

from collector.errors import SettingError

Entry = tuple[int, int]
"""From when (ns since 1970), and how many partitions are in use then."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a node's files go: ``spread`` of the partitions that are in use.

    ``entries`` are in the order of their times; the first has no start.
    """

    cluster: str
    node: str
    entries: tuple[Entry, ...]
    spread: int

    def of_file(self, pod_uid: str, born_ns: int) -> int:
        """Return the partition of a file whose first line is of ``born_ns`` (0: not known)."""
        count = self.entries[0][1]
        for from_ns, more in self.entries[1:]:
            if born_ns >= from_ns:
                count = more
        offset = _hash(pod_uid) % min(self.spread, count)
        return (_hash(self.node) + offset) % count

    def reachable(self) -> tuple[int, ...]:
        """Return every partition that a file of the node can go to."""
        first = _hash(self.node)
        return tuple(
            sorted(
                {
                    (first + i) % count
                    for _, count in self.entries
                    for i in range(min(self.spread, count))
                }
            )
        )


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def in_use(
    setting: int, later: str, known: Sequence[Entry], now_ns: int
) -> tuple[Entry, ...] | None:
    """Return the list of partitions in use; None if only the topic can tell how many there are.

    ``setting`` is the number at first, ``later`` holds entries ``COUNT@TIME``, and ``known`` is
    the list of the run before, which may only be appended to. An entry whose time went by while
    nobody collected here counts from ``now_ns`` on: files have been placed without it. Raises
    SettingError.
    """
    first = [(0, setting)] if setting else list(known[:1])
    if not first:
        return None
    entries = [*first, *(_entry(text.strip()) for text in later.split(",") if text.strip())]
    for before, entry in pairwise(entries):
        if entry[0] <= before[0] or entry[1] <= before[1]:
            raise SettingError(
                f"later_partitions {later!r}: times and numbers must grow from entry to entry"
            )
    for i, (was, is_now) in enumerate(zip_longest(known, entries[: len(known)])):
        # One that was taken up late stays as it was taken up.
        if is_now != was and not (i and is_now and is_now[1] == was[1] and is_now[0] < was[0]):
            raise SettingError(
                "partitions and later_partitions contradict what this node has used so far, "
                f"{_shown(known)}: an entry is never changed or removed, only appended"
            )
        entries[i] = was
    for i, entry in enumerate(entries[len(known) :] if known else [], len(known)):
        if entry[0] <= now_ns:
            _log.warning(
                "an entry of later_partitions came after its time; it counts from now on",
                extra={"entry": _shown([entry])},
            )
            entries[i] = (now_ns, entry[1])
    return tuple(entries)


def _entry(text: str) -> Entry:
    count, _, time = text.partition("@")
    try:
        moment = datetime.fromisoformat(time)
        if moment.tzinfo is None or int(count) < 1:
            raise ValueError
        return int(moment.timestamp()) * 1_000_000_000, int(count)
    except ValueError:
        raise SettingError(
            f"later_partitions {text!r}: expected COUNT@TIME as in 12@2030-01-01T00:00:00Z"
        ) from None


def _shown(entries: Sequence[Entry]) -> str:
    return ", ".join(
        f"{count}@{datetime.fromtimestamp(ns / 1e9).astimezone().isoformat()}" if ns else str(count)
        for ns, count in entries
    )


def line_time_ns(line: bytes) -> int:
    """Return the time at the start of a CRI line or in one of Docker's JSON; 0 without one."""
    text = line[:64].partition(b" ")[0]
    if line.startswith(b"{"):
        text = line.rpartition(b'"time":"')[2].partition(b'"')[0]
    try:
        moment = datetime.fromisoformat(text.decode())
        return int(moment.timestamp()) * 1_000_000_000 if moment.tzinfo else 0
    except (ValueError, OverflowError):
        return 0
