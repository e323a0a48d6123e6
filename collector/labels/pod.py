"""What Kubernetes says of a pod, made into the entry that is sent: labels, annotations, owner.

JSON of the API server or the kubelet goes in; decoded are the few fields that are needed. An entry
carries the uid of the pod's log directory, its size is bounded, and its owner is what people
deploy, told without another request.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec

from collector.wire.batch import Meta

_MIRROR = "kubernetes.io/config.mirror"
_STATIC = "kubernetes.io/config.hash"
# The kubelet names a static pod by a hash; other uids have dashes, so nobody can speak for those.
_HASH = re.compile("[0-9a-f]{32}")
_SCHEDULED = re.compile(r"(.+)-([0-9]{8})")
_LATE_MOST = timedelta(days=31)
_EARLY_MOST = timedelta(hours=1)  # clocks differ


class OwnerReference(msgspec.Struct):
    """One owner; the controller is the one that made the pod."""

    kind: str = ""
    name: str = ""
    controller: bool | None = None


class ObjectMeta(msgspec.Struct, rename="camel"):
    """The metadata of a pod, as far as it is needed."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None


class ListMeta(msgspec.Struct, rename="camel"):
    """The version of a list, and the mark of its next page."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Pod(msgspec.Struct):
    """A pod; in a watch also the status that stands in its place when the watch fails."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    code: int = 0
    message: str = ""


class PodList(msgspec.Struct):
    """One page of pods."""

    items: list[Pod] | None = None
    metadata: ListMeta = msgspec.field(default_factory=ListMeta)


class WatchEvent(msgspec.Struct):
    """One line of a watch."""

    type: str
    object: Pod


@dataclass(frozen=True, slots=True)
class Described:
    """How much of a pod is sent; ``limited`` counts what was left out, by the limit's name."""

    node: str
    annotations: frozenset[str]
    labels_max: int
    value_bytes: int
    limited: Counter[str] = field(default_factory=Counter)

    def describe(self, pod: ObjectMeta) -> Meta:
        """Return the entry of ``pod``; its ``seen_ns`` is left at 0."""
        annotations = pod.annotations or {}
        mirror = annotations.get(_MIRROR, "")
        kind, owner = owner_of(pod)
        if not kind and _STATIC in annotations:
            kind, owner = "Node", self.node  # as the API server has it of the same pod
        labels = sorted((pod.labels or {}).items())
        if len(labels) > self.labels_max:
            self.limited["metadata_labels_max"] += 1
        return Meta(
            namespace=pod.namespace,
            pod=pod.name,
            # The directory of a static pod bears its hash; the API server's mirror of it has
            # another uid, and names the hash.
            pod_uid=mirror if _HASH.fullmatch(mirror) else pod.uid,
            seen_ns=0,
            labels=self._cut(labels[: self.labels_max]),
            annotations=self._cut(
                (name, annotations[name]) for name in sorted(self.annotations & annotations.keys())
            ),
            owner_kind=kind,
            owner=owner,
        )

    def _cut(self, pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
        return {name: self._cut_value(value) for name, value in pairs}

    def _cut_value(self, value: str) -> str:
        data = value.encode()
        if len(data) <= self.value_bytes:
            return value
        self.limited["metadata_value_bytes"] += 1
        return data[: self.value_bytes].decode(errors="ignore") + "…"


def owner_of(pod: ObjectMeta) -> tuple[str, str]:
    """Return kind and name of what owns the pod, ("", "") for nothing.

    A Deployment's ReplicaSet is named after it and the label pod-template-hash; a CronJob's Job
    after it and the minute since 1970 it was due at, which must fit the pod's age: a Job that
    somebody named with a date has another number.
    """
    owner = next((o for o in pod.owner_references or () if o.controller), None)
    if owner is None:
        return "", ""
    if owner.kind == "ReplicaSet":
        suffix = f"-{(pod.labels or {}).get('pod-template-hash', '')}"
        if len(suffix) > 1 and owner.name.endswith(suffix) and owner.name != suffix:
            return "Deployment", owner.name.removesuffix(suffix)
    if owner.kind == "Job" and (found := _SCHEDULED.fullmatch(owner.name)):
        due = datetime.fromtimestamp(int(found[2]) * 60, UTC)
        made = pod.creation_timestamp
        if made is not None and due - _EARLY_MOST <= made <= due + _LATE_MOST:
            return "CronJob", found[1]
    return owner.kind, owner.name
