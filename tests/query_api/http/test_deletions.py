"""Deletion through the service: off unless it is turned on, and the same as with the bucket."""

from typing import Any

from indexer.table.request import Requests
from tests.query_api.conftest import NOW_NS, served
from tests.query_api.written import CLUSTER, START_NS, Line

BODY: dict[str, Any] = {
    "namespace": ["shop"], "query": "eve", "from": "0", "reason": "art. 17", "by": "dpo",
}  # fmt: skip


async def test_a_request_is_stored_and_listed_and_a_dry_run_is_not(written):
    written.ship(Line(START_NS, "Eve came"), Line(START_NS + 1, "stevens came"))
    async with served(written.bucket, deletion="on") as client:
        tried = await client.post("/v1/deletions", json={**BODY, "dry_run": True})
        assert list(Requests(written.bucket, CLUSTER).all()) == []
        asked = await client.post("/v1/deletions", json=BODY)
        [listed] = (await client.get("/v1/deletions")).json()["deletions"]
    assert tried.status_code == asked.status_code == 200
    shown = tried.json()
    assert (shown["id"], shown["rows"]) == (None, 1)
    assert [row["message"] for row in shown["samples"]] == ["Eve came"]
    [(request, done)] = Requests(written.bucket, CLUSTER).all()
    assert request.id == asked.json()["id"] == listed["id"]
    assert (request.scope.equals, request.query) == ({"namespace": ("shop",)}, "eve")
    assert (request.to_ns, done, listed["state"]) == (NOW_NS, None, "open")


async def test_a_service_takes_no_request_unless_it_is_told_to(written):
    written.ship(Line(START_NS, "Eve came"))
    async with served(written.bucket) as client:
        refused = await client.post("/v1/deletions", json=BODY)
        listed = await client.get("/v1/deletions")
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "deletion_off"
    assert listed.json() == {"deletions": []}


async def test_what_is_empty_unknown_or_misspelt_is_refused(written):
    written.ship(Line(START_NS, "Eve came"))
    for wrong, says in (
        ({"namespace": [""]}, "empty"),
        ({"namespace": []}, "empty"),
        ({"namespace": None}, "empty"),
        ({"pod": None}, "empty"),
        ({"query": ""}, "query"),
        ({"namespace": ["shpo"]}, "no stream has ever had namespace 'shpo'"),
        ({"reason": ""}, "reason"),
        ({"level": ["loud"]}, "level"),
        ({"query": '"open'}, "column"),
        ({"text": "eve"}, "unknown parameter 'text'"),
        ({"from": "1", "to": "0"}, "not before"),
    ):
        async with served(written.bucket, deletion="on") as client:
            refused = await client.post("/v1/deletions", json={**BODY, **wrong})
        assert refused.status_code == 400, wrong
        assert says in str(refused.json()["error"]), wrong
    assert list(Requests(written.bucket, CLUSTER).all()) == []


async def test_a_request_names_a_namespace(written):
    written.ship(Line(START_NS, "Eve came"))
    body = {name: value for name, value in BODY.items() if name != "namespace"}
    async with served(written.bucket, deletion="on") as client:
        refused = await client.post("/v1/deletions", json=body)
    assert refused.status_code == 400
    assert "namespace" in refused.json()["error"]["message"]
