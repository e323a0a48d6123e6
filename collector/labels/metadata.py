"""Labels, chosen annotations and owners of the node's pods, beside the way of the lines.

The API server or the kubelet is asked in a task of its own; entries come out when somebody takes
them. Nothing waits for it: without an answer the entries are old or missing, and all else goes on.
What is known of a pod is kept while its files are on disk, also across restarts.
"""

import asyncio
import contextlib
import logging
import os
import random as randomness
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from collector.checksum import checked_body, with_checksum
from collector.errors import MetadataError, MetadataExpired, SettingError
from collector.file_names import METADATA
from collector.labels.http import Server
from collector.labels.pod import Described
from collector.labels.schedule import Schedule
from collector.labels.source import ApiServer, Change, KubeletPods, Listing, Source
from collector.process import setting
from collector.wire.batch import Meta

_HEAD = b"everyline metadata 1 "
_MS = 1_000_000
_SAVE_EVERY_S = 10.0
_EARLY_S = 2.0
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # where a pod finds its own

_log = logging.getLogger(__name__)


class MetadataSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Learn labels, annotations and owners of the node's pods."""

    metadata_source: Annotated[
        str, setting("where labels and owners come from: api or kubelet; empty: nowhere")
    ] = ""
    metadata_url: Annotated[
        str, setting("https://HOST:PORT of it; empty: the cluster's, or port 10250 of the node")
    ] = ""
    metadata_ca: Annotated[
        str, setting("PEM file of the authorities to trust there; empty: the system's")
    ] = f"{_ACCOUNT}/ca.crt"
    metadata_tls_verify: Annotated[
        bool, setting("verify its certificate; a kubelet's is often signed by nobody")
    ] = True
    metadata_token_file: Annotated[
        str, setting("file with the token to show there; read for each request; empty: none")
    ] = f"{_ACCOUNT}/token"
    metadata_annotations: Annotated[
        str, setting("names of the annotations to send, separated by ','; empty: none")
    ] = ""
    metadata_labels_max: Annotated[
        int, setting("maximum number of labels of a pod; the last by name are left out", ge=0)
    ] = 64
    metadata_value_bytes: Annotated[
        int, setting("maximum length of a label's or annotation's value; the rest is cut off", ge=1)
    ] = 1024
    metadata_pods_max: Annotated[
        int,
        setting(
            "maximum number of pods to remember; those that ended first are forgotten first", ge=1
        ),
    ] = 2_000
    metadata_response_bytes: Annotated[int, setting("maximum size of an answer", ge=65_536)] = (
        16 << 20
    )
    metadata_spread_ms: Annotated[
        int, setting("time over which a fleet that starts at once spreads its requests", ge=0)
    ] = 120_000
    metadata_retry_most_ms: Annotated[
        int, setting("longest pause after failures; the first is metadata_spread_ms", ge=0)
    ] = 600_000
    metadata_timeout_ms: Annotated[
        int, setting("time after which a request is given up", ge=10)
    ] = 30_000
    metadata_watch_ms: Annotated[
        int, setting("shortest time of one watch; the longest is twice that", ge=1_000)
    ] = 300_000
    metadata_poll_ms: Annotated[
        int, setting("time between two requests to the kubelet, give or take half", ge=10)
    ] = 60_000
    metadata_interval_ms: Annotated[
        int, setting("minimum time between two entries of one pod", ge=0)
    ] = 30_000
    metadata_resend_ms: Annotated[
        int, setting("time after which a run sends all entries again", ge=1_000)
    ] = 86_400_000


class Metadata:
    """What is known of the node's pods; ``run`` learns, ``take`` gives what is new."""

    def __init__(
        self,
        settings: MetadataSettings,
        node: str,
        state: Path,
        clock: Callable[[], int],
        random: randomness.Random,
        *,
        environ: Mapping[str, str] = os.environ,
        source: Source | None = None,
    ) -> None:
        """Take up what the run before knew, from ``state``; ``clock`` gives ns since 1970.

        ``source`` takes the place of the one that the settings name. Raises SettingError.
        """
        s = settings
        self._settings = s
        self._state = state
        self._clock = clock
        self._schedule = Schedule(
            random,
            s.metadata_spread_ms / 1000,
            s.metadata_retry_most_ms / 1000,
            s.metadata_watch_ms / 1000,
            s.metadata_poll_ms / 1000,
        )
        names = filter(None, map(str.strip, s.metadata_annotations.split(",")))
        described = Described(node, frozenset(names), s.metadata_labels_max, s.metadata_value_bytes)
        self.limited = described.limited
        self._source = source or _source(s, node, environ, described)
        self._pods = _load(state) if self._source else {}
        self._fresh = set(self._pods)
        self._ended = set(self._pods)  # or not seen yet
        self._sent_ns: dict[str, int] = {}
        self._resend_ns = clock() + s.metadata_resend_ms * _MS
        self._version = ""  # of the pods as they are known; empty: list again
        self._unsaved = asyncio.Event()
        self.last_success_ns = 0
        self.error = ""
        self.save_error = ""
        self.requests = 0
        self.failures = 0

    @property
    def pods(self) -> int:
        """How many pods are known."""
        return len(self._pods)

    # -- giving ------------------------------------------------------------------------------

    def take(self, pods: Container[str]) -> list[Meta]:
        """Return what is to be sent: what this run has not sent yet, or what has changed.

        ``pods`` are the uids whose files a scan has found on disk; ended pods that are not among
        them are forgotten. Each pod comes at most once in ``metadata_interval_ms``.
        """
        now = self._clock()
        for uid in [uid for uid in self._ended if uid not in pods]:
            self._forget(uid)
        if now >= self._resend_ns:
            self._fresh.update(self._pods)
            self._resend_ns = now + self._settings.metadata_resend_ms * _MS
        due = [uid for uid in self._fresh if uid in pods and not self._was_sent(uid, now)]
        self._fresh.difference_update(due)
        self._sent_ns.update(dict.fromkeys(due, now))
        return [self._pods[uid] for uid in due]

    def again(self, pod_uid: str) -> None:
        """Let ``take`` give this pod again, if it is known."""
        if pod_uid in self._pods:
            self._fresh.add(pod_uid)
            self._sent_ns.pop(pod_uid, None)

    def _was_sent(self, uid: str, now: int) -> bool:
        age_ns = now - self._sent_ns.get(uid, now + 1)  # below 0 too when a clock was set back
        return 0 <= age_ns < self._settings.metadata_interval_ms * _MS

    # -- learning ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask until cancelled; return at once if there is nobody to ask."""
        if self._source is None:
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._ask(self._source))
                tasks.create_task(self._keep())
        finally:
            if self._unsaved.is_set():
                self._save()

    async def _ask(self, source: Source) -> None:
        await asyncio.sleep(self._schedule.first())
        while True:
            try:
                if not self._version:
                    self.requests += 1
                    self._listed(await source.list())
                if self._version:
                    wait_s = await self._follow(source)
                else:
                    self._schedule.worked()
                    wait_s = self._schedule.next_poll()
            except MetadataError as error:
                if isinstance(error, MetadataExpired):
                    self._version = ""
                self.failed(error)
                wait_s = self._schedule.again(error.retry_after_s)
            except Exception as error:  # whatever it is, all that there is can be asked for again
                self._version = ""
                self.failed(error)
                wait_s = self._schedule.again()
            await asyncio.sleep(wait_s)

    async def _follow(self, source: Source) -> float:
        """Learn from one watch; return the wait before the next."""
        self.requests += 1
        seconds = self._schedule.next_watch()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        async with contextlib.aclosing(source.watch(self._version, seconds)) as changes:
            async for change in changes:
                self._worked()
                if change.version:  # a server that only begins may not have got over it
                    self._schedule.worked()
                    self._version = change.version
                    self._changed(change)
        if loop.time() < end - _EARLY_S:  # a server that stops ends the watches of a whole fleet
            return self._schedule.again()
        self._schedule.worked()
        return 0.0

    def _worked(self) -> None:
        self.last_success_ns = self._clock()
        if self.error:
            _log.info("labels can be had again", extra={"pods": len(self._pods)})
        self.error = ""

    def failed(self, error: Exception) -> None:
        """Count and say that asking has failed, or ``run`` itself."""
        self.failures += 1
        expected = isinstance(error, MetadataError)
        said = str(error) if expected else repr(error)
        if said != self.error:
            self.error = said
            _log.warning(
                "labels may be old or missing",
                extra={"error": said},
                exc_info=None if expected else error,
            )

    def _listed(self, listing: Listing) -> None:
        self._ended = set(self._pods)
        for meta in listing.metas:
            self._learn(meta)
        self._version = listing.version
        self._worked()

    def _changed(self, change: Change) -> None:
        if change.meta is None:
            return
        self._learn(change.meta)
        if change.ended and change.meta.pod_uid in self._pods:
            self._ended.add(change.meta.pod_uid)

    def _learn(self, meta: Meta) -> None:
        uid = meta.pod_uid
        known = self._pods.get(uid)
        if known is None and len(self._pods) >= self._settings.metadata_pods_max:
            self.limited["metadata_pods_max"] += 1
            if not self._ended:
                return
            self._forget(min(self._ended, key=lambda ended: self._pods[ended].seen_ns))
        self._ended.discard(uid)
        if known is None or replace(known, seen_ns=0) != meta:
            # The newest entry of a pod counts, also when the clock was set back.
            seen_ns = max(self._clock(), known.seen_ns + 1 if known else 0)
            self._pods[uid] = replace(meta, seen_ns=seen_ns)
            self._fresh.add(uid)
            self._unsaved.set()

    def _forget(self, uid: str) -> None:
        del self._pods[uid]
        self._ended.discard(uid)
        self._fresh.discard(uid)
        self._sent_ns.pop(uid, None)
        self._unsaved.set()

    # -- remembering -------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Write what is known soon after it changed."""
        while True:
            await self._unsaved.wait()
            await asyncio.sleep(_SAVE_EVERY_S)
            self._save()

    def _save(self) -> None:
        self._unsaved.clear()
        body = msgspec.json.encode(list(self._pods.values()))
        temporary = self._state / f"{METADATA}.tmp"
        try:
            # Not synced, which could hold up reading: what a power cut tears is asked for again.
            temporary.write_bytes(with_checksum(_HEAD, body))
            temporary.replace(self._state / METADATA)
            self.save_error = ""
        except OSError as error:
            if str(error) != self.save_error:
                self.save_error = str(error)
                _log.warning("labels cannot be kept for the next run", extra={"error": str(error)})


def _load(state: Path) -> dict[str, Meta]:
    """Return what the run before knew, by pod uid; nothing if its file is damaged."""
    path = state / METADATA
    try:
        body = checked_body(_HEAD, path.read_bytes())
        if body is None:
            raise ValueError("damaged, or of another version")
        return {meta.pod_uid: meta for meta in msgspec.json.decode(body, type=list[Meta])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        _log.warning(
            "labels kept by the run before cannot be read; asking for them again",
            extra={"path": str(path), "error": str(error)},
        )
        return {}


def _source(
    s: MetadataSettings, node: str, environ: Mapping[str, str], described: Described
) -> Source | None:
    if not s.metadata_source:
        return None
    if s.metadata_source not in ("api", "kubelet"):
        raise SettingError(
            f"metadata_source {s.metadata_source!r} is unknown; set api, kubelet or nothing"
        )
    api = s.metadata_source == "api"
    server = Server(
        url=_url(s.metadata_url or (_cluster(environ) if api else f"https://{node}:10250")),
        ca=s.metadata_ca,
        token_file=s.metadata_token_file,
        verify=s.metadata_tls_verify,
        may="list and watch on pods" if api else "get on nodes/pods (or nodes/proxy)",
        timeout_s=s.metadata_timeout_ms / 1000,
        response_bytes=s.metadata_response_bytes,
    )
    if api:
        return ApiServer(server, node, described.describe)
    return KubeletPods(server, described.describe)


def _cluster(environ: Mapping[str, str]) -> str:
    host = environ.get("KUBERNETES_SERVICE_HOST", "")
    if not host:
        raise SettingError(
            "no API server is known: KUBERNETES_SERVICE_HOST is not set; set metadata_url, or run "
            "inside a pod"
        )
    bracketed = f"[{host}]" if ":" in host else host
    return f"https://{bracketed}:{environ.get('KUBERNETES_SERVICE_PORT', '443')}"


def _url(url: str) -> str:
    with contextlib.suppress(ValueError):
        found = urlsplit(url)
        known = found.scheme in ("https", "http") and found.hostname and found.port != 0
        if known and "@" not in found.netloc:  # a password would show in errors
            return url.rstrip("/")
    raise SettingError("metadata_url is not a URL; set https://HOST:PORT")
