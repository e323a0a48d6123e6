"""Labels and owners as a real API server tells them, while it goes away, forgets and refuses."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collector.errors import MetadataError
from collector.labels.metadata import Metadata, MetadataSettings
from collector.wire.batch import Meta
from tests.collector.labels.test_metadata import EVERYTHING, STATIC, until
from tests.real_parts.kubernetes import COLLECTOR, ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.real]


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    """A running API server with a namespace ``shop``."""
    server = ApiServer.start()
    server.create_namespace("shop")
    yield server
    server.close()


class Bench:
    """Collectors' metadata of node-1, and what they have said so far, by pod."""

    def __init__(self, api: ApiServer, folder: Path) -> None:
        self.api = api
        self.folder = folder
        self.token = folder / "token"
        self.token.write_text(api.tokens[COLLECTOR])
        self.said: dict[str, Meta] = {}
        self._tasks: list[asyncio.Task] = []

    def metadata(self, **changed: Any) -> Metadata:
        settings: dict[str, Any] = {
            "metadata_source": "api",
            "metadata_url": self.api.url,
            "metadata_ca": str(self.api.ca),
            "metadata_token_file": str(self.token),
            "metadata_annotations": "team, absent",
            "metadata_spread_ms": 200,
            "metadata_retry_most_ms": 200,
            "metadata_interval_ms": 0,
        }
        return Metadata(
            MetadataSettings(**{**settings, **changed}),
            "node-1", self.folder, time.time_ns, random.Random(1),
        )  # fmt: skip

    def run(self, **changed: Any) -> Metadata:
        metadata = self.metadata(**changed)
        self._tasks.append(asyncio.create_task(metadata.run()))
        return metadata

    async def says(self, metadata: Metadata, pod: str, **expected: Any) -> Meta:
        """Wait until the newest entry of the pod has these fields."""

        def came() -> bool:
            self.said.update({meta.pod: meta for meta in metadata.take(EVERYTHING)})
            found = self.said.get(pod)
            return found is not None and all(getattr(found, k) == v for k, v in expected.items())

        await until(came)
        return self.said[pod]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for done in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(done, asyncio.CancelledError)
        self._tasks.clear()


@pytest.fixture
async def bench(api: ApiServer, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(api, tmp_path)
    yield made
    await made.stop()
    for pod in api.request("GET", "/api/v1/namespaces/shop/pods")["items"]:
        api.delete_pod("shop", pod["metadata"]["name"])


async def test_labels_annotations_and_owners_are_those_of_the_node(
    api: ApiServer, bench: Bench
) -> None:
    labels = {"app": "cart", "pod-template-hash": "7d9f"}
    notes = {"team": "checkout", "secret": "none of ours"}
    replica_set = [("ReplicaSet", "cart-7d9f")]
    api.create_pod("shop", "cart", "node-1", labels=labels, annotations=notes, owners=replica_set)
    due = int(time.time()) // 60
    api.create_pod("shop", "report", "node-1", owners=[("Job", f"report-{due}")])
    api.create_pod("shop", "bare", "node-1")
    api.create_pod("shop", "elsewhere", "node-2")
    metadata = bench.run()
    cart = await bench.says(metadata, "cart", labels=labels, annotations={"team": "checkout"})
    assert (cart.owner_kind, cart.owner) == ("Deployment", "cart")
    uid = api.request("GET", "/api/v1/namespaces/shop/pods/cart")["metadata"]["uid"]
    assert (cart.namespace, cart.pod_uid) == ("shop", uid)
    assert (bench.said["report"].owner_kind, bench.said["report"].owner) == ("CronJob", "report")
    assert (bench.said["bare"].owner_kind, bench.said["bare"].owner) == ("", "")
    assert "elsewhere" not in bench.said


async def test_a_static_pod_is_known_by_its_directory(api: ApiServer, bench: Bench) -> None:
    mirror = {"kubernetes.io/config.hash": STATIC, "kubernetes.io/config.mirror": STATIC}
    api.create_pod("shop", "proxy-node-1", "node-1", annotations=mirror)
    await bench.says(bench.run(), "proxy-node-1", pod_uid=STATIC, owner_kind="Node", owner="node-1")


async def test_a_list_has_neither_spec_nor_status(api: ApiServer, bench: Bench) -> None:
    api.create_pod("shop", "web", "node-1")
    source = bench.metadata()._source
    target = source._target(resourceVersion="0")  # type: ignore[union-attr]
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
    body = await source._server.body(target, accept)  # type: ignore[union-attr]
    (item,) = msgspec.json.decode(body)["items"]
    assert item.keys() == {"metadata"} | (item.keys() & {"kind", "apiVersion"})


async def test_new_labels_and_new_pods_come_by_the_watch(api: ApiServer, bench: Bench) -> None:
    api.create_pod("shop", "web", "node-1", labels={"app": "web", "old": "yes"})
    metadata = bench.run()
    await bench.says(metadata, "web", labels={"app": "web", "old": "yes"})
    api.set_labels("shop", "web", {"old": None, "canary": "yes"})
    await bench.says(metadata, "web", labels={"app": "web", "canary": "yes"})
    api.create_pod("shop", "late", "node-1", labels={"app": "late"})
    await bench.says(metadata, "late", labels={"app": "late"})
    assert metadata.requests == 2  # one list, one watch


async def test_watches_that_end_in_time_follow_one_another(api: ApiServer, bench: Bench) -> None:
    api.create_pod("shop", "web", "node-1")
    metadata = bench.run(metadata_watch_ms=1_000)
    await until(lambda: metadata.requests >= 4)
    api.set_labels("shop", "web", {"app": "web"})
    await bench.says(metadata, "web", labels={"app": "web"})
    assert metadata.failures == 0


async def test_a_deleted_pod_is_known_while_its_files_are_there(
    api: ApiServer, bench: Bench
) -> None:
    api.create_pod("shop", "web", "node-1", labels={"app": "web"})
    metadata = bench.run()
    web = await bench.says(metadata, "web")
    api.delete_pod("shop", "web")
    await until(lambda: web.pod_uid in metadata._ended)
    await bench.stop()
    again = bench.run()  # a server that no longer lists it changes nothing
    await until(lambda: again.last_success_ns)
    assert [meta.pod_uid for meta in again.take({web.pod_uid})] == [web.pod_uid]
    assert again.take(set()) == []
    assert again.pods == 0


async def test_a_server_that_is_away_changes_nothing_but_labels(
    api: ApiServer, bench: Bench
) -> None:
    api.create_pod("shop", "web", "node-1", labels={"app": "web"})
    metadata = bench.run()
    web = await bench.says(metadata, "web")
    await asyncio.to_thread(api.kill)
    await until(lambda: metadata.failures >= 3)
    assert metadata.error.startswith(api.url)
    metadata.again(web.pod_uid)
    assert metadata.take(EVERYTHING) == [web]
    await bench.stop()
    restarted = bench.run()
    assert restarted.take(EVERYTHING) == [web]
    await until(lambda: restarted.failures)
    await asyncio.to_thread(api.restart)
    api.set_labels("shop", "web", {"app": "cart"})
    await bench.says(restarted, "web", labels={"app": "cart"})
    await until(lambda: not restarted.error)


async def test_a_version_that_was_compacted_away_is_listed_anew(
    api: ApiServer, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    api.create_pod("shop", "web", "node-1", labels={"app": "web"})
    metadata = bench.run()
    await bench.says(metadata, "web")
    await asyncio.sleep(0.5)  # the watch stands
    lasting = metadata.requests
    api.create_pod("shop", "elsewhere", "node-2")  # the watch is not told, so its version is old
    api.delete_pod("shop", "elsewhere")
    await asyncio.to_thread(api.kill)
    api.forget_history()
    await asyncio.to_thread(api.restart)
    api.set_labels("shop", "web", {"app": "cart"})
    await bench.says(metadata, "web", labels={"app": "cart"})
    assert metadata.requests > lasting
    said = [record.__dict__.get("error", "") for record in caplog.records]
    assert any("too old resource version" in text for text in said), said


async def test_a_token_that_was_exchanged_is_read_again(
    api: ApiServer, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    api.create_pod("shop", "web", "node-1")
    metadata = bench.run()
    await bench.says(metadata, "web")
    await asyncio.to_thread(api.exchange_tokens)
    await until(lambda: "answers 401" in metadata.error)
    assert str(bench.token) in metadata.error
    old = bench.token.read_text()
    bench.token.write_text(api.tokens[COLLECTOR])
    api.set_labels("shop", "web", {"app": "web"})
    await bench.says(metadata, "web", labels={"app": "web"})
    shown = "".join(str(record.__dict__) for record in caplog.records)
    assert old not in shown
    assert api.tokens[COLLECTOR] not in shown


async def test_a_missing_rule_is_named(api: ApiServer, bench: Bench) -> None:
    source = bench.metadata(metadata_token_file="")._source
    assert source is not None
    with pytest.raises(MetadataError, match=r"anonymous.* cannot list .*; grant list and watch"):
        await source.list()
