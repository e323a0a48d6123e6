"""Which files there are and what becomes of them: named, followed, sealed, gone.

Scans go in; out come tails to read from and control entries to send. A file is forgotten only
after the topic has its SEAL or GAP and error-free scans have missed it for long.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from collector.files.checkpoint import FileState, Mark
from collector.files.content import GzipContent
from collector.files.copies import source_of
from collector.files.discover import Found, Scan
from collector.files.place import Place, line_time_ns
from collector.files.tail import Tail, first_line, is_same_content, name_of, open_file
from collector.wire.batch import Gap, Gone, Open, Seal
from collector.wire.range import Stream

_log = logging.getLogger(__name__)

_RESTING_NS = 60_000_000_000
Emit = Callable[[int, Stream, "Open | Seal | Gap | Gone"], None]
FileKey = tuple[bytes, int]
"""What tells a file from every other: its id and epoch."""


class Watch:
    """All files of one node that are on disk, or were and are not yet accounted for."""

    def __init__(
        self,
        place: Place,
        known: Iterable[FileState],
        spooled: Mapping[FileKey, int],
        emit: Emit,
        *,
        seal_quiet_ns: int,
        gone_after_ns: int,
        scan_late_ns: int,
    ) -> None:
        """``known`` are the files of the checkpoint, ``spooled`` tells up to where the spool has
        some of them, perhaps further; ``emit`` takes control entries.
        """
        self.place = place
        self.tails: dict[tuple[int, int], Tail] = {}
        self.named: dict[FileKey, Tail] = {}
        self.closed: dict[FileKey, FileState] = {state_key(state): state for state in known}
        self.errors: dict[Path, str] = {}  # of the last scan, and of the files since then
        self.changes = 0  # of what a checkpoint keeps, besides acknowledgements
        self._emit = emit
        self._spooled = spooled
        self._copies: dict[tuple[int, int], FileKey] = {}  # compressed, and read as another inode
        self._closed_inodes: dict[tuple[int, int], FileKey] = {}
        self._latest: dict[tuple[str, str], Tail] = {}
        self._sealing: dict[FileKey, Tail] = {}
        self._epochs: dict[bytes, int] = {}  # the next one of each file_id that is known
        for name, epoch in self.closed:
            self._epochs[name] = max(self._epochs.get(name, 0), epoch + 1)
        self._reported: set[FileKey] = set()
        self._replaced: set[FileKey] = set()  # closed, and their content is no longer on disk
        self._seal_quiet_ns = seal_quiet_ns
        self._gone_after_ns = gone_after_ns
        self._scan_late_ns = scan_late_ns
        self._scanned_ns = 0
        self._resting = False  # whether the last scan has left the resting files out

    # -- scans -------------------------------------------------------------------------------

    def apply(self, scan: Scan) -> None:
        """Bring the files up to what ``scan`` saw."""
        self.errors = dict(scan.errors)
        if scan.unchanged:
            self._look_again(scan.began_ns)
            return
        seen = set()
        for found in scan.files:
            if found.compressed and self._is_copy(found):
                seen.add(found.inode)
                continue
            seen.add(found.inode)
            if tail := self.tails.get(found.inode):
                self.changes += tail.was_found(found, scan.began_ns)
            elif not self._is_closed(found):
                self._open(found, scan.began_ns)
        for inode, tail in self.tails.items():
            if inode not in seen and self._covers(tail.path):
                self.changes += tail.was_missed(scan.began_ns)
        self._check_late(scan)
        self._forget(scan, seen)
        self._scanned_ns = scan.began_ns

    def _look_again(self, now_ns: int) -> None:
        """Bring the files up to a scan that has found no change but, perhaps, growth.

        Those that have not grown for a minute are asked by every other scan.
        """
        self._resting = not self._resting
        skip_ns = now_ns - _RESTING_NS if self._resting else 0
        for tail in self.tails.values():
            if tail.grown_ns < skip_ns and not tail.moved_ns:
                continue
            if not tail.compressed and (size := tail.content.size()) != tail.size:
                tail.size, tail.grown_ns = size, now_ns
                self.changes += 1
        self._scanned_ns = now_ns

    def _covers(self, path: Path) -> bool:
        """Return whether the last scan would have found a file at ``path``, and opened it."""
        return not self.errors or self.errors.keys().isdisjoint((path, *path.parents))

    def _is_closed(self, found: Found) -> bool:
        # An inode is soon used again, and files of a crash loop often have the same size.
        state = self.closed.get(self._closed_inodes.get(found.inode, (b"", 0)))
        return state is not None and (state.path, state.spooled_mark.offset) == (
            str(found.path),
            found.size,
        )

    def _open(self, found: Found, now_ns: int) -> None:
        try:
            tail = open_file(found)
            if tail is None:
                return
            if tail.format == "plain":
                if found.rotated and self._is_copy_of_read(tail, now_ns):
                    tail.close()
                    return
            elif tail.compressed and (key := self._read_elsewhere(tail)):
                self._copies[tail.inode] = key
                tail.close()
                return
            tail.moved_ns = now_ns if found.rotated else 0
            tail.grown_ns = now_ns
            self.tails[found.inode] = tail
            if isinstance(tail.content, GzipContent):
                self._check(tail, tail.content, now_ns)
            else:
                self.name(tail, now_ns)
        except OSError as error:
            self.errors[found.path] = str(error)

    def _check(self, tail: Tail, content: GzipContent, now_ns: int) -> None:
        """Name a compressed file; report what is to be read of it, if it is damaged."""
        try:
            tail.size = tail.size_max = tail.noted_bytes = content.size()
            self.name(tail, now_ns)
        except OSError as error:
            tail.size_max = content.stated_size()
            del self.tails[tail.inode]
            if not self.name(tail, now_ns):
                raise
            self.tails[tail.inode] = tail
            self.abandon(tail, now_ns, f"unreadable: {error.strerror}")

    def _is_copy(self, found: Found) -> bool:
        key = self._copies.get(found.inode)
        return key is not None and (key in self.named or key in self.closed)

    def _read_elsewhere(self, tail: Tail) -> FileKey | None:
        """Return which file a compressed one is, if that is held open or was sealed."""
        line = first_line(tail, ended=True)
        if line is None:
            return None
        name = name_of(self.place.cluster, self.place.node, tail, line)
        for epoch in range(self._next_epoch(name)):
            key = (name, epoch)
            other = self.named.get(key)
            state = other.state() if other is not None else self.closed.get(key)
            if state is None or not (other or state.sealed) or key in self._replaced:
                continue
            mark = state.spooled_mark
            part = tail.content.read(len(mark.tail), mark.offset - len(mark.tail))
            if part == mark.tail:
                return key
        return None

    def _is_copy_of_read(self, tail: Tail, now_ns: int) -> bool:
        """Return whether all of a rotated plain file is read elsewhere.

        A copy of which that is no longer so goes on under the name of the original.
        """
        line = first_line(tail, ended=True)
        if line is None:
            return True  # it may be a copy that has just begun
        if self._next_epoch(name_of(self.place.cluster, self.place.node, tail, line)):
            return False
        passed = self._replaced.union(self._copies.values())
        closed = [state for key, state in self.closed.items() if key not in passed]
        source = source_of(tail, self.tails.values(), closed)
        if source is None:
            return False
        state = source.state() if isinstance(source, Tail) else source
        key = state_key(state)
        if is_same_content(source) if isinstance(source, Tail) else state.sealed:
            if tail.compressed:
                self._copies[tail.inode] = key
            return True
        if isinstance(source, Tail):
            self.truncated(source, now_ns)
            self._replaced.discard(key)
        return not self._goes_on(tail, self.closed[key], now_ns)

    def name(self, tail: Tail, now_ns: int, *, ended: bool = False) -> bool:
        """Give the file its name if its first line is there; return whether it has one.

        A file of the checkpoint goes on where it was acknowledged, if it is still the same.
        """
        if tail.file_id:
            return True  # a copy has the name of its original
        line = first_line(tail, ended=ended or tail.compressed)
        if line is None:
            return False
        tail.file_id = name_of(self.place.cluster, self.place.node, tail, line)
        if self._resumed(tail, now_ns):
            return True
        tail.epoch = self._next_epoch(tail.file_id)
        tail.born_ns = line_time_ns(line)
        tail.partition = self.place.of_file(tail.stream.pod_uid, tail.born_ns)
        self._epochs[tail.file_id] = tail.epoch + 1
        self._follow(tail, now_ns, is_new=True)
        return True

    def _follow(self, tail: Tail, now_ns: int, *, is_new: bool) -> None:
        latest = self._latest.get(_container(tail.stream))
        previous = latest.file_id if latest is not None and latest.file_id else None
        self._latest[_container(tail.stream)] = tail
        self.named[tail.file_id, tail.epoch] = tail
        if is_new:
            opened = Open(tail.file_id, tail.epoch, previous, now_ns)
            self._emit(tail.partition, tail.stream, opened)

    def _resumed(self, tail: Tail, now_ns: int) -> bool:
        """Return whether the file is one that was closed before, and go on with it then."""
        epochs = range(self._next_epoch(tail.file_id))
        keys = ((tail.file_id, epoch) for epoch in epochs)
        states = [self.closed[k] for k in keys if k in self.closed and k not in self._replaced]
        # What nothing was acknowledged of is like any content, so it comes last.
        for state in sorted(states, key=lambda s: (s.spooled_mark.offset, s.epoch), reverse=True):
            if self._goes_on(tail, state, now_ns):
                return True
        return False

    def _goes_on(self, tail: Tail, state: FileState, now_ns: int) -> bool:
        """Return whether the file holds what was read of a closed one, and go on with it then."""
        if not tail.resume(state):
            return False
        key = state_key(state)
        tail.file_id = state.file_id
        del self.closed[key]
        self._reported.discard(key)
        # If nothing of it was spooled or sent, its OPEN may be lost with the run before.
        self._follow(tail, now_ns, is_new=not state.spooled_mark.offset)
        return True

    def _next_epoch(self, name: bytes) -> int:
        # One that was forgotten while a later one is still known is not given again.
        return self._epochs.get(name, 0)

    def _check_late(self, scan: Scan) -> None:
        """Name the streams of which a late scan may have missed a whole file.

        The kubelet deletes the oldest file of a stream first. So a file in between can have come
        and gone only where the one that was current is no longer on disk.
        """
        late_ns = scan.began_ns - self._scanned_ns
        if not self._scanned_ns or late_ns < self._scan_late_ns:
            return
        for tail in self.tails.values():
            if not tail.linked and tail.moved_ns == scan.began_ns and tail.file_id:
                state = tail.state()
                self._gap(state, state.size, scan.began_ns, "a scan came late")

    # -- ends --------------------------------------------------------------------------------

    def truncated(self, tail: Tail, now_ns: int) -> None:
        """Start the file anew: what was read of it before is no longer on disk."""
        old = tail.state()
        self.named.pop(state_key(old), None)
        self.closed[state_key(old)] = old
        self._replaced.add(state_key(old))
        # Batches on their way may still hold the last bytes that were read.
        self._gap(old, tail.read_mark.offset, now_ns, "truncated")
        tail.file_id, tail.epoch = b"", 0
        tail.read_mark, tail.acked_mark = Mark(), Mark()
        tail.unacked_marks.clear()
        tail.spooled_offset = 0
        tail.size = tail.size_max = tail.content.size()
        self.name(tail, now_ns)

    def abandon(self, tail: Tail, now_ns: int, why: str) -> None:
        """Report the rest of a file, which will not be read, and let go of it."""
        state = tail.state()
        self.closed[state_key(state)] = state
        if tail.compressed:
            self._copies[tail.inode] = state_key(state)
        self.named.pop(state_key(state), None)
        del self.tails[tail.inode]
        exact = not tail.linked and self.ended(tail, now_ns)
        tail.close()
        # Batches on their way may still hold the last bytes that were read. As long as it takes to
        # know that a file has ended, its writer may go on.
        until_ns = now_ns if exact else now_ns + self._seal_quiet_ns
        self._gap(state, tail.read_mark.offset, until_ns, why, exact=exact)

    def ended(self, tail: Tail, now_ns: int) -> bool:
        """Return whether nobody can still be writing to the file."""
        quiet_since = max(tail.moved_ns, tail.grown_ns)
        return bool(tail.moved_ns) and now_ns - quiet_since >= self._seal_quiet_ns

    def seal(self, tail: Tail) -> None:
        """Send the SEAL of a file that has ended and is acknowledged to its end."""
        key = (tail.file_id, tail.epoch)
        if key not in self._sealing:
            self._sealing[key] = tail
            mark = tail.read_mark
            why = "rotated" if tail.linked else "deleted"
            seal = Seal(tail.file_id, tail.epoch, mark.offset, mark.lines, mark.crc, why)
            self._emit(tail.partition, tail.stream, seal)

    def cannot_read(self, tail: Tail, error: OSError) -> None:
        """Note that a file cannot be read now; until the next scan that proves nothing."""
        self.errors[tail.path] = error.strerror or str(error)

    def drop_unborn(self, inode: tuple[int, int]) -> None:
        """Close an empty file that has ended: it never held a line."""
        self.tails.pop(inode).close()

    def acknowledged(self, kind: str, key: FileKey) -> None:
        """Note that the topic has a control entry; of a SEAL, that the spool has it is enough."""
        if kind == "seal" and (tail := self._sealing.pop(key, None)):
            state = tail.state()
            state.sealed = True
            self.closed[key] = state
            self.tails.pop(tail.inode, None)
            self.named.pop(key, None)
            if tail.compressed:
                self._copies[tail.inode] = key
            elif tail.linked:
                self._closed_inodes[tail.inode] = key
            tail.close()
        elif kind in ("seal", "gap") and key in self.closed:
            self.closed[key].sealed = True
        elif kind == "gone":
            self.closed.pop(key, None)
            keys = ((key[0], i) for i in range(self._next_epoch(key[0])))
            if not any(each in self.named or each in self.closed for each in keys):
                self._epochs.pop(key[0], None)
            self._reported.discard(key)
            self._replaced.discard(key)

    def account_for_missing(self, scan: Scan, scanned_ns: int) -> None:
        """Seal or report the files of the run before that two scans have not found.

        One scan proves nothing: a file that is renamed meanwhile may be seen under neither name.
        ``scanned_ns``: when the last scan of the run before began.
        """
        for key, state in self.closed.items():
            if state.sealed or key in self._reported or key in self._replaced:
                continue
            if not 0 < state.missed_ns < scan.began_ns:
                continue
            if any(error.parent == Path(state.path).parent for error in self.errors):
                continue  # it may be what could not be opened, under another name
            mark = state.spooled_mark
            if state.moved and mark.offset >= state.size:
                seal = Seal(
                    state.file_id, state.epoch, mark.offset, mark.lines, mark.crc, "deleted"
                )
                self._reported.add(key)
                self._emit(state.partition, state.stream, seal)
            else:
                why = "deleted while the collector was down"
                start = max(mark.offset, self._spooled.get(key, 0))
                self._gap(state, start, scan.began_ns, why, since_ns=scanned_ns)

    def _gap(
        self,
        state: FileState,
        start: int,
        now_ns: int,
        why: str,
        *,
        exact: bool = False,
        since_ns: int | None = None,
    ) -> None:
        if state_key(state) in self._reported:
            return
        self._reported.add(state_key(state))
        from_ns = self._scanned_ns if since_ns is None else since_ns
        if start < state.size:  # what a scan has seen was written before it
            from_ns = min(from_ns, state.born_ns)
        gap = Gap(
            file_id=state.file_id,
            epoch=state.epoch,
            start=start,
            end=max(state.size, start),
            end_exact=exact,
            from_ns=from_ns or None,
            to_ns=now_ns,
            reason=why,
        )
        _log.warning(
            "lines are missing",
            extra={"path": state.path, "start": gap.start, "end_at_least": gap.end, "reason": why},
        )
        self._emit(state.partition, state.stream, gap)

    def _forget(self, scan: Scan, seen: set[tuple[int, int]]) -> None:
        inodes = self._closed_inodes | self._copies
        present = {inodes[i] for i in seen if i in inodes}
        for key, state in self.closed.items():
            if key in present or not self._covers(Path(state.path)):
                state.missed_ns = 0
            elif not state.missed_ns:
                state.missed_ns = scan.began_ns
                self.changes += 1
            elif state.sealed and scan.began_ns - state.missed_ns >= self._gone_after_ns:
                self._emit(state.partition, state.stream, Gone(*key))
                state.missed_ns = scan.began_ns
        for inodes in (self._closed_inodes, self._copies):
            for inode in [i for i in inodes if i not in seen]:
                del inodes[inode]


def state_key(state: FileState) -> FileKey:
    """Return what tells the file from every other."""
    return state.file_id, state.epoch


def _container(stream: Stream) -> tuple[str, str]:
    return stream.pod_uid, stream.container
