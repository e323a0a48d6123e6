"""What goes out to a client: rows, the completeness of what was asked, the cost of asking.

The models are the documentation of the JSON and its schema; rows are made from Arrow columns
without them, in one go, and only for what is returned.
"""

import base64
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field

from indexer.times import format_time
from query_api.completeness.statement import Completeness, GapView, Model, Time


class Row(Model):
    """One log line, or several that the container runtime had split."""

    time: Time
    namespace: str
    pod: str
    pod_uid: str
    container: str
    restart: Annotated[int, Field(description="of the container")]
    node: str
    output: Literal["stdout", "stderr", "unknown"]
    level: Literal["trace", "debug", "info", "warn", "error", "fatal", "unknown"]
    message: str
    file_id: Annotated[str, Field(description="hexadecimal")]
    epoch: Annotated[int, Field(description="counts how often the file began anew")]
    offset: Annotated[int, Field(description="where the line begins in the file, in bytes")]
    partial: Annotated[
        Literal[True] | None, Field(description="head, tail or middle of a line that was cut")
    ] = None
    raw: Annotated[
        str | None,
        Field(description="the bytes of the line in base64, if they are not valid UTF-8"),
    ] = None


class Cost(Model):
    """What the answer took: segments, requests to the bucket, bytes read, time."""

    segments_considered: int
    segments_pruned: int
    segments_read: int
    gets: int
    bytes: int
    ms: float
    usd: Annotated[float, Field(description="at the prices of the settings")]


class Plan(Model):
    """What an answer takes at most, as far as that is known before anything is read."""

    segments_considered: int
    segments_pruned: int
    segments_planned: int
    gets_at_most: Annotated[int, Field(description="requests to the object store")]
    bytes_at_most: Annotated[
        int, Field(description="the planned segments, and what of them may be read twice")
    ]
    usd_at_most: Annotated[float, Field(description="at the prices of the settings")]


class DryRun(Model):
    """What an answer would take; nothing was read for it."""

    plan: Plan
    hints: Annotated[
        list[str], Field(description="names in the scope that no stream has, and the nearest")
    ]
    version: int
    from_: Annotated[Time, Field(alias="from")]
    to: Time


class ContextRow(Row):
    """A line of a file; one is the line that was asked for."""

    anchor: Annotated[Literal[True] | None, Field(description="it begins at the offset given")] = (
        None
    )


class BreakView(Model):
    """Bytes of a file that are not there: a gap, or what has not come yet (no type)."""

    type: str | None
    state: Literal["LOST", "UNKNOWN", "PENDING"]
    id: Annotated[str | None, Field(description="of the gap in /v1/gaps")]
    start: int
    end: Annotated[int, Field(description="byte behind the last one; lines go on there")]
    end_exact: Annotated[bool, Field(description="false: more may be missing behind end")]
    bytes: int
    from_: Annotated[Time | None, Field(alias="from", description="no missing line is older")]
    to: Annotated[Time | None, Field(description="no missing line is later")]
    reason: str


class Break(Model):
    """Where lines are missing."""

    gap: BreakView


class FileName(Model):
    """What names a file."""

    file_id: str
    epoch: int


Edge = Annotated[
    Literal["file", "gap", "limit", "open"],
    Field(
        description="file: it begins or has ended there; gap: bytes are missing; limit: there may "
        "be more rows; open: it goes on, and more may come"
    ),
]


class Context(Model):
    """The rows around a line, in the order of the file."""

    rows: list[ContextRow | Break]
    file_id: str
    epoch: int
    cluster: str
    node: str
    namespace: str
    pod: str
    pod_uid: str
    container: str
    restart: int
    begins_at: Edge
    ends_at: Edge
    previous_file: Annotated[
        FileName | None, Field(description="the file before it in its stream, if that is known")
    ]
    next_file: FileName | None
    completeness: Annotated[Completeness, Field(description="of these rows of the file")]
    cost: Cost
    version: int


class Answer(Model):
    """The answer to a search."""

    rows: list[Row]
    next: Annotated[str | None, Field(description="cursor of the next page; null: no more rows")]
    completeness: Completeness
    hints: Annotated[
        list[str], Field(description="names in the scope that no stream has, and the nearest")
    ]
    cost: Cost
    version: Annotated[int, Field(description="version of the table that all of it is from")]
    from_: Annotated[Time, Field(alias="from")]
    to: Time


class Step(Model):
    """The rows of a step of time."""

    from_: Annotated[Time, Field(alias="from")]
    to: Annotated[Time, Field(description="the rows are before it")]
    rows: int
    by: Annotated[dict[str, int], Field(description="rows by the values of the column")]


class Histogram(Model):
    """How many rows match, by step of time and by the value of a column."""

    steps: Annotated[list[Step], Field(description="in the order of time, also empty ones")]
    rows: int
    others: Annotated[
        int, Field(description='values that have the fewest rows, and are counted as one: ""')
    ]
    completeness: Completeness
    hints: list[str]
    cost: Cost
    version: int
    from_: Annotated[Time, Field(alias="from")]
    to: Time


class DamagedView(Model):
    """An object of the table that storage has damaged or lost."""

    object: Annotated[str, Field(description="its name in the bucket")]
    fault: str
    found_at: Annotated[Time, Field(description="when the scrubber, or a search, came upon it")]


class Gaps(Model):
    """The gaps of a scope, the latest found first."""

    gaps: list[GapView]
    total: int
    damaged: Annotated[
        list[DamagedView], Field(description="objects that may hold lines of the scope")
    ]
    completeness: Completeness
    version: int
    from_: Annotated[Time | None, Field(alias="from")]
    to: Time | None


class StreamView(Model):
    """One stream on one node, summed over its files."""

    cluster: str
    node: str
    namespace: str
    pod: str
    pod_uid: str
    container: str
    restart: int
    files: Annotated[int, Field(description="that there ever were")]
    first_time: Time | None
    last_time: Time | None
    rows: int
    bytes: Annotated[int, Field(description="raw bytes in the table or elided by a rule")]
    missing_bytes: Annotated[int, Field(description="known to be lost")]
    ended: Annotated[bool, Field(description="each of its files has ended")]
    complete_until: Time | None


class StreamList(Model):
    """The streams of a scope."""

    streams: list[StreamView]
    total: int
    completeness: Completeness
    version: int


class NodeView(Model):
    """How far one node is complete."""

    node: str
    complete_until: Time | None
    lag_ms: Annotated[int | None, Field(description="age of complete_until")]
    held_back_by: str
    partitions: list[int]
    errors: list[str]


class PartitionView(Model):
    """How far the table has read a partition of the topic."""

    partition: int
    topic: str
    generation: int
    position: int
    last_record: Annotated[Time | None, Field(description="when its collector created it")]


class Status(Model):
    """The pipeline as the table shows it."""

    healthy: Annotated[
        bool,
        Field(
            description="no open gap found in the last day, no damaged object, no node of unknown "
            "state"
        ),
    ]
    cluster: str
    version: int
    everyline: Annotated[str, Field(description="version of this program")]
    now: Time
    nodes: list[NodeView]
    partitions: list[PartitionView]
    open_gaps: int
    damaged: Annotated[
        list[DamagedView],
        Field(description="what the keeper's scrubber has found, and searches have met"),
    ]
    segments: int
    rows: int
    bytes: Annotated[int, Field(description="of all segments")]
    first_time: Time | None
    last_time: Time | None


class Sample(Model):
    """One of the rows that a request for deletion means."""

    time: Time
    pod: str
    message: str


class Requested(Model):
    """A request for deletion that was stored, or what it would remove."""

    id: Annotated[str | None, Field(description="null: nothing was requested")]
    rows: int | None = None
    message_bytes: int | None = None
    segments: Annotated[int | None, Field(description="that were looked into")] = None
    samples: Annotated[list[Sample], Field(default_factory=list)]


class DeletionView(Model):
    """A request for deletion, and how far it is."""

    id: str
    state: Literal["open", "done"]
    rows: Annotated[int, Field(description="that have gone so far")]
    requested: Time
    done: Time | None
    by: str
    namespace: str
    pod: str
    container: str
    node: str
    level: str
    from_: Annotated[Time, Field(alias="from")]
    to: Time
    query: str
    reason: str


class Deletions(Model):
    """Every request for deletion."""

    deletions: list[DeletionView]


class ErrorBody(Model):
    """Why there is no answer."""

    code: str
    message: str
    hint: str
    column: Annotated[int | None, Field(description="of the query, from 1")] = None
    completeness: Completeness | None = None


class ErrorAnswer(Model):
    """The one shape of every error."""

    error: ErrorBody


_ROWS_AT_ONCE = 64
_SAME = (
    "namespace", "pod", "pod_uid", "container", "restart", "node", "output", "level", "message",
)  # fmt: skip


def plain_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a page as JSON shows them (see ``Row``); few are held at a time."""
    for batch in table.to_batches(_ROWS_AT_ONCE):
        times, ids = batch.column("ns").to_pylist(), batch.column("file_id").to_pylist()
        places = zip(ids, *(batch.column(n).to_pylist() for n in ("epoch", "offset")), strict=True)
        partial, raw = batch.column("partial").to_pylist(), batch.column("raw").to_pylist()
        same = batch.select(_SAME).to_pylist()
        for at, (row, (file_id, epoch, offset)) in enumerate(zip(same, places, strict=True)):
            shown = {"time": format_time(times[at]), **row}
            shown |= {"file_id": file_id.hex(), "epoch": epoch, "offset": offset}
            if partial[at]:
                shown["partial"] = True
            if raw[at] is not None:
                shown["raw"] = base64.b64encode(raw[at]).decode()
            yield shown
