"""The statement of completeness that each answer carries, as JSON shows it.

What a verdict has found goes in; out come models that are also its documentation.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from indexer.times import format_optional, format_time
from query_api.completeness.gaps import Gap

Time = Annotated[str, Field(description="RFC 3339 in UTC, nanoseconds")]


class Model(BaseModel):
    """What all models share: no other fields than those that are described."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class GapView(Model):
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


class HeldBack(Model):
    """The node that holds back ``complete_until``."""

    node: str
    partition: int | None
    why: str


class Streams(Model):
    """Streams that may have lines in what was asked; the rest of ``expected`` have gaps."""

    expected: int
    covered: int
    unknown: int


class Scan(Model):
    """What the scan could not do."""

    segments_failed: int
    errors: list[str]
    cut_off: str


class RemovedView(Model):
    """Rows that were taken out on purpose, and may have been asked for."""

    kind: Literal["EXPIRED", "DELETED"]
    namespace: str
    pod: str
    container: str
    from_: Annotated[Time, Field(alias="from")]
    to: Time
    rows: int | None
    why: str


class Completeness(Model):
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


def plain(model: BaseModel) -> dict[str, Any]:
    """Return a model as JSON shows it."""
    return model.model_dump(mode="json", by_alias=True)


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
