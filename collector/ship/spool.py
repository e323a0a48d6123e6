"""Finished batches on the node's disk, while the topic is slow or away.

Batches go in and survive a crash once ``put`` returns; they come out in the order in which they
went in. One file a batch, framed as in the local topic, so that any of them can be
taken out or replaced by a smaller one at once.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from collector.durable import replace_file
from collector.file_names import log_name, log_position
from collector.topic.interface import Headers, Record
from collector.topic.record_frame import frame, frames

_log = logging.getLogger(__name__)


class Spool:
    """A directory of batches; ``bytes`` is what their files hold."""

    def __init__(self, directory: Path) -> None:
        """``directory`` is made when the first batch comes."""
        self._directory = directory
        self._sizes: dict[int, int] = {}
        self._next = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def runs(self, *, without: Set[int] = frozenset()) -> list[tuple[int, int]]:
        """Return what is there as runs, first and last position."""
        found: list[tuple[int, int]] = []
        for position in sorted(self._sizes.keys() - without):
            if found and found[-1][1] == position - 1:
                found[-1] = (found[-1][0], position)
            else:
                found.append((position, position))
        return found

    def recover(self, expected: Iterable[tuple[int, int]]) -> tuple[list[Record], int]:
        """Return what a run before has left, without the values, and how many batches are lost.

        ``expected`` are the positions that were there for certain. Raises OSError if the directory
        cannot be read.
        """
        found = []
        lost = {p for first, last in expected for p in range(first, last + 1)}
        self._next = max(lost, default=-1) + 1
        for path, position in sorted(self._files()):
            if path.suffix == ".tmp":
                path.unlink()
                continue
            self._next = max(self._next, position + 1)
            data = path.read_bytes()
            record = next((record for record, _ in frames(data)), None)
            if record is None or record.position != position:
                # A file that was being written as the machine stopped was never relied upon.
                _log.error("a spooled batch is damaged", extra={"path": str(path)})
                path.unlink()
                continue
            lost.discard(position)
            self._note(position, len(data))
            found.append(Record(position, b"", record.headers))
        return found, len(lost)

    def _files(self) -> Iterator[tuple[Path, int]]:
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._directory):
                position = log_position(name.removesuffix(".tmp"))
                if position is not None:  # others are not ours
                    yield self._directory / name, position

    def _note(self, position: int, size: int) -> None:
        self.bytes += size - self._sizes.get(position, 0)
        self._sizes[position] = size

    def put(self, value: bytes, headers: Headers) -> int:
        """Write a batch; return its position once it is there. Raises OSError: it is not."""
        self._directory.mkdir(exist_ok=True)
        position = self._next
        self._next += 1
        self._write(position, value, headers)
        return position

    def replace(self, record: Record) -> None:
        """Put another batch in the place of one. Raises OSError: the one before is still there."""
        self._write(record.position, record.value, record.headers)

    def _write(self, position: int, value: bytes, headers: Headers) -> None:
        data = frame(position, headers, value)
        replace_file(self._path(position), data)
        self._note(position, len(data))

    def size(self, position: int) -> int:
        """Return the bytes of a batch's file; 0 if it is not there."""
        return self._sizes.get(position, 0)

    def get(self, position: int) -> Record | None:
        """Return a batch; None if it is damaged or no longer there."""
        with contextlib.suppress(OSError):
            for record, _ in frames(self._path(position).read_bytes()):
                return record
        return None

    def forget(self, positions: Iterable[int]) -> None:
        """Take batches out; the files of those that a crash brings back are sent again."""
        for position in positions:
            with contextlib.suppress(OSError):
                self._path(position).unlink(missing_ok=True)
            self.bytes -= self._sizes.pop(position, 0)

    def _path(self, position: int) -> Path:
        return self._directory / log_name(position)
