"""Recall: a look into the whole ledger for what may have left it, and for nothing else."""

import pytest

from collector.wire.batch import Elided
from collector.wire.range import Range
from indexer.assemble import Intake
from indexer.ledger.entries import Covered, Entries, FileEntry
from indexer.ledger.ledger import Ledger
from indexer.recall import to_recall
from indexer.table.coverage import Position
from tests.indexer.shipped import File, Run

DAY_NS = 86_400 * 10**9
PAST_NS = 20_000 * DAY_NS  # 2024-10-04
WEB = File(b"")
OLD = b"2024-10-05T00:00:00.000000000Z stdout F it may be one of those\n"
YOUNG = b"2024-10-06T00:00:00.000000000Z stdout F it cannot be\n"
DOCKER = b'{"log":"at \\"time\\":\\"2020-01-01T\\"\\n","stream":"stdout","time":"%s"}\n'


def sent(start: int, data: bytes, line_format: str = "cri") -> Range:
    return Range(WEB.id, 0, start, data, data.count(b"\n"), 0, format=line_format)


def intake(*ranges: Range, generation: int = 0, elided: tuple[Elided, ...] = ()) -> Intake:
    position = Position("logs", "id", generation, 0, 0, 1, None)
    return Intake(position, [Run().batch(*ranges, of=[WEB], elided=elided)])


def known(start: int | None) -> FileEntry:
    return FileEntry(
        file_id=WEB.id, epoch=0, partition=0, node="node-1", namespace="shop", pod="web",
        pod_uid="u", container="app", restart=0,
        covered=[] if start is None else [Covered(start, start + 9, 0, 0)],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("came", "wanted"),
    [
        (intake(sent(0, YOUNG)), False),
        (intake(sent(0, OLD)), True),
        (intake(sent(7, YOUNG)), True),
        (intake(sent(0, YOUNG), generation=1), True),
        (intake(sent(0, b"no time at all\n")), True),
        (intake(sent(0, YOUNG, "plain")), True),
        (intake(sent(0, DOCKER % b"2024-10-06T00:00:00.1Z", "docker")), False),
        (intake(sent(0, DOCKER % b"2024-10-05T00:00:00.1Z", "docker")), True),
        (intake(elided=(Elided(WEB.id, 0, 0, 9, 1, 0, "noise"),)), True),
        (intake(), False),
    ],
)
def test_a_file_is_looked_up_if_its_beginning_may_be_old(came: Intake, wanted: bool) -> None:
    assert to_recall([came], Ledger(past_ns=PAST_NS)) == ({WEB.id} if wanted else set())


@pytest.mark.parametrize(("start", "wanted"), [(None, True), (5, True), (0, False)])
def test_a_file_whose_beginning_is_here_is_not_looked_up(start: int | None, wanted: bool) -> None:
    ledger = Ledger(past_ns=PAST_NS, files=Entries({(WEB.id, 0): known(start)}))
    assert bool(to_recall([intake(sent(7, OLD))], ledger)) is wanted


def test_without_past_files_nothing_is_looked_up() -> None:
    assert to_recall([intake(sent(7, OLD), generation=1)], Ledger()) == set()
