"""Files that survive a crash, whole or not at all, and locks between processes.

Bytes go in under a path; after a crash at any point the path holds what it held before or all of
them, never a part. Every role writes its own files this way, and nothing else in the project calls
fsync for a file that is replaced or made once.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import uuid
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

_Result = TypeVar("_Result")

TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""What ``create_file`` names its bytes until they are whole; a killed process may leave some."""


def replace_file(
    path: Path, data: bytes, *, previous: Path | None = None, mode: int = 0o600
) -> None:
    """Put ``data`` in the place of what ``path`` held, and keep that as ``previous`` if asked.

    One writer at a time. Raises OSError: what was there before still is, at ``path`` or, after a
    crash or an error between the two renames, at ``previous``.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        _write(temporary, data, mode)
        if previous is not None:
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, previous)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def create_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Make a file that is not there yet; any number of writers may try the same path at once.

    Raises FileExistsError, with nothing changed, if it is there; OSError if it cannot be written.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")  # as TEMPORARY
    try:
        _write(temporary, data, mode)
        os.link(temporary, path)
        sync_directory(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make what was made, renamed or removed in a directory survive a crash."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked(path: Path, *, or_raise: Exception | None = None) -> Iterator[None]:
    """Hold a lock that no other process, and no other thread of this one, holds meanwhile.

    ``path`` is a file made for it, and stays; the kernel frees the lock of a process that dies.
    Waits while it is held, unless there is an error to raise then. Raises OSError if the file
    cannot be made.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if or_raise is None:
            fcntl.flock(fd, fcntl.LOCK_EX)
        else:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise or_raise from None
        yield
    finally:
        os.close(fd)


async def to_its_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Await ``work``, such as a thread that writes: once begun, nothing can stop that.

    Whoever is cancelled meanwhile learns so when it has ended.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result
