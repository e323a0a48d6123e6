"""Finding the files: a scan of the kubelet's layout, which alone tells what is there.

A directory ``<root>/<namespace>_<pod>_<uid>/<container>/`` holds ``<restart>.log`` and what was
rotated from it. A scan never stops at one bad directory; it names what it could not look into, so
that nobody takes a missing answer for a missing file.
"""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from collector.range import Stream

# `0.log`, `0.log.20230129-084209` and, once the kubelet has compressed it, `….gz`
# (pkg/kubelet/logs/container_log_manager.go); `….tmp` is a gzip or a reopen in the making.
_NAME = re.compile(r"([0-9]{1,9})\.log(\.(?!.*tmp$)[^/]*)?")


@dataclass(frozen=True, slots=True)
class Found:
    """One file of a scan; ``rotated`` is its suffix, empty for the file being written."""

    path: Path
    stream: Stream
    rotated: str
    inode: tuple[int, int]
    size: int

    @property
    def compressed(self) -> bool:
        """Whether the kubelet has compressed it."""
        return self.rotated.endswith(".gz")


@dataclass(frozen=True, slots=True)
class Scan:
    """What one scan found, in the order in which the files of a stream were written."""

    began_ns: int
    files: list[Found] = field(default_factory=list)
    errors: dict[Path, str] = field(default_factory=dict)

    def covers(self, path: Path) -> bool:
        """Return whether the scan looked where ``path`` would be."""
        return not any(parent in self.errors for parent in (path, *path.parents))


def pod_of(directory: str) -> tuple[str, str, str] | None:
    """Return (namespace, pod, uid) of a directory's name; None if it is not the kubelet's."""
    # Neither a namespace nor a pod's name may hold an underscore (RFC 1123).
    parts = directory.split("_")
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 and all(parts) else None


def scan(roots: Iterable[Path], began_ns: int) -> Scan:
    """Return every log file below ``roots``; ``began_ns`` is the clock before the call."""
    result = Scan(began_ns)
    for root in roots:
        for pod in _entries(root, result):
            if (names := pod_of(pod.name)) is None or not _is_directory(pod):
                continue
            for container in _entries(pod.path, result):
                if _is_directory(container):
                    _scan_container(container, names, result)
    return result


def _is_directory(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir(follow_symlinks=False)


def _entries(path: "str | Path", result: Scan) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError as error:
        if isinstance(path, Path):  # a root must be there; a pod's directory may just have gone
            result.errors[path] = str(error)
        return []
    except OSError as error:
        result.errors[Path(path)] = str(error)
        return []
    # A name that is no UTF-8 cannot be part of a batch.
    for entry in (entry for entry in found if not _is_text(entry.name)):
        result.errors[Path(entry.path)] = "its name is not UTF-8"
    return [entry for entry in found if _is_text(entry.name)]


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _scan_container(directory: "os.DirEntry[str]", pod: tuple[str, str, str], result: Scan) -> None:
    found = []
    for entry in _entries(directory.path, result):
        match = _NAME.fullmatch(entry.name)
        if match is None:
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        except OSError as error:
            result.errors[Path(entry.path)] = str(error)
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        stream = Stream(*pod, directory.name, int(match[1]))
        found.append(
            Found(
                Path(entry.path),
                stream,
                (match[2] or "")[1:],
                (status.st_dev, status.st_ino),
                status.st_size,
            )
        )
    # The rotated files' stamps sort by time; the one being written is the last of its stream.
    found.sort(key=lambda file: (file.stream.restart, not file.rotated, file.rotated))
    result.files.extend(found)
