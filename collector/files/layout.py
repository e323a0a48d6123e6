"""How log files are named: in the kubelet's directories, behind Docker's links, on a node itself.

Names of directories and files go in; out comes whether a file is a log, of which stream, and where
it stands among the files rotated from the same one. Nothing here looks at a disk.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from collector.errors import SettingError
from collector.settings import CollectorSettings
from collector.wire.range import Stream, Whose

NODE_NAMESPACE = "_node"
"""The namespace of a node's plain files; no namespace of Kubernetes may hold an underscore."""


@dataclass(frozen=True, slots=True)
class Log:
    """What a file's name says; ``rotated`` is its suffix, empty for the file being written.

    ``path`` is how the file is called, even where it lies elsewhere, behind a link.
    """

    path: str
    stream: Stream
    base: str
    rotated: str

    @property
    def whose(self) -> Whose:
        """Return the container that wrote it."""
        return self.stream.whose

    @property
    def order(self) -> tuple[int, str, bool, int, str]:
        """Return what sorts the files of a directory as they were written.

        Stamps sort by time and numbers count backwards; the file being written is the last.
        """
        number = _NUMBER.match(self.rotated)
        before = -int(number[1]) if number else 0
        return self.stream.restart, self.base, not self.rotated, before, self.rotated


_NUMBER = re.compile(r"([0-9]{1,3})(?:\.gz)?\Z")


class Layout(Protocol):
    """How to look into one directory."""

    @property
    def format(self) -> str:
        """How the lines of its files are written, one of FORMATS."""
        ...

    @property
    def whose(self) -> Whose:
        """Return whose files lie in it."""
        ...

    @property
    def may_be_away(self) -> bool:
        """Whether it is not an error if the directory is not there."""
        ...

    @property
    def links(self) -> bool:
        """Whether a link may lead from it to a log."""
        ...

    def inside(self, name: str) -> "Sequence[Layout]":
        """Return how to look into its directory ``name``: not at all, or in some ways."""
        ...

    def log(self, path: str, name: str) -> Log | None:
        """Return what its file ``name`` is, if it is a log; ``path`` is how it is called."""
        ...


def pod_of(directory: str) -> tuple[str, str, str] | None:
    """Return (namespace, pod, uid) of a directory's name; None if it is not the kubelet's."""
    # Neither a namespace nor a pod's name may hold an underscore (RFC 1123).
    parts = directory.split("_")
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 and all(parts) else None


@dataclass(frozen=True, slots=True)
class Pods:
    """The kubelet's root, or below it: of one pod, then of one container."""

    format: str
    pod: tuple[str, str, str] | None = None
    container: str = ""

    @property
    def whose(self) -> Whose:
        """Anybody's, in the root."""
        namespace, pod, _ = self.pod or ("", "", "")
        return namespace, pod, self.container

    @property
    def may_be_away(self) -> bool:
        """A root must be there; a pod's directory may just have gone."""
        return self.pod is not None

    @property
    def links(self) -> bool:
        """Only a container's directory holds logs."""
        return bool(self.container)

    def inside(self, name: str) -> "Sequence[Pods]":
        """Return the same, a step deeper."""
        if self.container:
            return ()
        if self.pod is not None:
            return (replace(self, container=name),)
        pod = pod_of(name)
        return () if pod is None else (replace(self, pod=pod),)

    def log(self, path: str, name: str) -> Log | None:
        """Return the log of a container's directory."""
        match = _KUBELET.fullmatch(name) if self.container else None
        if match is None or self.pod is None:
            return None
        stream = Stream(*self.pod, self.container, int(match[1]))
        return Log(path, stream, "", (match[2] or "")[1:])


# `0.log`, `0.log.20230129-084209` and, once the kubelet has compressed it, `….gz`
# (pkg/kubelet/logs/container_log_manager.go); `….tmp` is a gzip or a reopen in the making.
_KUBELET = re.compile(r"([0-9]{1,9})\.log(\.(?!.*tmp$)[^/]*)?")


@dataclass(frozen=True, slots=True)
class Target:
    """The directory that a link leads to: the link's file, and what was rotated from it.

    ``link`` is what the link's own name says; errors are told of where the link is.
    """

    format: str
    link: Log
    base: str
    may_be_away: bool = True
    links: bool = False

    @property
    def whose(self) -> Whose:
        """The container of the link."""
        return self.link.whose

    def inside(self, name: str) -> "Sequence[Target]":
        """Nothing below."""
        return ()

    def log(self, path: str, name: str) -> Log | None:
        """Return the log, called as if it lay beside the link."""
        # dockerd counts its rotated files, `.1` being the newest, and compresses them if it is
        # told to (moby, daemon/logger/loggerutils/logfile.go).
        rest = name.removeprefix(self.base) if name.startswith(self.base) else None
        if rest is None or (rest and not _COUNTED.fullmatch(rest)):
            return None
        return replace(self.link, path=self.link.path + rest, rotated=rest[1:])


_COUNTED = re.compile(r"\.[0-9]{1,3}(\.gz)?")


@dataclass(frozen=True, slots=True)
class Plain:
    """Files by a pattern; ``parts`` are its names from here on, the last one the file's."""

    stream: Stream
    parts: tuple[str, ...]
    format: str = "plain"
    may_be_away: bool = True
    links: bool = False

    @property
    def whose(self) -> Whose:
        """One stream for all files."""
        return self.stream.whose

    def inside(self, name: str) -> "Sequence[Plain]":
        """Return the same, past the part that ``name`` matches."""
        if len(self.parts) == 1:
            return ()
        further = replace(self, parts=self.parts[1:])
        if self.parts[0] == "**":
            return (self, *further.inside(name))
        return (further,) if re.fullmatch(_pattern(self.parts[0]), name) else ()

    def log(self, path: str, name: str) -> Log | None:
        """Return the log, if the pattern or a name rotated from one of it matches."""
        if self.parts[0] == "**":
            return replace(self, parts=self.parts[1:]).log(path, name)
        if len(self.parts) > 1:
            return None
        pattern = _pattern(self.parts[0])
        match = re.fullmatch(f"({pattern})({_ROTATED})", name)
        if match is None and re.fullmatch(pattern, name) is None:
            return None
        base, rotated = (match[1], match[2].lstrip(".-")) if match else (name, "")
        return Log(path, self.stream, base, rotated)


# logrotate's names: `.1`, `-20240301`, `-20240301-1709251200`, `.2024-03-01`, each also with `.gz`.
_ROTATED = r"[.-][0-9][0-9T:._Z+-]*(?:\.gz)?|\.gz"


def _pattern(part: str) -> str:
    """Return the regular expression of one name of a pattern; its wildcards take little first."""
    texts = re.split(r"(\*+|\?|\[!?\]?[^\]]*\])", part)
    return "".join(_wild(text) if i % 2 else re.escape(text) for i, text in enumerate(texts))


def _wild(text: str) -> str:
    if text[0] in "*?":
        return "[^/]*?" if text[0] == "*" else "[^/]"
    inverted = text[1] == "!"
    return (
        ("[^" if inverted else "[") + re.escape(text[1 + inverted : -1]).replace(r"\-", "-") + "]"
    )


def roots_of(settings: CollectorSettings) -> list[tuple[str, Layout]]:
    """Return the directories to begin at and their layouts. Raises SettingError."""
    formats = (("cri", settings.roots), ("docker", settings.docker_roots))
    pods = [
        (root, Pods(each)) for each, roots in formats for root in filter(None, roots.split(":"))
    ]
    return [*pods, *plain_roots(settings.plain_files, settings.node)]


def plain_roots(setting: str, node: str) -> list[tuple[str, Plain]]:
    """Return the directory to begin at and the layout of each ``NAME=GLOB``, separated by ':'.

    ``**`` stands for directories at any depth. Raises SettingError.
    """
    roots = []
    for each in filter(None, setting.split(":")):
        name, _, glob = each.partition("=")
        parts = glob.split("/")[1:]
        if not name or not glob.startswith("/") or not all(parts) or {".", ".."} & {*parts}:
            raise SettingError(f"plain_files has {each!r}; write NAME=/DIRECTORY/PATTERN")
        if parts[-1] == "**":
            raise SettingError(f"plain_files has {each!r}; name the files, as in **/*.log")
        try:
            for part in parts:
                re.compile(_pattern(part))
        except re.error as error:
            raise SettingError(f"plain_files has {each!r}: {error}") from error
        fixed = 0
        while fixed < len(parts) - 1 and not set(parts[fixed]) & set("*?["):
            fixed += 1
        stream = Stream(NODE_NAMESPACE, node, node, name, 0)
        roots.append(("/" + "/".join(parts[:fixed]), Plain(stream, tuple(parts[fixed:]))))
    return roots
