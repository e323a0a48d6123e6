"""Finding the files: a scan of the kubelet's layout, which alone tells what is there.

A directory ``<root>/<namespace>_<pod>_<uid>/<container>/`` holds ``<restart>.log`` and what was
rotated from it. A scan never stops at one bad directory; it names what it could not look into, so
that nobody takes a missing answer for a missing file.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
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


@dataclass(slots=True)
class Scan:
    """What one scan found, in the order in which the files of a stream were written.

    Every directory was looked at since ``full_ns``, which lies before ``began_ns`` where quiet
    ones were left out.
    """

    began_ns: int
    full_ns: int
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


@dataclass(slots=True)
class _Listed:
    """What a directory held when it was listed; good as long as its ``mtime_ns`` stays."""

    mtime_ns: int
    folders: list[str] = field(default_factory=list)
    files: list[Found] = field(default_factory=list)


# Two changes within one tick of the file system's clock leave the same time of modification, so
# a directory that was changed this shortly before it was listed is listed again.
_SETTLED_NS = 1_000_000_000
# A directory that has been quiet for long is looked at less often: of a file that was just made
# in it, the runtime needs ten seconds at least to write so much that the kubelet rotates it.
_QUIET_NS = 30_000_000_000
_QUIET_LOOK_NS = 5_000_000_000


class Discovery:
    """Scans of some roots; directories that have not changed are not listed again."""

    def __init__(self, roots: Iterable[Path], clock: Callable[[], int]) -> None:
        """``clock`` gives ns since 1970, as the file system's times do."""
        self._roots = list(roots)
        self._clock = clock
        self._listed: dict[str, _Listed] = {}
        self._lively: list[tuple[str, int]] = []  # directories to look at each time, their mtime
        self._full: Scan | None = None

    def scan(self) -> Scan:
        """Return every log file below the roots: the same list as before, if nothing changed."""
        now_ns = self._clock()
        if (
            (full := self._full) is not None
            and 0 <= now_ns - full.began_ns < _QUIET_LOOK_NS
            and not full.errors  # those who open the files add theirs
            and not any(_changed(*each) for each in self._lively)
        ):
            return Scan(now_ns, full.began_ns, full.files)
        self._full = self._scan(now_ns)
        self._lively = [
            (path, listed.mtime_ns)
            for path, listed in self._listed.items()
            if not 0 <= listed.mtime_ns <= now_ns - _QUIET_NS
        ]
        return self._full

    def _scan(self, now_ns: int) -> Scan:
        result = Scan(now_ns, now_ns)
        before, self._listed = self._listed, {}
        for root in self._roots:
            for pod in self._look(str(root), before, result, is_root=True).folders:
                names = pod_of(pod.rpartition("/")[2])
                if names is None:
                    continue
                for container in self._look(pod, before, result).folders:
                    listed = self._look(container, before, result, pod=names)
                    result.files.extend(listed.files)
        return result

    def _look(
        self,
        path: str,
        before: dict[str, _Listed],
        result: Scan,
        *,
        pod: tuple[str, str, str] | None = None,
        is_root: bool = False,
    ) -> _Listed:
        """Return what a directory holds; ``pod`` says that it is a container's."""
        listed = before.get(path)
        try:
            mtime_ns = os.stat(path, follow_symlinks=is_root).st_mtime_ns
            if listed is None or listed.mtime_ns != mtime_ns:
                settled = self._clock() - mtime_ns >= _SETTLED_NS
                listed = _list(path, pod, result)
                listed.mtime_ns = mtime_ns if settled and listed.mtime_ns == 0 else -1
            elif pod is not None:
                listed.files = [_again(found) for found in listed.files]
        except FileNotFoundError as error:
            if is_root:  # a root must be there; a pod's directory may just have gone
                result.errors[Path(path)] = str(error)
            return _Listed(-1)
        except OSError as error:
            result.errors[Path(path)] = str(error)
            return _Listed(-1)
        self._listed[path] = listed
        return listed


def _changed(path: str, mtime_ns: int) -> bool:
    try:
        return os.stat(path).st_mtime_ns != mtime_ns
    except OSError:
        return True


def _again(found: Found) -> Found:
    """Return a rotated file with its size now: late writes do not touch the directory.

    The size of the file being written is asked of the open file.
    """
    if not found.rotated or found.compressed:
        return found
    size = os.stat(found.path, follow_symlinks=False).st_size
    return found if size == found.size else replace(found, size=size)


def _list(path: str, pod: tuple[str, str, str] | None, result: Scan) -> _Listed:
    """List a directory; its ``mtime_ns`` is -1 if something in it could not be seen."""
    listed = _Listed(0)
    with os.scandir(path) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if not _is_text(entry.name):  # it cannot be part of a batch
            result.errors[Path(entry.path)] = "its name is not UTF-8"
            listed.mtime_ns = -1
        elif pod is None:
            if entry.is_dir(follow_symlinks=False):
                listed.folders.append(entry.path)
        elif match := _NAME.fullmatch(entry.name):
            try:
                _add_file(entry, match, pod, listed)
            except FileNotFoundError:
                listed.mtime_ns = -1  # renamed just now: under which name, the next scan tells
            except OSError as error:
                result.errors[Path(entry.path)] = str(error)
                listed.mtime_ns = -1
    # The rotated files' stamps sort by time; the one being written is the last of its stream.
    listed.files.sort(key=lambda file: (file.stream.restart, not file.rotated, file.rotated))
    return listed


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _add_file(
    entry: "os.DirEntry[str]", match: re.Match[str], pod: tuple[str, str, str], listed: _Listed
) -> None:
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        path = Path(entry.path)
        stream = Stream(*pod, path.parent.name, int(match[1]))
        inode = (status.st_dev, status.st_ino)
        listed.files.append(Found(path, stream, (match[2] or "")[1:], inode, status.st_size))
