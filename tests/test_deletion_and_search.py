"""A deletion removes the rows that a search with the same arguments shows: no more, and no less."""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexer.query.filter import compile_kernels
from indexer.store.open import open_bucket
from indexer.table.request import DeletionRequest, Requests
from tests.examples import examples
from tests.indexer.kept import Kept, PodFile
from tests.indexer.shipped import CLUSTER
from tests.query_api.conftest import served
from tests.way import cri

compile_kernels()  # no test has to wait for it

FIRST_NS = 1_772_366_400 * 10**9
"""Of line 0, see way.cri: line n is n seconds and n nanoseconds later."""

MESSAGES = [
    "user eve@example.org logged in",
    "user steve@example.org logged in",
    "user EVE@example.org logged in",
    "mail to eve@example.org.uk bounced",
    '{"mail":"eve@example.org"}',
    "ERROR eve",
    "WARN \u212aelvin \u017f",
    "caf\xe9 eve",
    "100% [eve].*",
]
QUERIES = [
    "eve@example.org", "EVE", "steve", '"eve@"', "-eve", "user -steve", "example.org.uk", '"100%"',
    "\u212aelvin", "k", "s", '"[eve]"', '"].*"', "org in", '"in logged"', '"eve " -logged',
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A line of a container, and where it was written."""

    message: str
    namespace: str
    pod: str
    node: str


rows = st.lists(
    st.builds(
        Row,
        st.sampled_from(MESSAGES),
        st.sampled_from(["shop", "bank"]),
        st.sampled_from(["web", "api", "apis"]),
        st.sampled_from(["node-1", "node-2"]),
    ),
    min_size=1,
    max_size=20,
)
some = {
    "namespace": ["shop", "bank"],
    "pod": ["web", "api", "none"],
    "container": ["app", "sidecar"],
    "node": ["node-1", "node-2"],
    "level": ["error", "warn", "unknown"],
}
scopes = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)
        for name, values in some.items()
    },
)
seconds = st.integers(0, 21)


def table(folder: str, lines: Sequence[Row]) -> Kept:
    """Return a table of these lines, in more than one segment."""
    kept = Kept(open_bucket(folder))
    files: dict[tuple[str, str, str], list[bytes]] = {}
    for number, row in enumerate(lines):
        place = (row.namespace, row.pod, row.node)
        files.setdefault(place, []).append(cri(number, row.message))
    for (namespace, pod, node), data in files.items():
        kept.commit(PodFile(b"".join(data), pod, node, namespace))
    return kept


Key = tuple[str, int]


def keys(kept: Kept) -> set[Key]:
    return {(row["file_id"].hex(), row["offset"]) for row in kept.rows()}


def shown(kept: Kept, asked: dict[str, Any]) -> set[Key]:
    """Return the rows that a search shows."""

    async def search() -> dict[str, Any]:
        async with served(kept.bucket, kept.now_ns, cluster=CLUSTER) as client:
            answer = await client.get("/v1/search", params={**asked, "limit": 1000})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    answer = asyncio.run(search())
    assert answer["next"] is None
    return {(row["file_id"], row["offset"]) for row in answer["rows"]}


def removed(kept: Kept, asked: dict[str, Any]) -> set[Key]:
    """Return the rows that a deletion removes."""
    lists: dict[str, Any] = {name: tuple(value) for name, value in asked.items() if name in some}
    request = DeletionRequest(
        id="r", requested_ns=0, by="dpo", reason="art. 17",
        from_ns=asked["from"], to_ns=asked["to"], query=asked.get("query", ""), **lists,
    )  # fmt: skip
    Requests(kept.bucket, CLUSTER).add(request)
    before = keys(kept)
    kept.jobs().delete()
    return before - keys(kept)


@given(rows, scopes, st.lists(st.sampled_from(QUERIES), max_size=2), seconds, seconds)
@example([Row(m, "shop", "web", "node-1") for m in MESSAGES], {}, ["eve@example.org"], 0, 21)
@examples(40)
def test_a_deletion_removes_what_a_search_shows(
    lines: list[Row], scope: dict[str, list[str]], words: list[str], one: int, other: int
) -> None:
    first, last = sorted((one, other))
    asked: dict[str, Any] = {**scope, "query": " ".join(words)}
    # To the nanosecond, so that a bound often meets a row.
    asked["from"], asked["to"] = (FIRST_NS + n * (10**9 + 1) for n in (first, last + 1))
    if not words and not scope:
        asked["namespace"] = ["shop"]
    with tempfile.TemporaryDirectory() as folder:
        kept = table(folder, lines)
        expected = shown(kept, asked)
        assert removed(kept, asked) == expected
        assert not shown(kept, asked)


def test_another_person_whose_name_ends_alike_stays(tmp_path: Path) -> None:
    kept = table(str(tmp_path), [Row(m, "shop", "web", "node-1") for m in MESSAGES[:5]])
    removed(kept, {"query": "eve@example.org", "from": 0, "to": 1 << 62, "namespace": ["shop"]})
    assert kept.messages() == ["user steve@example.org logged in"]


@pytest.mark.parametrize(
    ("old", "left"),
    [
        ({"text": "eve@", "regex": ""}, [MESSAGES[2]]),
        ({"text": "", "regex": "^user [a-z]"}, MESSAGES[2:5]),
    ],
    ids=["text", "regex"],
)
def test_a_request_of_the_version_before_removes_what_it_said(
    tmp_path: Path, old: dict[str, str], left: list[str]
) -> None:
    kept = table(str(tmp_path), [Row(m, "shop", "web", "node-1") for m in MESSAGES[:5]])
    stored = {
        "id": "old", "requested_ns": 0, "by": "Ada", "reason": "names", "namespace": "shop",
        "from_ns": 0, "to_ns": 1 << 62, "pod": "web", "container": "", **old,
    }  # fmt: skip
    kept.bucket.put(f"{CLUSTER}/deletions/old.json", msgspec.json.encode(stored))
    kept.jobs().delete()
    assert kept.messages() == left


def test_rows_of_several_namespaces_are_each_named_by_their_own(tmp_path: Path) -> None:
    lines = [Row("eve", "shop", "web", "node-1"), Row("eve", "bank", "web", "node-1")]
    kept = table(str(tmp_path), lines)
    removed(kept, {"query": "eve", "from": 0, "to": 1 << 62})
    entries = kept.ledger().deleted.values()
    assert {(entry.namespace, entry.rows) for entry in entries} == {("shop", 1), ("bank", 1)}
