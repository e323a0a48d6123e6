"""A topic in a local directory: CRC-framed, fsynced files, for one machine without servers.

Several processes may append (a lock per partition orders them) while others read. A torn tail is
never acknowledged and is cut off by the next append; a damaged frame in the middle is skipped, so
its position is missing and readers can tell.
"""

import asyncio
import errno
import json
import logging
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from collector.durable import locked, replace_file, sync_directory
from collector.errors import BatchTooLarge, PositionOutOfRange, TopicMissing, TopicUnavailable
from collector.file_names import LOCK, TOPIC, log_name, log_position
from collector.topic.interface import Headers, Membership, Record, TopicLimits
from collector.topic.record_frame import FRAME_BYTES_MIN, frame, frames

FILE_BYTES = 64 << 20
VALUE_BYTES_MAX = 16 << 20
QUEUED_BYTES_MAX = 32 << 20
_POLL_S = 0.05
_RETRY_S = 1.0

_log = logging.getLogger(__name__)


def _bases(directory: Path) -> list[int]:
    """Return the first positions of the partition's files, in order; other files are nobody's."""
    positions = map(log_position, os.listdir(directory))
    return sorted(position for position in positions if position is not None)


def _file(directory: Path, base: int) -> Path:
    return directory / log_name(base)


@dataclass
class _Tail:
    """Where this process believes the partition's last file ends."""

    base: int = -1
    size: int = 0
    position: int = 0


@dataclass
class _Head:
    """Where a reader stands: the file, the byte in it, and the next position."""

    position: int
    base: int
    offset: int


@dataclass
class _Partition:
    directory: Path
    tail: _Tail = field(default_factory=_Tail)
    head: _Head | None = None
    queue: list[tuple[Headers, bytes, "asyncio.Future[int]"]] = field(default_factory=list)
    writer: "asyncio.Task[None] | None" = None


class _Alone:
    """The only member of its group: one machine has one reader."""

    def __init__(self, topic: "LocalTopic") -> None:
        self._topic = topic

    async def mine(self) -> frozenset[int]:
        """Return all partitions."""
        return frozenset(range(await self._topic.partitions()))

    async def tell(self, positions: Mapping[int, int]) -> None:
        """Do nothing: nobody watches."""

    async def leave(self) -> None:
        """Do nothing: nobody waits."""


class LocalTopic:
    """A Topic in a directory; made on first use with ``partitions`` partitions, unless 0."""

    dense = True

    def __init__(self, root: str | Path, *, partitions: int = 1) -> None:
        self._root = Path(root)
        self._wanted = partitions
        self._queued_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self.trouble = ""
        self._id = ""
        self._partitions: list[_Partition] = []

    def _open(self) -> list[_Partition]:
        if self._partitions:
            return self._partitions
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            about = self._root / TOPIC
            with locked(self._root / LOCK):
                if not about.exists() and not self._wanted:
                    raise TopicUnavailable(f"no topic in {self._root} yet; start a collector")
                if not about.exists():
                    made = {"id": uuid.uuid4().hex, "partitions": self._wanted}
                    replace_file(about, json.dumps(made).encode(), mode=0o666)
            try:
                known = json.loads(about.read_text())
                self._id, count = str(known["id"]), int(known["partitions"])
            except (ValueError, KeyError, TypeError) as error:
                raise TopicUnavailable(f"{about} is damaged: {error!r}; put it back") from error
            for number in range(count):
                directory = self._root / str(number)
                directory.mkdir(exist_ok=True)
                self._partitions.append(_Partition(directory))
        except OSError as error:
            raise TopicUnavailable(f"cannot open the topic in {self._root}: {error}") from error
        return self._partitions

    def _partition(self, number: int) -> _Partition:
        partitions = self._open()
        if not 0 <= number < len(partitions):
            raise TopicMissing(f"the topic in {self._root} has no partition {number}")
        return partitions[number]

    async def identity(self) -> str:
        """Return the id that was drawn when the directory was made."""
        self._open()
        return self._id

    async def partitions(self) -> int:
        """Return the number of partitions."""
        return len(self._open())

    async def limits(self) -> TopicLimits:
        """Return the largest value of a record: what a reader can be asked to hold."""
        self._open()
        return TopicLimits(VALUE_BYTES_MAX)

    async def append(self, partition: int, value: bytes, headers: Headers) -> "asyncio.Future[int]":
        """Queue a record; its future is done after the fsync that holds it."""
        part = self._partition(partition)
        while self._queued_bytes >= QUEUED_BYTES_MAX:
            self._room.clear()
            await self._room.wait()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if len(value) > VALUE_BYTES_MAX:
            future.set_exception(BatchTooLarge(len(value)))
            return future
        part.queue.append((headers, value, future))
        self._queued_bytes += len(value)
        if part.writer is None or part.writer.done():
            part.writer = asyncio.create_task(self._write(part))
        return future

    async def _write(self, part: _Partition) -> None:
        """Write out the queue, one fsync for all that is queued; wait out a full disk.

        After anything else that fails all that is queued is refused: nobody would write it.
        """
        try:
            await self._write_out(part)
        except Exception as error:
            _log.exception("topic cannot be written")
            self._give_up(part, TopicUnavailable(f"cannot write to {part.directory}: {error!r}"))
        finally:
            self._give_up(part, None)

    def _give_up(self, part: _Partition, error: TopicUnavailable | None) -> None:
        """Refuse what is queued with an error; without one, let nobody wait for it any more."""
        queued, part.queue = part.queue, []
        for _, value, future in queued:
            self._queued_bytes -= len(value)
            if future.done():
                continue
            if error is None:
                future.cancel()
            else:
                future.set_exception(error)
        self._room.set()

    async def _write_out(self, part: _Partition) -> None:
        while part.queue:
            taken = part.queue[:]
            try:
                first = await asyncio.to_thread(_append, part, [(h, v) for h, v, _ in taken])
            except OSError as error:
                if str(error) != self.trouble:
                    self.trouble = str(error)
                    _log.error("topic cannot be written; retrying", extra={"error": self.trouble})
                await asyncio.sleep(_RETRY_S)
                continue
            if self.trouble:
                self.trouble = ""
                _log.info("topic can be written again")
            del part.queue[: len(taken)]
            for i, (_, value, future) in enumerate(taken):
                self._queued_bytes -= len(value)
                if not future.done():
                    future.set_result(first + i)
            self._room.set()

    async def bounds(self, partition: int) -> tuple[int, int]:
        """Return the first and the next position."""
        return await asyncio.to_thread(_bounds, self._partition(partition))

    async def read(
        self, positions: Mapping[int, int], bytes_max: int, wait_ms: int
    ) -> dict[int, list[Record]]:
        """Return records from each position on; missing positions are simply not there."""
        until = time.monotonic() + wait_ms / 1000
        while True:
            found = {}
            for number, position in positions.items():
                part = self._partition(number)
                records = await asyncio.to_thread(_read, part, number, position, bytes_max)
                if records:
                    found[number] = records
            if found or time.monotonic() >= until:
                return found
            await asyncio.sleep(_POLL_S)

    def join(self, group: str, session_ms: int) -> Membership:
        """Return the only place that there is, whatever the group."""
        return _Alone(self)

    async def forget(self, partition: int, before: int) -> None:
        """Delete the files whose records all lie below ``before - 1``."""
        part = self._partition(partition)
        bases = _bases(part.directory)
        for base, following in pairwise(bases):
            if following < before:
                _file(part.directory, base).unlink(missing_ok=True)

    async def close(self) -> None:
        """Wait for what is queued, unless the disk refuses it."""
        writers = [part.writer for part in self._partitions if part.writer is not None]
        if writers:
            await asyncio.wait(writers, timeout=_RETRY_S)
            for writer in writers:
                writer.cancel()
        self._partitions = []


def _alone(part: _Partition) -> AbstractContextManager[None]:
    """Keep every other thread and process from the partition's end."""
    return locked(part.directory / LOCK)


def _append(part: _Partition, records: list[tuple[Headers, bytes]]) -> int:
    """Write and fsync records at the partition's end; return the first one's position."""
    with _alone(part):
        tail = _find_tail(part)
        if tail.size >= FILE_BYTES:
            tail = _Tail(base=tail.position, position=tail.position)
        path = _file(part.directory, tail.base)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if tail.size == 0:
                sync_directory(part.directory)
            data = b"".join(
                frame(tail.position + i, headers, value)
                for i, (headers, value) in enumerate(records)
            )
            try:
                written = os.pwrite(fd, data, tail.size)
                if written < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                os.fdatasync(fd)
            except OSError:
                os.ftruncate(fd, tail.size)
                raise
        finally:
            os.close(fd)
        first = tail.position
        part.tail = _Tail(tail.base, tail.size + len(data), first + len(records))
        return first


def _find_tail(part: _Partition) -> _Tail:
    """Return where the partition ends; the caller holds the lock, so a torn tail is cut off."""
    bases = _bases(part.directory)
    if not bases:
        return _Tail(base=0)
    tail = part.tail
    path = _file(part.directory, bases[-1])
    size = path.stat().st_size
    if (tail.base, tail.size) == (bases[-1], size):
        return tail
    at, position = (tail.size, tail.position) if tail.base == bases[-1] else (0, bases[-1])
    if size < at:
        at, position = 0, bases[-1]
    with path.open("rb") as file:
        file.seek(at)
        data = file.read()
    end = 0
    for record, frame_end in frames(data):
        end, position = frame_end, record.position + 1
    if at + end < size:
        os.truncate(path, at + end)
    part.tail = _Tail(bases[-1], at + end, position)
    return part.tail


def _bounds(part: _Partition) -> tuple[int, int]:
    with _alone(part):
        tail = _find_tail(part)
        bases = _bases(part.directory)
        return (bases[0] if bases else 0), tail.position


def _read(part: _Partition, number: int, position: int, bytes_max: int) -> list[Record]:
    """Return the records from ``position`` on that lie in one file."""
    head = part.head
    if head is None or head.position != position:
        head = _seek(part, number, position)
    while True:
        # Listed before the read: what follows then is proof that nobody appends here any more.
        following = [base for base in _bases(part.directory) if base > head.base]
        try:
            found = _read_frames(_file(part.directory, head.base), head.offset, bytes_max)
        except FileNotFoundError:  # forgotten meanwhile, perhaps up to this very position
            head = _seek(part, number, position)
            if not _file(part.directory, head.base).exists():
                return []
            continue
        records = [record for record, _ in found if record.position >= position]
        if found:
            head.offset += found[-1][1]
        if records:
            part.head = _Head(records[-1].position + 1, head.base, head.offset)
            return records
        if not found:
            if not following:
                part.head = head
                return []
            head = _Head(position, following[0], 0)


def _read_frames(path: Path, offset: int, bytes_max: int) -> list[tuple[Record, int]]:
    """Return the frames that start within ``bytes_max`` from ``offset`` on, at least one.

    None only if there is none up to the file's end; a long damaged part is read over.
    """
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(max(bytes_max, FRAME_BYTES_MIN))
        while True:
            found = list(frames(data))
            if found:
                return found
            more = file.read(max(len(data), 1 << 20))
            if not more:
                return []
            data += more


def _seek(part: _Partition, number: int, position: int) -> _Head:
    bases = _bases(part.directory)
    start, end = _bounds(part)
    if not start <= position <= end:
        raise PositionOutOfRange(number, position)
    base = max((base for base in bases if base <= position), default=0)
    return _Head(position, base, 0)
