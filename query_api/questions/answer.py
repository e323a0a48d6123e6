"""What goes out to a client: rows, the completeness of what was asked, the cost of asking.

The models are the documentation of the JSON and its schema; rows are made from Arrow columns
without them, in one go, and only for what is returned.
"""

import base64
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from query_api.completeness.gaps import Gap
from query_api.times import format_optional, format_time

Time = Annotated[str, Field(description="RFC 3339 in UTC, nanoseconds")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Row(_Model):
    """One log line, or several that the container runtime had split."""

    time: Time
    namespace: str
    pod: str
    container: str
    node: str
    output: Literal["stdout", "stderr", "unknown"]
    level: Literal["trace", "debug", "info", "warn", "error", "fatal", "unknown"]
    message: str
    file_id: Annotated[str, Field(description="hexadecimal")]
    offset: Annotated[int, Field(description="where the line begins in the file, in bytes")]
    partial: Annotated[
        Literal[True] | None, Field(description="head, tail or middle of a line that was cut")
    ] = None
    raw: Annotated[
        str | None, Field(description="base64 of the bytes, where they are no UTF-8")
    ] = None


class GapView(_Model):
    """Something that is missing; what is null is not known, or does not apply to its type."""

    id: Annotated[str, Field(description="stays the same from version to version")]
    type: str
    state: Literal["LOST", "UNKNOWN", "RECOVERED"]
    explained: Annotated[
        bool,
        Field(description="a later inventory named its bytes; those lost are gaps of their files"),
    ]
    cluster: str
    node: str | None
    namespace: str | None
    pod: str | None
    container: str | None
    pod_uid: str | None
    restart: int | None
    file_id: str | None
    epoch: int | None
    start: Annotated[int | None, Field(description="first missing byte of the file")]
    end: Annotated[int | None, Field(description="byte behind the last one known to be missing")]
    end_exact: Annotated[bool | None, Field(description="false: more may be missing behind end")]
    bytes: Annotated[int | None, Field(description="end - start")]
    from_: Annotated[Time | None, Field(alias="from", description="nothing older is missing")]
    to: Annotated[Time | None, Field(description="nothing later is missing")]
    partition: int
    positions: Annotated[tuple[int, int] | None, Field(description="of the topic: first, end")]
    run: str | None
    batches: Annotated[tuple[int, int] | None, Field(description="missing numbers: first, last")]
    reason: str
    proof: str
    object: Annotated[str | None, Field(description="where a dead letter is kept")]
    found_at: Time


class HeldBack(_Model):
    """The node that holds back ``complete_until``."""

    node: str
    partition: int | None
    why: str


class Streams(_Model):
    """Streams that may have lines in what was asked; the rest of ``expected`` have gaps."""

    expected: int
    covered: int
    unknown: int


class Scan(_Model):
    """What the scan could not do."""

    segments_failed: int
    errors: list[str]
    cut_off: str


class RemovedView(_Model):
    """Rows that were taken out on purpose, and may have been asked for."""

    kind: Literal["EXPIRED", "DELETED"]
    namespace: str
    pod: str
    container: str
    from_: Annotated[Time, Field(alias="from")]
    to: Time
    rows: int | None
    why: str


class Completeness(_Model):
    """Whether all lines that were asked for are there, as far as it can be proved."""

    verdict: Literal["complete", "incomplete", "unknown"]
    complete_until: Annotated[Time | None, Field(description="null: nothing is proved yet")]
    held_back_by: HeldBack | None
    reasons: list[str]
    gaps: Annotated[list[GapView], Field(description="the latest hundred")]
    gaps_total: int
    removed: Annotated[list[RemovedView], Field(description="the latest hundred")]
    removed_total: int
    streams: Streams
    scan: Scan


class Cost(_Model):
    """What the answer took: segments, requests to the bucket, bytes read, time."""

    segments_considered: int
    segments_pruned: int
    segments_read: int
    gets: int
    bytes: int
    ms: float


class Answer(_Model):
    """The answer to a search."""

    rows: list[Row]
    next: Annotated[str | None, Field(description="cursor of the next page; null: no more rows")]
    completeness: Completeness
    cost: Cost
    version: Annotated[int, Field(description="version of the table that all of it is from")]
    from_: Annotated[Time, Field(alias="from")]
    to: Time


class Gaps(_Model):
    """The gaps of a scope, the latest found first."""

    gaps: list[GapView]
    total: int
    completeness: Completeness
    version: int
    from_: Annotated[Time | None, Field(alias="from")]
    to: Time | None


class StreamView(_Model):
    """One stream on one node, summed over its files."""

    cluster: str
    node: str
    namespace: str
    pod: str
    pod_uid: str
    container: str
    restart: int
    files: list[str]
    first_time: Time | None
    last_time: Time | None
    rows: int
    bytes: Annotated[int, Field(description="raw bytes in the table or elided by a rule")]
    missing_bytes: Annotated[int, Field(description="known to be lost")]
    ended: Annotated[bool, Field(description="each of its files has ended")]
    complete_until: Time | None


class StreamList(_Model):
    """The streams of a scope."""

    streams: list[StreamView]
    total: int
    completeness: Completeness
    version: int


class NodeView(_Model):
    """How far one node is complete."""

    node: str
    complete_until: Time | None
    lag_ms: Annotated[int | None, Field(description="age of complete_until")]
    held_back_by: str
    partitions: list[int]
    errors: list[str]


class PartitionView(_Model):
    """How far the table has read a partition of the topic."""

    partition: int
    topic: str
    generation: int
    position: int
    last_record: Annotated[Time | None, Field(description="when its collector made it")]


class Status(_Model):
    """The pipeline as the table shows it."""

    healthy: Annotated[bool, Field(description="no open gap, and no node of unknown state")]
    cluster: str
    version: int
    everyline: Annotated[str, Field(description="version of this program")]
    now: Time
    nodes: list[NodeView]
    partitions: list[PartitionView]
    open_gaps: int
    segments: int
    rows: int
    bytes: Annotated[int, Field(description="of all segments")]
    first_time: Time | None
    last_time: Time | None


class ErrorBody(_Model):
    """Why there is no answer."""

    code: str
    message: str
    hint: str
    column: Annotated[int | None, Field(description="of the query, from 1")] = None
    completeness: Completeness | None = None


class ErrorAnswer(_Model):
    """The one shape of every error."""

    error: ErrorBody


def plain(model: BaseModel) -> dict[str, Any]:
    """Return a model as JSON shows it."""
    return model.model_dump(mode="json", by_alias=True)


_SAME = ("namespace", "pod", "container", "node", "output", "level", "message")


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a page as JSON shows them (see ``Row``)."""
    times = table.column("ns").to_pylist()
    rows = table.select(_SAME).to_pylist()
    ids, offsets = table.column("file_id").to_pylist(), table.column("offset").to_pylist()
    partial, raw = table.column("partial").to_pylist(), table.column("raw").to_pylist()
    answer = []
    for at, row in enumerate(rows):
        shown = {"time": format_time(times[at]), **row}
        shown["file_id"], shown["offset"] = ids[at].hex(), offsets[at]
        if partial[at]:
            shown["partial"] = True
        if raw[at] is not None:
            shown["raw"] = base64.b64encode(raw[at]).decode()
        answer.append(shown)
    return answer


def gap_view(gap: Gap, cluster: str) -> GapView:
    """Return a gap as JSON shows it."""
    file = gap.file
    single = gap.nodes[0] if gap.nodes is not None and len(gap.nodes) == 1 else None
    return GapView(
        id=gap.id,
        type=gap.type,
        state=gap.state,  # type: ignore[arg-type]
        explained=gap.explained,
        cluster=cluster,
        node=file.node if file else single,
        namespace=file.namespace if file else None,
        pod=file.pod if file else None,
        container=file.container if file else None,
        pod_uid=file.pod_uid if file else None,
        restart=file.restart if file else None,
        file_id=file.file_id.hex() if file else None,
        epoch=file.epoch if file else None,
        start=gap.start,
        end=gap.end,
        end_exact=gap.end_exact,
        bytes=gap.size_bytes,
        from_=format_optional(gap.from_ns),
        to=format_optional(gap.to_ns),
        partition=gap.partition,
        positions=gap.positions,
        run=gap.run.hex() if gap.run else None,
        batches=gap.batches,
        reason=gap.reason,
        proof=gap.proof,
        object=gap.object or None,
        found_at=format_time(gap.found_ns),
    )
