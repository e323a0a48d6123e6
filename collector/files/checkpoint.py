"""The collector's memory across restarts: how far each file is acknowledged by the topic.

File states go in; a CRC-checked JSON file comes out, written aside, fsynced and renamed, with the
one before it kept. It never runs ahead of the topic, so losing it costs duplicates, never lines.
"""

import logging
from pathlib import Path

import msgspec

from collector.checksum import checked_body, with_checksum
from collector.durable import replace_file
from collector.errors import CheckpointError
from collector.file_names import CHECKPOINT, PREVIOUS_CHECKPOINT
from collector.wire.range import Stream

_HEAD = b"everyline checkpoint 1 "
TAIL_BYTES = 256
"""How many bytes before the offset are kept, to see that a file is still the same."""

FileKey = tuple[bytes, int]
"""What tells a file from every other: its id and epoch."""

_log = logging.getLogger(__name__)


class Mark(msgspec.Struct, frozen=True):
    """A place in a file and all that is needed to go on from there."""

    offset: int = 0
    crc: int = 0
    lines: int = 0
    open_outputs: int = 0
    torn: bool = False
    tail: bytes = b""


class FileState(msgspec.Struct, kw_only=True):
    """One file as far as the topic has acknowledged it: everything before ``acked``.

    The spool has it up to ``spooled``, where that lies beyond.
    """

    file_id: bytes
    epoch: int
    namespace: str
    pod: str
    pod_uid: str
    container: str
    restart: int
    partition: int
    path: str
    born_ns: int = 0  # the time of its first line; 0: not known
    acked: int = 0
    crc: int = 0
    lines: int = 0
    open_outputs: int = 0
    torn: bool = False
    tail: bytes = b""
    spooled: Mark | None = None
    size: int = 0  # the largest size seen
    moved: bool = False  # renamed or unlinked: nobody writes to it for long
    sealed: bool = False
    missed_ns: int = 0  # since when error-free scans have missed it; 0: it was there

    @property
    def key(self) -> FileKey:
        """Return what tells the file from every other."""
        return self.file_id, self.epoch

    @property
    def stream(self) -> Stream:
        """Return the stream that wrote the file."""
        return Stream.of(self)

    @property
    def spooled_mark(self) -> Mark:
        """Up to where the topic or the spool has the file."""
        return self.spooled or self.mark

    @property
    def mark(self) -> Mark:
        """Up to where the topic has the file."""
        return Mark(self.acked, self.crc, self.lines, self.open_outputs, self.torn, self.tail)

    def acknowledge(self, offset: int) -> None:
        """Note that the topic has everything before ``offset``, of what the spool had."""
        if self.spooled is not None and self.spooled.offset <= offset:
            mark, self.spooled = self.spooled, None
            self.acked, self.crc, self.lines = mark.offset, mark.crc, mark.lines
            self.open_outputs, self.torn, self.tail = mark.open_outputs, mark.torn, mark.tail

    def distrust_spool(self) -> None:
        """Forget what only the spool has: it is to be read again, or missing."""
        if self.spooled is not None:
            self.spooled, self.sealed = None, False


class CopyState(msgspec.Struct, frozen=True):
    """A file of that inode holds nothing but what was read as the file ``key``.

    That is so as long as it has this size on disk and this time of modification.
    """

    inode: tuple[int, int]
    size: int
    mtime_ns: int
    key: FileKey


class LaneState(msgspec.Struct):
    """Every number of the lane below ``oldest_unacked`` is in the topic."""

    partition: int
    oldest_unacked: int


class Checkpoint(msgspec.Struct, kw_only=True):
    """What one run has left behind."""

    run: bytes = b""
    partitions: list[tuple[int, int]] = []  # from when (ns) how many of the topic are in use
    spool: list[tuple[int, int]] = []  # first and last of runs of positions that are there
    scan_began_ns: int = 0
    lanes: list[LaneState] = []
    files: list[FileState] = []
    copies: list[CopyState] = []  # of those that are sealed


def save(directory: Path, checkpoint: Checkpoint) -> None:
    """Make ``checkpoint`` the one to be loaded; raise OSError if the disk refuses.

    After an error, or a crash at any point, the previous one is still there.
    """
    body = msgspec.json.encode(checkpoint)
    content = with_checksum(_HEAD, body)
    replace_file(directory / CHECKPOINT, content, previous=directory / PREVIOUS_CHECKPOINT)


def decode(data: bytes) -> Checkpoint | None:
    """Return the checkpoint that ``save`` has written as ``data``; None if it is damaged.

    Raises msgspec.DecodeError for a whole one of another version.
    """
    body = checked_body(_HEAD, data)
    return None if body is None else msgspec.json.decode(body, type=Checkpoint)


def load(directory: Path) -> Checkpoint | None:
    """Return the newest checkpoint that is whole; None if there is none.

    A damaged one is named in the log, and the previous one is taken: files are then read again
    from where that one stands, and what is sent twice is trimmed by the indexer.
    """
    for name in (CHECKPOINT, PREVIOUS_CHECKPOINT):
        path = directory / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error
        try:
            checkpoint = decode(data)
        except msgspec.DecodeError as error:
            raise CheckpointError(
                f"{path} was written by another version: {error}; move it away to read every "
                "file again"
            ) from error
        if checkpoint is not None:
            return checkpoint
        _log.error("checkpoint is damaged; taking an older one", extra={"path": str(path)})
    return None
