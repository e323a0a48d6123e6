"""Storing what a commit adds, several objects at once, each under a name of its own.

Segments, dead letters and the coverage object go in; out come the names for the commit. What is
stored and then not committed is in nobody's way: readers go by the table.
"""

from concurrent.futures import Executor
from functools import partial

from indexer.assemble import Assembled, DeadLetter
from indexer.object_names import COVERAGE_FOLDER, new_name, segment_folder
from indexer.segment.write import Segment
from indexer.store.bucket import Bucket, put_own
from indexer.store.checked_file import checked_name
from indexer.table.table import NO_ROWS, Added


def upload(
    bucket: Bucket, folder: str, assembled: Assembled, coverage: bytes, pool: Executor
) -> list[Added]:
    """Return what the commit will name, once all of it is stored below the table's ``folder``."""
    # A letter's name says what it holds: one that is there already was kept before a crash.
    kept = pool.map(partial(_keep, bucket), assembled.dead_letters)
    stored = pool.map(partial(_store, bucket, folder), assembled.segments)
    name = new_name(COVERAGE_FOLDER, coverage)
    put_own(bucket, folder + name, coverage)
    for _ in kept:  # raises what has failed
        pass
    return [*stored, Added(name, len(coverage), NO_ROWS)]


def _keep(bucket: Bucket, letter: DeadLetter) -> None:
    put_own(bucket, letter.name, letter.data)


def _store(bucket: Bucket, folder: str, segment: Segment) -> Added:
    name = checked_name(segment_folder(segment.date, segment.hour), segment.data)
    put_own(bucket, folder + name, segment.data)
    return Added(name, len(segment.data), segment.stats, segment.date, segment.hour)
