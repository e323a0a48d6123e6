"""The logs that a benchmark runs on: those that were given, copied until they are enough.

Roots in the kubelet's layout go in; out comes one root whose pods are copies of theirs, each with
a uid of its own, since a copy under the same uid would be the same file to Everyline.
"""

import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Logs:
    """One root in the kubelet's layout, and the same bytes in one file."""

    root: Path
    raw: Path
    raw_bytes: int
    lines: int
    files: int


def log_files(roots: Sequence[Path]) -> list[Path]:
    """Return the files that hold plain text."""
    found = [path for root in roots for path in sorted(root.glob("*/*/*.log*"))]
    return [path for path in found if path.suffix != ".gz"]


def copy_logs(roots: Sequence[Path], folder: Path, bytes_min: int) -> Logs:
    """Copy the files of ``roots`` into ``folder``, whole turns until there are ``bytes_min``."""
    folder.mkdir()
    root, raw = folder / "pods", folder / "raw"
    raw_bytes = lines = files = 0
    with raw.open("wb") as joined:
        for turn in itertools.count():
            for number, path in enumerate(log_files(roots)):
                pod, container, name = path.parts[-3:]
                copy = root / f"{pod}-{turn}-{number}" / container / name
                copy.parent.mkdir(parents=True)
                shutil.copyfile(path, copy)
                data = path.read_bytes()
                joined.write(data)
                raw_bytes += len(data)
                lines += data.count(b"\n")
                files += 1
            if raw_bytes >= bytes_min:
                break
    # Their pages shall not be written back while something is measured.
    os.sync()
    return Logs(root, raw, raw_bytes, lines, files)


def pieces(logs: Logs, bytes_max: int) -> Iterator[bytes]:
    """Give the lines in pieces of up to ``bytes_max``, one at least, again and again."""
    while True:
        with logs.raw.open("rb") as file:
            for first in file:
                yield first + b"".join(file.readlines(max(bytes_max - len(first), 1)))
