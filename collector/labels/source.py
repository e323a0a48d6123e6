"""The two places that know the pods of one node: the API server (list and watch), the kubelet.

Requests go out only when they are asked for; entries come out, and for the API server the version
from which a watch goes on. Nothing here waits or tries again.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode

import msgspec

from collector.errors import MetadataError, MetadataExpired
from collector.labels.http import Server
from collector.labels.pod import ObjectMeta, PodList, WatchEvent
from collector.wire.batch import Meta

_PAGE = 500
_PODS = "/api/v1/pods"
# Names, labels and owners without spec and status, which are most of a pod's bytes.
_PARTIAL = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"
Describe = Callable[[ObjectMeta], Meta]

_list_decoder = msgspec.json.Decoder(PodList)
_event_decoder = msgspec.json.Decoder(WatchEvent)


@dataclass(frozen=True, slots=True)
class Listing:
    """All pods of the node; ``version`` is empty where nothing can be watched."""

    metas: list[Meta]
    version: str


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a watch: a pod as it is now, or its end, or neither; and the version after.

    The first step has no version: the server has begun to watch.
    """

    version: str = ""
    meta: Meta | None = None
    ended: bool = False


class Source(Protocol):
    """Where labels come from; both raise MetadataError."""

    async def list(self) -> Listing:
        """Return all pods of the node."""
        ...

    def watch(self, version: str, seconds: int) -> AsyncGenerator[Change, None]:
        """Yield what changes after ``version``, for so long."""
        ...


class ApiServer:
    """The pods of one node, by list and watch of the API server."""

    def __init__(self, server: Server, node: str, describe: Describe) -> None:
        """Ask the API server at ``server`` for the pods of ``node``."""
        self._server = server
        self._node = node
        self._describe = describe

    async def list(self) -> Listing:
        """Return all pods of the node, from the API server's memory rather than from etcd."""
        metas: list[Meta] = []
        query = {"resourceVersion": "0"}
        while True:
            target = self._target(limit=str(_PAGE), **query)
            page = _pods(await self._server.body(target, _PARTIAL.format("List")))
            metas.extend(self._describe(pod.metadata) for pod in page.items or ())
            if not page.metadata.continue_:
                return Listing(metas, page.metadata.resource_version)
            query = {"continue": page.metadata.continue_}

    async def watch(self, version: str, seconds: int) -> AsyncGenerator[Change, None]:
        """Yield what changes after ``version``; the server ends it after ``seconds``.

        Raises MetadataExpired if the server no longer knows that version.
        """
        target = self._target(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=version,
            timeoutSeconds=str(seconds),
        )
        async with (
            self._server.get(target, _PARTIAL.format("")) as answer,
            contextlib.aclosing(answer.lines(seconds + self._server.timeout_s)) as lines,
        ):
            yield Change()
            async for line in lines:
                if line:
                    yield self._change(line)

    def _target(self, **query: str) -> str:
        query["fieldSelector"] = f"spec.nodeName={self._node}"
        return f"{_PODS}?{urlencode(query)}"

    def _change(self, line: bytes) -> Change:
        try:
            event = _event_decoder.decode(line)
        except (msgspec.MsgspecError, ValueError) as error:
            raise MetadataError(
                f"a watch of pods sent something that is not an event: {error}"
            ) from error
        if event.type == "ERROR":
            kind = MetadataExpired if event.object.code == 410 else MetadataError
            raise kind(f"a watch of pods ended: {event.object.message}")
        pod = event.object.metadata
        if event.type not in ("ADDED", "MODIFIED", "DELETED"):
            return Change(pod.resource_version)
        return Change(pod.resource_version, self._describe(pod), event.type == "DELETED")


class KubeletPods:
    """The pods of one node, as its kubelet lists them."""

    def __init__(self, server: Server, describe: Describe) -> None:
        """Ask the kubelet at ``server``."""
        self._server = server
        self._describe = describe

    async def list(self) -> Listing:
        """Return all pods of the node."""
        page = _pods(await self._server.body("/pods", "application/json"))
        return Listing([self._describe(pod.metadata) for pod in page.items or ()], "")

    async def watch(self, version: str, seconds: int) -> AsyncGenerator[Change, None]:
        """Yield nothing: a kubelet cannot be watched, and its lists have no version."""
        nothing: tuple[Change, ...] = ()
        for change in nothing:
            yield change


def _pods(body: bytes) -> PodList:
    try:
        return _list_decoder.decode(body)
    except (msgspec.MsgspecError, ValueError) as error:
        raise MetadataError(f"a list of pods cannot be read: {error}") from error
