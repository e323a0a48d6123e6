"""The API server that tests rely on answers as the one of a cluster, and forgets and refuses."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.real_parts.guard import accepts
from tests.real_parts.kubernetes import COLLECTOR, ApiError, ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.real]

ON_NODE = "/api/v1/pods?fieldSelector=spec.nodeName=node-1"


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    """A running API server with a namespace ``shop``."""
    server = ApiServer.start()
    server.create_namespace("shop")
    yield server
    server.close()


@pytest.fixture
def pods(api: ApiServer) -> Iterator[list[str]]:
    """Five pods on node-1 and one on another; they are gone after the test."""
    names = [f"web-{number}" for number in range(5)]
    for name in names:
        api.create_pod("shop", name, "node-1", labels={"app": "web"})
    api.create_pod("shop", "elsewhere", "node-2")
    yield names
    for pod in api.request("GET", "/api/v1/namespaces/shop/pods")["items"]:
        api.delete_pod("shop", pod["metadata"]["name"])


def as_collector(api: ApiServer, path: str) -> Any:
    """Ask as a collector would."""
    return api.request("GET", path, token=api.tokens[COLLECTOR])


def names(answer: Any) -> list[str]:
    """The names of the pods in a list."""
    return [pod["metadata"]["name"] for pod in answer["items"]]


def test_a_list_holds_the_pods_of_one_node_with_labels_and_owners(
    api: ApiServer, pods: list[str]
) -> None:
    owners = [("ReplicaSet", "cart-7d9f")]
    api.create_pod("shop", "cart", "node-1", annotations={"team": "checkout"}, owners=owners)
    answer = as_collector(api, ON_NODE)
    assert names(answer) == ["cart", *pods]
    cart = answer["items"][0]["metadata"]
    assert cart["annotations"] == {"team": "checkout"}
    [owner] = cart["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("ReplicaSet", "cart-7d9f", True)
    assert answer["items"][1]["metadata"]["labels"] == {"app": "web"}


def test_a_list_comes_in_pages(api: ApiServer, pods: list[str]) -> None:
    seen, path = [], f"{ON_NODE}&limit=2"
    token = ""
    for length in (2, 2, 1):
        answer = as_collector(api, f"{path}&continue={token}")
        assert len(answer["items"]) == length
        seen += names(answer)
        token = answer["metadata"].get("continue", "")
    assert seen == pods
    assert not token


def test_a_watch_tells_of_labels_and_deletions_on_its_node(api: ApiServer, pods: list[str]) -> None:
    version = as_collector(api, ON_NODE)["metadata"]["resourceVersion"]
    path = f"{ON_NODE}&watch=1&resourceVersion={version}"
    with api.open("GET", path, token=api.tokens[COLLECTOR]) as watch:
        api.set_labels("shop", "elsewhere", {"app": "other"})
        api.set_labels("shop", "web-0", {"app": None, "tier": "front"})
        api.delete_pod("shop", "web-1")
        changed = json.loads(watch.readline())
        marked, deleted = (json.loads(watch.readline()) for _ in range(2))
    assert changed["type"] == "MODIFIED"
    assert changed["object"]["metadata"]["labels"] == {"tier": "front"}
    assert marked["type"] == "MODIFIED"
    assert marked["object"]["metadata"]["deletionTimestamp"]
    assert (deleted["type"], deleted["object"]["metadata"]["name"]) == ("DELETED", "web-1")


def test_what_is_too_old_is_gone(api: ApiServer, pods: list[str]) -> None:
    page = as_collector(api, f"{ON_NODE}&limit=2")
    for number in range(3):
        api.set_labels("shop", "web-0", {"number": str(number)})
    api.forget_history()
    api.kill()  # it remembers some by itself
    assert not accepts(int(api.url.rpartition(":")[2]))
    api.restart()
    with pytest.raises(ApiError) as refused:
        as_collector(api, f"{ON_NODE}&limit=2&continue={page['metadata']['continue']}")
    assert (refused.value.code, refused.value.reason) == (410, "Expired")
    path = f"{ON_NODE}&watch=1&resourceVersion=1"
    with api.open("GET", path, token=api.tokens[COLLECTOR]) as watch:
        event = json.loads(watch.readline())
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert names(as_collector(api, ON_NODE)) == pods


def test_only_known_tokens_are_let_in_and_only_to_what_they_may(api: ApiServer) -> None:
    with pytest.raises(ApiError) as refused:
        api.request("GET", ON_NODE, token="wrong")
    assert refused.value.code == 401
    with pytest.raises(ApiError) as refused:
        as_collector(api, "/api/v1/secrets")
    assert refused.value.code == 403
    old = api.tokens[COLLECTOR]
    api.exchange_tokens()
    with pytest.raises(ApiError) as refused:
        api.request("GET", ON_NODE, token=old)
    assert refused.value.code == 401
    assert names(as_collector(api, ON_NODE)) == []


def test_nothing_is_left_of_a_server(tmp_path: Any) -> None:
    server = ApiServer.start()
    server.close()
    assert not server.folder.exists()
    assert not server.etcd.folder.exists()
