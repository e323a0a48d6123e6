"""The account finds each kind of untruth: it is wrong wherever a table or a ledger is."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexer.ledger.entries import FileEntry
from load_tests.account import Account, Row, account, namer
from load_tests.kubelet import Kubelet, Rates
from load_tests.truth import File, Lines, read
from load_tests.verify import messages
from query_api.completeness.gaps import LOST, Gap

BEGAN_NS = 1_700_000_000 * 10**9


class Node:
    """One container's files, and what a faultless table holds of them."""

    def __init__(self, folder: Path) -> None:
        (folder / "pods").mkdir()
        rates = Rates(files=1, lines_per_s=700.0, max_bytes=100_000, max_files=3)
        kubelet = Kubelet(folder / "pods", folder / "truth", rates, 3, BEGAN_NS)
        for second in range(1, 7):
            kubelet.write(BEGAN_NS + second * 10**9)
            kubelet.tick(BEGAN_NS + second * 10**9)
        kubelet.close(BEGAN_NS + 7 * 10**9)
        self.lines: Lines
        self.files: list[File]
        self.lines, self.files = read(folder / "truth")
        self.name = namer("test", "node-1")
        self.rows: dict[bytes, list[Row]] = {}
        self.contents: list[bytes] = []
        for file in self.files:
            content = file.content(self.lines)
            self.contents.append(content)
            self.rows[self.ident(len(self.contents) - 1)] = rows_of(content)

    def ident(self, number: int) -> bytes:
        return self.name(self.files[number], self.contents[number].partition(b"\n")[0])

    def gap(self, start: int, end: int, *, exact: bool = True, number: int = 0) -> Gap:
        """Return a gap of the file with a number."""
        namespace, pod, pod_uid, container, restart = self.files[number].name
        entry = FileEntry(
            file_id=self.ident(number), epoch=0, partition=0, node="node-1", namespace=namespace,
            pod=pod, pod_uid=pod_uid, container=container, restart=restart,
        )  # fmt: skip
        return Gap(
            id="", type="", state=LOST, reason="", proof="", found_ns=0, partition=0,
            from_ns=None, to_ns=None, nodes=("node-1",), file=entry,
            start=start, end=end, end_exact=exact,
        )  # fmt: skip

    def cut(self, first: int, last: int) -> tuple[int, int]:
        """Take rows out of the first file; return the bytes from the first to the row ``last``."""
        rows = self.rows[self.ident(0)]
        start, end = rows[first].offset, rows[last].offset
        del rows[first:last]
        return start, end

    def account(self, gaps: Sequence[Gap] = ()) -> Account:
        return account(self.files, self.lines, self.name, self.rows, gaps)


def rows_of(content: bytes) -> list[Row]:
    """Return the rows of a file, by the reading of load_tests.verify."""
    outputs, starts, at = [], [], 0
    going_on: set[bytes] = set()
    for line in content.splitlines(keepends=True):
        _, output, tag, _ = line.split(b" ", 3)
        if output not in going_on:
            outputs.append(output.decode())
            starts.append(at)
        going_on = going_on - {output} | ({output} if tag == b"P" else set())
        at += len(line)
    return [
        Row(start, time_ns, output, message)
        for start, output, (time_ns, message) in zip(
            starts, outputs, messages(content), strict=True
        )
    ]


@pytest.fixture(scope="module")
def faultless(tmp_path_factory: pytest.TempPathFactory) -> Node:
    return Node(tmp_path_factory.mktemp("node"))


@pytest.fixture
def node(faultless: Node) -> Node:
    """A node whose rows a test may change."""
    node = copy.copy(faultless)
    node.rows = {ident: list(rows) for ident, rows in faultless.rows.items()}
    return node


def test_all_rows_and_no_gap_leave_nothing_to_say(node: Node) -> None:
    found = node.account()
    assert found.wrong == []
    assert found.files == len([content for content in node.contents if content]) > 3
    assert found.lines == found.arrived == sum(content.count(b"\n") for content in node.contents)
    assert found.lines > sum(len(rows) for rows in node.rows.values())  # some have fragments


def test_lines_that_are_nowhere_are_lost_in_silence(node: Node) -> None:
    node.cut(5, 8)
    found = node.account()
    assert len(found.silent) == 3
    assert not found.settled
    assert len(found.wrong) == 3


def test_a_file_that_is_nowhere_is_lost_in_silence(node: Node) -> None:
    rows = node.rows.pop(node.ident(1))
    assert len(node.account().silent) >= len(rows)


@pytest.mark.parametrize("exact", [True, False])
def test_lines_in_a_gap_are_lost_by_name(node: Node, exact: bool) -> None:
    start, end = node.cut(5, len(node.rows[node.ident(0)]) - 1)
    node.rows[node.ident(0)].pop()
    size = len(node.contents[0])
    found = node.account([node.gap(start, size if exact else end, exact=exact)])
    assert found.wrong == []
    assert found.lost_bytes == size - start
    assert found.lost_exactly == (found.lost if exact else 0)
    assert found.arrived + found.lost == found.lines


def test_a_gap_of_unknown_extent_at_the_end_is_counted_and_not_wrong(node: Node) -> None:
    size = len(node.contents[0])
    found = node.account([node.gap(size, size, exact=False)])
    assert found.wrong == []
    assert found.needless == 1


@pytest.mark.parametrize("exact", [True, False])
def test_a_file_that_nobody_has_seen_is_lost_by_name_if_the_one_before_has_an_open_end(
    node: Node, exact: bool
) -> None:
    size, rows = len(node.contents[0]), node.rows.pop(node.ident(1))
    gap = node.gap(size, size, exact=exact)
    gap = replace(gap, from_ns=node.files[0].opened_ns, to_ns=rows[-1].time_ns)
    found = node.account([gap])
    late = replace(gap, to_ns=rows[-1].time_ns - 1)
    assert len(node.account([late]).silent) == (1 if not exact else len(found.silent))
    if exact:
        assert len(found.silent) >= len(rows)
    else:
        assert found.wrong == []
        assert found.unseen == found.lost >= len(rows)


Harm = Callable[[int, int], tuple[int, int, bool]]


@pytest.mark.parametrize(
    ("harm", "kinds"),
    [
        pytest.param(lambda start, end: (start + 1, end, True), {"silent"}, id="starts late"),
        pytest.param(lambda start, end: (start, end - 1, True), {"silent"}, id="ends early"),
        pytest.param(lambda start, end: (start - 1, end, True), {"besides"}, id="starts early"),
        pytest.param(lambda start, end: (start, end + 1, True), {"besides"}, id="ends late"),
        pytest.param(lambda start, end: (start, end, False), {"besides"}, id="has an open end"),
        pytest.param(lambda start, end: (0, 10**9, True), {"besides"}, id="goes over the end"),
    ],
)
def test_a_gap_is_wrong_by_the_byte(node: Node, harm: Harm, kinds: set[str]) -> None:
    start, end, exact = harm(*node.cut(5, 8))
    found = node.account([node.gap(start, end, exact=exact)])
    assert {wrong.partition(":")[0] for wrong in found.wrong} == kinds


@pytest.mark.parametrize(("early_ns", "late_ns", "untimely"), [(0, 0, 0), (1, 0, 1), (0, 1, 1)])
def test_a_gap_must_hold_the_times_of_its_lines(
    node: Node, early_ns: int, late_ns: int, untimely: int
) -> None:
    rows = node.rows[node.ident(0)][5:8]
    gap = node.gap(*node.cut(5, 8))
    first_ns, last_ns = rows[0].time_ns, rows[-1].time_ns
    gap = replace(gap, from_ns=first_ns + early_ns, to_ns=last_ns - late_ns)
    found = node.account([gap])
    assert len(found.untimely) == len(found.wrong) == untimely


def test_a_gap_of_a_file_that_nobody_wrote_is_strange(node: Node) -> None:
    gap = node.gap(0, 1)
    assert gap.file is not None
    gap.file.file_id = bytes(16)
    assert len(node.account([gap]).strange) == 1


def test_a_gap_of_batches_is_strange_until_it_is_explained(node: Node) -> None:
    gap = replace(node.gap(0, 1), file=None, batches=(1, 1))
    assert len(node.account([gap]).strange) == 1
    assert node.account([replace(gap, explained=True)]).wrong == []


def test_a_row_that_comes_twice_is_named(node: Node) -> None:
    node.rows[node.ident(0)].append(node.rows[node.ident(0)][3])
    found = node.account()
    assert len(found.twice) == 1
    assert len(found.wrong) == 1


@pytest.mark.parametrize(
    "change",
    [{"message": b"another"}, {"offset": 1}, {"time_ns": 0}, {"output": "unknown"}],
)
def test_a_row_that_is_not_as_it_was_written_is_strange_and_its_line_is_missing(
    node: Node, change: dict[str, Any]
) -> None:
    rows = node.rows[node.ident(0)]
    rows[3] = replace(rows[3], **change)
    found = node.account()
    assert len(found.strange) == 1
    assert len(found.silent) == 1


def test_rows_of_a_file_that_nobody_wrote_are_strange(node: Node) -> None:
    node.rows[bytes(16)] = [node.rows[node.ident(0)][0]]
    assert len(node.account().strange) == 1


def test_an_event_may_come_in_two_rows_cut_between_its_fragments(node: Node) -> None:
    """A collector that had to cut an open event sends its parts as they are."""
    for number, content in enumerate(node.contents):
        for at, row in enumerate(node.rows[node.ident(number)] if content else []):
            cut = content.find(b"\n", row.offset) + 1
            head = content[row.offset : cut - 1].split(b" ", 3)
            if head[2] == b"P" and len(row.message) > len(head[3]):
                rows = node.rows[node.ident(number)]
                rows[at] = replace(row, message=head[3])
                assert len(node.account().silent) >= 1
                place = content.index(row.message[len(head[3]) :][:16_000])
                start = content.rfind(b"\n", 0, place) + 1
                [(time_ns, _)] = messages(content[start : content.index(b"\n", start) + 1])
                rows.append(Row(start, time_ns, row.output, row.message[len(head[3]) :]))
                assert node.account().wrong == []
                return
    pytest.fail("no event has fragments")
