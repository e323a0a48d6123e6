"""Every name that the project gives an object in a bucket.

What an object is goes in, its name comes out; nothing else in the project puts one together. A
name is never used twice, and those of one folder sort as what they stand for.

    CLUSTER/
        logs/                                         the table: a Delta table of segments
            date=2026-01-31/hour=8/RANDOM-CRC-END.parquet a segment
            date=NONE/hour=NONE/RANDOM-CRC.parquet        a coverage object
            date=NONE/hour=NONE/merged-RANDOM-CRC.parquet the coverage of many commits
            _delta_log/VERSION.json                       what a version has added and removed
            _delta_log/VERSION.checkpoint.parquet         what was there at a version
            _delta_log/VERSION.checkpoint.crc32           the CRC-32 of that
            _delta_log/_last_checkpoint                   which version that was last
        ledger-2/                                     the ledger as it was folded: a Delta table
            state/VERSION-RANDOM-CRC-END.parquet          whatever is not a file
            open/VERSION-RANDOM-CRC-END.parquet           files that are not settled
            settled/DATE/VERSION-RANDOM-CRC-END.parquet   files that were settled on that day
        streams/                                      labels and owners: a Delta table
        dead_letters/PARTITION/POSITION-CRC           a record that is not a batch, as it came
        deletions/ID.json                             a request for deletion
        deletions/ID.done.json                        what became of it
        scrub/TIME.json                               how far objects were read again
        probe/RANDOM/                                 scratch of who tries the store; deleted again

NONE is ``__HIVE_DEFAULT_PARTITION__``, RANDOM 32 hexadecimal digits, CRC the CRC-32 of the bytes in
eight, END that of the checksums and the footer with which they end; objects of earlier versions do
not have it. VERSION (of a table), POSITION (in the topic) and TIME (ns since 1970) have 20 decimal
ones.
"""

import re
import uuid

from collector.checksum import crc32

COVERAGE_FOLDER = "date=__HIVE_DEFAULT_PARTITION__/hour=__HIVE_DEFAULT_PARTITION__/"
"""Where coverage objects are: Polars refuses a table with a member outside of Hive's paths."""

MERGED_FOLDER = COVERAGE_FOLDER + "merged-"
"""What names of merged coverage objects start with, so that they are told from others unread."""

STATE, OPEN, SETTLED = "state/", "open/", "settled/"
"""The parts of the ledger's table; the last one has a folder for each day."""

LAST_CHECKPOINT = "_last_checkpoint"
"""The object in a log's folder that says which checkpoint is the last."""

DONE = ".done"
"""What no id of a request for deletion ends with: that says what became of another."""

_DIGITS = 20
_NAMED_CRC = re.compile(
    rf"(?:merged-|\d{{{_DIGITS}}}-)?[0-9a-f]{{32}}-([0-9a-f]{{8}})(?:-([0-9a-f]{{8}}))?\.parquet"
)
_CHECKPOINT = re.compile(rf"(\d{{{_DIGITS}}})\.checkpoint\.parquet")
_CHECKPOINT_CRC = re.compile(rf"(\d{{{_DIGITS}}})\.checkpoint\.crc32")
_VERSION = re.compile(rf"(\d{{{_DIGITS}}})\.json")


# -- folders of a cluster ------------------------------------------------------------------------


def cluster_folder(cluster: str) -> str:
    """Return where all that a cluster has is."""
    return f"{cluster}/"


def logs_folder(cluster: str) -> str:
    """Return where the table ``logs`` is."""
    return f"{cluster}/logs/"


def ledger_folder(cluster: str) -> str:
    """Return where the table ``ledger`` is; programs of the version before have one of theirs."""
    return f"{cluster}/ledger-2/"


def streams_folder(cluster: str) -> str:
    """Return where the table ``streams`` is."""
    return f"{cluster}/streams/"


def deletions_folder(cluster: str) -> str:
    """Return where requests for deletion are."""
    return f"{cluster}/deletions/"


def scrub_folder(cluster: str) -> str:
    """Return where the scrubber keeps how far it is."""
    return f"{cluster}/scrub/"


def new_probe_folder(cluster: str) -> str:
    """Return a folder that was never used, to try the store in."""
    return f"{cluster}/probe/{uuid.uuid4().hex}/"


def folder_uri(bucket_uri: str, folder: str) -> str:
    """Return what readers of Delta Lake call the table in a folder of a bucket."""
    return f"{bucket_uri}/{folder}".removesuffix("/")


# -- members of a table --------------------------------------------------------------------------


def new_name(folder: str, data: bytes, end: bytes | memoryview = b"") -> str:
    """Return a name below ``folder`` that was never used, and that says what the content is.

    ``end`` is what the content ends with that vouches for the rest of it; empty: there is none.
    """
    of_end = f"-{crc32(end):08x}" if end else ""
    return f"{folder}{uuid.uuid4().hex}-{crc32(data):08x}{of_end}.parquet"


def named_crc(name: str) -> int | None:
    """Return the CRC-32 that an object of a table is named by; None: it is not."""
    named = _NAMED_CRC.fullmatch(name.rpartition("/")[2])
    return None if named is None else int(named[1], 16)


def named_end_crc(name: str) -> int | None:
    """Return the CRC-32 of the end of an object, as its name says it; None: it does not."""
    named = _NAMED_CRC.fullmatch(name.rpartition("/")[2])
    return None if named is None or named[2] is None else int(named[2], 16)


def segment_folder(date: str, hour: int) -> str:
    """Return where the segments of an hour are, as readers of Hive partitions expect it."""
    return f"date={date}/hour={hour}/"


def is_coverage(name: str) -> bool:
    """Return whether a member of the table holds coverage: of one commit, or of many."""
    return name.startswith(COVERAGE_FOLDER)


def is_merged(name: str) -> bool:
    """Return whether a member of the table holds the coverage of many commits."""
    return name.startswith(MERGED_FOLDER)


def folded_at(part: str, version: int) -> str:
    """Return what names of a part of the ledger start with that a fold up to ``version`` adds."""
    return f"{part}{version:0{_DIGITS}d}-"


# -- the log of a table --------------------------------------------------------------------------


def delta_log_folder(table_folder: str) -> str:
    """Return where the versions of a Delta table are."""
    return f"{table_folder}_delta_log/"


def version_name(version: int) -> str:
    """Return the name of a version in the log's folder."""
    return f"{version:0{_DIGITS}d}.json"


def checkpoint_name(version: int) -> str:
    """Return the name of a checkpoint in the log's folder."""
    return f"{version:0{_DIGITS}d}.checkpoint.parquet"


def checkpoint_crc_name(version: int) -> str:
    """Return the name of what vouches for a checkpoint in the log's folder."""
    return f"{version:0{_DIGITS}d}.checkpoint.crc32"


def vouched_version(name: str) -> int | None:
    """Return the version whose checkpoint an object of the log vouches for; None: it does not."""
    named = _CHECKPOINT_CRC.fullmatch(name.rpartition("/")[2])
    return None if named is None else int(named[1])


def named_version(name: str) -> int | None:
    """Return the version that an object of the log holds; None: it is something else."""
    named = _VERSION.fullmatch(name.rpartition("/")[2])
    return None if named is None else int(named[1])


def checkpoint_version(name: str) -> int | None:
    """Return the version that a checkpoint in the log's folder is of; None: it is none."""
    named = _CHECKPOINT.fullmatch(name.rpartition("/")[2])
    return None if named is None else int(named[1])


# -- beside the tables ---------------------------------------------------------------------------


def dead_letter(cluster: str, partition: int, position: int, crc: int) -> str:
    """Return the name of a record that is not a batch.

    With its CRC: a topic that was recreated has other records at the same positions.
    """
    return f"{cluster}/dead_letters/{partition}/{position:0{_DIGITS}d}-{crc:08x}"


def request_name(folder: str, request_id: str) -> str:
    """Return the name of a request for deletion."""
    return f"{folder}{request_id}.json"


def done_name(request: str) -> str:
    """Return the name of what became of the request of this name."""
    return f"{request.removesuffix('.json')}{DONE}.json"


def is_done_name(name: str) -> bool:
    """Return whether this is no request, but what became of one."""
    return name.endswith(f"{DONE}.json")


def scrub_name(folder: str, now_ns: int) -> str:
    """Return the name of how far the scrubber is at a time."""
    return f"{folder}{now_ns:0{_DIGITS}d}.json"
