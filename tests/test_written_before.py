"""What the version before has written on disk: this one reads all of it and goes on from there.

Each test works on a copy of ``golden/before``; golden/README.md tells what is in it. What is
expected was counted from the lines as they were written, and not from what was read back.
"""

import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from collector.files.checkpoint import FileState, load
from collector.labels.metadata import MetadataSettings
from collector.wire.batch import Batch
from collector.wire.range import Range
from indexer.ledger.streams import StreamsTable
from indexer.store.open import open_bucket
from query_api.command.cli import main as everyline
from query_api.local.up import settle_names
from tests.collector.node import SECOND, Node, gaps_of, ranges_of
from tests.indexer.kept import Kept
from tests.indexer.test_index import Place
from tests.query_api.conftest import served

BEFORE = Path(__file__).parent / "golden" / "before"
CLUSTER, NODE = "golden", "node-1"
PODS = Path("/var/log/pods")  # where the version before had them
ENDED_NS = 1_772_624_355 * SECOND
EVER: dict[str, Any] = {"from": "0", "limit": 1000}

Rows = tuple[int, str]
"""How many rows there are, and a digest of their streams, times and messages."""

IN_TABLE: Rows = (150, "a834640dc11262530e3051c84765814e09b8e4dda4f43f4cf1b2d76bb8bf52a9")
WITH_TOPIC: Rows = (173, "4ad2055981d2060c59756efd8b4e951502e1a73c4e343696c4bf10b3715a84d6")
WITH_SPOOL_AND_FILES: Rows = (
    228,
    "38107999e4e7f474455839d474e2fec68d0936df6f8475538a7858504d096b4c",
)
WITHOUT_GUESTS: Rows = (168, "15260df5f3b12009d7aaebcae8215e95ba170b1128b488dfde4b26fb4f1bc679")
"""With the topic, and without what the open request for deletion names."""


LABELS = [
    ("buoy-7", 0, "DaemonSet app=buoy"),
    ("crane-0", 0, "StatefulSet app=crane tier=quay"),
    ("crane-0", 1, "StatefulSet app=crane tier=quay"),
    ("ferry-2", 0, "StatefulSet app=ferry"),
    ("mill-1", 0, ""),
    ("oven-0", 0, "StatefulSet app=oven"),
    ("oven-0", 0, "StatefulSet app=oven oven=hot"),
    ("till-6f7c9-x2kqd", 0, "ReplicaSet app=till"),
]
LABELS_SINCE = [
    ("ferry-2", 0, "StatefulSet app=ferry route=north"),  # in the topic
    ("till-6f7c9-x2kqd", 0, "ReplicaSet app=till shift=late"),  # in the spool
    ("till-6f7c9-zz9pl", 0, ""),
]


class Taken:
    """A copy of the golden folder, and the processes of this version that take it up."""

    def __init__(self, folder: Path) -> None:
        self.node = Node(
            folder,
            cluster=CLUSTER,
            node=NODE,
            flush_age_ms=100,
            # Nobody asks it, but what it said before counts.
            metadata=MetadataSettings(
                metadata_source="kubelet", metadata_url="https://127.0.0.1:1"
            ),
        )
        shutil.copytree(BEFORE, folder, dirs_exist_ok=True)
        self.node.now = ENDED_NS
        self.folder = folder
        self.bucket = open_bucket(str(folder / "bucket"))
        self.place = Place(str(self.node.topic_folder), self.bucket)

    async def collect(self) -> list[Batch]:
        """Let a new collector send all it has; return what has come into the topic by that."""
        before = {_number(batch) for batch in await self.node.batches(whole_lanes=False)}
        await self.node.start()
        await self.node.pass_time(15)
        await self.node.stop()
        after = await self.node.batches(whole_lanes=False)
        assert len({_number(batch) for batch in after}) == len(after), "a batch came twice"
        return [batch for batch in after if _number(batch) not in before]

    async def index(self) -> None:
        """Let a new indexer commit all that the topic has."""
        self.place.clock_ns = self.node.now
        await self.place.index(cluster=CLUSTER)

    async def ask(self, path: str, **asked: Any) -> dict[str, Any]:
        """Return what the query service answers."""
        async with served(self.bucket, self.node.now, cluster=CLUSTER) as client:
            answer = await client.get(path, params=asked)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def rows(self) -> Rows:
        """Return all rows of the table."""
        names = ("namespace", "pod", "container", "output", "time", "message")
        answer = await self.ask("/v1/search", **EVER)
        assert answer["next"] is None
        texts = sorted(" ".join(row[name] for name in names) for row in answer["rows"])
        return len(texts), hashlib.sha256("\n".join(texts).encode()).hexdigest()

    def check_ledger(self) -> int:
        """Return the exit code of ``everyline ledger --check``."""
        return everyline(
            ["ledger", "--check", "--cluster", CLUSTER, "--bucket", str(self.folder / "bucket")], {}
        )

    def scrubbed(self) -> dict[str, Any]:
        """Return how far the objects of the table are read again, as it is stored."""
        [path] = (self.folder / "bucket" / CLUSTER / "scrub").iterdir()
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found


def _number(batch: Batch) -> tuple[bytes, int, int]:
    return batch.run, batch.partition, batch.sequence


@pytest.fixture
async def taken(tmp_path: Path) -> AsyncIterator[Taken]:
    """The golden folder, copied."""
    made = Taken(tmp_path)
    yield made
    if made.node.topic is not None:
        await made.node.crash()


@pytest.fixture
def kept(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """The table of the golden folder, for a new keeper."""
    monkeypatch.setattr("tests.indexer.kept.CLUSTER", CLUSTER)
    return Kept(taken.bucket, now_ns=ENDED_NS)


# -- the table and its ledger


async def test_every_row_of_the_version_before_is_found(taken: Taken) -> None:
    assert await taken.rows() == IN_TABLE
    answer = await taken.ask("/v1/search", **EVER, query="doorexception", pod="oven-0")
    assert [row["message"] for row in answer["rows"]] == ["bread.DoorException: latch 2 is bent"]
    answer = await taken.ask("/v1/search", **EVER, query="recipe")
    [message] = [row["message"] for row in answer["rows"]]
    assert message.endswith("fold and rest until golden"), "fragments of one line are one row"


async def test_what_the_version_before_has_lost_and_removed_is_told(taken: Taken) -> None:
    answer = await taken.ask("/v1/gaps", **EVER)
    [gap] = answer["gaps"]
    assert (gap["type"], gap["state"]) == ("LOST_ROTATED", "LOST")
    assert (gap["pod"], gap["start"], gap["end"]) == ("buoy-7", 516, 711)
    said = answer["completeness"]
    assert said["verdict"] == "incomplete"
    assert [(each["kind"], each["rows"], each["why"]) for each in said["removed"]] == [
        ("DELETED", 7, "request cards"),
        ("EXPIRED", 10, "rule bakery=240"),
    ]
    until = said["complete_until"]
    assert until == "2026-03-04T11:27:14.000000000Z"
    answer = await taken.ask("/v1/search", **EVER, namespace="harbor", pod="crane-0", to=until)
    assert answer["completeness"]["verdict"] == "complete"


def test_a_ledger_of_the_version_before_is_folded_again_beside_it(
    taken: Taken, kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: kept.bucket.get(name) for name in kept.bucket.names(f"{CLUSTER}/ledger/")}
    kept.jobs().fold()
    assert taken.check_ledger() == 0
    said = "the ledger of golden (8 files, version 32) equals its coverage folded again\n"
    assert capsys.readouterr().out == said
    assert before  # programs of that version go on with it
    assert before == {
        name: kept.bucket.get(name) for name in kept.bucket.names(f"{CLUSTER}/ledger/")
    }


async def test_an_indexer_goes_on_from_the_stored_position(taken: Taken) -> None:
    before = await taken.ask("/v1/status")
    assert [each["position"] for each in before["partitions"]] == [23, 24]
    await taken.index()
    assert await taken.rows() == WITH_TOPIC
    after = await taken.ask("/v1/status")
    assert [each["position"] for each in after["partitions"]] == [27, 26]
    await taken.index()
    assert (await taken.ask("/v1/status"))["version"] == after["version"]


async def test_a_keeper_goes_on_with_what_the_one_before_had_begun(
    taken: Taken, kept: Kept
) -> None:
    begun = taken.scrubbed()
    assert begun["began_ns"]
    assert not begun["complete_ns"]
    await taken.index()
    keeper = kept.keeper(lambda: 0.0, retention="bakery=240", delete_open_ms=0, gone_live_hours=1)
    keeper.turn()
    assert not keeper.status()["failing"]
    ended = taken.scrubbed()
    assert (ended["complete_ns"], ended["damaged"]) == (begun["began_ns"], {})
    assert await taken.rows() == WITHOUT_GUESTS
    removed = (await taken.ask("/v1/gaps", **EVER))["completeness"]["removed"]
    assert {each["why"]: each["rows"] for each in removed} == {
        "request cards": 7, "request guests": 5, "rule bakery=240": 10,
    }  # fmt: skip
    kept.jobs().fold()
    assert taken.check_ledger() == 0


async def test_labels_of_streams_are_kept_and_go_on(taken: Taken, kept: Kept) -> None:
    assert _labels(taken) == LABELS
    await taken.collect()
    await taken.index()
    kept.jobs().streams()
    assert _labels(taken) == sorted([*LABELS, *LABELS_SINCE])


def _labels(taken: Taken) -> list[tuple[str, int, str]]:
    """Return pod, restart, owner and labels of each version of each stream."""
    rows = StreamsTable(taken.bucket, CLUSTER).read().to_pylist()
    return sorted(
        (
            row["pod"],
            row["restart"],
            " ".join([row["owner_kind"], *(f"{name}={value}" for name, value in row["labels"])]),
        )
        for row in rows
    )


# -- the collector's state


@pytest.mark.parametrize("is_whole", [True, False], ids=["newest", "previous"])
async def test_a_spool_is_sent_and_files_go_on_from_their_marks(
    taken: Taken, is_whole: bool
) -> None:
    node = taken.node
    known = load(node.state)
    assert known is not None
    if not is_whole:
        (node.state / "checkpoint").write_bytes(b"everyline checkpoint 1 torn")
    sent = await taken.collect()
    states = {(state.file_id, state.epoch): state for state in known.files}
    spooled = ranges_of(batch for batch in sent if batch.run == known.run)
    for key, ranges in spooled.items():
        assert states[key].spooled is not None
        assert _joined(ranges) == (states[key].acked, states[key].spooled_mark.offset)
    assert {states[key].pod for key in spooled} == {"oven-0", "till-6f7c9-x2kqd", "ferry-2"}
    fresh = ranges_of(batch for batch in sent if batch.run != known.run)
    grown = {key: ranges for key, ranges in fresh.items() if key in states}
    for key, ranges in grown.items():
        _check_read_on(states[key], ranges, node.root)
    assert {states[key].pod for key in grown} == {"oven-0", "crane-0"}
    assert len(fresh) == len(grown) + 1, "the one file that is new is named again"
    assert not gaps_of(sent)
    assert not list((node.state / "spool").iterdir())


def _joined(ranges: Sequence[Range]) -> tuple[int, int]:
    """Return where ranges begin and end that leave no hole and say nothing twice."""
    assert all(one.end == other.start for one, other in pairwise(ranges))
    return ranges[0].start, ranges[-1].end


def _check_read_on(state: FileState, ranges: Sequence[Range], root: Path) -> None:
    data = (root / Path(state.path).relative_to(PODS)).read_bytes()
    assert _joined(ranges) == (state.spooled_mark.offset, len(data))
    assert b"".join(each.data for each in ranges) == data[state.spooled_mark.offset :]
    assert ranges[0].crc_before == state.spooled_mark.crc


async def test_labels_are_kept_and_sent_again(taken: Taken) -> None:
    sent = await taken.collect()
    metas = {meta.pod: meta for batch in sent if batch.run[-1] == 1 for meta in batch.metas}
    assert {pod: meta.labels for pod, meta in metas.items()} == {
        "oven-0": {"app": "oven", "oven": "hot"},
        "crane-0": {"app": "crane", "tier": "quay"},
        "till-6f7c9-x2kqd": {"app": "till", "shift": "late"},
        "ferry-2": {"app": "ferry", "route": "north"},
    }
    assert metas["oven-0"].annotations == {"team": "Bäcker"}
    assert metas["oven-0"].owner_kind == "StatefulSet"


# -- all of it together


async def test_every_line_of_a_node_is_in_the_table_once(taken: Taken) -> None:
    await taken.collect()
    await taken.index()
    assert await taken.rows() == WITH_SPOOL_AND_FILES
    answer = await taken.ask("/v1/gaps", **EVER)
    [gap] = answer["gaps"]
    assert (gap["pod"], gap["bytes"]) == ("buoy-7", 195)
    until = answer["completeness"]["complete_until"]
    assert until > "2026-03-04T11:39:15"
    answer = await taken.ask("/v1/search", **EVER, namespace="harbor", pod="crane-0", to=until)
    assert answer["completeness"]["verdict"] == "complete"


def test_a_data_directory_keeps_the_names_of_its_first_start(taken: Taken) -> None:
    names, nodes = settle_names(taken.folder, [str(taken.node.root)], None, None)
    assert (names.cluster, nodes) == (CLUSTER, {NODE: [taken.node.root]})
    assert (taken.folder / "names.json").read_bytes() == (BEFORE / "names.json").read_bytes()
