"""A node that is gone for good holds back no answer, and what was not proved of it is a gap."""

from collections.abc import Sequence

import pytest

from indexer.keeper.fold import Fold
from indexer.keeper.ledger_command import main as ledger_command
from indexer.keeper.retire_command import SILENT_NS, retire
from indexer.query.scope import Scope
from query_api.command.cli import main as everyline
from query_api.completeness.replica import Replica
from query_api.completeness.verdict import Trouble, judge
from tests.query_api.written import CLUSTER, SECOND, START_NS, Line, Written

LATER_NS = START_NS + 3600 * SECOND


def line(second: int, pod: str = "api-1") -> Line:
    return Line(START_NS + second * SECOND, f"line {second}", pod=pod)


@pytest.fixture
def two_nodes(written: Written) -> Written:
    """Of two nodes, one that has said nothing for an hour, and some of whose bytes are missing."""
    written.ship(line(0), line(1))
    written.ship(line(0, "web-1"), line(1, "web-1"), node="node-2")
    written.inventory(START_NS + 5 * SECOND, node="node-2")
    written.inventory(LATER_NS)
    return written


def verdict(written: Written, **equals: Sequence[str]) -> tuple[str, list[str], list[str]]:
    replica = Replica(written.bucket, CLUSTER, 4)
    scope = Scope(START_NS, LATER_NS, {name: tuple(of) for name, of in equals.items()})
    said = judge(replica.refresh(), scope, CLUSTER, Trouble())
    return said.verdict, [gap.type for gap in said.gaps], said.reasons


def test_a_node_that_was_retired_holds_nothing_back_but_what_it_may_have_written(
    two_nodes: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict(two_nodes)[0] == "unknown"
    assert retire(two_nodes.bucket, CLUSTER, ["node-2"], "scaled down", LATER_NS) == 0
    assert "node-2: retired by version" in capsys.readouterr().out
    told, gaps, _ = verdict(two_nodes)
    assert (told, gaps) == ("incomplete", ["NODE_RETIRED"])
    assert verdict(two_nodes, node=["node-1"])[:2] == ("complete", [])
    assert verdict(two_nodes, pod=["api-1"])[:2] == ("complete", [])
    assert verdict(two_nodes, pod=["web-1"])[:2] == ("incomplete", ["NODE_RETIRED"])


def test_the_gap_of_a_node_begins_where_it_was_proved_and_ends_where_it_was_retired(
    two_nodes: Written,
) -> None:
    retire(two_nodes.bucket, CLUSTER, ["node-2"], "scaled down", LATER_NS)
    [gap] = Replica(two_nodes.bucket, CLUSTER, 4).refresh().gaps
    assert (gap.from_ns, gap.to_ns) == (START_NS + 5 * SECOND, LATER_NS)
    assert (gap.state, gap.nodes, gap.proof) == ("UNKNOWN", ("node-2",), "retired: scaled down")


def test_a_node_that_comes_back_is_waited_for_again_and_closes_its_gap(
    two_nodes: Written,
) -> None:
    retire(two_nodes.bucket, CLUSTER, ["node-2"], "scaled down", LATER_NS)
    two_nodes.inventory(LATER_NS - SECOND, node="node-2")
    replica = Replica(two_nodes.bucket, CLUSTER, 4)
    assert [gap.state for gap in replica.refresh().gaps] == ["UNKNOWN"]
    assert "node-2" in replica.newest.ledger.marks
    two_nodes.inventory(LATER_NS + SECOND, node="node-2")
    assert [gap.state for gap in replica.refresh().gaps] == ["RECOVERED"]
    assert verdict(two_nodes)[0] == "complete"


def test_what_was_seen_on_a_node_and_has_not_come_is_a_gap_of_its_file(
    two_nodes: Written,
) -> None:
    file = two_nodes.node("node-2").files[line(0, "web-1").stream]
    size, file.size = file.size, file.size + 100
    two_nodes.inventory(START_NS + 9 * SECOND, node="node-2", acked=size)
    retire(two_nodes.bucket, CLUSTER, ["node-2"], "its disk is broken", LATER_NS)
    gaps = Replica(two_nodes.bucket, CLUSTER, 4).refresh().gaps
    of_files = [gap for gap in gaps if gap.file is not None]
    assert {(gap.type, gap.start, gap.end) for gap in of_files} >= {
        ("NODE_RETIRED", size, size + 100)
    }


def test_only_a_node_that_is_silent_and_known_is_retired(
    two_nodes: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    now_ns = LATER_NS + SILENT_NS - 1
    asked = ["node-1", "node-22", "node-2"]
    assert retire(two_nodes.bucket, CLUSTER, asked, "x", now_ns) == 1
    said = capsys.readouterr()
    assert said.out.startswith("node-2: retired")
    assert "node-1: not retired: its collector has said something at 20" in said.err
    assert "node-22: not retired: nothing has ever come" in said.err
    assert "there are node-2" in said.err
    assert retire(two_nodes.bucket, CLUSTER, ["node-2"], "x", now_ns) == 1
    assert "node-2: not retired: it is retired already" in capsys.readouterr().err


def test_the_command_retires_and_the_ledger_equals_its_coverage(
    two_nodes: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--cluster", CLUSTER, "--bucket", two_nodes.bucket.uri]
    assert everyline(["retire", "node-2", "--why", "scaled down", *where], {}) == 0
    fold = Fold(two_nodes.bucket, CLUSTER, 24, lambda: LATER_NS)
    assert fold.advance(two_nodes.table)
    assert ledger_command(["--check", *where], {}) == 0
    assert verdict(two_nodes)[1] == ["NODE_RETIRED"]
    with pytest.raises(SystemExit):
        everyline(["retire", "node-1", *where], {})  # nobody says why
