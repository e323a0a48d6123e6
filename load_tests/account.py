"""Account for every line that a kubelet of ``load_tests.kubelet`` has written.

Its truth, the rows of a table and the gaps of its ledger go in; out comes what has become of each
line: in the table once, in a gap that says so, or neither. A gap must hold every lost byte and no
other. The reading of lines here shares no code with the pipeline.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc
from deltalake import DeltaTable

from collector.wire.range import FIRST_LINE_BYTES, Stream, file_id
from indexer.ledger.bring_up import bring_up
from indexer.ledger.stored import LedgerTable
from indexer.store.open import open_bucket
from indexer.table.table import Table
from load_tests.truth import File, Lines, read
from load_tests.verify import time_ns
from query_api.completeness.gaps import RECOVERED, Gap, find_gaps

_LINE = re.compile(rb"(\S+) (stdout|stderr) ([PF]) (.*)\n")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: the place of its first fragment, and its message."""

    offset: int
    time_ns: int
    output: str
    message: bytes


@dataclass(slots=True)
class Account:
    """What has become of all lines (fragments count one by one); each list names what is wrong.

    ``silent``: neither in the table nor in a gap. ``twice``: more than once in the table.
    ``besides``: bytes that a gap says are lost, and are not. ``untimely``: in a gap that says that
    it lies at another time. ``strange``: rows that nobody wrote, and gaps of nothing that was
    written. ``lost_exactly`` counts the lost lines of gaps with an exact end; ``unseen`` those of
    files that nobody has seen, which are in a gap of their container by their time only;
    ``needless`` the gaps with an open end behind which nothing was written, since nobody could
    know that.
    """

    files: int = 0
    lines: int = 0
    arrived: int = 0
    lost: int = 0
    lost_bytes: int = 0
    lost_exactly: int = 0
    unseen: int = 0
    needless: int = 0
    silent: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    besides: list[str] = field(default_factory=list)
    untimely: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """Return everything that is wrong, in words."""
        return [
            f"{kind}: {what}"
            for kind in ("silent", "twice", "besides", "untimely", "strange")
            for what in getattr(self, kind)
        ]

    @property
    def settled(self) -> bool:
        """Whether every line is in the table or in a gap."""
        return not self.silent


@dataclass(slots=True)
class _Line:
    start: int
    end: int
    time_ns: int
    output: str
    part: bytes
    next: "_Line | None" = None  # of its output, if it goes on there
    times: int = 0  # how often it is in the table


def account(
    files: Iterable[File],
    lines: Lines,
    name: Callable[[File, bytes], bytes],
    rows: dict[bytes, list[Row]],
    gaps: Sequence[Gap],
) -> Account:
    """Compare; ``name`` gives the file_id of a file with this first line, without its newline.

    ``rows`` are by file_id, of all epochs; ``gaps`` those that have not been recovered.
    """
    result = Account()
    strangers = set(rows)
    file_gaps: dict[bytes, list[Gap]] = {}
    open_gaps: dict[tuple[str, str], list[Gap]] = {}
    for gap in gaps:
        if gap.file is not None:
            file_gaps.setdefault(gap.file.file_id, []).append(gap)
            if not gap.end_exact:
                open_gaps.setdefault((gap.file.pod_uid, gap.file.container), []).append(gap)
        elif not gap.explained:
            result.strange.append(f"{gap.type} {gap.positions or gap.batches}: {gap.proof}")
    for file in files:
        content = file.content(lines)
        if not content:
            continue
        ident = name(file, content.partition(b"\n")[0])
        strangers.discard(ident)
        if ident not in rows and ident not in file_gaps:
            _account_unseen(result, file, content, open_gaps.get(file.name[2:4], []))
            continue
        _account_file(result, file, content, rows.get(ident, []), file_gaps.pop(ident, []))
    result.strange += [f"{len(rows[each])} rows of file {each.hex()}" for each in strangers]
    result.strange += [f"{len(of)} gaps of file {each.hex()}" for each, of in file_gaps.items()]
    return result


def _account_file(
    result: Account, file: File, content: bytes, rows: Sequence[Row], gaps: Sequence[Gap]
) -> None:
    lines = _read(content)
    for row in rows:
        if not _takes(row, lines):
            result.strange.append(f"{file.path}: row at {row.offset}: {row.message[:40]!r}")
    bounds = [(gap, *_bounds(gap, len(content))) for gap in gaps]
    for line in lines.values():
        place = f"{file.path} [{line.start}, {line.end}): {line.part[:16]!r}"
        named = [gap for gap, start, end in bounds if start <= line.start and line.end <= end]
        touched = any(start < line.end and line.start < end for _, start, end in bounds)
        if line.times > 1:
            result.twice.append(place)
        if line.times:
            result.arrived += 1
            if touched:
                result.besides.append(place)
        elif named:
            result.lost += 1
            result.lost_bytes += line.end - line.start
            result.lost_exactly += any(gap.end_exact for gap in named)
            if not any(_holds(gap, line.time_ns) for gap in named):
                bounds_ns = [(gap.from_ns, gap.to_ns, gap.reason) for gap in named]
                result.untimely.append(f"{place} of {line.time_ns} in {bounds_ns}")
        else:
            result.silent.append(place)
    for gap in gaps:
        assert gap.end is not None
        if gap.end > len(content):
            result.besides.append(f"{file.path}: a gap to {gap.end} of {len(content)} bytes")
        elif gap.start == len(content):
            result.needless += 1
    result.files += 1
    result.lines += len(lines)


def _account_unseen(result: Account, file: File, content: bytes, open_gaps: Sequence[Gap]) -> None:
    """Account for a file that came and went between two scans.

    It has left no other trace than that its container's file before was lost with an open end,
    and until when.
    """
    for line in _read(content).values():
        if any(_holds(gap, line.time_ns) for gap in open_gaps):
            result.unseen += 1
            result.lost += 1
            result.lost_bytes += line.end - line.start
        else:
            result.silent.append(f"{file.path} [{line.start}, {line.end}): never seen")
        result.lines += 1
    result.files += 1


def _bounds(gap: Gap, size: int) -> tuple[int, int]:
    """Return the bytes that a gap names; one without an exact end goes to the end of the file."""
    assert gap.start is not None
    assert gap.end is not None
    return gap.start, gap.end if gap.end_exact else size


def _holds(gap: Gap, time_ns: int) -> bool:
    """Return whether a gap's bounds in time hold a time; one that is None bounds nothing."""
    after = gap.from_ns is None or gap.from_ns <= time_ns
    return after and (gap.to_ns is None or time_ns <= gap.to_ns)


def _read(content: bytes) -> dict[int, _Line]:
    """Return the lines of a file by their starts."""
    lines: dict[int, _Line] = {}
    open_lines: dict[bytes, _Line] = {}
    for match in _LINE.finditer(content):
        line = _Line(match.start(), match.end(), time_ns(match[1]), match[2].decode(), match[4])
        lines[line.start] = line
        if before := open_lines.pop(match[2], None):
            before.next = line
        if match[3] == b"P":
            open_lines[match[2]] = line
    return lines


def _takes(row: Row, lines: dict[int, _Line]) -> bool:
    """Note which lines a row holds, joined; return False if they are not what it says."""
    line = lines.get(row.offset)
    if line is None or (row.output, row.time_ns) != (line.output, line.time_ns):
        return False
    held, message = [line], line.part
    while len(message) < len(row.message) and line.next is not None:
        line = line.next
        held.append(line)
        message += line.part
    if message != row.message:
        return False
    for line in held:
        line.times += 1
    return True


def rows_of_table(uri: str, options: dict[str, str]) -> dict[bytes, list[Row]]:
    """Return the rows of a table ``logs`` by file_id."""
    table = DeltaTable(uri, storage_options=options)
    columns = ["file_id", "offset", "time", "time_ns", "output", "message", "raw"]
    rows = table.to_pyarrow_table(columns=columns)
    time = pc.add(pc.multiply(rows["time"].cast("int64"), 1000), rows["time_ns"].cast("int64"))
    text = pc.coalesce(rows["raw"], rows["message"].cast("binary"))
    columns_of_row = (rows["offset"], time, rows["output"], text)
    found: dict[bytes, list[Row]] = {}
    for ident, *row in zip(
        rows["file_id"].to_pylist(), *(each.to_pylist() for each in columns_of_row), strict=True
    ):
        found.setdefault(ident, []).append(Row(*row))
    return found


def namer(cluster: str, node: str) -> Callable[[File, bytes], bytes]:
    """Return what names the files of a node as its collector does."""

    def name(file: File, first_line: bytes) -> bytes:
        return file_id(cluster, node, Stream(*file.name), first_line[: FIRST_LINE_BYTES["cri"]])

    return name


def account_for(truth: Path, bucket_url: str, cluster: str, node: str) -> Account:
    """Account for what one node wrote, by the newest version of a cluster's table."""
    bucket = open_bucket(bucket_url)
    table = Table(bucket, cluster)
    version = table.snapshot().version()
    ledger = bring_up(LedgerTable(bucket, cluster).load(), table, version)
    gaps = [gap for gap in find_gaps(ledger) if gap.state != RECOVERED]
    lines, files = read(truth)
    rows = rows_of_table(table.uri, bucket.storage_options)
    return account(files, lines, namer(cluster, node), rows, gaps)


def main() -> int:
    """Print the account of a node; return 0 if nothing in it is wrong."""
    parser = argparse.ArgumentParser(prog="load_tests.account", description=main.__doc__)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--bucket", required=True, help="URL of the bucket")
    parser.add_argument("--cluster", default="local")
    parser.add_argument("--node", default="local")
    args = parser.parse_args()
    found = account_for(args.truth, args.bucket, args.cluster, args.node)
    print(
        f"{found.files} files, {found.lines} lines: {found.arrived} in the table, {found.lost} "
        f"({found.lost_bytes} bytes) in gaps, {len(found.silent)} in neither; "
        f"{found.unseen} lines of files never seen, {found.needless} gaps of nothing"
    )
    for wrong in found.wrong:
        print(wrong)
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
