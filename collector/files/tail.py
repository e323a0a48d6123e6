"""Reading one file: from the bytes on disk to ranges that end where an event ends.

A Tail holds its file open, so rename and unlink do not matter; it gives out contiguous ranges and
remembers, for each that is not yet acknowledged, the state after it. What it calls acknowledged
was acknowledged without a hole.
"""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from collector.checksum import crc32
from collector.files.checkpoint import TAIL_BYTES, FileKey, FileState, Mark
from collector.files.content import Content, open_content
from collector.files.discover import FoundFile
from collector.files.life_cycle import LifeCycle, Stage
from collector.wire.range import (
    FIRST_LINE_BYTES,
    Range,
    Stream,
    closed_cut,
    file_id,
    open_outputs,
)

_MOVED_STAGES = (Stage.MOVED, Stage.ENDED, Stage.SEALING)
_SPOOLED_MARKS = 8


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """``read_bytes`` a turn; an event longer than ``event_bytes`` or older than ``event_wait_ns``
    is cut open.
    """

    read_bytes: int
    event_bytes: int
    event_wait_ns: int


@dataclass(slots=True)
class Tail:
    """One file that is held open, and the stage of its life."""

    path: Path
    stream: Stream
    inode: tuple[int, int]
    content: Content
    compressed: bool
    format: str
    life: LifeCycle = field(default_factory=LifeCycle)
    file_id: bytes = b""  # empty as long as it is UNBORN
    epoch: int = 0
    partition: int = 0
    born_ns: int = 0  # the time of its first line; 0: not known
    size: int = 0  # at the last scan
    size_max: int = 0  # the largest that was seen with the content that was read
    read_mark: Mark = field(default_factory=Mark)
    acked_mark: Mark = field(default_factory=Mark)
    unacked_marks: deque[Mark] = field(default_factory=deque)
    spooled_offset: int = 0  # the spool has everything before it
    waiting_since_ns: int = 0  # an event or a line is open at the end since then
    moved_ns: int = 0  # renamed or unlinked since then
    linked: bool = True
    grown_ns: int = 0
    noted_bytes: int = 0  # the size when the growth of its container was last noted
    failure: str = ""  # why it could not be read when that was last tried
    opened_at: tuple[int, int] = (-1, 0)  # size on disk and time of modification

    @property
    def stage(self) -> Stage:
        """Return the stage of its life."""
        return self.life.stage

    @property
    def key(self) -> FileKey:
        """Return what tells the file from every other, once it is born."""
        return self.file_id, self.epoch

    def close(self) -> None:
        """Give the file back."""
        self.content.close()

    def state(self) -> FileState:
        """Return what a checkpoint keeps of the file."""
        spooled = self.spooled_mark
        return FileState(
            file_id=self.file_id,
            epoch=self.epoch,
            namespace=self.stream.namespace,
            pod=self.stream.pod,
            pod_uid=self.stream.pod_uid,
            container=self.stream.container,
            restart=self.stream.restart,
            partition=self.partition,
            path=str(self.path),
            born_ns=self.born_ns,
            acked=self.acked_mark.offset,
            crc=self.acked_mark.crc,
            lines=self.acked_mark.lines,
            open_outputs=self.acked_mark.open_outputs,
            torn=self.acked_mark.torn,
            tail=self.acked_mark.tail,
            spooled=None if spooled is self.acked_mark else spooled,
            size=self.size_max,
            moved=bool(self.moved_ns),
        )

    def take_name(self, life: LifeCycle, file_id: bytes, epoch: int) -> None:
        """Take its name, and the life that goes on with it: its own, or that of an earlier one."""
        life.become(Stage.MOVED if self.moved_ns else Stage.FOLLOWED)
        self.life, self.file_id, self.epoch = life, file_id, epoch

    def resume(self, state: FileState) -> bool:
        """Go on from ``state``; return False, and change nothing, if the content is another."""
        fresh = self.read_mark
        self.read_mark = state.spooled_mark
        if not is_same_content(self):
            self.read_mark = fresh
            return False
        self.acked_mark = state.mark
        if state.spooled is not None:
            self.unacked_marks.append(self.read_mark)
            self.note_spooled(self.read_mark.offset)
        self.partition = state.partition
        self.born_ns = state.born_ns
        self.size_max = max(self.size_max, state.size)
        return True

    def begin_anew(self) -> None:
        """Take what is on disk now for another file: what was read of it is no longer there."""
        self.life = LifeCycle()
        self.file_id, self.epoch = b"", 0
        self.read_mark, self.acked_mark = Mark(), Mark()
        self.unacked_marks.clear()
        self.spooled_offset = 0
        self.size = self.size_max = self.content.size()

    def was_found(self, found: FoundFile, now_ns: int) -> bool:
        """Bring it up to what a scan saw of it; return whether that is any news."""
        size = self.size if self.compressed else self.content.size()
        if size == self.size and found.path is self.path and self.linked:
            return False  # nothing but this for thousands of idle files, every scan
        self.note_size(size, now_ns)
        self.path, self.linked = found.path, True
        self.moved_ns = (self.moved_ns or now_ns) if found.rotated else 0
        if found.rotated and self.stage is Stage.FOLLOWED:
            self.life.become(Stage.MOVED)
        elif not found.rotated and self.stage in _MOVED_STAGES:
            self.life.become(Stage.FOLLOWED)
        return True

    def was_missed(self, now_ns: int) -> bool:
        """Note that a scan has not found its file; return whether that is any news."""
        news = self.note_size(self.content.size(), now_ns)
        if self.linked:
            self.linked, self.grown_ns, news = False, now_ns, True
            self.moved_ns = self.moved_ns or now_ns
            if self.stage in (Stage.FOLLOWED, Stage.ENDED):
                self.life.become(Stage.MOVED)
        return news

    def note_size(self, size: int, now_ns: int) -> bool:
        """Note its size now; return whether that is any news."""
        if size == self.size:
            return False
        self.size, self.grown_ns = size, now_ns
        if self.stage in (Stage.ENDED, Stage.SEALING):
            self.life.become(Stage.MOVED)
        return True

    def has_ended(self, now_ns: int, quiet_ns: int) -> bool:
        """Return whether nobody can still be writing to it, having been quiet for so long."""
        if self.stage in (Stage.UNBORN, Stage.MOVED):
            quiet_since = max(self.moved_ns, self.grown_ns)
            ended = bool(self.moved_ns) and now_ns - quiet_since >= quiet_ns
            if ended and self.stage is Stage.MOVED:
                self.life.become(Stage.ENDED)
            return ended
        return self.stage in (Stage.ENDED, Stage.SEALING)

    def acknowledge(self, offset: int) -> None:
        """Note that everything before ``offset`` is in the topic."""
        while self.unacked_marks and self.unacked_marks[0].offset <= offset:
            self.acked_mark = self.unacked_marks.popleft()

    @property
    def spooled_mark(self) -> Mark:
        """Up to where the topic or the spool has the file."""
        for mark in reversed(self.unacked_marks):
            if mark.offset <= self.spooled_offset:
                return mark
        return self.acked_mark

    def note_spooled(self, offset: int) -> None:
        """Note that everything before ``offset`` is in the spool."""
        self.spooled_offset = max(self.spooled_offset, offset)
        spooled = [mark for mark in self.unacked_marks if mark.offset <= offset]
        if len(spooled) > _SPOOLED_MARKS:  # an outage of hours would leave one for each batch
            rest = list(self.unacked_marks)[len(spooled) :]
            self.unacked_marks = deque([*spooled[::-2][::-1], *rest])


def open_file(found: FoundFile, now_ns: int) -> Tail | None:
    """Return a tail of the file that a scan saw then; None if another is there by now.

    Raises OSError if the file cannot be opened.
    """
    content = open_content(found.real, found.inode, compressed=found.compressed)
    if content is None:
        return None
    size = 0 if found.compressed else content.size()  # a whole pass: only if it is to be read
    return Tail(
        path=found.path,
        stream=found.stream,
        inode=found.inode,
        content=content,
        compressed=found.compressed,
        format=found.format,
        size=size,
        size_max=size,
        noted_bytes=size,
        moved_ns=now_ns if found.rotated else 0,
        grown_ns=now_ns,
        opened_at=(found.size, found.mtime_ns),
    )


def first_line(tail: Tail, *, ended: bool = False) -> bytes | None:
    """Return what names the file: its first complete line, or as much of it as counts.

    None while the line is not complete, but the whole content if the file has ``ended``.
    """
    most = FIRST_LINE_BYTES[tail.format]
    head = tail.content.read(min(most, 4096), 0)  # all files are named at once, and lines are short
    if len(head) == 4096 and b"\n" not in head:
        head = tail.content.read(most, 0)
    line, newline, _ = head.partition(b"\n")
    return line if newline or len(head) == most or (ended and head) else None


def name_of(cluster: str, node: str, tail: Tail, line: bytes) -> bytes:
    """Return the ``file_id`` of a file whose first line is known."""
    born = tail.content.born() if tail.format == "plain" else b""
    return file_id(cluster, node, tail.stream, line, tail.format, born)


def is_same_content(tail: Tail) -> bool:
    """Return whether the bytes before the read offset are still those that were read."""
    mark = tail.read_mark
    if tail.content.size() < mark.offset:
        return False
    return tail.content.read(len(mark.tail), mark.offset - len(mark.tail)) == mark.tail


def read_range(tail: Tail, limits: ReadLimits, now_ns: int, *, ended: bool = False) -> Range | None:
    """Return the next range of the file, None if there is none to give out yet.

    ``ended``: nobody will write to the file again, so its rest goes as it is. Raises OSError if
    the file cannot be read.
    """
    data = tail.content.read(limits.read_bytes, tail.read_mark.offset)
    tail.failure = ""
    if not data:
        tail.waiting_since_ns = 0
        return None
    length, state = _cut(data, tail, closed=True)
    if not length and len(data) == limits.read_bytes:
        data = tail.content.read(limits.event_bytes, tail.read_mark.offset)
        length, state = _cut(data, tail, closed=True)
    if not length:
        tail.waiting_since_ns = tail.waiting_since_ns or now_ns
        # A clock that was set back must not make it wait until the old time comes again.
        waited = not 0 <= now_ns - tail.waiting_since_ns < limits.event_wait_ns
        if not (ended or waited or len(data) >= limits.event_bytes):
            return None
        length, state = _cut(data, tail, closed=False)
    tail.waiting_since_ns = 0
    return _take(tail, data[:length] if length < len(data) else data, state)


def _cut(data: bytes, tail: Tail, *, closed: bool) -> tuple[int, int]:
    """Return how much of ``data`` to take and which outputs are open after it.

    ``closed``: only up to where every event is closed, 0 if nowhere; else up to the last newline,
    or everything if there is none.
    """
    head, mark = 0, tail.read_mark
    if mark.torn:  # what comes first is the rest of a line that was cut before
        head = data.find(b"\n") + 1
        if not head:
            return (0 if closed else len(data)), mark.open_outputs
    length = data.rfind(b"\n") + 1
    body = data[head:] if head else data
    if closed:
        cut = closed_cut(body, mark.open_outputs, length - head, tail.format)
        return (head + cut, 0) if cut or not mark.open_outputs else (0, 0)
    length = length or len(data)
    return length, open_outputs(body, mark.open_outputs, length - head, tail.format)


def _take(tail: Tail, data: bytes, state: int) -> Range:
    mark = tail.read_mark
    taken = Range(
        file_id=tail.file_id,
        epoch=tail.epoch,
        start=mark.offset,
        data=data,
        lines=_newlines(data),
        crc_before=mark.crc,
        open_before=mark.open_outputs,
        open_after=state,
        torn_before=mark.torn,
        format=tail.format,
    )
    tail.read_mark = Mark(
        offset=taken.end,
        crc=crc32(data, mark.crc),
        lines=mark.lines + taken.lines,
        open_outputs=state,
        torn=not data.endswith(b"\n"),
        tail=(mark.tail + data[-TAIL_BYTES:])[-TAIL_BYTES:],
    )
    tail.unacked_marks.append(tail.read_mark)
    return taken


def _newlines(data: bytes) -> int:
    # On lines of more than a few bytes `replace` is two to four times as fast as `count`: it goes
    # from one newline to the next by memchr.
    return len(data) - len(data.replace(b"\n", b""))
