"""A bucket that is a local directory: each object is a file, for one machine without servers.

Bytes go in under a name and come out whole or by range. An object is there whole or not at all,
whenever a process or the machine stops.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from collector.durable import TEMPORARY, create_file
from indexer.errors import BucketError, BucketUnavailable, ObjectExists, ObjectMissing


class LocalBucket:
    """Objects as files below a directory."""

    def __init__(self, root: Path) -> None:
        """Use ``root``, made on first use."""
        self._root = root.absolute()
        self.storage_options: dict[str, str] = {}

    @property
    def uri(self) -> str:
        """The directory."""
        return str(self._root)

    def put(self, name: str, data: bytes) -> None:
        """Write aside, fsync and link to the name, so another object is never overwritten."""
        path = self._root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                create_file(path, data, mode=0o666)
            except FileExistsError:
                raise ObjectExists(f"object {name} exists already") from None
        except OSError as error:
            raise BucketUnavailable(f"cannot store {name} in {self._root}: {error}") from error

    def get(self, name: str) -> bytes:
        """Return the file's bytes."""
        with self._reading(name):
            return (self._root / name).read_bytes()

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return a part of the file."""
        with self._reading(name), (self._root / name).open("rb") as file:
            data = os.pread(file.fileno(), length, start)
        if len(data) != length:
            raise BucketError(f"object {name} ends before byte {start + length}")
        return data

    def size(self, name: str) -> int:
        """Return the file's size."""
        with self._reading(name):
            return (self._root / name).stat().st_size

    def names(self, prefix: str) -> Iterator[str]:
        """Yield the files' names."""
        below = prefix.rpartition("/")[0]
        for folder, _, files in os.walk(self._root / below, onerror=_not_listed):
            for file in files:
                name = (Path(folder) / file).relative_to(self._root).as_posix()
                if name.startswith(prefix) and not TEMPORARY.fullmatch(file):
                    yield name

    def delete(self, name: str) -> None:
        """Unlink the file."""
        with contextlib.suppress(ObjectMissing), self._reading(name):
            (self._root / name).unlink()

    def sweep(self, prefix: str, before_ns: int) -> int:
        """Unlink temporary files of processes that were killed."""
        swept = 0
        for folder, _, files in os.walk(self._root / prefix.rpartition("/")[0]):
            for path in (Path(folder) / file for file in files if TEMPORARY.fullmatch(file)):
                if not path.relative_to(self._root).as_posix().startswith(prefix):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime_ns < before_ns:
                        path.unlink()
                        swept += 1
        return swept

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise ObjectMissing(f"no object {name} in {self._root}") from None
        except OSError as error:
            raise BucketUnavailable(f"cannot read {name} in {self._root}: {error}") from error


def _not_listed(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise BucketUnavailable(f"cannot list {error.filename}: {error}") from error
