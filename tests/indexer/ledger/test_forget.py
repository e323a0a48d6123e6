"""What a ledger forgets, by which rule, and that nothing false is said of it afterwards."""

from collections.abc import Sequence

import msgspec
import pytest

from collector.wire.batch import Batch, Gap, Gone, Replaces, Seal
from indexer.ledger.forget import LANE_KEPT_NS
from indexer.ledger.ledger import EXPIRED_SPANS, Ledger
from indexer.ledger.settled import SETTLED_KEPT_S
from indexer.table.coverage import Balance, Coverage, Deleted, Expired, Retired
from indexer.times import HOUR_NS
from query_api.completeness.gaps import find_gaps
from tests.indexer.shipped import SECOND, START_NS, File, Run, Way
from tests.way import lines

LANE_KEPT_S = LANE_KEPT_NS // SECOND
FILES = [File(lines(0, 12), pod=f"pod-{n}") for n in range(3)]
WEB = FILES[0]
SIZE = len(WEB.data)


class Story:
    """Commits that are folded when they were made: any number of seconds after the start."""

    def __init__(self, *, settles: bool = True) -> None:
        self.way = Way()
        self.ledger = Ledger(settles=settles)

    def commit(self, at_s: float, *batches: Batch | bytes) -> None:
        made = self.way.commit(*batches)
        now_ns = START_NS + int(at_s * SECOND)
        self.fold(msgspec.structs.replace(made, committed_ns=now_ns))

    def say(self, at_s: float, **said: list) -> None:
        bare = Coverage(START_NS + int(at_s * SECOND), [], [], [], [], [], Balance())
        self.fold(msgspec.structs.replace(bare, **said))

    def fold(self, coverage: Coverage) -> None:
        self.ledger.apply(coverage, self.ledger.version + 1)


def whole(run: Run, *files: File) -> Batch:
    """A batch with all of some files, and that they are sealed."""
    ranges = [each for file in files for each in file.ranges([])]
    seals = tuple(Seal(file.id, 0, SIZE, 1, 0, "x") for file in files)
    return run.batch(*ranges, of=files, seals=seals)


def listed(run: Run, files: Sequence[File], **more) -> Batch:
    return run.inventory([(file, SIZE, SIZE) for file in files], **more)


def test_a_settled_file_has_no_entry_and_its_inventory_is_proved() -> None:
    story, run = Story(), Run()
    story.commit(0, whole(run, *FILES), listed(run, FILES, began_s=5))
    assert not story.ledger.files
    assert len(story.ledger.settled["node-1", 0]) == len(FILES)
    assert story.ledger.nodes["node-1", 0].complete_until_ns == START_NS + 5 * SECOND
    assert set(story.ledger.leaving) == {(file.id, 0) for file in FILES}


def test_what_is_not_covered_is_not_settled_until_it_comes() -> None:
    story, run = Story(), Run()
    seals = (Seal(WEB.id, 0, SIZE, 1, 0, "x"),)
    story.commit(0, run.batch(*WEB.ranges([], end=40), of=[WEB]), run.batch(of=[WEB], seals=seals))
    assert story.ledger.files[WEB.id, 0].lost  # the seal proves it
    story.commit(1, run.batch(*WEB.ranges([], start=40), of=[WEB]))
    assert story.ledger.files[WEB.id, 0].lost  # how it came back is told
    other = FILES[1]
    story.commit(2, run.batch(*other.ranges([], end=40), of=[other]))
    story.commit(3, run.batch(*other.ranges([], start=40), of=[other]))
    assert (other.id, 0) in story.ledger.files  # more of it may be written
    story.commit(4, run.batch(of=[other], gone=(Gone(other.id, 0),)))
    assert (other.id, 0) not in story.ledger.files


def test_a_settled_file_that_goes_on_has_an_entry_again() -> None:
    story, run = Story(), Run()
    story.commit(0, whole(run, WEB))
    longer = File(lines(0, 20), pod="pod-0")
    story.commit(1, run.batch(*longer.ranges([], start=SIZE), of=[longer]))
    assert not story.ledger.files  # it is whole again
    [row] = story.ledger.totals.numbers.tolist()
    assert row[2:] == [20, len(longer.data), 1, 0]
    lost = (Gap(longer.id, 0, 900, 950, True, None, None, "truncated"),)
    story.commit(2, run.batch(of=[longer], gaps=lost))
    assert [gap.start for gap in find_gaps(story.ledger)] == [900]


def test_a_settled_file_is_known_as_long_as_inventories_list_it_and_two_days() -> None:
    story, run = Story(), Run()
    story.commit(0, whole(run, *FILES), listed(run, FILES))
    for day in range(1, 4):
        story.commit(day * 86_400, listed(run, FILES[:2]))
    assert len(story.ledger.settled["node-1", 0]) == 2
    story.commit(3 * 86_400 + SETTLED_KEPT_S + 1, listed(run, []))
    assert len(story.ledger.settled["node-1", 0]) == 0


def test_the_numbers_of_a_run_are_forgotten_a_week_after_another_has_followed() -> None:
    story, first = Story(), Run()
    story.commit(0, first.inventory([]), first.batch(oldest_unacked=1))
    second = Run(run=b"run-2".ljust(16))
    story.commit(9, second.inventory([], replaces=Replaces(first.run, 2)))
    story.commit(LANE_KEPT_S, second.batch())
    assert len(story.ledger.lanes) == 2
    story.commit(LANE_KEPT_S + 3610, second.batch())
    assert [lane.run for lane in story.ledger.lanes.values()] == [second.run]
    story.commit(LANE_KEPT_S + 9000, first.batch(oldest_unacked=2))  # from a spool, that late
    assert not list(find_gaps(story.ledger))


def test_a_new_run_whose_first_batch_is_lost_is_told_from_one_that_was_forgotten() -> None:
    story, run = Story(), Run()
    story.commit(LANE_KEPT_S, run.inventory([]))
    second = Run(run=b"run-2".ljust(16), sequence=1)
    story.commit(10, second.batch(oldest_unacked=1))
    [gap] = find_gaps(story.ledger)
    assert gap.batches == (0, 0)


def lost(story: Story, run: Run, file: File, at_s: float) -> None:
    gap = Gap(file.id, 0, SIZE, SIZE + 9, True, None, START_NS + int(at_s * SECOND), "x")
    batch = run.batch(*file.ranges([]), of=[file], gaps=(gap,), gone=(Gone(file.id, 0),))
    story.commit(at_s, batch)


@pytest.mark.parametrize("settles", [True, False])
def test_losses_and_streams_go_with_the_rows_that_they_speak_of(settles: bool) -> None:
    story, run = Story(settles=settles), Run()
    lost(story, run, FILES[0], 0)
    lost(story, run, FILES[1], 90_000)
    assert len(list(find_gaps(story.ledger))) == 2
    gone = Deleted("one", "shop", "pod-0", "app", FILES[0].id, 0, [0], START_NS, START_NS)
    hour = (START_NS + 4000 * SECOND) // HOUR_NS
    story.say(91_000, deleted=[gone], expired=[Expired("shop", hour, 9, "*=1")])
    story.say(95_000)  # the next hour
    assert [gap.file.pod for gap in find_gaps(story.ledger) if gap.file] == ["pod-1"]
    assert [stream.pod for _, stream in story.ledger.totals.places] == ["pod-1"]
    assert not story.ledger.deleted


def test_where_rows_are_kept_for_ever_losses_are_too() -> None:
    story, run = Story(), Run()
    lost(story, run, FILES[0], 0)
    story.way.skip()
    run.sequence += 1
    story.commit(10, run.batch(oldest_unacked=2))
    for year in range(1, 4):
        story.say(year * 365 * 86_400)
    assert {gap.type for gap in find_gaps(story.ledger)} == {"LOST_ROTATED", "LOST_TOPIC"}


def test_nodes_that_come_and_go_all_day_leave_nothing_behind() -> None:
    """Three nodes in eight hours, each of which lives a day, for two months; rows live a week.

    One of the three ends within a file.
    """
    story = Story()
    sizes = []
    for turn in range(60 * 3):
        at_s = turn * 8 * 3600.0
        for number in range(3):
            file = File(lines(0, 12), pod=f"pod-{turn}-{number}", node=f"node-{turn}-{number}")
            run = Run(file.node, file.id)
            part = run.batch(*file.ranges([], end=40), of=[file])  # the rest never comes
            batch = whole(run, file) if number else part
            story.commit(at_s, batch, listed(run, [file], began_s=at_s))
        if turn >= 3:
            old = [f"node-{turn - 3}-{number}" for number in range(3)]
            story.say(at_s + 1, retired=[Retired(node, "scaled down") for node in old])
        hour = (START_NS + int(at_s) * SECOND) // HOUR_NS - 7 * 24
        story.say(at_s + 4000, expired=[Expired("shop", hour, 9, "*=168")])
        story.ledger.leaving.clear()
        assert len(story.ledger.nodes) <= 9
        sizes.append({name: len(getattr(story.ledger, name)) for name in KEPT})
    settled = sizes[30 * 3 :]
    assert len(story.ledger.expired["shop", "*=168"].hours) == EXPIRED_SPANS
    for name in KEPT:
        kept = [each[name] for each in settled]
        assert max(kept) <= 1.1 * min(kept) + 9, name


KEPT = (
    "files", "lanes", "nodes", "retired", "settled", "totals", "going_on", "gone", "marks", "holed",
)  # fmt: skip
