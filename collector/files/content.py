"""The bytes of a log file, whether they lie there plain or the kubelet has compressed them.

A path that a scan has seen goes in; out come bytes by their offset in the plain text, so that a
file keeps its offsets when it is compressed. A compressed file is read forwards and never grows.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Protocol

from isal import igzip_lib, isal_zlib

from collector.files.birth import birth_ns

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

    def born(self) -> bytes:
        """Return what tells the file on disk from every other, whatever it holds."""
        ...

    def close(self) -> None:
        """Give the file back."""
        ...


def open_content(path: Path, inode: tuple[int, int], *, compressed: bool) -> Content | None:
    """Return the content of the file that a scan saw; None if another is there by now.

    ``path`` has no link in it. Whoever may write to a directory on the way may put one there after
    the scan, so the kernel is asked where the open file lies.
    """
    try:
        fd = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        status = os.fstat(fd)
        same = stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) == inode
        if same and os.readlink(f"/proc/self/fd/{fd}") == str(path):
            return GzipContent(fd) if compressed else PlainContent(fd)
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return None


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

    def born(self) -> bytes:
        """Return its inode and its time of birth."""
        return _born(self._fd)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


class GzipContent:
    """A file that was compressed; reading backwards starts it again."""

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

    def born(self) -> bytes:
        """Return its inode and its time of birth."""
        return _born(self._fd)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


def _born(fd: int) -> bytes:
    status, birth = os.fstat(fd), birth_ns(fd)
    # The number of a device may be another after a reboot: it only serves where birth is unknown.
    return f"{status.st_ino} {f'on {status.st_dev}' if birth is None else birth}".encode()


def _damaged(why: str) -> OSError:
    return OSError(errno.EBADMSG, f"the compressed file is damaged: {why}")
