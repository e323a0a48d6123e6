"""The Delta table ``streams``: labels and owner of every stream, one row for each version of them.

Coverage objects go in: their files tell which streams a pod has, their META entries what
Kubernetes says of the pod. Rows are only added, and the same coverage adds none a second time, so
neither the order in which indexers commit nor a crash of the keeper leaves a trace.
"""

import bisect
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import DeltaError, TableNotFoundError

from collector.wire.batch import Meta
from indexer.errors import ObjectMissing, PositionMoved, TableUnavailable, VersionGone
from indexer.ledger.folded import FoldedTable, Member, folded_version, members
from indexer.object_names import folded_at, streams_folder
from indexer.schema import TIME
from indexer.store.bucket import Bucket
from indexer.table.coverage import Coverage, FileCover, note_entry
from indexer.table.table import LogEntry, Table, one_line
from indexer.times import from_datetime, to_datetime

_log = logging.getLogger(__name__)

_SMALL_BYTES = 32 << 20  # an object of so many bytes stays as it is
_WORDS = pa.map_(pa.string(), pa.string())
_ALWAYS = np.iinfo(np.int64)

STREAMS_SCHEMA = pa.schema(
    [
        pa.field("namespace", pa.string(), nullable=False),
        pa.field("pod", pa.string(), nullable=False),
        pa.field("pod_uid", pa.string(), nullable=False),
        pa.field("container", pa.string()),  # null: a version that no stream needs so far
        pa.field("restart", pa.int32()),
        pa.field("node", pa.string(), nullable=False),
        pa.field("valid_from", TIME),  # when the collector saw it; null: nothing is known yet
        pa.field("seen_ns", pa.int64()),  # the same in ns since 1970: it names the version
        pa.field("first_time", TIME),  # of a line, as far as known when the stream came
        pa.field("labels", _WORDS, nullable=False),
        pa.field("annotations", _WORDS, nullable=False),
        pa.field("owner_kind", pa.string(), nullable=False),
        pa.field("owner", pa.string(), nullable=False),
    ]
)
"""The columns as other programs see them."""

HISTORY_SCHEMA = STREAMS_SCHEMA.append(pa.field("from_ns", pa.int64(), nullable=False)).append(
    pa.field("until_ns", pa.int64(), nullable=False)
)
"""The columns of ``StreamsTable.read``: a row holds in ``[from_ns, until_ns)`` of its stream."""

_PodKey = tuple[str, str, str]
_Instance = tuple[str, int]  # container and restart
_Row = tuple[_Instance | None, int | None]  # and the version's seen_ns


class _Said(msgspec.Struct, frozen=True):
    """What one version says of a pod."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_kind: str = ""
    owner: str = ""


_NOTHING = _Said()
_encode = msgspec.msgpack.Encoder(order="sorted").encode
_decode = msgspec.msgpack.Decoder(_Said).decode


@dataclass(slots=True)
class _Pod:
    node: str
    instances: dict[_Instance, int] = field(default_factory=dict)  # first time, ns; 0: not known
    versions: dict[int, bytes] = field(default_factory=dict)  # by seen_ns

    def learn(self, seen_ns: int, said: bytes) -> bool:
        """Add a version unless it repeats the one before it; return whether it was added."""
        if seen_ns in self.versions:
            return False
        before = max((each for each in self.versions if each < seen_ns), default=None)
        if before is not None and self.versions[before] == said:
            return False
        self.versions[seen_ns] = said
        return True

    def rows(self) -> set[_Row]:
        """Return the rows that the instances need: of each the versions of its lifetime.

        Labels are learned after a pod has begun, so its first version holds from its start. A row
        that is no longer needed, as more is known, never is again.
        """
        seen = sorted(self.versions)
        if not seen:
            return {(instance, None) for instance in self.instances}
        found: set[_Row] = set()
        container, end = "", math.inf
        for instance in sorted(self.instances, reverse=True):
            begin = self.instances[instance]
            if instance[0] != container:
                container, end = instance[0], math.inf
            first = max(bisect.bisect_right(seen, begin) - 1, 0)
            stop = max(bisect.bisect_left(seen, end), first + 1)
            found.update((instance, seen_ns) for seen_ns in seen[first:stop])
            end = min(end, begin or math.inf)
        return found


@dataclass(slots=True)
class News:
    """What some coverage says of pods, in any order."""

    nodes: dict[_PodKey, str] = field(default_factory=dict)
    instances: dict[_PodKey, dict[_Instance, int]] = field(default_factory=dict)
    metas: dict[_PodKey, dict[int, bytes]] = field(default_factory=dict)

    def learn(self, coverage: Coverage) -> None:
        """Take what one commit says."""
        for cover in coverage.files:
            key, instance = _key(cover), (cover.container, cover.restart)
            self.nodes.setdefault(key, cover.node)
            firsts = self.instances.setdefault(key, {})
            times = (firsts.get(instance, 0), *(span.first_ns for span in cover.spans))
            firsts[instance] = min(filter(None, times), default=0)
        for note in coverage.notes:
            if note.kind == "meta" and isinstance(meta := note_entry(note), Meta):
                key = _key(meta)
                self.nodes.setdefault(key, note.node)
                self.metas.setdefault(key, {})[meta.seen_ns] = _encode(_said(meta))


class StreamHistory:
    """The fold: what is known of every pod."""

    def __init__(self) -> None:
        """Know nothing."""
        self._pods: dict[_PodKey, _Pod] = {}
        self._texts: dict[bytes, bytes] = {}  # replicas say the same: keep it once

    @classmethod
    def from_rows(cls, rows: pa.Table) -> "StreamHistory":
        """Return the fold that has led to these rows of the table."""
        streams = cls()
        for row in rows.select(STREAMS_SCHEMA.names).to_pylist():
            key = (row["namespace"], row["pod"], row["pod_uid"])
            pod = streams._pods.setdefault(key, _Pod(row["node"]))
            if row["container"] is not None:
                pod.instances[row["container"], row["restart"]] = _ns(row["first_time"])
            if row["seen_ns"] is not None:
                said = _Said(
                    dict(row["labels"]), dict(row["annotations"]), row["owner_kind"], row["owner"]
                )
                pod.versions[row["seen_ns"]] = streams._text(_encode(said))
        return streams

    def fold(self, news: News) -> pa.Table:
        """Fold in news; return the rows that they add."""
        added: list[dict[str, Any]] = []
        for key, node in news.nodes.items():
            pod = self._pods.get(key, _Pod(node))
            firsts = news.instances.get(key, {}).items()
            begun = {each: first for each, first in firsts if each not in pod.instances}
            versions = sorted(news.metas.get(key, {}).items())
            if not begun and not versions:
                continue
            self._pods[key] = pod
            before = pod.rows()
            for instance, first_ns in begun.items():
                pod.instances[instance] = first_ns // 1000 * 1000  # as the table will give it back
            learned = [
                seen_ns for seen_ns, said in versions if pod.learn(seen_ns, self._text(said))
            ]
            rows = pod.rows()
            # What no instance needs may be needed by one whose file is still to come.
            idle = set(learned) - {seen_ns for _, seen_ns in rows}
            added += [_plain(key, pod, row) for row in rows - before]
            added += [_plain(key, pod, (None, seen_ns)) for seen_ns in idle]
        return pa.Table.from_pylist(added, schema=STREAMS_SCHEMA)

    def _text(self, text: bytes) -> bytes:
        return self._texts.setdefault(text, text)


def _key(of: FileCover | Meta) -> _PodKey:
    return of.namespace, of.pod, of.pod_uid


def _said(meta: Meta) -> _Said:
    return _Said(dict(meta.labels), dict(meta.annotations), meta.owner_kind, meta.owner)


def _time(ns: int | None) -> datetime | None:
    return to_datetime(ns) if ns else None


def _ns(time: datetime | None) -> int:
    return from_datetime(time) if time else 0


def _plain(key: _PodKey, pod: _Pod, row: _Row) -> dict[str, Any]:
    instance, seen_ns = row
    said = _NOTHING if seen_ns is None else _decode(pod.versions[seen_ns])
    container, restart = instance or (None, None)
    return {
        "namespace": key[0],
        "pod": key[1],
        "pod_uid": key[2],
        "container": container,
        "restart": restart,
        "node": pod.node,
        "valid_from": _time(seen_ns),
        "seen_ns": seen_ns,
        "first_time": _time(pod.instances[instance]) if instance else None,
        "labels": list(said.labels.items()),
        "annotations": list(said.annotations.items()),
        "owner_kind": said.owner_kind,
        "owner": said.owner,
    }


def history(rows: pa.Table) -> pa.Table:
    """Return the rows of streams as ``HISTORY_SCHEMA`` has them, each with the time it holds for.

    The first version of a stream holds from ever and the last one for ever; a row that says
    nothing is left out where others are known by now.
    """
    rows = rows.select(STREAMS_SCHEMA.names).filter(pc.is_valid(rows["container"]))
    names = [rows[name] for name in ("namespace", "pod", "pod_uid", "container")]
    joined = pc.binary_join_element_wise(*names, rows["restart"].cast(pa.string()), "\0")
    stream = joined.combine_chunks().dictionary_encode().indices.to_numpy()
    seen = pc.fill_null(rows["seen_ns"], _ALWAYS.min).to_numpy()
    order = np.lexsort((seen, stream))
    stream, seen = stream[order], seen[order]
    is_first = np.diff(stream, prepend=-1) != 0
    is_last = np.roll(is_first, -1)
    until = np.where(is_last, _ALWAYS.max, np.roll(seen, -1))
    says_nothing = (seen == _ALWAYS.min) & ~is_last
    is_first |= np.roll(says_nothing, 1)
    begins = np.where(is_first, _ALWAYS.min, seen)
    told = rows.take(pa.array(order))
    told = told.append_column(HISTORY_SCHEMA.field("from_ns"), pa.array(begins))
    told = told.append_column(HISTORY_SCHEMA.field("until_ns"), pa.array(until))
    return told.filter(pa.array(~says_nothing)).cast(HISTORY_SCHEMA)


class StreamsTable:
    """The Delta table ``streams`` of one cluster."""

    def __init__(self, bucket: Bucket, cluster: str) -> None:
        """Name the table; nothing is read yet."""
        self._table = FoldedTable(bucket, streams_folder(cluster), STREAMS_SCHEMA)
        self._streams: StreamHistory | None = None
        self._version = -1
        self._news = News()
        self._noted = (-1, -1)  # after which version the news begin, and which is the last

    @property
    def uri(self) -> str:
        """What Delta Lake's readers call the table."""
        return self._table.uri

    def note(self, entry: LogEntry, coverages: Sequence[Coverage]) -> None:
        """Take what somebody else has read of a version, so that ``fold`` need not read it."""
        after, until = self._noted
        if entry.version != until + 1:
            self._news, after = News(), entry.version - 1
        for coverage in coverages:
            self._news.learn(coverage)
        self._noted = after, entry.version

    def fold(self, table: Table, version: int) -> int:
        """Fold in what ``logs`` has gained up to ``version``; return how many rows were added.

        Adds nothing if another keeper is faster. Raises TableUnavailable if one of the tables
        cannot be read or written, TableDamaged, and VersionGone if ``logs`` was recreated.
        """
        try:
            handle = self._table.made()
            folded = folded_version(handle)
            if folded == version:
                return 0
            if folded > version:
                raise VersionGone(
                    f"{self.uri} is of version {folded}, the table of {version}: the table was "
                    "recreated; delete the folder of streams to fold it again"
                )
            streams, self._streams = self._streams, None
            if streams is None or self._version != folded:
                streams = StreamHistory.from_rows(self._rows(members(handle)))
            after, until = self._noted
            if until <= folded or after > version:
                self._news, after, until = News(), folded, folded
            # What was folded before and comes again changes nothing.
            for unread in ((folded, after), (max(until, folded), version)):
                for coverage in _coverage(table, *unread):
                    self._news.learn(coverage)
            added = streams.fold(self._news)
            self._table.commit(self._put(added, version), [], folded, version)
        except PositionMoved:
            _log.warning("another keeper wrote first; taking its streams")
            return 0
        except (DeltaError, OSError) as error:
            raise TableUnavailable(f"cannot fold {self.uri}: {one_line(error)}") from error
        self._streams, self._version = streams, version
        self._news, self._noted = News(), (version, version)
        return int(added.num_rows)

    def _put(self, rows: pa.Table, version: int) -> list[Member]:
        return [self._table.put(folded_at("", version), rows)] if rows.num_rows else []

    def _rows(self, objects: Iterable[Member]) -> pa.Table:
        with self._table.reading():
            found = [self._table.rows(each) for each in objects]
        return pa.concat_tables([STREAMS_SCHEMA.empty_table(), *found])

    def read(self) -> pa.Table:
        """Return the streams as ``history`` does; none if nothing was folded yet."""
        try:
            objects = members(self._table.opened())
        except TableNotFoundError:
            objects = []
        except (DeltaError, OSError) as error:
            raise TableUnavailable(f"cannot read {self.uri}: {one_line(error)}") from error
        return history(self._rows(objects))

    def sweep(self) -> int:
        """Join small objects, delete those that nothing of the last day uses; return how many."""
        try:
            handle = self._table.opened()
            small = [each for each in members(handle) if each.size < _SMALL_BYTES]
            if len(small) > 1:
                # As in a fold: of two commits that go on from one version, one is refused.
                version = folded_version(handle)
                joined = self._put(self._rows(small), version)
                self._table.commit(joined, small, version, version)
        except (TableNotFoundError, PositionMoved):
            return 0
        except (DeltaError, OSError) as error:
            raise TableUnavailable(f"cannot sweep {self.uri}: {one_line(error)}") from error
        return self._table.sweep()


def _coverage(table: Table, after: int, until: int) -> Iterator[Coverage]:
    """Yield the coverage of these versions; all there is where the log no longer tells."""
    try:
        for entry in table.log(after, until):
            for name in entry.coverage:
                yield from table.coverage(name)
    except (VersionGone, ObjectMissing):
        yield from table.all_coverage(table.snapshot(until))
