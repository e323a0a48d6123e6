"""Which files there are and what becomes of them, from the first scan to the last word.

Scans and acknowledgements go in; out come tails to read from and control entries to send. Each
file goes through the stages of ``life_cycle``; it is forgotten only after the topic has its SEAL or
GAP and error-free scans have missed it for long.
"""

import errno
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path

from collector.files.checkpoint import CopyState, FileKey, FileState
from collector.files.content import GzipContent
from collector.files.copies import source_of
from collector.files.discover import FoundFile, Scan, reason_of
from collector.files.entries import Emit, Entries
from collector.files.known import ClosedFile, Inode, KnownFiles
from collector.files.life_cycle import Stage
from collector.files.placement import Placement, line_time_ns
from collector.files.tail import Tail, first_line, is_same_content, name_of, open_file
from collector.wire.batch import Unseen
from collector.wire.range import Stream

_RESTING_NS = 60_000_000_000
Ends = Iterable[tuple[bytes, int, int]]
"""File id, epoch, and the offset up to which a batch brings that file."""
Said = Iterable[tuple[str, bytes, int]]
"""The control entries of a batch: kind, file id, epoch."""


class Watch:
    """All files of one node that are on disk, or were and are not yet accounted for."""

    def __init__(
        self,
        placement: Placement,
        known: Iterable[FileState],
        copies: Iterable[CopyState],
        spooled: Mapping[FileKey, int],
        emit: Emit,
        clock: Callable[[], int],
        *,
        seal_quiet_ns: int,
        gone_after_ns: int,
        scan_late_ns: int,
    ) -> None:
        """``known`` and ``copies`` are those of the checkpoint; ``spooled`` tells up to where the
        spool has some of them, perhaps further. ``emit`` takes control entries, ``clock`` gives
        ns since 1970.
        """
        self.placement = placement
        self.tails: dict[Inode, Tail] = {}
        self.files = KnownFiles(known, spooled, copies)
        self.errors: dict[Path, Unseen] = {}  # of the last scan, and of the files since then
        self.links: dict[Path, Unseen] = {}  # that the last scan did not follow
        self.changes = 0  # of what a checkpoint keeps, besides acknowledgements
        self._entries = Entries(emit)
        self._clock = clock
        self._seal_quiet_ns = seal_quiet_ns
        self._gone_after_ns = gone_after_ns
        self._scan_late_ns = scan_late_ns
        self._scanned_ns = 0
        self._damaged: dict[Inode, tuple[int, int]] = {}  # their bytes, and since when so many
        self._resting = False  # whether the last scan has left the resting files out

    # -- scans -------------------------------------------------------------------------------

    def apply(self, scan: Scan) -> None:
        """Bring the files up to what ``scan`` saw."""
        self.errors, self.links = dict(scan.errors), scan.links
        if scan.unchanged:
            self._look_again(scan.began_ns)
            return
        seen = set()
        for found in scan.files:
            seen.add(found.inode)
            if tail := self.tails.get(found.inode):
                self.changes += tail.was_found(found, scan.began_ns)
            elif not self.files.accounts_for(found):
                self._open(found, scan.began_ns)
        for inode, tail in self.tails.items():
            if inode not in seen and self._covers(tail.path):
                self.changes += tail.was_missed(scan.began_ns)
        self._check_late(scan.began_ns)
        self._miss_closed(self.files.keep_inodes(seen), scan.began_ns)
        self._damaged = {inode: each for inode, each in self._damaged.items() if inode in seen}
        self._scanned_ns = scan.began_ns
        for tail in self.tails.values():
            if tail.failure:
                self._note(tail.path, tail.stream, tail.failure)

    def _look_again(self, now_ns: int) -> None:
        """Bring the files up to a scan that has found no change but, perhaps, growth.

        Those that have not grown for a minute are asked by every other scan.
        """
        self._resting = not self._resting
        skip_ns = now_ns - _RESTING_NS if self._resting else 0
        for tail in self.tails.values():
            if tail.grown_ns < skip_ns and not tail.moved_ns:
                continue
            if not tail.compressed:
                self.changes += tail.note_size(tail.content.size(), now_ns)
        self._scanned_ns = now_ns

    def advance(self, now_ns: int) -> tuple[list[Tail], list[Tail]]:
        """Name, seal or drop each file that it is time for, as of a scan that began then.

        Return those to read from, and those that were renamed or unlinked.
        """
        ready, moved = [], []
        for tail in list(self.tails.values()):
            if tail.moved_ns:
                moved.append(tail)
            elif tail.size == tail.read_mark.offset and tail.stage is not Stage.UNBORN:
                continue  # idle, as most files are most of the time
            ended = self.has_ended(tail, now_ns)
            try:
                if tail.stage is Stage.UNBORN and not self._name(tail, now_ns, ended=ended):
                    if ended and not tail.size:
                        self._drop(tail)
                elif tail.size == tail.read_mark.offset and not ended:
                    continue
                elif not is_same_content(tail):
                    self.truncated(tail, self._clock())
                elif tail.size != tail.read_mark.offset:
                    tail.size_max = max(tail.size_max, tail.size)
                    ready.append(tail)
                elif tail.spooled_mark.offset == tail.size and tail.stage is Stage.ENDED:
                    tail.life.become(Stage.SEALING)
                    self._entries.seal(tail)
            except OSError as error:
                self.cannot_read(tail, error)
        return ready, moved

    def has_ended(self, tail: Tail, now_ns: int) -> bool:
        """Return whether nobody can still be writing to the file."""
        return tail.has_ended(now_ns, self._seal_quiet_ns)

    def cannot_read(self, tail: Tail, error: OSError) -> None:
        """Note that a file cannot be read now; until it can, nothing is known of its rest."""
        tail.failure = reason_of(error)
        self._note(tail.path, tail.stream, tail.failure)

    def _note(self, path: Path, stream: Stream, why: str) -> None:
        self.errors[path] = Unseen(*stream.whose, str(path), why)

    def _covers(self, path: Path) -> bool:
        """Return whether the last scan would have found a file at ``path``, and opened it."""
        return not self.errors or self.errors.keys().isdisjoint((path, *path.parents))

    def _check_late(self, now_ns: int) -> None:
        """Name the streams of which a late scan may have missed a whole file.

        The kubelet deletes the oldest file of a stream first. So a file in between can have come
        and gone only where the one that was current is no longer on disk.
        """
        if not self._scanned_ns or now_ns - self._scanned_ns < self._scan_late_ns:
            return
        for tail in self.tails.values():
            if not tail.linked and tail.moved_ns == now_ns and tail.stage is not Stage.UNBORN:
                state = tail.state()
                self._entries.gap(state, state.size, self._scanned_ns, now_ns, "a scan came late")

    # -- begins ------------------------------------------------------------------------------

    def _open(self, found: FoundFile, now_ns: int) -> None:
        try:
            tail = open_file(found, now_ns)
        except OSError as error:
            self._note(found.path, found.stream, reason_of(error))
            return
        if tail is None:
            return
        try:
            if self._is_copy(tail, now_ns):
                tail.close()
            elif isinstance(tail.content, GzipContent):
                self._take_compressed(tail, tail.content, now_ns)
            else:
                self.tails[tail.inode] = tail
                self._name(tail, now_ns)
        except OSError as error:
            self._note(found.path, found.stream, reason_of(error))
            if tail.inode not in self.tails:
                tail.close()

    def _take_compressed(self, tail: Tail, content: GzipContent, now_ns: int) -> None:
        """Name a compressed file; what of it cannot be decompressed is missing.

        Raises OSError while a damaged one may still be being written.
        """
        tail.size = tail.size_max = tail.noted_bytes = content.size()
        why = f"unreadable: the compressed file is damaged: {content.damage}"
        if content.damage and not self._is_quiet(tail.inode, content.stored_bytes(), now_ns):
            raise OSError(errno.EBADMSG, why)
        if not self._name(tail, now_ns) and content.damage:
            self._take_name(tail, content.head(), now_ns)
        self.tails[tail.inode] = tail
        if content.damage:
            # Where the lines before it say nothing of its time, that may be any time.
            self._entries.gap(tail.state(), tail.size, tail.born_ns, now_ns, why)

    def _is_quiet(self, inode: Inode, size: int, now_ns: int) -> bool:
        """Return whether a damaged file has had this size for long, so nobody is writing to it."""
        if self._damaged.get(inode, (-1, 0))[0] != size:
            self._damaged[inode] = size, now_ns
        return now_ns - self._damaged[inode][1] >= self._seal_quiet_ns

    def _is_copy(self, tail: Tail, now_ns: int) -> bool:
        """Return whether all that a file holds was read, or is read, from another one."""
        if tail.format == "plain" or not tail.compressed:
            return bool(tail.moved_ns) and self._is_copy_of_read(tail, now_ns)
        key = self._read_elsewhere(tail, now_ns)
        if key is not None:
            self.files.note_copy(tail, key)
        return key is not None

    def _read_elsewhere(self, tail: Tail, now_ns: int) -> FileKey | None:
        """Return which file a compressed one is, if that is held open or was sealed."""
        line = first_line(tail, ended=True)
        if line is None:
            return None
        name = self._name_of(tail, line)
        self._name_empty(tail.stream, line, now_ns)
        for epoch in range(self.files.next_epoch(name)):
            key = (name, epoch)
            if other := self.files.named.get(key):
                mark = other.spooled_mark
            elif (closed := self.files.closed.get(key)) and closed.stage is Stage.SEALED:
                mark = closed.state.spooled_mark
            else:
                continue
            part = tail.content.read(len(mark.tail), mark.offset - len(mark.tail))
            # A damaged one may lack that, and a line has the time of its writing in it.
            if part == mark.tail or (isinstance(tail.content, GzipContent) and tail.content.damage):
                return key
        return None

    def _name_empty(self, stream: Stream, line: bytes, now_ns: int) -> None:
        """Name the file that was empty when it was opened, and begins with this line by now."""
        for tail in self.tails.values():
            is_empty = tail.stage is Stage.UNBORN and tail.stream == stream
            if is_empty and first_line(tail, ended=True) == line:
                self._take_name(tail, line, now_ns)

    def _is_copy_of_read(self, tail: Tail, now_ns: int) -> bool:
        """Return whether all of a rotated file, copied or compressed, is read elsewhere.

        A copy of which that is no longer so goes on under the name of the original.
        """
        line = first_line(tail, ended=True)
        if line is None:
            return not tail.compressed  # it may be a copy that has just begun
        if tail.format == "plain" and self.files.next_epoch(self._name_of(tail, line)):
            return False
        source = source_of(tail, self.tails.values(), self.files.uncopied)
        if source is None:
            return False
        key = source.key
        if is_same_content(source) if isinstance(source, Tail) else source.stage is Stage.SEALED:
            self.files.note_copy(tail, key)
            return True
        if isinstance(source, Tail):
            self.truncated(source, now_ns, copied=True)
        return not self._goes_on(tail, self.files.closed[key], now_ns)

    def _name(self, tail: Tail, now_ns: int, *, ended: bool = False) -> bool:
        """Give the file its name if its first line is there; return whether it has one.

        A file of the checkpoint goes on where it was acknowledged, if it is still the same.
        """
        if tail.stage is not Stage.UNBORN:
            return True  # a copy has the name of its original
        line = first_line(tail, ended=ended or tail.compressed)
        if line is None:
            return False
        self._take_name(tail, line, now_ns)
        return True

    def _take_name(self, tail: Tail, line: bytes, now_ns: int) -> None:
        name = self._name_of(tail, line)
        if any(self._goes_on(tail, closed, now_ns) for closed in self.files.left(name)):
            return
        self.files.name(tail, name)
        tail.born_ns = line_time_ns(line)
        tail.partition = self.placement.of_file(tail.stream.pod_uid, tail.born_ns)
        self._entries.begin(tail, now_ns, is_known=False)

    def _name_of(self, tail: Tail, line: bytes) -> bytes:
        return name_of(self.placement.cluster, self.placement.node, tail, line)

    def _goes_on(self, tail: Tail, closed: ClosedFile, now_ns: int) -> bool:
        """Return whether the file holds what was read of a closed one, and go on with it then."""
        if not self.files.go_on(tail, closed):
            return False
        # If nothing of it was spooled or sent, its OPEN may be lost with the run before.
        is_known = closed.state.spooled_mark.offset > 0
        self._entries.begin(tail, now_ns, is_known=is_known)
        return True

    # -- ends --------------------------------------------------------------------------------

    def truncated(self, tail: Tail, now_ns: int, *, copied: bool = False) -> None:
        """Start the file again: what was read of it is no longer there, but perhaps ``copied``."""
        old = self.files.put_away(tail, Stage.REPORTED if copied else Stage.TRUNCATED)
        # Batches on their way may still hold the last bytes that were read.
        start = tail.read_mark.offset
        self._entries.gap(old.state, start, self._scanned_ns, now_ns, "truncated")
        tail.begin_anew()
        self._name(tail, now_ns)

    def abandon(self, tail: Tail, now_ns: int, why: str) -> None:
        """Report the rest of a file, which will not be read, and let go of it."""
        exact = not tail.linked and self.has_ended(tail, now_ns)
        state = self.files.put_away(tail, Stage.REPORTED).state
        self._let_go(tail, state.key)
        # Batches on their way may still hold the last bytes that were read. As long as it takes to
        # know that a file has ended, its writer may go on.
        until_ns = now_ns if exact else now_ns + self._seal_quiet_ns
        start = tail.read_mark.offset
        self._entries.gap(state, start, self._scanned_ns, until_ns, why, exact=exact)

    def _drop(self, tail: Tail) -> None:
        """Close an empty file that has ended: it never held a line."""
        tail.life.become(Stage.GONE)
        self.tails.pop(tail.inode).close()

    def _let_go(self, tail: Tail, key: FileKey) -> None:
        """Close a file on disk that need not be read on: all of it is accounted for as ``key``."""
        self.files.note_inode(tail, key)
        self.tails.pop(tail.inode).close()

    # -- acknowledgements --------------------------------------------------------------------

    def spooled(self, ends: Ends, said: Said) -> None:
        """Note what the spool has: ranges, and SEALs, for which that is enough."""
        for name, epoch, end in ends:
            if tail := self.files.named.get((name, epoch)):
                tail.note_spooled(end)
        for kind, name, epoch in said:
            if kind == "seal":
                self._end_acknowledged((name, epoch), is_seal=True)

    def acknowledged(self, ends: Ends, said: Said) -> None:
        """Note what the topic has."""
        for name, epoch, end in ends:
            if tail := self.files.named.get((name, epoch)):
                tail.acknowledge(end)
            elif closed := self.files.closed.get((name, epoch)):
                closed.state.acknowledge(end)
        for kind, name, epoch in said:
            if kind == "gone":
                self.files.forget((name, epoch))
            else:
                self._end_acknowledged((name, epoch), is_seal=kind == "seal")

    def _end_acknowledged(self, key: FileKey, *, is_seal: bool) -> None:
        tail = self.files.named.get(key)
        if closed := self.files.closed.get(key):
            closed.acknowledge_end()
        elif is_seal and tail is not None and tail.stage is Stage.SEALING:
            self.files.put_away(tail, Stage.SEALED)
            self._let_go(tail, key)

    # -- what is no longer found -------------------------------------------------------------

    def account_for_missing(self, now_ns: int, scanned_ns: int) -> None:
        """Seal or report the files of the run before that two scans have not found.

        One scan proves nothing: a file that is renamed meanwhile may be seen under neither name.
        The last one began at ``now_ns``, and at ``scanned_ns`` the last one of the run before.
        """
        for closed in self.files.closed.values():
            state = closed.state
            if closed.stage is not Stage.REMEMBERED or not 0 < state.missed_ns < now_ns:
                continue
            if any(error.parent == Path(state.path).parent for error in self.errors):
                continue  # it may be what could not be opened, under another name
            closed.life.become(Stage.REPORTED)
            if state.moved and state.spooled_mark.offset >= state.size:
                self._entries.seal_missing(state)
            else:
                why = "deleted while the collector was down"
                start = max(state.spooled_mark.offset, closed.spooled_offset)
                self._entries.gap(state, start, scanned_ns, now_ns, why)

    def _miss_closed(self, present: Set[FileKey], now_ns: int) -> None:
        """Note which closed files a scan has missed; tell of those that are gone for long."""
        for key, closed in self.files.closed.items():
            state = closed.state
            if key in present or not self._covers(Path(state.path)):
                state.missed_ns = 0
            elif not state.missed_ns:
                state.missed_ns = now_ns
                self.changes += 1
            elif (
                closed.life.may_become(Stage.GONE)
                and now_ns - state.missed_ns >= self._gone_after_ns
            ):
                self._entries.gone(state)
                state.missed_ns = now_ns

    # -- all of them -------------------------------------------------------------------------

    def states(self) -> list[FileState]:
        """Return what a checkpoint keeps."""
        opened = [tail.state() for tail in self.tails.values() if tail.stage is not Stage.UNBORN]
        return opened + [closed.stored() for closed in self.files.closed.values()]

    def close(self) -> None:
        """Give all files back."""
        for tail in self.tails.values():
            tail.close()
