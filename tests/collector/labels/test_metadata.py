"""Labels and owners of pods: what an entry says, when it is sent, and servers that misbehave.

The server is a small one of the test, over TLS, that plays what a real one does rarely.
"""

import asyncio
import contextlib
import itertools
import json
import random
import ssl
import time
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import MetadataError, MetadataExpired, SettingError
from collector.labels.http import Server, _head
from collector.labels.metadata import Metadata, MetadataSettings
from collector.labels.pod import Described, ObjectMeta, owner_of
from collector.labels.source import ApiServer, Change, KubeletPods, Listing
from collector.wire.batch import Meta
from tests.real_parts.certificates import Authority, Signed

MINUTE = int(datetime(2026, 3, 1, 12, 30, tzinfo=UTC).timestamp()) // 60
OLD = MINUTE - 40 * 24 * 60
HASH = "pod-template-hash"
STATIC = "5f3a" * 8
SECOND = 1_000_000_000


def pod(name: str = "api-1", version: int = 1, **metadata: Any) -> dict[str, Any]:
    """A pod as the API server has it, with more than what is needed."""
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-03-01T12:31:00Z",
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:metadata": {}}}],
            **metadata,
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "none"}]},
    }


def pods(*items: dict[str, Any], version: int = 10, more: str = "") -> dict[str, Any]:
    return {
        "kind": "PodList",
        "metadata": {"resourceVersion": str(version), "continue": more},
        "items": list(items),
    }


def event(kind: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(version)}})


def answer(body: Any, status: int = 200, head: str = "") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n{head}\r\n".encode() + data


def refusal(status: int, message: str, head: str = "") -> bytes:
    return answer({"kind": "Status", "code": status, "message": message}, status, head)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


HOLD = b"HOLD"
"""In a script: say nothing more, but keep the connection until the test ends."""


class Asked:
    """One request as the server got it."""

    def __init__(self, text: str) -> None:
        first, *rest = text.split("\r\n")
        self.target = first.split(" ")[1]
        self.query = {k: v[0] for k, v in parse_qs(urlsplit(self.target).query).items()}
        self.headers = dict(line.split(": ", 1) for line in rest if line)


class Player:
    """A server that answers each connection with the next script, then holds."""

    def __init__(self, authority: Authority, signed: Signed) -> None:
        self.authority = authority
        self._signed = signed
        self.asked: list[Asked] = []
        self.scripts: list[list[bytes]] = []
        self._over = asyncio.Event()
        self._busy: set[asyncio.Task] = set()

    async def start(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._signed.certificate, self._signed.key)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self._plain = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.plain_port = self._plain.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            text = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(Asked(text))
            for step in self.scripts.pop(0) if self.scripts else [HOLD]:
                if step == HOLD:
                    await self._over.wait()
                else:
                    writer.write(step)
                    await writer.drain()
            writer.write_eof() if writer.can_write_eof() else None
        writer.close()
        self._busy.discard(task)

    async def close(self) -> None:
        self._over.set()
        await asyncio.gather(*self._busy, return_exceptions=True)
        for server in (self._server, self._plain):
            server.close()
            await server.wait_closed()


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Signed]:
    authority = Authority(tmp_path_factory.mktemp("keys") / "authority")
    return authority, authority.sign("api")


@pytest.fixture
async def player(signed: tuple[Authority, Signed]) -> AsyncIterator[Player]:
    made = Player(*signed)
    await made.start()
    yield made
    await made.close()


class Bench:
    """Makes what a test looks at: settings that fit the server, sources, a running Metadata."""

    def __init__(self, folder: Path, player: Player) -> None:
        self.folder = folder
        self.player = player
        self.token = folder / "token"
        self.token.write_text("first-token\n")
        self.now = 1_000 * SECOND
        self._tasks: list[asyncio.Task] = []

    def settings(self, **changed: Any) -> MetadataSettings:
        values: dict[str, Any] = {
            "metadata_source": "api",
            "metadata_url": f"https://127.0.0.1:{self.player.port}",
            "metadata_ca": str(self.player.authority.certificate),
            "metadata_token_file": str(self.token),
            "metadata_spread_ms": 20,
            "metadata_retry_most_ms": 20,
            "metadata_interval_ms": 0,
        }
        return MetadataSettings(**{**values, **changed})

    def metadata(self, **changed: Any) -> Metadata:
        return Metadata(
            self.settings(**changed), "node-1", self.folder, lambda: self.now, random.Random(1)
        )

    def source(self, **changed: Any) -> Any:
        return self.metadata(**changed)._source

    def run(self, **changed: Any) -> Metadata:
        metadata = self.metadata(**changed)
        self._tasks.append(asyncio.create_task(metadata.run()))
        return metadata

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for done in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(done, asyncio.CancelledError)
        self._tasks.clear()


@pytest.fixture
async def bench(tmp_path: Path, player: Player) -> AsyncIterator[Bench]:
    made = Bench(tmp_path, player)
    yield made
    await made.stop()


async def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.005)


async def first_change(source: Any) -> Change:
    """The first step of a watch that has a version."""
    async with contextlib.aclosing(source.watch("1", 5)) as changes:
        return await anext(change async for change in changes if change.version)


class Everything:
    """All pods have files on disk."""

    def __contains__(self, _uid: object) -> bool:
        return True


EVERYTHING = Everything()


# -- what an entry says ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "references", "owner"),
    [
        ({}, [], ("", "")),
        ({}, [("ConfigMap", "x", None)], ("", "")),
        ({}, [("ConfigMap", "x", False), ("DaemonSet", "agent", True)], ("DaemonSet", "agent")),
        ({}, [("StatefulSet", "db", True)], ("StatefulSet", "db")),
        ({HASH: "7d9"}, [("ReplicaSet", "api-7d9", True)], ("Deployment", "api")),
        ({HASH: "7d9"}, [("ReplicaSet", "api-7d8", True)], ("ReplicaSet", "api-7d8")),
        ({HASH: ""}, [("ReplicaSet", "api-", True)], ("ReplicaSet", "api-")),
        ({}, [("ReplicaSet", "api-7d9", True)], ("ReplicaSet", "api-7d9")),
        ({}, [("Job", f"report-{MINUTE}", True)], ("CronJob", "report")),
        ({}, [("Job", f"report-{MINUTE - 20 * 1440}", True)], ("CronJob", "report")),
        ({}, [("Job", f"report-{OLD}", True)], ("Job", f"report-{OLD}")),
        ({}, [("Job", f"report-{MINUTE + 120}", True)], ("Job", f"report-{MINUTE + 120}")),
        ({}, [("Job", "import-20260301", True)], ("Job", "import-20260301")),
        ({}, [("Job", "migrate", True)], ("Job", "migrate")),
        ({}, [("Job", f"-{MINUTE}", True)], ("Job", f"-{MINUTE}")),
        ({}, [("Rollout", f"x-{MINUTE}", True)], ("Rollout", f"x-{MINUTE}")),
    ],
)  # fmt: skip
def test_the_owner_is_what_people_deploy(
    labels: dict[str, str],
    references: list[tuple[str, str, bool | None]],
    owner: tuple[str, str],
) -> None:
    found = [{"kind": kind, "name": name, "controller": is_} for kind, name, is_ in references]
    meta = pod(labels=labels, ownerReferences=found)["metadata"]
    assert owner_of(msgspec.convert(meta, ObjectMeta)) == owner


def test_a_job_of_a_pod_without_an_age_stays_a_job() -> None:
    reference = {"kind": "Job", "name": f"report-{MINUTE}", "controller": True}
    meta = pod(creationTimestamp=None, ownerReferences=[reference])["metadata"]
    assert owner_of(msgspec.convert(meta, ObjectMeta)) == ("Job", f"report-{MINUTE}")


def describe(described: Described, **metadata: Any) -> Meta:
    return described.describe(msgspec.convert(pod(**metadata)["metadata"], ObjectMeta))


def test_a_mirror_pod_is_known_by_the_directory_of_its_static_pod() -> None:
    hash_ = "kubernetes.io/config.hash"
    described = Described("node-1", frozenset(), 64, 1024)
    node = {"kind": "Node", "name": "node-1", "controller": True}
    mirror = {hash_: STATIC, "kubernetes.io/config.mirror": STATIC}
    of_api = describe(described, annotations=mirror, ownerReferences=[node])
    of_kubelet = describe(described, uid=STATIC, annotations={hash_: STATIC})
    assert of_api == of_kubelet
    assert (of_api.pod_uid, of_api.owner_kind, of_api.owner) == (STATIC, "Node", "node-1")


def test_a_pod_cannot_speak_for_another_one() -> None:
    described = Described("node-1", frozenset(), 64, 1024)
    other = {"kubernetes.io/config.mirror": "0d6b6f9e-6c1c-4a53-9d6c-5a3f2a1f0d1e"}
    assert describe(described, annotations=other).pod_uid == "uid-api-1"


def test_an_entry_holds_no_more_than_its_limits() -> None:
    described = Described("node-1", frozenset({"team", "absent"}), 2, 4)
    found = describe(
        described,
        labels={"c": "1", "b": "12345", "a": "1234"},
        annotations={"team": "ééé", "kubectl.kubernetes.io/last-applied": "{}"},
    )
    assert found.labels == {"a": "1234", "b": "1234…"}
    assert found.annotations == {"team": "éé…"}
    assert described.limited == {"metadata_labels_max": 1, "metadata_value_bytes": 2}


# -- when it is sent -------------------------------------------------------------------------


async def test_entries_come_once_and_again_when_they_change(player: Player, bench: Bench) -> None:
    one, two = pod("api-1", labels={"app": "api"}), pod("api-2")
    grown = pod("api-1", 12, labels={"app": "api", "canary": "yes"})
    watch = [CHUNKED, chunk(event("MODIFIED", one)), chunk(event("MODIFIED", grown)), HOLD]
    player.scripts = [[answer(pods(one, two))], watch]
    metadata = bench.run()
    await until(lambda: metadata._version == "12")
    taken = metadata.take({"uid-api-1"})
    assert [meta.labels for meta in taken] == [{"app": "api", "canary": "yes"}]
    assert metadata.take({"uid-api-1"}) == []  # sent, and api-2 has no files yet
    assert [meta.pod for meta in metadata.take(EVERYTHING)] == ["api-2"]
    metadata.again("uid-api-1")
    metadata.again("uid-of-nobody")
    assert metadata.take(EVERYTHING) == taken
    assert metadata.last_success_ns == bench.now
    assert (metadata.error, metadata.pods, metadata.requests) == ("", 2, 2)


async def test_a_pod_is_sent_at_most_once_in_an_interval(player: Player, bench: Bench) -> None:
    versions = (
        event("MODIFIED", pod(version=v, labels={"v": str(v)})) for v in itertools.count(11)
    )
    player.scripts = [[answer(pods(pod()))], [CHUNKED, chunk(next(versions)), HOLD]]
    metadata = bench.run(metadata_interval_ms=30_000, metadata_resend_ms=3_600_000)
    await until(lambda: metadata._version == "11")
    assert len(metadata.take(EVERYTHING)) == 1
    metadata._changed(Change("12", bench.source()._change(next(versions)).meta))
    bench.now += 29 * SECOND
    assert metadata.take(EVERYTHING) == []
    bench.now += SECOND
    assert [meta.labels["v"] for meta in metadata.take(EVERYTHING)] == ["12"]
    metadata._changed(Change("13", bench.source()._change(next(versions)).meta))
    bench.now -= 500 * SECOND  # a clock that is set back holds nothing up, and stamps go on
    (last,) = metadata.take(EVERYTHING)
    assert last.labels["v"] == "13"
    assert last.seen_ns > 1_000 * SECOND
    bench.now += 3_600 * SECOND
    assert metadata.take(EVERYTHING) == []
    bench.now += 600 * SECOND
    assert metadata.take(EVERYTHING) == [last]  # all of them, now and then


async def test_an_ended_pod_is_kept_while_its_files_are_there(player: Player, bench: Bench) -> None:
    gone = [CHUNKED, chunk(event("DELETED", pod("api-1", 11))), HOLD]
    player.scripts = [[answer(pods(pod("api-1"), pod("api-2")))], gone]
    metadata = bench.run()
    await until(lambda: metadata._version == "11")
    assert len(metadata.take({"uid-api-1", "uid-api-2"})) == 2
    metadata.again("uid-api-1")
    assert [meta.pod for meta in metadata.take({"uid-api-1"})] == ["api-1"]
    assert metadata.take(set()) == []
    assert metadata.pods == 1  # api-2 is there, but has no files yet


async def test_a_restart_without_a_server_still_knows_the_labels(
    player: Player, bench: Bench
) -> None:
    player.scripts = [[answer(pods(pod("api-1", labels={"app": "api"}), pod("api-2")))]]
    before = bench.run()
    await until(lambda: before.pods)
    first = {meta.pod: meta for meta in before.take(EVERYTHING)}
    await bench.stop()
    after = bench.metadata()
    assert after.take({"uid-api-1"}) == [first["api-1"]]  # once in each run
    assert after.pods == 1  # the other one went away meanwhile
    assert bench.metadata(metadata_source="").pods == 0
    player.scripts = [[answer(pods(pod("api-2")))]]
    listed = bench.run()
    await until(lambda: listed.last_success_ns)
    assert listed.take(set()) == []
    assert listed.pods == 1  # it runs, though it has written nothing yet


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
async def test_a_damaged_cache_is_set_aside(player: Player, bench: Bench, damage: str) -> None:
    player.scripts = [[answer(pods(pod()))]]
    before = bench.run()
    await until(lambda: before.pods)
    await bench.stop()
    path = bench.folder / "metadata"
    whole = path.read_bytes()
    assert bench.metadata().pods == 1
    flipped = whole.replace(b"api-1", b"api-2")
    damaged = {"flip": flipped, "cut": whole[:-1], "empty": b"", "other": b"x" + whole}
    path.write_bytes(damaged[damage])
    assert bench.metadata().pods == 0


async def test_a_disk_that_is_full_changes_nothing_else(player: Player, bench: Bench) -> None:
    (bench.folder / "metadata.tmp").mkdir()
    player.scripts = [[answer(pods(pod()))]]
    metadata = bench.run()
    await until(lambda: metadata.pods)
    await bench.stop()
    assert "directory" in metadata.save_error
    assert len(metadata.take(EVERYTHING)) == 1


async def test_the_pods_that_ended_first_are_forgotten_at_the_limit(
    player: Player, bench: Bench
) -> None:
    player.scripts = [
        [answer(pods(*(pod(f"old-{n}") for n in range(3))))],
        [refusal(410, "too old")],
        [answer(pods(*(pod(f"new-{n}") for n in range(4))))],
    ]
    metadata = bench.run(metadata_pods_max=3)
    await until(lambda: metadata.limited)
    await until(lambda: len(player.asked) == 4)
    assert {meta.pod for meta in metadata.take(EVERYTHING)} == {"new-0", "new-1", "new-2"}
    assert metadata.limited == {"metadata_pods_max": 4}


# -- servers that misbehave ------------------------------------------------------------------


async def test_a_list_comes_from_the_servers_memory_and_in_pages(
    player: Player, bench: Bench
) -> None:
    player.scripts = [
        [answer(pods(pod("api-1"), more="next"))],
        [answer(pods(pod("api-2"), version=11))],
    ]
    found = await bench.source().list()
    assert [meta.pod for meta in found.metas] == ["api-1", "api-2"]
    assert found.version == "11"
    first, second = (asked.query for asked in player.asked)
    assert first["fieldSelector"] == second["fieldSelector"] == "spec.nodeName=node-1"
    assert (first["resourceVersion"], first["limit"]) == ("0", "500")
    assert (second["continue"], "resourceVersion" in second) == ("next", False)


@pytest.mark.parametrize(
    "gone",
    [
        [refusal(410, "too old resource version: 10 (11)")],
        [CHUNKED, chunk(event("ERROR", {"code": 410, "message": "too old resource version"}))],
    ],
)
async def test_a_forgotten_version_is_listed_anew(
    player: Player, bench: Bench, gone: list[bytes]
) -> None:
    player.scripts = [[answer(pods(pod()))], gone, [answer(pods(pod(), version=20))]]
    metadata = bench.run()
    await until(lambda: len(player.asked) == 4)
    assert [asked.query["resourceVersion"] for asked in player.asked] == ["0", "10", "0", "20"]
    assert metadata.failures == 1


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_asks_for_patience_gets_it(
    player: Player, bench: Bench, status: int
) -> None:
    player.scripts = [
        [refusal(status, "later", "Retry-After: 1\r\n")],
        [answer(pods(pod()))],
    ]
    began = time.monotonic()
    metadata = bench.run(metadata_retry_most_ms=5_000)
    await until(lambda: metadata.error)
    assert f"answers {status}: later" in metadata.error
    await until(lambda: not metadata.error)
    assert 1 <= time.monotonic() - began < 10


async def test_no_server_makes_a_collector_wait_for_ever(player: Player, bench: Bench) -> None:
    date = "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n"
    player.scripts = [
        [refusal(429, "later", date)],
        [refusal(429, "later", f"Retry-After: {9**20}\r\n")],
    ]
    with pytest.raises(MetadataError) as caught:
        await bench.source().list()
    assert caught.value.retry_after_s == 0
    metadata = bench.run()
    await until(lambda: len(player.asked) == 3)
    assert metadata.failures == 1


async def test_a_server_that_never_answers_is_given_up(player: Player, bench: Bench) -> None:
    slow = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", HOLD]
    player.scripts = [[HOLD], slow, [answer(pods(pod()))]]
    metadata = bench.run(metadata_timeout_ms=100)
    await until(lambda: "has not answered in time" in metadata.error)
    await until(lambda: metadata.pods)


async def test_a_server_that_never_greets_is_given_up(player: Player, bench: Bench) -> None:
    url = f"https://127.0.0.1:{player.plain_port}"
    with pytest.raises(MetadataError, match="has not answered in time"):
        await bench.source(metadata_url=url, metadata_timeout_ms=100).list()


@pytest.mark.slow
async def test_a_watch_that_never_ends_goes_on_from_its_last_word(
    player: Player, bench: Bench
) -> None:
    player.scripts = [
        [answer(pods(pod()))],
        [CHUNKED, chunk(bookmark(15)), HOLD],
        [CHUNKED, chunk(event("MODIFIED", pod(version=16))), HOLD],
    ]
    metadata = bench.run(metadata_watch_ms=1_000, metadata_timeout_ms=100)
    await until(lambda: metadata._version == "16")
    assert player.asked[2].query["resourceVersion"] == "15"
    assert metadata.failures == 1
    assert player.asked[1].query["allowWatchBookmarks"] == "true"
    assert 1 <= int(player.asked[1].query["timeoutSeconds"]) <= 2


async def test_a_watch_that_is_cut_off_goes_on_from_its_last_whole_event(
    player: Player, bench: Bench
) -> None:
    next_ = chunk(event("MODIFIED", pod(version=12, labels={"app": "api"})))
    player.scripts = [
        [answer(pods(pod()))],
        [CHUNKED, chunk(bookmark(11)), next_[:-50]],
        [CHUNKED, next_, HOLD],
    ]
    metadata = bench.run()
    await until(lambda: metadata._version == "12")
    assert [asked.query["resourceVersion"] for asked in player.asked] == ["0", "10", "11"]
    assert metadata.failures == 1


async def test_a_watch_that_ends_early_is_no_error_but_waited_after(
    player: Player, bench: Bench
) -> None:
    player.scripts = [[answer(pods())], [CHUNKED, chunk(b""), HOLD]]
    metadata = bench.run(metadata_spread_ms=0, metadata_retry_most_ms=10**8)
    await until(lambda: len(player.asked) == 3)
    assert metadata.error == ""
    assert metadata._schedule.failures == 1


async def test_a_quiet_watch_after_an_error_ends_the_error(player: Player, bench: Bench) -> None:
    player.scripts = [[answer(pods())], [CHUNKED + b"5\r\n"], [CHUNKED, HOLD]]
    metadata = bench.run(metadata_spread_ms=300, metadata_retry_most_ms=300)
    await until(lambda: "cut off" in metadata.error)
    await until(lambda: not metadata.error)
    assert metadata._schedule.failures == 1  # it has only begun
    assert 300 <= int(player.asked[2].query["timeoutSeconds"]) <= 600


async def test_a_new_token_is_shown_as_soon_as_its_file_has_it(
    player: Player, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    player.scripts = [[refusal(401, "no: first-token")], [answer(pods(pod()))]]
    metadata = bench.run(metadata_spread_ms=300, metadata_retry_most_ms=300)
    await until(lambda: metadata.error)
    assert f"the token in {bench.token} is not accepted" in metadata.error
    assert "first-token" not in metadata.error + caplog.text
    bench.token.write_text("second-token\n")
    await until(lambda: metadata.pods)
    shown = [asked.headers["Authorization"] for asked in player.asked[:2]]
    assert shown == ["Bearer first-token", "Bearer second-token"]


@pytest.mark.parametrize("content", [b"", b"two words", b"a\r\nHost: b", b"\xff"])
async def test_a_file_without_a_token_is_named_and_nothing_is_asked(
    player: Player, bench: Bench, content: bytes
) -> None:
    bench.token.write_bytes(content)
    with pytest.raises(MetadataError, match=f"{bench.token}: no token in it; mount"):
        await bench.source().list()
    bench.token.unlink()
    with pytest.raises(MetadataError, match="No such file"):
        await bench.source().list()
    assert not player.asked


async def test_no_token_goes_over_a_connection_that_is_not_encrypted(
    player: Player, bench: Bench
) -> None:
    player.scripts = [[answer(pods())]]
    await bench.source(metadata_url=f"http://127.0.0.1:{player.plain_port}").list()
    assert "Authorization" not in player.asked[0].headers


@pytest.mark.parametrize(
    ("source", "rule"), [("api", "list and watch on pods"), ("kubelet", "get on nodes/pods")]
)
async def test_a_refusal_names_the_missing_rule(
    player: Player, bench: Bench, source: str, rule: str
) -> None:
    player.scripts = [[refusal(403, "pods is forbidden")], [answer(b"Forbidden", 403)]]
    for said in ("pods is forbidden", "Forbidden"):
        with pytest.raises(MetadataError, match=f"403: {said}; grant {rule}"):
            await bench.source(metadata_source=source).list()


async def test_a_server_is_asked_only_if_its_certificate_is_good(
    player: Player, bench: Bench
) -> None:
    other = Authority(bench.folder / "other").certificate
    with pytest.raises(MetadataError, match=r"unable to get local issuer .*; set metadata_ca"):
        await bench.source(metadata_ca=str(other)).list()
    assert not player.asked
    with pytest.raises(MetadataError, match=r"metadata_ca /absent: .*; put PEM certificates"):
        await bench.source(metadata_ca="/absent").list()
    player.scripts = [[answer(pods())]]
    await bench.source(metadata_ca=str(other), metadata_tls_verify=False).list()


@pytest.mark.parametrize("head", ["Content-Length: 70000", "Transfer-Encoding: chunked"])
async def test_an_answer_without_end_is_not_read_to_its_end(
    player: Player, bench: Bench, head: str
) -> None:
    start = f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode()
    body = chunk(b" " * 70_000) if "chunked" in head else b" " * 70_000
    player.scripts = [[start, body, HOLD], [start, body, HOLD]]
    source = bench.source(metadata_response_bytes=65_536)
    with pytest.raises(MetadataError, match="raise metadata_response_bytes"):
        await source.list()
    with pytest.raises(MetadataError, match="raise metadata_response_bytes"):
        await first_change(source)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\n\r\n" + b'{"items": [{"metadata": {"name": "\xff"}}]}',
        b"HTTP/1.1 200 OK\r\n\r\n" + b'{"items": [{"metadata": {"name": "\\ud800"}}]}',
        CHUNKED + b"-1\r\n",
        CHUNKED + b"no size\r\n",
        CHUNKED + b"0" * 100_000,
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    ],
)
async def test_what_is_no_answer_is_an_error_and_no_crash(
    player: Player, bench: Bench, said: bytes
) -> None:
    player.scripts = [[said], [said]]
    with pytest.raises(MetadataError):
        await bench.source().list()
    with pytest.raises(MetadataError):
        await bench.source(metadata_source="kubelet").list()


async def test_a_watch_that_sends_what_is_no_event_is_an_error(
    player: Player, bench: Bench
) -> None:
    told = event("ERROR", {"code": 500, "message": "etcd is away"})
    player.scripts = [[CHUNKED, chunk(b"[1]\n"), HOLD], [CHUNKED, chunk(told), HOLD]]
    for said in ("something that is not an event", "ended: etcd is away"):
        with pytest.raises(MetadataError, match=said) as caught:
            await first_change(bench.source())
        assert not isinstance(caught.value, MetadataExpired)


async def test_nobody_listens_there(bench: Bench, player: Player) -> None:
    await player.close()
    with pytest.raises(MetadataError, match=r"https://127\.0\.0\.1"):
        await bench.source().list()


@given(st.binary(max_size=2_000), st.data())
async def test_a_chunked_answer_comes_out_whole_however_it_is_cut(
    body: bytes, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(len(body), 1)), max_size=8)) | {len(body)})
    pieces = [body[a:b] for a, b in itertools.pairwise([0, *cuts]) if b > a]
    wire = CHUNKED + b"".join(map(chunk, pieces)) + chunk(b"")
    kept = data.draw(st.integers(0, len(wire)))
    for sent in (wire, wire[:kept]):
        reader = asyncio.StreamReader()
        step = data.draw(st.integers(1, 400))
        for at in range(0, len(sent), step):
            reader.feed_data(sent[at : at + step])
        reader.feed_eof()
        try:
            found = await (await _head(reader, 1 << 20)).body()
        except EOFError:
            assert sent is not wire
        else:
            assert found == body


async def test_a_list_of_5000_pods_takes_little_more_memory_than_one_page(
    player: Player, bench: Bench
) -> None:
    filler = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 4_000}
    page = [pod(f"api-{n}", labels={"app": "api"}, annotations=filler) for n in range(500)]
    for number in range(10):
        more = "next" if number < 9 else ""
        player.scripts.append([answer(pods(*page, more=more))])
    size = len(player.scripts[0][0])
    source = bench.source()
    tracemalloc.start()
    try:
        found = await source.list()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.metas) == 5_000
    # The page as it came, joined and decoded; twice, as this test's own server holds one too.
    assert most < 6 * size + 5_000 * 1_000


# -- the kubelet -----------------------------------------------------------------------------


async def test_the_kubelet_is_asked_again_and_again(player: Player, bench: Bench) -> None:
    static = pod("etcd", uid=STATIC, annotations={"kubernetes.io/config.hash": STATIC})
    player.scripts = [
        [answer(pods(static, pod("api-1"), version=""))],  # type: ignore[arg-type]
        [answer({"items": None})],
        [answer(pods(pod("api-2"), version=""))],  # type: ignore[arg-type]
    ]
    metadata = bench.run(metadata_source="kubelet", metadata_poll_ms=10)
    await until(lambda: len(player.asked) >= 4)
    taken = {meta.pod_uid: meta.owner_kind for meta in metadata.take(EVERYTHING)}
    assert taken == {STATIC: "Node", "uid-api-1": "", "uid-api-2": ""}
    assert {asked.target for asked in player.asked} == {"/pods"}
    assert metadata.failures == 0


# -- settings --------------------------------------------------------------------------------


async def made(**settings: Any) -> Server:
    environ = settings.pop("environ", {})
    metadata = Metadata(
        MetadataSettings(**settings), "node-1", Path("/absent"), lambda: 0, random.Random(0),
        environ=environ,
    )  # fmt: skip
    source = metadata._source
    assert isinstance(source, ApiServer | KubeletPods)
    return source._server


async def test_the_address_is_that_of_the_cluster_or_the_node() -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
    six = {"KUBERNETES_SERVICE_HOST": "fd00::1"}
    assert (await made(metadata_source="api", environ=environ)).url == "https://10.96.0.1:6443"
    assert (await made(metadata_source="api", environ=six)).url == "https://[fd00::1]:443"
    assert (await made(metadata_source="kubelet")).url == "https://node-1:10250"
    assert (await made(metadata_source="api", metadata_url="https://x/")).url == "https://x"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metadata_source": "docker"}, "metadata_source 'docker' is unknown; set api"),
        ({"metadata_source": "api"}, "KUBERNETES_SERVICE_HOST is not set; set metadata_url"),
        ({"metadata_source": "api", "metadata_url": "10.0.0.1:6443"}, "is not a URL"),
        ({"metadata_source": "api", "metadata_url": "https://x:port"}, "is not a URL"),
        ({"metadata_source": "api", "metadata_url": "https://a:secret@x"}, "metadata_url is no"),
    ],
)
async def test_wrong_settings_are_said_at_the_start(settings: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        await made(**settings)


async def test_without_a_source_nothing_runs(tmp_path: Path) -> None:
    metadata = Metadata(MetadataSettings(), "node-1", tmp_path, lambda: 0, random.Random(0))
    await metadata.run()
    assert metadata.take(EVERYTHING) == []


async def test_labels_may_come_from_an_address_of_ipv6() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    listener = await asyncio.start_server(serve, "::1", 0)
    where = f"[::1]:{listener.sockets[0].getsockname()[1]}"
    server = Server(f"http://{where}", "", "", True, "read", 30.0, 1 << 16)
    async with server.get("/pods", "text/plain") as answer:
        assert await answer.body() == b"ok"
    listener.close()
    assert f"Host: {where}\r\n".encode() in heads[0]


class Faulty:
    """A source that fails in ways that nobody expects, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    async def list(self) -> Listing:
        if self._errors:
            raise self._errors.pop(0)
        return Listing([Meta("shop", "web-1", "uid-1", 1, {}, {}, "", "")], "")

    async def watch(self, version: str, seconds: int) -> AsyncGenerator[Change, None]:
        for change in list[Change]():  # there is no version to watch
            yield change


async def test_labels_are_asked_for_again_after_any_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = Faulty(KeyError("items"), RecursionError(), MetadataError("busy"), ValueError("x"))
    settings = MetadataSettings(metadata_source="api", metadata_spread_ms=1)
    metadata = Metadata(settings, "node-1", tmp_path, lambda: 1, random.Random(1), source=source)
    running = asyncio.create_task(metadata.run())
    await until(lambda: metadata.pods)
    running.cancel()
    await asyncio.wait([running])
    assert (metadata.failures, metadata.error) == (4, "")
    said = [record.__dict__.get("error") for record in caplog.records]
    assert said[:4] == ["KeyError('items')", "RecursionError()", "busy", "ValueError('x')"]
