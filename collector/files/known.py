"""Every file that has a name: those that are held open, and those that are not.

What a checkpoint knew, and what the watch opens and closes, goes in; what a scan finds is compared
with it, so that nothing is opened or read a second time, what can go on is found, and no epoch is
given to two files.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import msgspec

from collector.files.checkpoint import CopyState, FileKey, FileState
from collector.files.discover import FoundFile
from collector.files.life_cycle import LifeCycle, Stage
from collector.files.tail import Tail

Inode = tuple[int, int]
"""Device and number."""


@dataclass(slots=True)
class ClosedFile:
    """One file that is not held open."""

    state: FileState
    life: LifeCycle
    spooled_offset: int = 0  # the spool of the run before has it up to there, perhaps further

    @property
    def stage(self) -> Stage:
        """Return the stage of its life."""
        return self.life.stage

    @property
    def key(self) -> FileKey:
        """Return what tells the file from every other."""
        return self.state.key

    @property
    def may_go_on(self) -> bool:
        """Whether it is read on if it is found again."""
        return self.life.may_become(Stage.FOLLOWED)

    def stored(self) -> FileState:
        """Return what a checkpoint keeps of it."""
        sealed = self.stage in (Stage.SEALED, Stage.ERASED)
        return msgspec.structs.replace(self.state, sealed=sealed)

    def acknowledge_end(self) -> None:
        """Note that its SEAL or GAP is where nobody needs to send it again."""
        if self.stage is Stage.TRUNCATED:
            self.life.become(Stage.ERASED)
        elif self.stage in (Stage.REMEMBERED, Stage.REPORTED):
            self.life.become(Stage.SEALED)


class KnownFiles:
    """The files by name, and the inodes that need not be opened as long as they stay the same."""

    def __init__(
        self,
        states: Iterable[FileState],
        spooled: Mapping[FileKey, int],
        copies: Iterable[CopyState] = (),
    ) -> None:
        """``states`` and ``copies`` are those of the checkpoint; ``spooled`` tells up to where the
        spool of the run before has some of them, perhaps further.
        """
        self.named: dict[FileKey, Tail] = {}
        self.closed: dict[FileKey, ClosedFile] = {}
        self._next_epochs: dict[bytes, int] = {}
        self._sealed: dict[Inode, FileKey] = {}  # not compressed, and read to their end
        self._copies: dict[Inode, CopyState] = {}
        for state in states:
            life = LifeCycle(Stage.SEALED if state.sealed else Stage.REMEMBERED)
            self.closed[state.key] = ClosedFile(state, life, spooled.get(state.key, 0))
            self._count(state.key)
        # Of a file that was not read to its end, only a copy may hold the rest.
        self._copies = {copy.inode: copy for copy in copies if self._is_sealed(copy.key)}

    def _is_sealed(self, key: FileKey) -> bool:
        closed = self.closed.get(key)
        return closed is not None and closed.stage is Stage.SEALED

    def next_epoch(self, file_id: bytes) -> int:
        """Return the epoch of the next file of that id, which none that is known has had."""
        return self._next_epochs.get(file_id, 0)

    def _count(self, key: FileKey) -> None:
        self._next_epochs[key[0]] = max(self.next_epoch(key[0]), key[1] + 1)

    # -- names -------------------------------------------------------------------------------

    def name(self, tail: Tail, file_id: bytes) -> None:
        """Give a new file its name."""
        tail.take_name(tail.life, file_id, self.next_epoch(file_id))
        self.named[tail.key] = tail
        self._count(tail.key)

    def left(self, file_id: bytes) -> list[ClosedFile]:
        """Return the closed files of that id that may go on, in the order in which to try them."""
        known = (self.closed.get((file_id, epoch)) for epoch in range(self.next_epoch(file_id)))
        found = [closed for closed in known if closed is not None and closed.may_go_on]
        # What nothing was acknowledged of is like any content, so it comes last.
        found.sort(key=lambda c: (c.state.spooled_mark.offset, c.state.epoch), reverse=True)
        return found

    def go_on(self, tail: Tail, closed: ClosedFile) -> bool:
        """Return whether ``tail`` holds what was read of a closed file, and take it for it then."""
        if not tail.resume(closed.state):
            return False
        tail.take_name(closed.life, *closed.key)
        del self.closed[tail.key]
        self.named[tail.key] = tail
        return True

    def put_away(self, tail: Tail, stage: Stage) -> ClosedFile:
        """Keep what is known of the content that was read, whose next ``stage`` this is."""
        tail.life.become(stage)
        closed = self.closed[tail.key] = ClosedFile(tail.state(), tail.life)
        del self.named[tail.key]
        return closed

    def forget(self, key: FileKey) -> None:
        """Note that the topic has the GONE of a file, which may be there again."""
        closed = self.closed.get(key)
        if closed is None or not closed.life.may_become(Stage.GONE):
            return
        closed.life.become(Stage.GONE)
        del self.closed[key]
        # One that was forgotten while another is still known is not given again.
        others = ((key[0], epoch) for epoch in range(self.next_epoch(key[0])))
        if not any(other in self.named or other in self.closed for other in others):
            del self._next_epochs[key[0]]

    # -- inodes ------------------------------------------------------------------------------

    def note_inode(self, tail: Tail, key: FileKey) -> None:
        """Note that all that ``tail`` holds is accounted for as the file ``key``."""
        if tail.compressed:
            self.note_copy(tail, key)
        elif tail.linked:
            self._sealed[tail.inode] = key

    def note_copy(self, tail: Tail, key: FileKey) -> None:
        """Note that what ``tail`` held when it was opened is all read as the file ``key``."""
        self._copies[tail.inode] = CopyState(tail.inode, *tail.opened_at, key)

    def accounts_for(self, found: FoundFile) -> bool:
        """Return whether what a scan has found need not be opened."""
        copy = self._copies.get(found.inode)
        if copy is not None and (copy.size, copy.mtime_ns) == (found.size, found.mtime_ns):
            return copy.key in self.named or copy.key in self.closed
        if found.compressed:
            return False
        # An inode is soon used again, and files of a crash loop often have the same size.
        closed = self.closed.get(self._sealed.get(found.inode, (b"", 0)))
        if closed is None:
            return False
        known = (closed.state.path, closed.state.spooled_mark.offset)
        return known == (str(found.path), found.size)

    @property
    def uncopied(self) -> list[ClosedFile]:
        """Return the closed files that may go on and have no compressed copy."""
        copied = {copy.key for copy in self._copies.values()}
        return [c for key, c in self.closed.items() if c.may_go_on and key not in copied]

    def keep_inodes(self, seen: Set[Inode]) -> Set[FileKey]:
        """Forget the inodes that a scan has not seen; return the files that the others are of."""
        for inodes in (self._sealed, self._copies):
            for inode in inodes.keys() - seen:
                del inodes[inode]
        return {*self._sealed.values(), *(copy.key for copy in self._copies.values())}

    def sealed_copies(self) -> list[CopyState]:
        """Return what need not be looked into after a restart either."""
        return [copy for copy in self._copies.values() if self._is_sealed(copy.key)]
