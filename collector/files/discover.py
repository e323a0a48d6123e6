"""Finding the files: a scan of the roots and their layouts, which alone tells what is there.

Directories go in; out come their logs, in the order in which they were written. A scan never stops
at one bad directory; it names what it could not look into, so that nobody takes a missing answer
for a missing file. It follows no link, but those whose target lies where the settings allow it, and
names those that it does not follow.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

from collector.files.layout import Layout, Log, Target
from collector.wire.batch import Unseen
from collector.wire.range import Stream, Whose


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file of a scan; ``rotated`` is its suffix, empty for the file being written.

    ``path`` is how it is called, ``real`` where it lies: elsewhere, if a link leads there.
    """

    path: Path
    real: Path
    stream: Stream
    format: str
    rotated: str
    inode: tuple[int, int]
    size: int
    mtime_ns: int

    @property
    def compressed(self) -> bool:
        """Whether it was compressed when it was rotated."""
        return f".{self.rotated}".endswith(".gz")


@dataclass(slots=True)
class Scan:
    """What one scan found, in the order in which the files of a stream were written.

    Every directory was looked at since ``full_ns``, which lies before ``began_ns`` where quiet
    ones were left out. ``errors`` are by the path that could not be looked into, ``links`` by the
    link that was not followed, to what is read in no other way. ``unchanged``: the files are those
    of the scan before; only the sizes of open ones may have changed.
    """

    began_ns: int
    full_ns: int
    files: list[FoundFile] = field(default_factory=list)
    errors: dict[Path, Unseen] = field(default_factory=dict)
    links: dict[Path, Unseen] = field(default_factory=dict)
    unchanged: bool = False


@dataclass(slots=True, eq=False)
class _Folder:
    """A directory and what it held when it was listed; good as long as its ``mtime_ns`` stays.

    ``path`` has no link in it; ``called`` is where its files seem to be, and its errors are told.
    """

    path: str
    layout: Layout
    called: str
    mtime_ns: int = -1
    seen: tuple[int, int] = (-1, 0)  # the time of modification, and the tick of its first listing
    folders: list["_Folder"] = field(default_factory=list)
    files: list[FoundFile] = field(default_factory=list)
    links: list[tuple[str, Unseen]] = field(default_factory=list)  # not followed, and its place


_AWAY = -2  # the time of modification of what is not there

# Two changes within one tick of the file system's clock leave the same time of modification, so
# a directory that was changed this shortly before it was listed is listed again.
_SETTLED_NS = 1_000_000_000
# One whose time lies in the future, since the clock was set back, is so after as many ticks.
# A directory that has been quiet for long is looked at less often: of a file that was just made
# in it, the runtime needs ten seconds at least to write so much that the kubelet rotates it.
_QUIET_NS = 30_000_000_000
_QUIET_LOOK_NS = 9_000_000_000


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """How many directories a scan looks into, and how far down; whoever writes logs may make more.

    What lies beyond is an error of the scan, not of the collector.
    """

    depth_max: int = 32
    directories_max: int = 100_000


class Discovery:
    """Scans of some roots; directories that have not changed are not listed again."""

    def __init__(
        self,
        roots: Iterable[tuple[str, Layout]],
        clock: Callable[[], int],
        link_targets: Iterable[str] = (),
        ticks: Callable[[], int] = time.monotonic_ns,
        limits: ScanLimits | None = None,
    ) -> None:
        """``clock`` gives ns since 1970, as the file system's times do; ``ticks`` ns that pass.

        A link is followed if its target lies below one of ``link_targets``.
        """
        self._limits = limits or ScanLimits()
        self._roots = list(roots)
        self._clock = clock
        self._ticks = ticks
        self._link_targets = list(link_targets)
        self._targets: tuple[str, ...] = ()  # the same, without links on the way
        self._folders: list[_Folder] = []  # of the roots
        self._lively: list[tuple[str, int]] = []  # directories to look at each time, their mtime
        self._full: Scan | None = None

    def scan(self, *, relist: bool = False) -> Scan:
        """Return every log file below the roots: the same list as before, if nothing changed.

        ``relist``: list and stat all, since some of the last scan could not be opened or read.
        """
        now_ns = self._clock()
        if (
            not relist
            and (full := self._full) is not None
            and 0 <= now_ns - full.began_ns < _QUIET_LOOK_NS
            and not full.errors
            and not any(_changed(*each) for each in self._lively)
        ):
            return Scan(now_ns, full.began_ns, full.files, links=full.links, unchanged=True)
        self._full = self._scan(now_ns)
        return self._full

    def _scan(self, now_ns: int) -> Scan:
        result = Scan(now_ns, now_ns)
        targets = tuple(os.path.realpath(target) for target in self._link_targets)
        if targets != self._targets:  # every link may lead elsewhere now
            self._targets, self._folders = targets, []
        roots = [_Folder(os.path.realpath(path), layout, path) for path, layout in self._roots]
        self._folders = _known(roots, self._folders)
        self._lively = []
        self._visit(self._folders, result)
        # A file that goes by two names is one file.
        result.files = list({found.inode: found for found in reversed(result.files)}.values())
        result.files.reverse()
        return result

    def _visit(self, roots: list[_Folder], result: Scan) -> None:
        """Bring directories and all below them up to now, one after the other in their order."""
        waiting = [(root, 0) for root in reversed(roots)]
        looked: list[_Folder] = []
        while waiting:
            folder, depth = waiting.pop()
            if why := self._limits_reached(depth, len(looked)):
                _note(result, folder.called, folder.layout.whose, why)
                continue
            looked.append(folder)
            self._look(folder, result)
            if folder.mtime_ns != _AWAY and not self._quiet_for(folder, result.began_ns, _QUIET_NS):
                self._lively.append((folder.path, folder.mtime_ns))
            result.files.extend(folder.files)
            waiting.extend((inner, depth + 1) for inner in reversed(folder.folders))
        result.links = _unread(looked, result.files)

    def _limits_reached(self, depth: int, looked: int) -> str:
        """Return why a directory is not looked into; empty if it is."""
        if depth > self._limits.depth_max:
            return (
                f"it is more than {self._limits.depth_max} directories below its root (depth_max)"
            )
        if looked >= self._limits.directories_max:
            return f"there are more than {looked} directories (directories_max)"
        return ""

    def _look(self, folder: _Folder, result: Scan) -> None:
        """Bring a directory up to now; one that is not there holds nothing."""
        try:
            status = os.stat(folder.path, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder.path)
            if folder.mtime_ns != status.st_mtime_ns:
                folder.mtime_ns = status.st_mtime_ns
                if folder.seen[0] != folder.mtime_ns:
                    folder.seen = (folder.mtime_ns, self._ticks())
                settled = self._quiet_for(folder, self._clock(), _SETTLED_NS)
                if not self._list(folder, result) or not settled:
                    folder.mtime_ns = -1
            elif folder.files:
                folder.files = [_again(found) for found in folder.files]
            return
        except (FileNotFoundError, NotADirectoryError) as error:
            if not folder.layout.may_be_away:
                _note(result, folder.called, folder.layout.whose, reason_of(error))
        except OSError as error:
            _note(result, folder.called, folder.layout.whose, reason_of(error))
        folder.mtime_ns, folder.folders, folder.files, folder.links = _AWAY, [], [], []

    def _quiet_for(self, folder: _Folder, now_ns: int, quiet_ns: int) -> bool:
        """Return whether a directory has not changed for so long."""
        if 0 <= folder.mtime_ns <= now_ns:
            return now_ns - folder.mtime_ns >= quiet_ns
        return folder.mtime_ns == folder.seen[0] and self._ticks() - folder.seen[1] >= quiet_ns

    def _list(self, folder: _Folder, result: Scan) -> bool:
        """List a directory; return False if something in it could not be seen."""
        whole = True
        inner: list[_Folder] = []
        found: list[tuple[Log, FoundFile]] = []
        folder.links = []
        with os.scandir(folder.path) as entries:
            names = {entry.name: entry for entry in entries}
        for name, entry in sorted(names.items()):
            called = f"{folder.called}/{name}"
            log, layouts = folder.layout.log(called, name), folder.layout.inside(name)
            whose = log.whose if log else layouts[0].whose if layouts else ("", "", "")
            try:
                is_folder = bool(layouts) and entry.is_dir(follow_symlinks=False)
                if (log or is_folder) and not _is_text(name):  # it cannot be part of a batch
                    raise OSError("its name is not UTF-8")
                if is_folder:
                    inner += [_Folder(entry.path, each, called) for each in layouts]
                elif (log or layouts) and entry.is_symlink():
                    target = self._follow(entry.path, log, folder) if log else None
                    if target is not None:
                        inner.append(target)
                    else:
                        why = _why_not(entry.path, folder.layout)
                        folder.links.append((entry.path, _unseen(called, whose, why)))
                elif log and not (name.endswith(".gz") and name[:-3] in names):
                    # (of one that is being compressed, the plain one is still there)
                    found += _regular(entry, log, folder.layout)
            except FileNotFoundError:
                whole = False  # renamed just now: under which name, the next scan tells
            except OSError as error:
                _note(result, called, whose, reason_of(error))
                whole = False
        folder.folders = _known(inner, folder.folders)
        folder.files = [file for _, file in sorted(found, key=lambda each: each[0].order)]
        return whole

    def _follow(self, path: str, log: Log, folder: _Folder) -> _Folder | None:
        """Return the directory that a link leads to, if it may be followed.

        Its own target is the end: it may lie behind links to directories, but be none itself.
        """
        if not folder.layout.links or log.rotated:
            return None
        target = os.path.join(folder.path, os.readlink(path))
        place, base = os.path.realpath(os.path.dirname(target)), os.path.basename(target)
        allowed = any(os.path.commonpath((place, root)) == root for root in self._targets)
        if not allowed or not base.endswith(".log") or not _is_text(target):
            return None
        return _Folder(place, Target(folder.layout.format, log, base), folder.called)


def _note(result: Scan, called: str, whose: Whose, why: str) -> None:
    _put(result.errors, Path(called), _unseen(called, whose, why))


def _put(places: dict[Path, Unseen], path: Path, new: Unseen) -> None:
    """Add a place; one that several layouts look into is of all whose files it may hold."""
    both = zip(places.get(path, new).whose, new.whose, strict=True)
    common = (name for name, _ in takewhile(lambda names: names[0] == names[1], both))
    namespace, pod, container = [*common, "", "", ""][:3]
    places[path] = replace(new, namespace=namespace, pod=pod, container=container)


def _unseen(called: str, whose: Whose, why: str) -> Unseen:
    """Return a place by names that can be part of a batch; no name of a stream is not UTF-8."""
    # (one that is stands for itself, so that it is in nobody else's way)
    texts = (*whose, called, why)
    return Unseen(*(os.fsencode(text).decode(errors="backslashreplace") for text in texts))


def reason_of(error: OSError) -> str:
    """Return why something could not be read, without its path."""
    return error.strerror or str(error)


def _why_not(path: str, layout: Layout) -> str:
    link = f"the link to {os.readlink(path)} is not followed"
    if layout.links:
        return f"{link}: link_targets names no directory above it, or its name does not end in .log"
    return f"{link}; name the place that it leads to in the collector's settings"


def _unread(folders: Iterable[_Folder], files: Iterable[FoundFile]) -> dict[Path, Unseen]:
    """Return the links that lead to what no other way leads to."""
    links = [link for folder in folders for link in folder.links]
    if not links:
        return {}
    read: set[object] = {found.inode for found in files}
    read.update(folder.path for folder in folders)
    unread: dict[Path, Unseen] = {}
    for path, link in links:
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # it leads nowhere
        except OSError:
            _put(unread, Path(link.path), link)
            continue
        is_log = stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in read
        is_folder = stat.S_ISDIR(status.st_mode) and os.path.realpath(path) not in read
        if is_log or is_folder:
            _put(unread, Path(link.path), link)
    return unread


def _known(folders: list[_Folder], before: list[_Folder]) -> list[_Folder]:
    """Return the same directories, those that were known before as they were."""
    known = {(each.path, each.layout, each.called): each for each in before}
    return [known.get((each.path, each.layout, each.called), each) for each in folders]


def _changed(path: str, mtime_ns: int) -> bool:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime_ns != mtime_ns
    except OSError:
        return True


def _again(found: FoundFile) -> FoundFile:
    """Return a rotated file as it is now: late writes do not touch the directory.

    The size of the file being written is asked of the open file.
    """
    if not found.rotated or found.compressed:
        return found
    try:
        status = os.stat(found.real, follow_symlinks=False)
    except FileNotFoundError:
        return found  # gone just now, so the next scan lists its directory
    if status.st_size == found.size:
        return found
    return replace(found, size=status.st_size, mtime_ns=status.st_mtime_ns)


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _regular(entry: "os.DirEntry[str]", log: Log, layout: Layout) -> list[tuple[Log, FoundFile]]:
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return []
    inode = (status.st_dev, status.st_ino)
    found = FoundFile(
        path=Path(log.path),
        real=Path(entry.path),
        stream=log.stream,
        format=layout.format,
        rotated=log.rotated,
        inode=inode,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )
    return [(log, found)]
