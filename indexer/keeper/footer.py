"""What a segment's footer says of its rows: which namespaces each row group has, and how many rows.

The reader of a segment goes in; its footer is read, and of row groups with several namespaces that
one column. What is counted must be what the table's log says of the segment, so that nothing is
removed by a footer that storage has damaged.
"""

from collections import Counter

import pyarrow.compute as pc

from indexer.errors import SegmentDamaged
from indexer.schema import SEGMENT_SCHEMA
from indexer.segment.reader import SegmentReader
from indexer.table.table import Live

_NAMESPACE = SEGMENT_SCHEMA.names.index("namespace")


def namespaces_of(segment: SegmentReader, known: Live) -> list[Counter[str]]:
    """Return for each row group how many rows it has of which namespaces.

    Raises SegmentDamaged if that is not what was committed, or cannot be read.
    """
    with segment.reading():
        groups = [_group(segment, number) for number in segment.numbers]
    found = sum(groups, Counter())
    rows = segment.footer.num_rows
    if found.total() != rows or known.rows not in (None, rows):
        raise SegmentDamaged(
            f"segment {known.name} has {found.total()} rows, by its footer {rows}, and "
            f"{known.rows} were committed"
        )
    bounds = min(found, default=""), max(found, default="")
    if known.stats.get("namespace", bounds) != bounds:
        raise SegmentDamaged(f"segment {known.name} has other namespaces than were committed")
    return groups


def _group(segment: SegmentReader, number: int) -> Counter[str]:
    group = segment.footer.row_group(number)
    stats = group.column(_NAMESPACE).statistics
    if stats is not None and stats.has_min_max and stats.min == stats.max:
        return Counter({stats.min: group.num_rows})
    rows = segment.columns(number, ["namespace"])
    counts = pc.value_counts(rows.column("namespace").combine_chunks()).to_pylist()
    return Counter({each["values"]: each["counts"] for each in counts})
