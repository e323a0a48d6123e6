"""Deletion on request: what was asked for goes, each row by name, and nothing comes back."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from indexer.errors import BadQuery, BadRequest, ObjectExists, PositionMoved
from indexer.store.bucket import Bucket
from indexer.table.request import Deletion, DeletionRequest, Requests, checked
from tests.indexer.kept import Kept, PodFile, before_commit
from tests.indexer.shipped import CLUSTER
from tests.way import cri

MINUTE_NS = 60 * 10**9
# Of line 0, see way.cri: line n is n seconds and n nanoseconds later.
FIRST_NS = 1_772_366_400 * 10**9


def log(pod: str = "web", namespace: str = "shop", count: int = 60) -> PodFile:
    """Return lines of which every tenth names a person."""
    data = b"".join(
        cri(n, f"user {'eve@example.org' if n % 10 == 0 else 'nobody'} did {n}")
        for n in range(count)
    )
    return PodFile(data, pod=pod, namespace=namespace)


@pytest.fixture
def kept(store: Bucket) -> Kept:
    """Two pods of a shop and one of a bank, in several segments."""
    kept = Kept(store)
    kept.commit(log(), count=20)
    kept.commit(log(), log("api"), log(namespace="bank"))
    return kept


def request(**more: Any) -> DeletionRequest:
    known = {
        "id": "r-1", "requested_ns": 0, "by": "dpo", "reason": "art. 17", "namespace": "shop",
        "from_ns": 0, "to_ns": 1 << 62,
    }  # fmt: skip
    return DeletionRequest(**{**known, **more})


def asked(kept: Kept, **more: Any) -> Requests:
    requests = Requests(kept.bucket, CLUSTER)
    requests.add(request(**more))
    return requests


CASES: list[tuple[dict[str, Any], Any]] = [
    ({"text": "eve@"}, lambda row: row["namespace"] == "shop" and "eve@" in row["message"]),
    ({"regex": "did [0-9]$"}, lambda row: row["namespace"] == "shop"
        and row["message"][-2] == " "),
    ({"pod": "api"}, lambda row: row["pod"] == "api"),
    ({"namespace": "bank"}, lambda row: row["namespace"] == "bank"),
    ({"from_ns": FIRST_NS + 5 * 10**9 + 6, "to_ns": FIRST_NS + 30 * 10**9 + 30, "pod": "web"},
     lambda row: (row["namespace"], row["pod"]) == ("shop", "web")
        and 6 <= int(row["message"].split()[-1]) < 30),
]  # fmt: skip


@pytest.mark.parametrize(("more", "goes"), CASES, ids=["text", "regex", "pod", "all", "time"])
def test_what_a_request_describes_goes_and_nothing_else(
    kept: Kept, more: dict[str, Any], goes: Any
) -> None:
    before = kept.rows()
    asked(kept, **more)
    jobs = kept.jobs()
    jobs.delete()
    assert kept.rows() == [row for row in before if not goes(row)]
    gone = [row for row in before if goes(row)]
    assert gone
    assert jobs.metrics.deleted_rows._value.get() == len(gone)
    named = [
        (deleted.pod, deleted.file_id, deleted.epoch, offset)
        for coverage in kept.table.all_coverage(kept.table.snapshot())
        for deleted in coverage.deleted
        for offset in deleted.offsets
    ]
    wanted = [(row["pod"], row["file_id"], row["epoch"], row["offset"]) for row in gone]
    assert sorted(named) == sorted(wanted)
    assert sum(entry.rows for entry in kept.ledger().deleted.values()) == len(gone)


def test_deleted_rows_that_are_sent_again_stay_away(kept: Kept) -> None:
    asked(kept, text="eve@")
    kept.jobs().delete()
    left = kept.rows()
    kept.commit(log(), log("api"))
    assert kept.rows() == left


def test_a_request_stays_open_for_rows_that_are_on_their_way(kept: Kept) -> None:
    requests = asked(kept, text="eve@", requested_ns=kept.now_ns, to_ns=kept.now_ns)
    jobs = kept.jobs(delete_open_ms=60_000)
    jobs.delete()
    jobs.fold()
    jobs.delete()
    kept.commit(log("late"))
    kept.now_ns += 59 * 10**9
    jobs.delete()
    assert [done for _, done in requests.all()] == [None]
    assert not [row for row in kept.rows() if row["namespace"] == "shop"
                and "eve" in row["message"]]  # fmt: skip
    jobs.fold()
    kept.now_ns += MINUTE_NS
    jobs.delete()
    version = kept.table.snapshot().version()
    [(_, done)] = requests.all()
    assert done == Deletion("r-1", 18, version, kept.now_ns)
    kept.commit(log("later"))  # after it was done, a row is a new one
    jobs.delete()
    assert len([row for row in kept.rows() if row["pod"] == "later"]) == 60


def test_a_deletion_races_a_compaction_and_appends_and_nothing_comes_back(kept: Kept) -> None:
    asked(kept, text="eve@")
    compacting, deleting = kept.jobs(), kept.jobs()

    def meanwhile() -> None:
        deleting.delete()
        kept.commit(log("new", "bank"))

    before_commit(compacting, meanwhile)
    with pytest.raises(PositionMoved):
        compacting.compact()
    kept.jobs().compact()
    rows = kept.rows()
    assert len(rows) == 60 * 4 - 12
    assert not [row for row in rows if row["namespace"] == "shop" and "eve" in row["message"]]
    assert len(kept.segments()) == 1


def test_a_deletion_that_loses_to_a_compaction_is_done_at_the_next_turn(kept: Kept) -> None:
    asked(kept, text="eve@")
    compacting, deleting = kept.jobs(), kept.jobs()
    before_commit(deleting, compacting.compact)
    with pytest.raises(PositionMoved):
        deleting.delete()
    deleting.delete()
    assert len(kept.rows()) == 180 - 12


@dataclass(frozen=True)
class Bad:
    more: dict[str, Any]
    says: str


@pytest.mark.parametrize(
    "bad",
    [
        Bad({"id": "../x"}, "request id"),
        Bad({"id": "x.done"}, "request id"),
        Bad({"namespace": ""}, "needs a namespace"),
        Bad({"by": ""}, "name of who asks"),
        Bad({"reason": ""}, "and a reason"),
        Bad({"from_ns": 5, "to_ns": 5}, "end after"),
        Bad({"to_ns": 1 << 63}, "64 bits"),
        Bad({"text": "a", "regex": "b"}, "not both"),
        Bad({"regex": "("}, "missing"),
        Bad({"from_ns": 6, "to_ns": 5}, "end after"),
        Bad({"pod": ("",)}, "empty pod"),
        Bad({"level": ("loud",)}, "level 'loud'"),
        Bad({"query": " "}, "empty query"),
        Bad({"pod": ("api-*",)}, "put pod:api-\\* into its query"),
        Bad({"namespace": ()}, "must name a query"),
    ],
    ids=lambda bad: next(iter(bad.more)),
)
def test_a_request_that_makes_no_sense_is_refused(bad: Bad) -> None:
    with pytest.raises(BadRequest, match=bad.says):
        checked(request(**bad.more))


def test_a_request_whose_query_cannot_be_understood_is_refused() -> None:
    with pytest.raises(BadQuery, match="at column 7"):
        checked(request(query="level:eror"))


def test_an_id_is_used_once(store: Bucket) -> None:
    requests = Requests(store, CLUSTER)
    requests.add(request())
    with pytest.raises(ObjectExists):
        requests.add(request(text="other"))
    assert [(one.id, done) for one, done in requests.all()] == [("r-1", None)]


def test_an_object_that_is_no_request_is_named(store: Bucket) -> None:
    store.put(f"{CLUSTER}/deletions/x.json", msgspec.json.encode({"id": 5}))
    with pytest.raises(BadRequest, match=r"deletions/x\.json is no DeletionRequest"):
        list(Requests(store, CLUSTER).all())


def test_a_request_that_cannot_be_carried_out_holds_up_no_other(kept: Kept) -> None:
    kept.bucket.put(f"{CLUSTER}/deletions/a.json", b"no request")
    bad = msgspec.json.encode(request(id="b", regex="("))
    kept.bucket.put(f"{CLUSTER}/deletions/b.json", bad)
    asked(kept, id="c", pod="api")
    jobs = kept.jobs()
    with pytest.raises(BadRequest):
        jobs.delete()
    assert "api" not in {row["pod"] for row in kept.rows()}
