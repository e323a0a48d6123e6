"""Compare a table with the log files that went into it: every message, byte for byte.

Directories in the kubelet's layout and a bucket go in; out comes, for each file, whether its rows
are its messages: once each, in order, with their time to the nanosecond. The reading here shares
no code with the pipeline, so that both would have to be wrong in the same way.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow.compute as pc
from deltalake import DeltaTable

_LINE = re.compile(rb"(\S+) (stdout|stderr) ([PF])(?::\S*)?(?: (.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Sum:
    """What a file holds: its lines, its messages, and a digest over messages and their times."""

    lines: int
    rows: int
    digest: str


def time_ns(text: bytes) -> int:
    """Return an RFC 3339 time of any width as nanoseconds since 1970."""
    match = re.fullmatch(rb"(.{19})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        raise ValueError(f"no time: {text!r}")
    seconds = datetime.fromisoformat((match[1] + match[3]).decode()).timestamp()
    return int(seconds) * 10**9 + int(((match[2] or b"") + b"0" * 9)[:9])


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield time (ns) and message of each event of a file's bytes, in the order of their starts."""
    events: list[tuple[int, list[bytes]]] = []
    open_events: dict[bytes, list[bytes]] = {}
    for line in data.split(b"\n")[: -1 if data.endswith(b"\n") else None]:
        match = _LINE.fullmatch(line)
        if match is None:
            events.append((0, [line]))
            continue
        parts = open_events.pop(match[2], None)
        if parts is None:
            parts = []
            events.append((time_ns(match[1]), parts))
        parts.append(match[4] or b"")
        if match[3] == b"P":
            open_events[match[2]] = parts
    for time, parts in events:
        yield time, b"".join(parts)


def sum_of(lines: int, rows: Iterator[tuple[int, bytes]]) -> Sum:
    """Return the sum of a file's rows; a time of 0 stands for a line without one."""
    digest, count = hashlib.sha256(), 0
    for time, message in rows:
        digest.update(b"%d %d " % (time, len(message)) + message)
        count += 1
    return Sum(lines, count, digest.hexdigest())


def sums_of_files(roots: list[Path]) -> dict[tuple[str, ...], Sum]:
    """Return the sum of each file, by (pod directory, container, file name)."""
    sums = {}
    for root in roots:
        for path in sorted(root.glob("*/*/*.log*")):
            data = path.read_bytes()
            if data:
                lines = data.count(b"\n") + (not data.endswith(b"\n"))
                key = (str(root), *path.relative_to(root).parts)
                sums[key] = sum_of(lines, messages(data))
    return sums


def sums_of_table(uri: str, options: dict[str, str]) -> list[Sum]:
    """Return the sum of each file that the table holds (lines are not known there: 0)."""
    table = DeltaTable(uri, storage_options=options)
    columns = ["file_id", "epoch", "offset", "time", "time_ns", "time_source", "message", "raw"]
    rows = table.to_pyarrow_table(columns=columns)
    rows = rows.sort_by([("file_id", "ascending"), ("epoch", "ascending"), ("offset", "ascending")])
    time = pc.add(pc.multiply(rows["time"].cast("int64"), 1000), rows["time_ns"].cast("int64"))
    known = pc.starts_with(rows["time_source"], "line")
    time = pc.if_else(known, time, 0)
    text = pc.coalesce(rows["raw"], rows["message"].cast("binary"))
    found: dict[tuple[bytes, int], list[tuple[int, bytes]]] = {}
    for name, epoch, at, message in zip(
        rows["file_id"].to_pylist(), rows["epoch"].to_pylist(), time.to_pylist(), text.to_pylist(),
        strict=True,
    ):  # fmt: skip
        found.setdefault((name, epoch), []).append((at, message))
    return [sum_of(0, iter(of_file)) for of_file in found.values()]


def main() -> int:
    """Compare; print what differs; return 0 if nothing does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", action="append", required=True, help="[NODE=]DIR")
    parser.add_argument("--table", required=True, help="URI of the table logs")
    parser.add_argument("--option", action="append", default=[], help="storage option KEY=VALUE")
    args = parser.parse_args()
    roots = [Path(logs.rpartition("=")[2]) for logs in args.logs]
    options = dict(option.split("=", 1) for option in args.option)
    files = sums_of_files(roots)
    table = sorted(each.digest for each in sums_of_table(args.table, options))
    lines, rows = sum(s.lines for s in files.values()), sum(s.rows for s in files.values())
    print(f"{len(files)} files, {lines} lines, {rows} messages; table: {len(table)} files")
    wrong = [key for key, each in files.items() if each.digest not in table]
    for key in wrong:
        print("differs:", *key)
    extra = len(table) - len(files)
    if extra:
        print(f"the table has {extra:+d} files")
    return 1 if wrong or extra else 0


if __name__ == "__main__":
    sys.exit(main())
