"""The bytes of a log file, whether they lie there plain or the kubelet has compressed them.

A path that a scan has seen goes in; out come bytes by their offset in the plain text, so that a
file keeps its offsets when it is compressed. A compressed file is read forwards and never grows; of
a damaged one, what can be decompressed is there, and it says that there may have been more.
"""

import contextlib
import errno
import os
import stat
import zlib
from pathlib import Path
from typing import Any, Protocol

from isal import igzip_lib, isal_zlib

from collector.files.birth import birth_ns

_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK_BYTES = 64 << 10
_STEP_BYTES = 1 << 20  # decompressed at a time: a small file may hold gigabytes of zeros
_KEPT_BYTES = 4 << 10  # before the last offset, for a look back
_HEAD_BYTES = 256
_MAGIC = b"\x1f\x8b"
_GARBAGE = "what follows its end is not compressed"


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
    """A file that was compressed, of which what can be decompressed is there.

    Reading backwards starts it again.
    """

    def __init__(self, fd: int) -> None:
        """Take over an open file."""
        self._fd = fd
        self._size = -1
        self._damage = ""
        self._careful = False
        self._rewind()

    def _rewind(self) -> None:
        self._inflate = self._new()
        self._begun = False  # the member, which may be cut short
        self._at = 0  # next compressed byte
        self._held = bytearray()
        self._start = 0  # plain offset of what is held
        self._lines_end = 0  # plain offset behind the last newline so far
        self._ended = False

    def _new(self) -> Any:
        """Return what decompresses a member: fast, or so that nothing before a damage is lost."""
        return zlib.decompressobj(31) if self._careful else isal_zlib.decompressobj(wbits=31)

    def size(self) -> int:
        """Return the plain size, after a pass over the whole file that checks its checksum.

        Of a damaged file that is what lies before the damage, up to its last whole line.
        """
        if self._size < 0:
            self._rewind()
            while not self._ended:
                self._step(self._start + len(self._held))
            end = self._start + len(self._held)
            is_whole = not self._damage or self._damage == _GARBAGE
            self._size = end if is_whole else self._lines_end
            self._rewind()
        return self._size

    @property
    def damage(self) -> str:
        """Why there may be more than can be read; empty if there is not."""
        self.size()
        return self._damage

    def stored_bytes(self) -> int:
        """Return how many bytes the compressed file has now."""
        return os.fstat(self._fd).st_size

    def head(self) -> bytes:
        """Return how the compressed file begins, which names one that cannot be decompressed."""
        return os.pread(self._fd, _HEAD_BYTES, 0)

    def read(self, length: int, offset: int) -> bytes:
        """Return a part of the plain text."""
        if offset < self._start:
            self._rewind()
        while not self._ended and self._start + len(self._held) < offset + length:
            self._step(offset)
        begin, end = offset - self._start, offset - self._start + length
        if self._size >= 0:
            end = min(end, self._size - self._start)
        return bytes(self._held[begin : max(begin, end)])

    def _step(self, offset: int) -> None:
        """Decompress a little more, and let go of what lies far before ``offset``."""
        if self._inflate.eof:
            data = self._next_member()
        else:
            data = self._inflate.unconsumed_tail or self._more()
        if self._ended:
            return
        self._begun = self._begun or bool(data)
        try:
            plain = self._decompressed(data)
        except igzip_lib.IsalError:  # type: ignore[misc]  # its stub lacks the base
            self._careful = True
            self._rewind()
            return
        if newline := plain.rfind(b"\n") + 1:
            self._lines_end = self._start + len(self._held) + newline
        self._held += plain
        if not data and not plain and not self._inflate.eof:
            self._end("it ends too early" if self._begun else "it is empty")
        gone = max(0, min(offset - _KEPT_BYTES - self._start, len(self._held)))
        del self._held[:gone]
        self._start += gone

    def _more(self) -> bytes:
        data = os.pread(self._fd, _CHUNK_BYTES, self._at)
        self._at += len(data)
        return data

    def _next_member(self) -> bytes:
        """Begin what follows a member: another one, or zeros up to the end, which say nothing."""
        data: bytes = self._inflate.unused_data.lstrip(b"\0")
        while len(data) < len(_MAGIC) and (more := self._more()):
            data = (data + more).lstrip(b"\0")
        if not data.startswith(_MAGIC):
            self._end(_GARBAGE if data else "")
        else:
            self._inflate, self._begun = self._new(), False
        return data

    def _decompressed(self, data: bytes) -> bytes:
        """Return what a part of a member holds; of a damaged one, what comes before the damage."""
        if not self._careful:
            return self._inflate.decompress(data, _STEP_BYTES)  # type: ignore[no-any-return]
        before = self._inflate.copy()
        try:
            return self._inflate.decompress(data, _STEP_BYTES)  # type: ignore[no-any-return]
        except zlib.error as error:
            plain = b""
            with contextlib.suppress(zlib.error):
                for at in range(len(data)):  # what an error comes with is not given out
                    plain += before.decompress(data[at : at + 1])
            self._end(str(error))
            return plain

    def _end(self, damage: str) -> None:
        self._ended, self._damage = True, damage

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
