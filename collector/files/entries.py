"""What is said of a file besides its bytes: OPEN, SEAL, GAP and GONE.

Files and what became of them go in; control entries come out, to be shipped in the same order.
"""

import logging
from collections.abc import Callable

from collector.files.checkpoint import FileKey, FileState, Mark
from collector.files.tail import Tail
from collector.wire.batch import Gap, Gone, Open, Seal
from collector.wire.range import Stream

Emit = Callable[[int, Stream, "Open | Seal | Gap | Gone"], None]
"""Takes an entry of a stream for a partition."""

_log = logging.getLogger(__name__)


class Entries:
    """The control entries of one run."""

    def __init__(self, emit: Emit) -> None:
        """``emit`` takes them."""
        self._emit = emit
        self._latest: dict[tuple[str, str], Tail] = {}

    def begin(self, tail: Tail, now_ns: int, *, is_known: bool) -> None:
        """Note that a file of its container is read from now on; say so unless it ``is_known``."""
        container = (tail.stream.pod_uid, tail.stream.container)
        latest = self._latest.get(container)
        previous = latest.file_id if latest is not None and latest.file_id else None
        self._latest[container] = tail
        if not is_known:
            self._emit(tail.partition, tail.stream, Open(*tail.key, previous, now_ns))

    def seal(self, tail: Tail) -> None:
        """Say that a file has ended where it was read to."""
        why = "rotated" if tail.linked else "deleted"
        self._emit(tail.partition, tail.stream, _seal(tail.key, tail.read_mark, why))

    def seal_missing(self, state: FileState) -> None:
        """Say that a file that is no longer there had ended where it was read to."""
        seal = _seal(state.key, state.spooled_mark, "deleted")
        self._emit(state.partition, state.stream, seal)

    def gap(
        self,
        state: FileState,
        start: int,
        from_ns: int,
        to_ns: int,
        why: str,
        *,
        exact: bool = False,
    ) -> None:
        """Say that a file's bytes from ``start`` on are missing, written between these times.

        They end at the largest size that was seen, exactly or at the least.
        """
        if start < state.size:  # what a scan has seen was written before it
            from_ns = min(from_ns, state.born_ns)
        gap = Gap(
            file_id=state.file_id,
            epoch=state.epoch,
            start=start,
            end=max(state.size, start),
            end_exact=exact,
            from_ns=from_ns or None,
            to_ns=to_ns,
            reason=why,
        )
        _log.warning(
            "lines are missing",
            extra={"path": state.path, "start": gap.start, "end_at_least": gap.end, "reason": why},
        )
        self._emit(state.partition, state.stream, gap)

    def gone(self, state: FileState) -> None:
        """Say that a file is no longer on disk."""
        self._emit(state.partition, state.stream, Gone(*state.key))


def _seal(key: FileKey, mark: Mark, why: str) -> Seal:
    return Seal(*key, mark.offset, mark.lines, mark.crc, why)
