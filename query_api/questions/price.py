"""What a question takes at most, and what that costs, told before anything is read.

Planned segments go in; requests, bytes and money come out. Of a segment whose footer nobody has
read yet only size and rows are known, so its row groups are taken to be as many as they may be.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from indexer.schema import SEGMENT_SCHEMA
from indexer.segment.parquet import ROW_GROUP_ROWS
from indexer.segment.reader import TAIL_BYTES, WHOLE_BYTES
from indexer.store.checked_file import BLOCK_BYTES
from query_api.errors import BadParameter
from query_api.scan.plan import Planned
from query_api.scan.segment import FILTER_GETS_MAX
from query_api.settings import QuerySettings

_END_GETS_MAX = 2
# Two neighbours have more rows than one may have, or more messages than fit into one: 32 MiB, of
# which zstd at its best leaves a sixty-fourth.
_ROWS_MIN = ROW_GROUP_ROWS // 2
_BYTES_MIN = WHOLE_BYTES // 4


@dataclass(frozen=True, slots=True)
class Most:
    """What reading some segments takes at most."""

    segments: int
    gets: int
    bytes: int  # the segments whole, and what may be read twice


def at_most(planned: Iterable[Planned], *, by_filter: bool) -> Most:
    """Return what reading segments takes; ``by_filter``: their token filters may be asked."""
    segments = gets = size_bytes = 0
    for each in planned:
        segments += 1
        of_segment = _gets(each, by_filter)
        gets += of_segment
        # Two ranges may share the block on either side of where they meet.
        size_bytes += each.size_bytes + (of_segment - 1) * 2 * BLOCK_BYTES
        size_bytes += TAIL_BYTES if each.size_bytes > WHOLE_BYTES else 0
    return Most(segments, gets, size_bytes)


def _gets(segment: Planned, by_filter: bool) -> int:
    """Return how many ranges of a segment are asked for at most.

    A small row group is read at once, of a large one each column may be read by itself.
    """
    known = segment.row_groups
    asks = by_filter and known is None
    groups = segment.rows // _ROWS_MIN + segment.size_bytes // _BYTES_MIN + 1
    groups = groups if known is None else len(known)
    if segment.size_bytes <= WHOLE_BYTES:  # if its end is known, it may be read in parts
        return asks + groups
    large = min(groups, segment.size_bytes // WHOLE_BYTES)
    columns = large * (len(SEGMENT_SCHEMA) - 1)
    return _END_GETS_MAX + asks * FILTER_GETS_MAX + groups + columns


def usd(settings: QuerySettings, gets: int, size_bytes: int) -> float:
    """Return what requests and the bytes that they bring cost."""
    of_gets = gets / 1_000 * settings.price_per_1000_gets_usd
    return round(of_gets + size_bytes / 10**9 * settings.price_per_gb_read_usd, 9)


def plan_of(settings: QuerySettings, considered: int, most: Most) -> dict[str, Any]:
    """Return a plan of one of ``considered`` segments as an answer shows it."""
    return {
        "segments_considered": considered,
        "segments_pruned": considered - most.segments,
        "segments_planned": most.segments,
        "gets_at_most": most.gets,
        "bytes_at_most": most.bytes,
        "usd_at_most": usd(settings, most.gets, most.bytes),
    }


def too_many_bytes(settings: QuerySettings, most: Most) -> BadParameter:
    """Return the error of a plan beyond ``plan_bytes_max``."""
    return BadParameter(
        f"the query would read too many bytes: up to {most.bytes}, for "
        f"{usd(settings, most.gets, most.bytes):.6f} USD; the maximum is "
        f"{settings.plan_bytes_max} bytes",
        "narrow from and to, name a namespace or pod, or ask for a word; setting plan_bytes_max",
    )
