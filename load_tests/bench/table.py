"""A table as the indexer has made it: what it takes on storage, what a scan and a compaction cost.

A bucket's directory goes in; out come CPU seconds of this process, and bytes by kind and column.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from indexer.keeper.compact import CompactionLimits, compact, plan_compactions
from indexer.keeper.fence import FencedTable
from indexer.keeper.settings import KeeperSettings
from indexer.object_names import delta_log_folder, folder_uri, logs_folder
from indexer.query.parse import parse_query
from indexer.segment.token_filter import KEY, TAG_BYTES, Place, TokenFilter
from indexer.store.open import open_bucket
from indexer.table.table import Live, Table
from load_tests.bench.cost import Cost
from query_api.scan.segment import ScanTask, scan_segment

_CLUSTER = "local"
_FOREVER_NS = 1 << 62
FILTER, BESIDE_COLUMNS = "token filter", "page index, footer"
COVERAGE, LOG = "coverage", "Delta log"
_ABSENT_TOKENS = 20_000


def _objects(bucket: Path) -> list[Live]:
    return FencedTable(Table(open_bucket(str(bucket)), _CLUSTER)).take()


def scan_cpu_s(bucket: str) -> float:
    """Return the CPU seconds of one scan of `message` for a phrase that no filter excludes."""
    folder = folder_uri(bucket, logs_folder(_CLUSTER))
    query = parse_query('"nolinesaysthis"')
    tasks = [
        ScanTask(folder, each.name, each.size, 0, _FOREVER_NS, (), query, True, None, 10, 1)
        for each in _objects(Path(bucket))
        if not each.is_coverage
    ]
    _scan(tasks)  # as in a service that has been running
    began = time.process_time()
    _scan(tasks)
    return time.process_time() - began


def _scan(tasks: Sequence[ScanTask]) -> None:
    bucket = open_bucket(tasks[0].bucket)
    for task in tasks:
        scanned = scan_segment(task, bucket)
        if scanned.error or len(scanned.rows):
            raise SystemExit(scanned.error or "a row matched")


def stored(bucket: Path) -> dict[str, int]:
    """Return the bytes of the live objects by column, and of all that is beside the columns."""
    folder = bucket / logs_folder(_CLUSTER)
    delta_log = delta_log_folder(logs_folder(_CLUSTER))
    log_bytes = sum(path.stat().st_size for path in (bucket / delta_log).iterdir())
    sizes = {FILTER: 0, BESIDE_COLUMNS: 0, COVERAGE: 0, LOG: log_bytes}
    for each in _objects(bucket):
        if each.is_coverage:
            sizes[COVERAGE] += each.size
            continue
        footer = pq.read_metadata(folder / each.name)
        in_columns = 0
        for group in map(footer.row_group, range(footer.num_row_groups)):
            for chunk in map(group.column, range(group.num_columns)):
                name = chunk.path_in_schema
                sizes[name] = sizes.get(name, 0) + chunk.total_compressed_size
                in_columns += chunk.total_compressed_size
        filter_bytes = 0
        if place := (footer.metadata or {}).get(KEY):  # not where there is little text
            filter_bytes = _filter_bytes(Place.from_json(place))
        sizes[FILTER] += filter_bytes
        sizes[BESIDE_COLUMNS] += each.size - in_columns - filter_bytes
    return sizes


def _filter_bytes(place: Place) -> int:
    return place.blocks_bytes + place.common * TAG_BYTES


def false_positives(bucket: Path) -> float:
    """Return the share of row groups in which filters let a reader look for absent tokens."""
    folder = bucket / logs_folder(_CLUSTER)
    tokens = [uuid.uuid4().hex.encode() for _ in range(_ABSENT_TOKENS)]
    asked = found = 0
    for each in _objects(bucket):
        if each.is_coverage:
            continue
        data = (folder / each.name).read_bytes()
        footer = pq.read_metadata(pa.BufferReader(data))

        def read_range(offset: int, length: int, data: bytes = data) -> bytes:
            return data[offset : offset + length]

        held = TokenFilter(footer.metadata, footer.num_row_groups, read_range)
        for token in tokens:
            asked += footer.num_row_groups
            found += int(held.row_groups(token).sum())
    return found / asked


def print_stored(tables: Mapping[str, Mapping[str, int]], raw_bytes: int) -> None:
    """Print a Markdown table of shares of the raw bytes; columns below 0.005 % come together."""
    names = sorted({name for sizes in tables.values() for name in sizes})
    least = raw_bytes / 20_000
    shown = [name for name in names if any(of.get(name, 0) >= least for of in tables.values())]
    shown.sort(key=lambda name: -max(sizes.get(name, 0) for sizes in tables.values()))
    print(f"| of raw | {' | '.join(tables)} |")
    print("|---|" + "---|" * len(tables))

    def line(what: str, values: Sequence[int]) -> None:
        print(f"| {what} | {' | '.join(f'{value / raw_bytes:.3%}' for value in values)} |")

    for name in shown:
        line(name, [sizes.get(name, 0) for sizes in tables.values()])
    rest = [sum(size for name, size in of.items() if name not in shown) for of in tables.values()]
    line("the rest", rest)
    line("**all**", [sum(sizes.values()) for sizes in tables.values()])
    print()


def segments(bucket: Path) -> int:
    """Return how many segments are live."""
    return sum(not each.is_coverage for each in _objects(bucket))


def compact_all(bucket: Path) -> tuple[Cost, float]:
    """Compact what a keeper would, with its defaults, in this process; return its wall time too.

    Every hour counts as over.
    """
    of = KeeperSettings()
    limits = CompactionLimits(
        of.compact_target_bytes,
        of.compact_inputs_min,
        of.compact_memory_bytes,
        of.compact_settle_ms,
    )
    fenced = FencedTable(Table(open_bucket(str(bucket)), _CLUSTER))
    began, began_s = time.process_time(), time.monotonic()
    for made in compact(
        fenced, plan_compactions(fenced.take(), _FOREVER_NS, limits), of.compact_threads
    ):
        if made.error is not None:
            raise SystemExit(f"bench: a compaction was refused: {made.error}")
    return Cost(time.process_time() - began), time.monotonic() - began_s
