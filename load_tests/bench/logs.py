"""The logs that a benchmark runs on: those that were given, copied until they are enough.

Roots in the kubelet's layout go in; out comes one root whose pods are copies of theirs, each with
a uid of its own, since a copy under the same uid would be the same file to Everyline. Other text is
brought into that layout first, in the lines that a container runtime would have made of it.
"""

import itertools
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_FRAGMENT_BYTES = 16_384  # as containerd cuts lines
_BEGIN_S = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
_LINE_NS_MAX = 2_000_000  # between two lines of a file


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


def wrap_text(name: str, texts: Path, root: Path) -> None:
    """Write each file below ``texts`` as the log of a pod of its own in the namespace ``name``."""
    draw = random.Random(0)
    for number, path in enumerate(sorted(path for path in texts.rglob("*") if path.is_file())):
        log = root / f"{name}_pod-{number}_{number:032x}" / "main" / "0.log"
        log.parent.mkdir(parents=True)
        since_ns = 0
        with path.open("rb") as source, log.open("wb") as wrapped:
            for line in source:
                since_ns += draw.randrange(1, _LINE_NS_MAX)
                wrapped.write(_wrapped(line.rstrip(b"\r\n"), since_ns))


def _wrapped(line: bytes, since_ns: int) -> bytes:
    seconds, ns = divmod(since_ns, 10**9)
    time = f"{datetime.fromtimestamp(_BEGIN_S + seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09d}Z stdout"
    pieces = [line[at : at + _FRAGMENT_BYTES] for at in range(0, len(line) or 1, _FRAGMENT_BYTES)]
    tags = ["P"] * (len(pieces) - 1) + ["F"]
    return b"".join(
        f"{time} {tag} ".encode() + piece + b"\n" for tag, piece in zip(tags, pieces, strict=True)
    )


def copy_logs(roots: Sequence[Path], folder: Path, bytes_min: int) -> Logs:
    """Copy the files of ``roots`` into ``folder``, whole turns until there are ``bytes_min``."""
    folder.mkdir()
    root, raw = folder / "pods", folder / "raw"
    raw_bytes = lines = files = 0
    with raw.open("wb") as joined:
        for turn in itertools.count():
            for number, path in enumerate(log_files(roots)):
                pod, container, name = path.parts[-3:]
                # In namespaces of their own, or copies would lie side by side in a segment.
                copy = root / f"copy-{turn}-{pod}-{number}" / container / name
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
