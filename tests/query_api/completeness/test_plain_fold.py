"""What a replica says equals what a plain walk over every file ever says, whatever has happened.

Random histories are committed, folded by keepers that stop and start, and followed by replicas; the
oracle keeps an entry of each file and looks at all of them for each question.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise, repeat
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from hypothesis import Phase, given
from hypothesis import strategies as st

from collector.wire.batch import Gap as GapEntry
from collector.wire.batch import Gone, Open, Replaces, Seal
from indexer.keeper.fold import Fold
from indexer.keeper.ledger_command import differences
from indexer.ledger.bring_up import bring_up
from indexer.ledger.entries import FileEntry
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable
from indexer.query.scope import Scope
from indexer.store.open import open_bucket
from indexer.table.coverage import Balance, Coverage, Retired
from indexer.table.table import Table
from indexer.times import HOUR_NS
from query_api.completeness.gaps import Gap, file_in_scope, find_gaps
from query_api.completeness.progress import blind_spots
from query_api.completeness.replica import Replica, Snapshot
from query_api.completeness.statement import gap_view
from query_api.completeness.verdict import Trouble, judge
from query_api.questions.list_and_status import list_streams
from tests.examples import examples
from tests.indexer.shipped import CLUSTER, SECOND, START_NS, File, Run, Way
from tests.indexer.table.test_table import add_coverage
from tests.way import lines

EVENTS = (
    "ship", "ship", "ship", "see", "see all", "see all", "seal", "seal", "gap", "hole", "restart",
    "gone", "open", "retire", "later",
)  # fmt: skip
NODES = 3


@st.composite
def histories(draw: st.DrawFn) -> list[Coverage]:
    """Commits of files that end, go on, are lost and forgotten, of nodes that come and go."""
    files = [File(lines(0, 12), pod=f"pod-{n}", node=f"node-{n % NODES}") for n in range(6)]
    way = Way()
    runs = {(n, p): Run(f"node-{n}", bytes([n]) * 16, p) for n in range(NODES) for p in (0, 1)}
    later_ns = 0
    commits: list[Coverage] = []
    for _ in range(draw(st.integers(1, 14))):
        partition = draw(st.integers(0, 1))
        batches: list[Any] = []
        retired: list[Retired] = []
        for _ in range(draw(st.integers(1, 4))):
            which = 2 * draw(st.integers(0, 2)) + partition
            file, run = files[which], runs[which % NODES, partition]
            event = draw(st.sampled_from(EVENTS))
            size = len(file.data)
            start, end = sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size))))
            whole = draw(st.booleans())
            start, end = (0, size) if whole else (start, end)
            mine = [each for each in files[partition::2] if each.node == file.node]
            if event == "ship" and start < end:
                batches.append(run.batch(*file.ranges([], start=start, end=end), of=[file]))
            elif event == "see":
                batches.append(run.inventory([(file, end, start)], began_s=end, full=False))
            elif event == "see all":
                began_s = draw(st.integers(0, 5000))
                listed = [(each, size, 0) for each in mine if draw(st.booleans())]
                batches.append(run.inventory(listed, began_s=began_s, full=True))
            elif event == "seal":
                seal = Seal(file.id, 0, end, 1, 0, "x")
                batches.append(run.batch(of=[file], seals=(seal,)))
            elif event == "gap":
                gap = GapEntry(file.id, 0, start, end, draw(st.booleans()), None, None, "x")
                batches.append(run.batch(of=[file], gaps=(gap,)))
            elif event == "gone":
                batches.append(run.batch(of=[file], gone=(Gone(file.id, 0),)))
            elif event == "open":
                opened = Open(file.id, 0, None, START_NS + end)
                batches.append(run.batch(of=[file], opens=(opened,)))
            elif event == "hole":
                run.sequence += 2
                way.skip(partition=partition)
            elif event == "restart":
                before, run.sequence = run.run, 0
                run.run = bytes([run.run[0] + NODES]) * 16
                batches.append(run.inventory([(file, end, 0)], replaces=Replaces(before, 3)))
            elif event == "retire":
                retired.append(Retired(file.node, "it was scaled down"))
            else:
                later_ns += draw(st.sampled_from([3600, 50 * 3600, 9 * 86400])) * SECOND
        made = way.commit(*batches, partition=partition)
        now_ns = made.committed_ns + later_ns
        commits.append(msgspec.structs.replace(made, committed_ns=now_ns))
        if retired:
            bare = Coverage(now_ns + 1, [], [], [], [], [], Balance(), retired=retired)
            commits.append(bare)
    # What was forgotten and is opened again is looked up when something is said to be there of it.
    for partition in (0, 1):
        told = [
            runs[which % NODES, partition].inventory([(files[which], len(files[which].data), 1)])
            for which in range(partition, 6, 2)
        ]
        made = way.commit(*told, partition=partition)
        commits.append(msgspec.structs.replace(made, committed_ns=made.committed_ns + later_ns))
    return commits


# -- the oracle ------------------------------------------------------------------------------


class Plain:
    """Answers from every file, one by one."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.gaps = list(find_gaps(ledger))
        self.gone = {entry.node for entry in ledger.retired} - {node for node, _ in ledger.nodes}

    def nodes(self, scope: Scope) -> set[str]:
        ledger = self.ledger
        if wanted := scope.equals.get("node"):
            return set(wanted)
        if scope.equals.get("pod"):
            found = {file.node for file in self.files(scope)}
            found |= {n.node for n in ledger.nodes.values() if any(blind_spots(n, scope))}
            if found - self.gone:
                return found
        return {node for node, _ in ledger.nodes} | {f.node for f in ledger.files.values()}

    def files(self, scope: Scope) -> Iterator[FileEntry]:
        return (file for file in self.ledger.files.values() if file_in_scope(file, scope))

    def until(self, node: str) -> int:
        entries = {p: entry for (name, p), entry in self.ledger.nodes.items() if name == node}
        named = {p for entry in entries.values() for p in entry.partitions}
        if not entries or named - entries.keys():
            return 0
        return min(entry.complete_until_ns for entry in entries.values())

    def streams(self, scope: Scope) -> dict[tuple[Any, str], list[FileEntry]]:
        found: dict[tuple[Any, str], list[FileEntry]] = {}
        for file in self.files(scope):
            found.setdefault((file.stream, file.node), []).append(file)
        return {place: of for place, of in found.items() if may_have_written(of, scope)}

    def harmful(self, scope: Scope) -> list[Gap]:
        nodes = self.nodes(scope)
        return [gap for gap in self.gaps if gap.harms and gap.touches(scope, nodes)]

    def verdict(self, scope: Scope) -> dict[str, Any]:
        nodes, gaps = self.nodes(scope), self.harmful(scope)
        until = {node: self.until(node) for node in nodes - self.gone}
        late = [node for node, until_ns in until.items() if scope.to_ns > until_ns]
        told = "incomplete" if gaps else "unknown" if late or not nodes else "complete"
        streams, covered, unknown = self.streams(scope), 0, 0
        hit = {(gap.file.stream, gap.file.node) for gap in gaps if gap.file is not None}
        everybody = {node for _, node in streams}
        hit_nodes = {node for gap in gaps if gap.file is None for node in (gap.nodes or everybody)}
        for stream, node in streams:
            if (stream, node) not in hit and node not in hit_nodes:
                is_late = node not in self.gone and scope.to_ns > self.until(node)
                covered, unknown = covered + (not is_late), unknown + is_late
        return {
            "verdict": told,
            "until": min(until.values(), default=0),
            "gaps": len(gaps),
            "streams": (len(streams), covered, unknown),
        }


def may_have_written(files: Sequence[FileEntry], scope: Scope) -> bool:
    firsts = [file.first_ns for file in files if file.first_ns]
    last = None if any(f.goes_on for f in files) else max(f.last_ns for f in files)
    return scope.overlaps(min(firsts, default=None), last)


def said(snapshot: Snapshot, scope: Scope) -> dict[str, Any]:
    told = judge(snapshot, scope, CLUSTER, Trouble())
    holder = told.held_back_by
    mark = snapshot.ledger.marks.get(holder.node) if holder else None
    streams = told.streams
    return {
        "verdict": told.verdict,
        "until": mark.until_ns if mark else 0,
        "gaps": told.gaps_total,
        "streams": (streams.expected, streams.covered, streams.unknown),
    }


def streams_said(snapshot: Snapshot, scope: Scope) -> list[dict[str, Any]]:
    return [each.model_dump() for each in list_streams(snapshot, scope, 100, CLUSTER).streams]


def gaps_said(gaps: Sequence[Gap]) -> list[dict[str, Any]]:
    return sorted(
        (gap_view(gap, CLUSTER).model_dump() for gap in gaps), key=lambda gap: str(gap["id"])
    )


SCOPES = [
    Scope(from_ns, to_ns, equals)
    for from_ns, to_ns in (
        (-(2**63), 2**63 - 1),
        (START_NS, START_NS + 4 * SECOND),
        (START_NS + 3 * SECOND, START_NS + 100 * 86_400 * SECOND),
        (START_NS - 100 * HOUR_NS, START_NS + 3 * SECOND),
    )
    for equals in (
        {}, {"namespace": ("shop",)}, {"namespace": ("none",)}, {"pod": ("pod-1",)},
        {"pod": ("pod-1", "pod-2", "none")}, {"node": ("node-2",)}, {"container": ("app",)},
    )
]  # fmt: skip


# Without shrinking: an example takes a second, and each commit of it may matter.
@examples(25, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(histories(), st.data())
def test_a_replica_says_what_a_walk_over_every_file_says(
    commits: list[Coverage], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        bucket = open_bucket(folder)
        logs = Table(bucket, CLUSTER)
        logs.make()
        follower = Replica(bucket, CLUSTER, 4)
        keeper = None
        for before, coverage in pairwise([commits[0], *commits]):
            if keeper is not None and coverage.committed_ns - before.committed_ns > HOUR_NS:
                follower.refresh()
                keeper.advance(logs)  # none is away for days
            add_coverage(logs, coverage)
            if keeper is None or data.draw(st.integers(0, 3)) == 0:
                now_ns = coverage.committed_ns
                keeper = Fold(bucket, CLUSTER, 1, repeat(now_ns).__next__)
            if data.draw(st.booleans()):
                follower.refresh()
                if data.draw(st.booleans()):
                    keeper.advance(logs)
        opened = Replica(bucket, CLUSTER, 4)
        whole = bring_up(Ledger(), logs, logs.version())
        plain = Plain(whole)
        for snapshot in (follower.refresh(), opened.refresh()):
            assert gaps_said(snapshot.gaps) == gaps_said(plain.gaps)
            for scope in SCOPES:
                assert said(snapshot, scope) == plain.verdict(scope)
                assert_streams(streams_said(snapshot, scope), plain.streams(scope))
        keeper = Fold(bucket, CLUSTER, 1, lambda: commits[-1].committed_ns)
        keeper.advance(logs)
        found = list(differences(LedgerTable(bucket, CLUSTER).load(), whole))
        assert not found


def assert_streams(
    found: list[dict[str, Any]], wanted: dict[tuple[Any, str], list[FileEntry]]
) -> None:
    assert [(each["pod"], each["node"]) for each in found] == [
        (stream.pod, node) for stream, node in sorted(wanted)
    ]
    for each, place in zip(found, sorted(wanted), strict=True):
        files = wanted[place]
        assert each["files"] == len(files)
        assert each["rows"] == sum(file.rows for file in files)
        assert each["bytes"] == sum(file.covered_bytes for file in files)
        assert each["ended"] == (not any(file.goes_on for file in files))
