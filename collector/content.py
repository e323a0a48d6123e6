"""The bytes of a log file, whether they lie there plain or the kubelet has compressed them.

A path that a scan has seen goes in; out come bytes by their offset in the plain text, so that a
file keeps its offsets when it is compressed. A compressed file is read forwards and never grows.
"""

import errno
import os
from pathlib import Path
from typing import Protocol

from isal import igzip_lib, isal_zlib

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK_BYTES = 64 << 10
_STEP_BYTES = 1 << 20  # decompressed at a time: a small file may hold gigabytes of zeros
_KEPT_BYTES = 4 << 10  # before the last offset, for a look back


class Content(Protocol):
    """What a file holds; every method raises OSError if it cannot be read."""

    def size(self) -> int:
        """Return how many plain bytes there are, as far as it is known."""
        ...

    def read(self, length: int, offset: int) -> bytes:
        """Return up to ``length`` plain bytes from ``offset`` on."""
        ...

    def close(self) -> None:
        """Give the file back."""
        ...


def open_content(path: Path, inode: tuple[int, int], *, compressed: bool) -> Content | None:
    """Return the content of the file that a scan saw; None if another is there by now."""
    try:
        fd = os.open(path, _OPEN_FLAGS)
    except FileNotFoundError:
        return None
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) != inode:
        os.close(fd)
        return None
    return GzipContent(fd) if compressed else PlainContent(fd)


class PlainContent:
    """A file as it is."""

    def __init__(self, fd: int) -> None:
        """Take over an open file."""
        self._fd = fd

    def size(self) -> int:
        """Return its size now: a seek costs a third of a stat, and idle files cost nothing else."""
        return os.lseek(self._fd, 0, os.SEEK_END)

    def read(self, length: int, offset: int) -> bytes:
        """Return what is there."""
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


class GzipContent:
    """A file that the kubelet has compressed; reading backwards starts it again."""

    def __init__(self, fd: int) -> None:
        """Take over an open file."""
        self._fd = fd
        self._size = -1
        self._rewind()

    def _rewind(self) -> None:
        self._inflate, self._begun = isal_zlib.decompressobj(wbits=31), False
        self._at = 0  # next compressed byte
        self._held = bytearray()
        self._start = 0  # plain offset of what is held
        self._ended = False

    def size(self) -> int:
        """Return the plain size, after a pass over the whole file that checks its checksum.

        A damaged byte is often noticed at the end only, so nothing is given out before.
        """
        if self._size < 0:
            self._rewind()
            while not self._ended:
                self._step(self._start + len(self._held))
            self._size = self._start + len(self._held)
            self._rewind()
        return self._size

    def stated_size(self) -> int:
        """Return the plain size modulo 4 GiB that the file states at its end (RFC 1952)."""
        last = os.pread(self._fd, 4, max(0, os.fstat(self._fd).st_size - 4))
        return int.from_bytes(last, "little")

    def read(self, length: int, offset: int) -> bytes:
        """Return a part of the plain text."""
        if offset < self._start:
            self._rewind()
        while not self._ended and self._start + len(self._held) < offset + length:
            self._step(offset)
        begin = offset - self._start
        return bytes(self._held[begin : begin + length])

    def _step(self, offset: int) -> None:
        """Decompress a little more, and let go of what lies far before ``offset``."""
        data = self._inflate.unconsumed_tail
        if self._inflate.eof:  # another member may follow
            data = self._inflate.unused_data
            self._inflate, self._begun = isal_zlib.decompressobj(wbits=31), False
        if not data:
            data = os.pread(self._fd, _CHUNK_BYTES, self._at)
            self._at += len(data)
        self._begun = self._begun or bool(data)
        try:
            plain = self._inflate.decompress(data, _STEP_BYTES)
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub lacks the base
            raise _damaged(str(error)) from error
        self._held += plain
        if not data and not plain:
            if self._begun and not self._inflate.eof:
                raise _damaged("it ends too early")
            self._ended = True
        gone = max(0, min(offset - _KEPT_BYTES - self._start, len(self._held)))
        del self._held[:gone]
        self._start += gone

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


def _damaged(why: str) -> OSError:
    return OSError(errno.EBADMSG, f"the compressed file is damaged: {why}")
