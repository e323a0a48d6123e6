"""The fold: loss only with proof, completeness only as far as every inventory is accounted for."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import msgspec
import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.wire.batch import Batch, Gap, Gone, Open, Replaces, Seal, Unborn
from indexer.errors import TableUnavailable
from indexer.keeper.jobs import Jobs
from indexer.keeper.metrics import KeeperMetrics
from indexer.keeper.settings import KeeperSettings
from indexer.ledger.bring_up import bring_up
from indexer.ledger.entries import (
    LOST_ROTATED,
    LOST_TOPIC,
    UNACCOUNTED,
    UNPARSED,
    BlindSpot,
    FileEntry,
    LaneHole,
    NodeEntry,
)
from indexer.ledger.ledger import Ledger
from indexer.ledger.rows import file_rows, state_rows, take_files, take_state
from indexer.ledger.stored import LedgerTable
from indexer.store.bucket import Bucket
from indexer.table.coverage import Balance, Coverage, Deleted, Expired, LaneSpan
from indexer.table.table import Table, in_order
from query_api.completeness.gaps import LOST, RECOVERED, UNKNOWN, find_gaps
from query_api.completeness.gaps import Gap as Found
from tests.examples import examples
from tests.indexer.shipped import CLUSTER, SECOND, START_NS, File, Run, Way
from tests.indexer.table.test_table import add_coverage
from tests.way import lines

WEB = File(lines(0, 40))
SIZE = len(WEB.data)
LINE = SIZE // 40


def ranges(*cuts: int, start: int = 0, end: int | None = None) -> list:
    return WEB.ranges(cuts, start=start, end=end)


def entry(way: Way, epoch: int = 0) -> FileEntry:
    return way.ledger.files[WEB.id, epoch]


def node(way: Way, partition: int = 0) -> NodeEntry:
    return way.ledger.nodes["node-1", partition]


def until_s(way: Way, partition: int = 0) -> float | None:
    """Return how far the node is complete, in seconds; None if nothing proves it."""
    until_ns = node(way, partition).complete_until_ns
    return (until_ns - START_NS) / SECOND if until_ns else None


def gaps(way: Way) -> list[Found]:
    return list(find_gaps(way.ledger))


def harmful(way: Way) -> list[tuple[str, str]]:
    return [(gap.type, gap.state) for gap in gaps(way) if gap.harms]


# -- lanes -----------------------------------------------------------------------------------


def holes(way: Way, run: Run) -> list[tuple[int, int]]:
    return [(hole.first, hole.last) for hole in way.ledger.lanes[run.run, run.partition].holes]


def numbered(run: Run, sequence: int, oldest_unacked: int) -> Batch:
    run.sequence = sequence
    return run.batch(oldest_unacked=oldest_unacked)


def test_a_missing_number_is_lost_only_when_the_lane_has_acknowledged_it() -> None:
    way, run = Way(), Run()
    way.commit(numbered(run, 0, 0), numbered(run, 3, 1))
    assert holes(way, run) == []
    way.commit(numbered(run, 4, 2))
    assert holes(way, run) == [(1, 1)]
    way.commit(numbered(run, 5, 4))
    assert holes(way, run) == [(1, 1), (2, 2)]
    assert harmful(way) == [(LOST_TOPIC, LOST)] * 2


def test_each_commit_proves_its_own_part_of_a_hole() -> None:
    way, run = Way(), Run()
    way.commit(numbered(run, 0, 0))
    way.commit(numbered(run, 9, 3))
    way.commit(numbered(run, 10, 9))
    assert holes(way, run) == [(1, 2), (3, 8)]
    lost = [n for g in gaps(way) if g.batches for n in range(g.batches[0], g.batches[1] + 1)]
    assert lost == list(range(1, 9))
    way.commit(run.inventory([], began_s=50))
    assert until_s(way) == 50  # every hole before it is known


def test_a_hole_is_bounded_by_the_times_of_the_batches_around_it() -> None:
    way, run = Way(), Run()
    way.commit(numbered(run, 4, 0), numbered(run, 7, 7))
    first, second = way.ledger.lanes[run.run, 0].holes
    assert (first.first, first.last, first.from_ns) == (0, 3, None)
    assert first.to_ns == START_NS + 4 * SECOND
    assert (second.first, second.last) == (5, 6)
    assert (second.from_ns, second.to_ns) == (START_NS + 4 * SECOND, START_NS + 7 * SECOND)


def test_a_batch_that_comes_after_all_closes_its_hole() -> None:
    way, run = Way(), Run()
    way.commit(numbered(run, 0, 0), numbered(run, 3, 3))
    assert [gap.batches for gap in gaps(way)] == [(1, 2)]
    way.commit(numbered(run, 1, 0))
    assert [(gap.batches, gap.state) for gap in gaps(way)] == [((2, 2), LOST)]
    way.commit(numbered(run, 2, 0))
    assert [(gap.batches, gap.state) for gap in gaps(way)] == [((1, 2), RECOVERED)]
    assert harmful(way) == []


def test_repeated_and_reordered_numbers_are_no_holes() -> None:
    way, run = Way(), Run()
    for sequence in (2, 0, 1, 1, 3, 2, 0, 4):
        way.commit(numbered(run, sequence, 0))
    way.commit(numbered(run, 5, 5))
    assert holes(way, run) == []
    [seen] = way.ledger.lanes[run.run, 0].seen
    assert (seen.first, seen.last) == (0, 5)


def test_two_thousand_million_lost_batches_are_one_hole() -> None:
    way, run = Way(), Run()
    far = (1 << 31) - 9
    way.commit(numbered(run, 0, 0), numbered(run, far, far), numbered(run, far + 1, far + 1))
    assert holes(way, run) == [(1, far - 1)]
    way.commit(run.inventory([], began_s=9))
    assert until_s(way) == 9


def test_a_new_run_says_what_the_old_one_had_acknowledged() -> None:
    way, old, new = Way(), Run(), Run(run=b"run-2".ljust(16))
    way.commit(numbered(old, 0, 0), numbered(old, 2, 0))
    way.commit(new.inventory([], replaces=Replaces(old.run, 3)))
    assert holes(way, old) == [(1, 1)]
    assert b"run-2".hex() in way.ledger.lanes[old.run, 0].holes[0].proof


def test_a_run_of_which_nothing_came_is_lost_whole() -> None:
    way, new = Way(), Run(run=b"run-2".ljust(16))
    never = b"never".ljust(16)
    way.commit(new.inventory([], replaces=Replaces(never, 7)))
    lane = way.ledger.lanes[never, 0]
    assert [(hole.first, hole.last) for hole in lane.holes] == [(0, 6)]
    assert lane.node == "node-1"


def test_a_dead_letter_leaves_no_hole_in_its_lane() -> None:
    way, run = Way(), Run()
    made = way.commit(numbered(run, 0, 0), b"torn", numbered(run, 2, 2))
    assert holes(way, run) == [(1, 1)]  # its headers were lost
    named = msgspec.structs.replace(
        made, lanes=[LaneSpan(0, "", run.run, 1, 1, 0, 0, 0), *made.lanes]
    )
    again = Ledger()
    again.apply(named, 0)
    assert again.lanes[run.run, 0].holes == []
    assert again.lanes[run.run, 0].node == "node-1"
    [gap] = list(find_gaps(again))
    assert gap.type == UNPARSED


# -- inventories and seals -------------------------------------------------------------------


def test_acknowledged_bytes_that_are_not_there_are_lost_to_the_byte() -> None:
    way, run = Way(), Run()
    first, second, third = ranges(10 * LINE, 20 * LINE)
    way.commit(run.batch(first, of=[WEB]), run.batch(third, of=[WEB]))
    way.commit(run.inventory([(WEB, SIZE, 10 * LINE)], full=False))
    assert entry(way).lost == []  # seen, read, not acknowledged: it may still come
    way.commit(run.inventory([(WEB, SIZE, SIZE)], full=False))
    [lost] = entry(way).lost
    assert (lost.type, lost.start, lost.end, lost.end_exact) == (
        LOST_TOPIC, second.start, second.end, True,
    )  # fmt: skip
    parts = entry(way).covered
    assert (lost.from_ns, lost.to_ns) == (parts[0].last_ns, parts[1].first_ns)
    way.commit(run.inventory([(WEB, SIZE, SIZE)]))
    assert len(entry(way).lost) == 1
    assert harmful(way) == [(LOST_TOPIC, LOST)]


def test_lost_bytes_that_come_later_are_recovered() -> None:
    way, run = Way(), Run()
    first, second, third = ranges(10 * LINE, 20 * LINE)
    way.commit(run.batch(first, of=[WEB]), run.inventory([(WEB, SIZE, SIZE)]))
    assert [(g.start, g.end, g.state) for g in gaps(way)] == [(first.end, SIZE, LOST)]
    way.commit(run.batch(third, of=[WEB]))
    assert [(g.start, g.end, g.state) for g in gaps(way)] == [(first.end, second.end, LOST)]
    way.commit(run.batch(second, of=[WEB]))
    assert [g.state for g in gaps(way)] == [RECOVERED]
    assert harmful(way) == []
    assert until_s(way) == 0  # the inventory was accounted for


def test_a_seal_proves_what_its_file_misses() -> None:
    way, run = Way(), Run()
    [first, _] = ranges(10 * LINE)
    seal = Seal(WEB.id, 0, SIZE, 40, WEB.crc(SIZE), "rotated")
    way.commit(run.batch(first, of=[WEB]), run.batch(of=[WEB], seals=(seal,)))
    [lost] = entry(way).lost
    assert (lost.start, lost.end, lost.type) == (10 * LINE, SIZE, LOST_TOPIC)
    assert "seal in batch 1" in lost.proof
    assert entry(way).sealed


def test_a_seal_of_a_whole_file_proves_no_loss() -> None:
    way, run = Way(), Run()
    seal = Seal(WEB.id, 0, SIZE, 40, WEB.crc(SIZE), "rotated")
    way.commit(run.batch(*ranges(LINE), of=[WEB]), run.batch(of=[WEB], seals=(seal,)))
    assert entry(way).lost == []
    assert gaps(way) == []


def reported(start: int, end: int, exact: bool = False, reason: str = "deleted") -> Gap:
    return Gap(WEB.id, 0, start, end, exact, None, START_NS, reason)


def test_a_gap_that_two_runs_report_is_one() -> None:
    way, run = Way(), Run()
    way.commit(run.batch(*ranges(end=10 * LINE), of=[WEB]))
    gap = reported(10 * LINE, 12 * LINE)
    way.commit(run.batch(of=[WEB], gaps=(gap,)))
    way.commit(Run(run=b"2" * 16).batch(of=[WEB], gaps=(gap,)))
    [lost] = entry(way).lost
    assert (lost.type, lost.start, lost.end, lost.end_exact) == (
        LOST_ROTATED, 10 * LINE, 12 * LINE, False,
    )  # fmt: skip
    assert lost.from_ns == entry(way).last_ns
    assert entry(way).size == 12 * LINE


def test_what_the_collector_has_reported_is_not_lost_twice() -> None:
    way, run = Way(), Run()
    way.commit(run.batch(*ranges(end=10 * LINE), of=[WEB]))
    way.commit(run.batch(of=[WEB], gaps=(reported(15 * LINE, 20 * LINE, exact=True),)))
    way.commit(run.batch(of=[WEB], gaps=(reported(30 * LINE, 32 * LINE),)))
    way.commit(run.inventory([(WEB, SIZE, SIZE)]))
    assert sorted((lost.type, lost.start, lost.end) for lost in entry(way).lost) == [
        (LOST_ROTATED, 15 * LINE, 20 * LINE),
        (LOST_ROTATED, 30 * LINE, 32 * LINE),
        (LOST_TOPIC, 10 * LINE, 15 * LINE),
        (LOST_TOPIC, 20 * LINE, 30 * LINE),
    ]


def test_an_open_end_is_unknown_until_the_file_is_whole() -> None:
    way, run = Way(), Run()
    way.commit(run.batch(*ranges(end=10 * LINE), of=[WEB]))
    way.commit(run.batch(of=[WEB], gaps=(reported(10 * LINE, 10 * LINE),)))
    assert harmful(way) == [(LOST_ROTATED, UNKNOWN)]
    way.commit(run.batch(*ranges(start=10 * LINE), of=[WEB]))
    assert harmful(way) == [(LOST_ROTATED, UNKNOWN)]
    seal = Seal(WEB.id, 0, SIZE, 40, WEB.crc(SIZE), "rotated")
    way.commit(run.batch(of=[WEB], seals=(seal,)))
    assert harmful(way) == []
    assert [gap.state for gap in gaps(way)] == [RECOVERED]


def harms(way: Way) -> list[tuple[str, int | None, int | None, bool | None]]:
    return [(gap.state, gap.start, gap.end, gap.end_exact) for gap in gaps(way) if gap.harms]


def test_what_came_from_behind_an_open_loss_ends_it_and_leaves_its_end_unknown() -> None:
    way, run = Way(), Run()
    way.commit(run.batch(*ranges(end=10 * LINE), of=[WEB]))
    way.commit(run.batch(of=[WEB], gaps=(reported(10 * LINE, 12 * LINE),)))
    assert harms(way) == [(LOST, 10 * LINE, 12 * LINE, False)]
    way.commit(run.batch(*ranges(start=11 * LINE, end=20 * LINE), of=[WEB]))
    assert harms(way) == [
        (LOST, 10 * LINE, 11 * LINE, True), (UNKNOWN, 20 * LINE, 20 * LINE, False),
    ]  # fmt: skip
    way.commit(run.batch(*ranges(start=30 * LINE), of=[WEB]))
    assert harms(way) == [
        (LOST, 10 * LINE, 11 * LINE, True),
        (LOST, 20 * LINE, 30 * LINE, True),
        (UNKNOWN, SIZE, SIZE, False),
    ]
    seal = Seal(WEB.id, 0, SIZE, 40, WEB.crc(SIZE), "rotated")
    way.commit(run.batch(of=[WEB], seals=(seal,)))
    assert harms(way) == [
        (LOST, 10 * LINE, 11 * LINE, True), (LOST, 20 * LINE, 30 * LINE, True),
    ]  # fmt: skip


def test_bytes_that_several_reports_name_are_in_the_gap_of_the_latest() -> None:
    way, run = Way(), Run()
    way.commit(run.batch(*ranges(end=10 * LINE), of=[WEB]))
    way.commit(run.batch(of=[WEB], gaps=(reported(10 * LINE, 12 * LINE, reason="held"),)))
    way.commit(run.batch(*ranges(start=10 * LINE, end=11 * LINE), of=[WEB]))
    way.commit(run.batch(of=[WEB], gaps=(reported(11 * LINE, 15 * LINE),)))
    assert harms(way) == [(LOST, 11 * LINE, 15 * LINE, False)]
    [gap] = gaps(way)
    assert gap.reason == "deleted"
    way.commit(run.batch(*ranges(start=11 * LINE), of=[WEB]))
    seal = Seal(WEB.id, 0, SIZE, 40, WEB.crc(SIZE), "rotated")
    way.commit(run.batch(of=[WEB], seals=(seal,)))
    assert harms(way) == []


def test_the_time_of_a_loss_is_given_a_second_since_lines_are_stamped_before_they_are_written() -> (
    None
):
    way, run = Way(), Run()
    way.commit(run.batch(*ranges(end=10 * LINE), of=[WEB]))
    way.commit(run.batch(of=[WEB], gaps=(reported(10 * LINE, 12 * LINE),)))
    [gap] = gaps(way)
    assert gap.from_ns == entry(way).last_ns - 1_000_000_000
    assert gap.to_ns == START_NS + 1_000_000_000


def test_open_and_gone_are_noted() -> None:
    way, run = Way(), Run()
    way.commit(run.batch(of=[WEB], opens=(Open(WEB.id, 0, b"p" * 16, 5),)))
    assert (entry(way).previous, entry(way).seen_ns) == (b"p" * 16, 5)
    way.commit(run.batch(of=[WEB], gone=(Gone(WEB.id, 0),)))
    assert entry(way).gone_ns


# -- a new run -------------------------------------------------------------------------------


def second_run() -> Run:
    return Run(run=b"run-2".ljust(16))


def test_a_new_run_that_does_not_know_an_open_file_leaves_it_unaccounted() -> None:
    way, run, new = Way(), Run(), second_run()
    way.commit(run.batch(*ranges(end=10 * LINE), of=[WEB]), run.inventory([(WEB, SIZE, 0)]))
    way.commit(new.inventory([], began_s=60))
    [lost] = entry(way).lost
    assert (lost.type, lost.start, lost.end, lost.end_exact) == (
        UNACCOUNTED, 10 * LINE, SIZE, False,
    )  # fmt: skip
    assert harmful(way) == [(UNACCOUNTED, LOST)]  # a size beyond was seen
    way.commit(Run(run=b"3" * 16).inventory([], began_s=70))
    assert len(entry(way).lost) == 1


def test_a_file_whose_open_did_not_come_is_older_than_a_scan_by_its_rows_or_reports() -> None:
    """A spool sends the inventory of a run long after, together with what later runs have read."""
    for late in ({"ranges": ranges(end=10 * LINE)}, {"gaps": (reported(0, LINE, exact=True),)}):
        way, run, new = Way(), Run(), second_run()
        rows = late.pop("ranges", ())
        way.commit(new.inventory([], began_s=-20_000_000), run.batch(*rows, of=[WEB], **late))
        assert [lost.type for lost in entry(way).lost] == [LOST_ROTATED] * (not rows)
        way.commit(Run(run=b"3" * 16).inventory([], began_s=60))
        assert UNACCOUNTED in [lost.type for lost in entry(way).lost]


def test_an_unaccounted_file_of_which_no_more_was_seen_is_unknown_not_lost() -> None:
    way, run, new = Way(), Run(), second_run()
    way.commit(run.batch(*ranges(), of=[WEB]), run.inventory([(WEB, SIZE, SIZE)]))
    way.commit(new.inventory([]))
    assert harmful(way) == [(UNACCOUNTED, UNKNOWN)]


@pytest.mark.parametrize("ended", ["sealed", "gone", "listed", "reported", "elsewhere"])
def test_a_new_run_accounts_for_files_that_ended_or_are_listed(ended: str) -> None:
    way, run, new = Way(), Run(), second_run()
    way.commit(run.batch(*ranges(), of=[WEB]), run.inventory([(WEB, SIZE, SIZE)]))
    if ended == "sealed":
        way.commit(run.batch(of=[WEB], seals=(Seal(WEB.id, 0, SIZE, 40, 0, "rotated"),)))
    elif ended == "gone":
        way.commit(run.batch(of=[WEB], gone=(Gone(WEB.id, 0),)))
    elif ended == "reported":
        way.commit(run.batch(of=[WEB], gaps=(reported(SIZE, SIZE),)))
    if ended == "elsewhere":
        new.node = "node-2"
    way.commit(new.inventory([(WEB, SIZE, SIZE)] if ended == "listed" else []))
    assert [lost.type for lost in entry(way).lost if lost.type == UNACCOUNTED] == []


def test_only_the_first_full_inventory_of_a_run_tells_what_it_does_not_know() -> None:
    """The first one may be lost: then the next full one still tells."""
    way, run, new = Way(), Run(), second_run()
    way.commit(run.batch(*ranges(), of=[WEB]), run.inventory([(WEB, SIZE, SIZE)]))
    way.commit(new.inventory([], full=False, began_s=5))
    assert entry(way).lost == []
    way.commit(new.inventory([], began_s=10))
    assert [lost.type for lost in entry(way).lost] == [UNACCOUNTED]


# -- complete until --------------------------------------------------------------------------


def test_the_mark_moves_when_all_that_an_inventory_saw_is_covered() -> None:
    way, run = Way(), Run()
    first, second = ranges(10 * LINE)
    way.commit(run.batch(first, of=[WEB]), run.inventory([(WEB, SIZE, first.end)], began_s=10))
    assert until_s(way) is None
    assert node(way).holds_back == f"file {WEB.id.hex()} has {SIZE} bytes on disk"
    way.commit(run.batch(second, of=[WEB]))
    assert until_s(way) == 10
    assert node(way).holds_back == ""
    way.commit(run.inventory([], full=False, began_s=20))
    assert until_s(way) == 20


def test_the_mark_never_goes_back() -> None:
    way, run = Way(), Run()
    way.commit(run.inventory([], began_s=20))
    way.commit(run.inventory([], began_s=10))
    assert until_s(way) == 20


def test_a_size_in_a_known_gap_does_not_hold_the_mark_back() -> None:
    way, run = Way(), Run()
    way.commit(
        run.batch(*ranges(end=10 * LINE), of=[WEB]),
        run.batch(of=[WEB], gaps=(reported(10 * LINE, SIZE, exact=True),)),
        run.inventory([(WEB, SIZE, 10 * LINE)], began_s=10),
    )
    assert until_s(way) == 10
    assert harmful(way) == [(LOST_ROTATED, LOST)]


def test_a_number_that_has_not_come_holds_the_mark_back_until_it_is_proved_lost() -> None:
    way, run = Way(), Run()
    way.commit(numbered(run, 0, 0))
    run.sequence = 2
    inventory = run.inventory([], began_s=10)
    way.commit(replace(inventory, oldest_unacked=1))
    assert until_s(way) is None
    assert node(way).holds_back.startswith("batch 1 of run")
    way.commit(numbered(run, 3, 3))
    assert until_s(way) == 10


def test_a_scan_that_did_not_see_everything_moves_no_mark() -> None:
    way, run = Way(), Run()
    way.commit(run.inventory([], began_s=5))
    way.commit(run.inventory([], began_s=10, errors=("web: denied",)))
    assert until_s(way) == 5
    assert node(way).errors == ["web: denied"]
    way.commit(run.inventory([], began_s=15))
    assert until_s(way) == 15


def test_a_file_without_a_name_holds_back_its_own_container_since_it_was_found() -> None:
    way, run = Way(), Run()
    way.commit(run.inventory([], began_s=5))
    since_ns = START_NS + 5 * SECOND
    for began_s in (10, 15):
        way.commit(run.inventory([], began_s=began_s, unborn=(Unborn(WEB.stream, 3),) * 2))
        assert until_s(way) == began_s
        assert node(way).blind_spots == [BlindSpot("shop", "web", "app", since_ns)]
    way.commit(run.inventory([], began_s=20, errors=("x: denied",)))
    assert node(way).blind_spots == [BlindSpot("shop", "web", "app", since_ns)]
    way.commit(run.inventory([], began_s=25))
    assert (until_s(way), node(way).blind_spots) == (25, [])


def test_each_partition_has_its_own_mark() -> None:
    way = Way()
    runs = [Run(partition=p) for p in (0, 1)]
    way.commit(runs[0].inventory([], began_s=10, partitions=(0, 1)), partition=0)
    assert node(way).partitions == [0, 1]
    assert ("node-1", 1) not in way.ledger.nodes
    way.commit(runs[1].inventory([(WEB, SIZE, 0)], began_s=10, partitions=(0, 1)), partition=1)
    assert (until_s(way, 0), until_s(way, 1)) == (10, None)


def test_inventories_of_the_run_before_wait_for_nothing() -> None:
    """Their numbers belong to another lane; the new run's own say what is there."""
    way, run, new = Way(), Run(), second_run()
    run.sequence = 7
    way.commit(run.inventory([(WEB, SIZE, 0)], began_s=10))
    way.commit(run.batch(of=[WEB], gaps=(reported(0, SIZE),)))
    way.commit(new.inventory([], full=False, began_s=20))
    assert node(way).pending == []
    assert until_s(way) == 20


def test_a_full_inventory_explains_the_holes_before_it_and_none_after() -> None:
    way, run = Way(), Run()
    way.commit(numbered(run, 0, 0), numbered(run, 2, 2))
    assert harmful(way) == [(LOST_TOPIC, LOST)]
    inventory = run.inventory([], began_s=30)
    way.commit(inventory, numbered(run, 5, 5))
    assert [(h.first, h.explained) for h in lane_holes(way, run)] == [(1, True), (4, False)]
    way.commit(run.inventory([], began_s=40, full=False))
    assert harmful(way) == [(LOST_TOPIC, LOST)]
    way.commit(run.inventory([], began_s=50))
    assert harmful(way) == []


def lane_holes(way: Way, run: Run) -> list[LaneHole]:
    return way.ledger.lanes[run.run, run.partition].holes


def test_a_hole_that_is_too_old_is_never_explained() -> None:
    """Its files may have left the disk and the collector's lists."""
    way, run = Way(), Run()
    way.commit(numbered(run, 0, 0), numbered(run, 2, 2))
    way.commit(run.inventory([], began_s=3601))
    assert harmful(way) == [(LOST_TOPIC, LOST)]


def test_lost_positions_harm_every_node_of_the_partition_until_each_has_listed_its_files() -> None:
    way, one, two = Way(), Run(), Run(node="node-2", run=b"2" * 16)
    way.commit(one.inventory([]), two.inventory([]))
    way.skip(3)
    way.commit(one.batch())
    [gap] = gaps(way)
    assert (gap.type, gap.positions, gap.nodes) == (LOST_TOPIC, (2, 5), ("node-1", "node-2"))
    way.commit(one.inventory([], began_s=20))
    assert [gap.nodes for gap in gaps(way)] == [("node-2",)]
    way.commit(two.inventory([], began_s=20))
    assert harmful(way) == []


def test_positions_with_holes_are_no_loss_where_the_topic_has_such() -> None:
    way, run = Way(), Run()
    way.commit(run.batch(), dense=False)
    way.skip(4)
    way.commit(run.batch(), dense=False)
    assert gaps(way) == []


# -- the fold as a whole ---------------------------------------------------------------------


EVENTS = ("ship", "ship", "see", "seal", "gap", "hole", "restart", "torn")


@st.composite
def histories(draw: st.DrawFn) -> list[Coverage]:
    """Commits of two nodes and two partitions with replays, losses and new runs."""
    files = [File(lines(0, 12), pod=f"pod-{n}", node=f"node-{n % 2}") for n in range(4)]
    way = Way()
    runs = {(n, p): Run(f"node-{n}", bytes([n]) * 16, p) for n in (0, 1) for p in (0, 1)}
    for _ in range(draw(st.integers(1, 10))):
        partition = draw(st.integers(0, 1))
        batches: list[Batch | bytes] = []
        for _ in range(draw(st.integers(0, 3))):
            which = draw(st.integers(0, 3))
            file, run = files[which], runs[which % 2, partition]
            event = draw(st.sampled_from(EVENTS))
            size, _full = len(file.data), draw(st.booleans())
            start, end = sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size))))
            if event == "ship" and start < end:
                batches.append(run.batch(*file.ranges([], start=start, end=end), of=[file]))
            elif event == "see":
                batches.append(
                    run.inventory([(file, end, start)], began_s=end, full=draw(st.booleans()))
                )
            elif event == "seal":
                batches.append(run.batch(of=[file], seals=(Seal(file.id, 0, end, 1, 0, "x"),)))
            elif event == "gap":
                gap = Gap(file.id, 0, start, end, draw(st.booleans()), None, None, "x")
                batches.append(run.batch(of=[file], gaps=(gap,)))
            elif event == "hole":
                run.sequence += 2
                way.skip(partition=partition)
            elif event == "restart":
                before, run.sequence = run.run, 0
                run.run = bytes([run.run[0] + 2]) * 16
                batches.append(run.inventory([(file, end, 0)], replaces=Replaces(before, 3)))
            else:
                batches.append(b"torn")
        way.commit(*batches, partition=partition)
    return way.commits


def fold(commits: Sequence[Coverage], ledger: Ledger | None = None) -> Ledger:
    ledger = Ledger() if ledger is None else ledger
    for coverage in commits:
        ledger.apply(coverage, ledger.version + 1)
    return ledger


@examples(60)
@given(histories(), st.data())
def test_a_ledger_that_was_stored_half_way_comes_out_the_same(
    commits: list[Coverage], data: st.DataObject
) -> None:
    whole = fold(commits)
    half = data.draw(st.integers(0, len(commits)))
    before = fold(commits[:half])
    stored = Ledger(version=before.version)
    take_state(stored, state_rows(before))
    take_files(stored, file_rows(list(before.files.values()), before.version))
    assert fold(commits[half:], stored) == whole
    assert fold(in_order(commits)) == whole


def encoded(ledger: Ledger) -> bytes:
    """All that a ledger says, in bytes."""

    of = {name: getattr(ledger, name) for name in ledger.__struct_fields__}
    totals = ledger.totals
    of["totals"] = [
        (node, stream.fields(), numbers)
        for (node, stream), numbers in zip(totals.places, totals.numbers.tolist(), strict=True)
    ]
    of["settled"] = [(place, files.rows.tobytes()) for place, files in ledger.settled.items()]
    return msgspec.msgpack.encode(
        {
            name: list(value.items()) if isinstance(value, dict) else value
            for name, value in of.items()
        }
    )


@examples(60)
@given(histories(), st.data())
def test_a_ledger_stays_as_it_is_while_its_branches_are_folded_on(
    commits: list[Coverage], data: st.DataObject
) -> None:
    ledger = Ledger()
    held: list[tuple[Ledger, bytes]] = []
    for coverage in commits:
        if data.draw(st.booleans()):
            held.append((ledger, encoded(ledger)))
            ledger = ledger.branch()
        ledger.apply(coverage, ledger.version + 1)
    assert ledger == fold(commits)
    for before, was in held:
        assert encoded(before) == was


def test_a_branch_changes_no_entry_of_any_kind_in_its_origin() -> None:
    way, run = Way(), Run()
    way.commit(run.inventory([(WEB, SIZE, 0)]))
    way.commit(run.batch(*ranges(), of=[WEB]))  # settles what waited
    way.skip()
    run.sequence += 1
    way.commit(run.batch(oldest_unacked=9))  # proves the number lost
    bare = [  # an inventory lists many files of which the commit has no bytes
        msgspec.structs.replace(way.commit(batch), files=[])
        for batch in (run.inventory([(WEB, 2 * SIZE, 2 * SIZE)]), second_run().inventory([]))
    ]
    gone = Deleted("one", "shop", "web", "app", WEB.id, 0, [0], 1, 1)
    removed = [
        Coverage(START_NS, [], [], [], [], [], Balance(), [Expired("shop", n, 1, "*")], [gone])
        for n in range(2)
    ]
    commits = [*sample(4), *way.commits[:-2], *bare, *removed]
    ledger, held = Ledger(), []
    for coverage in commits:
        held.append((ledger, encoded(ledger)))
        ledger = ledger.branch()
        ledger.apply(coverage, ledger.version + 1)
    assert ledger == fold(commits)
    assert all(encoded(before) == was for before, was in held)


def test_a_branch_shares_what_it_has_not_changed() -> None:
    way, run = Way(), Run()
    other = File(WEB.data, pod="other")
    way.commit(run.batch(*ranges(end=10 * LINE), of=[WEB]))
    way.commit(run.batch(*other.ranges([]), of=[other]))
    ledger = fold(way.commits)
    branch = ledger.branch()
    way.commit(run.batch(*ranges(start=10 * LINE), of=[WEB]))
    branch.apply(way.commits[-1], 3)
    assert branch.files[other.id, 0] is ledger.files[other.id, 0]
    assert branch.files[WEB.id, 0].covered_end > ledger.files[WEB.id, 0].covered_end


@examples(60)
@given(histories())
def test_covered_and_lost_never_leave_the_file(commits: list[Coverage]) -> None:
    ledger = fold(commits)
    for file in ledger.files.values():
        for before, after in pairwise(file.covered):
            assert before.end < after.start
        assert all(part.start < part.end <= file.size for part in file.covered)
        exact = sorted((x.start, x.end) for x in file.lost if x.type == LOST_TOPIC)
        assert all(one[1] <= two[0] for one, two in pairwise(exact))
    for lane in ledger.lanes.values():
        known = sorted((hole.first, hole.last) for hole in lane.holes)
        assert all(one[1] < two[0] for one, two in pairwise(known))
        assert all(last < lane.oldest_unacked for _, last in known)


def sample(seed: int = 3) -> list[Coverage]:
    """A history with everything in it."""
    way, run = Way(), Run(run=bytes([seed]) * 16)
    way.commit(run.batch(*ranges(end=10 * LINE), of=[WEB]), run.inventory([(WEB, SIZE, 0)]))
    way.commit(run.batch(of=[WEB], gaps=(reported(20 * LINE, 21 * LINE, exact=True),)), b"torn")
    way.skip(2)
    run.sequence += 2
    way.commit(run.batch(), run.inventory([(WEB, SIZE, 15 * LINE)], full=False))
    way.commit(run.batch(*ranges(start=30 * LINE), of=[WEB]))
    way.commit(second_run().inventory([], replaces=Replaces(run.run, 9)))
    return way.commits


def test_the_ledger_table_gives_back_what_was_saved(store: Bucket) -> None:
    table = LedgerTable(store, CLUSTER)
    assert table.load() == Ledger()
    commits = sample()
    ledger = fold(commits[:3])
    assert table.save(ledger, -1)
    assert table.load() == ledger
    whole = fold(commits[3:], table.load())
    assert whole == fold(commits)
    assert table.save(whole, ledger.version, whole.files)
    assert table.load() == whole
    assert not table.save(whole, ledger.version)  # somebody else's, by now
    assert table.sweep() == 0  # nothing of the last day goes
    assert table.load() == whole


def made_table(store: Bucket, commits: Sequence[Coverage]) -> Table:
    table = Table(store, CLUSTER)
    table.make()
    for coverage in commits:
        add_coverage(table, coverage)
    return table


def test_all_coverage_folded_anew_equals_the_fold_commit_by_commit(store: Bucket) -> None:
    commits = sample()
    table = made_table(store, commits)
    version = table.snapshot().version()
    by_log = bring_up(Ledger(), table, version)
    assert by_log.version == version
    rebuilt = Ledger()
    for coverage in table.all_coverage(table.snapshot(version)):
        rebuilt.apply(coverage, version)
    assert rebuilt == by_log
    half = bring_up(Ledger(), table, 3)
    assert half.version == 3
    assert bring_up(half, table, version) == by_log
    table.snapshot().create_checkpoint()
    for early in range(3):  # as a log that was cleaned up
        store.delete(f"{table.folder}_delta_log/{early:020d}.json")
    assert bring_up(Ledger(), table, version) == by_log


def keeper(store: Bucket) -> Jobs:
    metrics = KeeperMetrics(prometheus_client.CollectorRegistry())
    return Jobs(KeeperSettings(cluster=CLUSTER), store, metrics)


def test_of_two_keepers_one_wins_and_the_other_takes_its_ledger(store: Bucket) -> None:
    commits = sample()
    table = made_table(store, commits[:3])
    one, two = keeper(store), keeper(store)

    def fold_once(each: Jobs) -> bool:
        try:
            return each.fold()
        except TableUnavailable:
            return False

    for commit in (None, *commits[3:]):
        if commit is not None:
            add_coverage(table, commit)
        with ThreadPoolExecutor(2) as pool:
            assert sum(pool.map(fold_once, (one, two))) >= 1
        one.fold()
        two.fold()
        version = table.snapshot().version()
        assert LedgerTable(store, CLUSTER).load() == bring_up(Ledger(), table, version)
    assert one.fold() is False
    assert two.fold() is False
