"""The command ``everyline inspect``: what is in a file that a part of the pipeline has written.

The kind of a file and its name go in; what the part's own reader finds in it comes out, as text or
JSON. Bytes of log lines are shown only if they are asked for. Nothing is changed.
"""

import argparse
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping

from indexer.errors import BucketError
from indexer.store.open import open_bucket
from query_api.command.inspect_items import Item, as_json, as_text
from query_api.errors import BadParameter, NotReadable

_NODE, _BUCKET = "query_api.command.inspect_node_files", "query_api.command.inspect_objects"
KINDS = {
    # kind -> the module that reads it, and where such files are
    "batch": (_NODE, "CLUSTER/dead_letters/PARTITION/*"),
    "spool": (_NODE, "STATE/spool/*.log"),
    "topic": (_NODE, "TOPIC/PARTITION/*.log"),
    "checkpoint": (_NODE, "STATE/checkpoint*"),
    "coverage": (_BUCKET, "CLUSTER/logs/date=__HIVE_DEFAULT_PARTITION__/*/*.parquet"),
    "segment": (_BUCKET, "CLUSTER/logs/date=*/hour=*/*.parquet"),
    "ledger": (_BUCKET, "CLUSTER/ledger-2/**/*.parquet"),
}


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to a parser."""
    kinds = "\n".join(f"  {kind:<11} {where}" for kind, (_, where) in KINDS.items())
    inspect = commands.add_parser(
        "inspect",
        help="what is in a file of a collector, a topic or the bucket",
        description="Show what is in a file that Everyline has written; nothing is changed.",
        epilog=f"kinds:\n{kinds}\n\n"
        "STATE is the state directory of a collector, TOPIC a local topic,\n"
        "CLUSTER the folder of a cluster in its bucket.\n\n"
        "exit codes: 0 all of it is shown, 1 the file is damaged or cannot be read",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inspect.add_argument("kind", choices=KINDS, metavar="KIND", help="what the file is; see below")
    inspect.add_argument("file", metavar="FILE", help="a path, or s3://BUCKET/KEY")
    inspect.add_argument("--lines", action="store_true", help="show the bytes of log lines as well")
    inspect.add_argument(
        "--position", type=int, metavar="N", help="only this record of a topic, with its batch"
    )
    inspect.add_argument("--output", "-o", choices=("text", "json", "ndjson"), default="text")
    inspect.set_defaults(run=_inspect)


def _inspect(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if asked.position is not None and asked.kind != "topic":
        raise BadParameter("--position is for the kind topic; leave it out")
    problems: list[NotReadable] = []
    items = _until_unreadable(_items(asked), problems)
    if asked.output == "text":
        for line in as_text(items):
            print(line)
    elif asked.output == "ndjson":
        for what, fields in items:
            print(as_json({"item": what, **fields}))
    else:
        found = [{"item": what, **fields} for what, fields in items]
        print(as_json({"file": asked.file, "kind": asked.kind, "items": found}, indent=2))
    sys.stdout.flush()
    if problems:
        why = " ".join(str(problems[0]).split())  # errors of Arrow have several lines
        raise NotReadable(f"{asked.file} {why}")
    return 0


def _items(asked: argparse.Namespace) -> Iterator[Item]:
    folder, _, name = asked.file.rpartition("/")
    if not name or folder.endswith(":/"):
        raise NotReadable("names no file; write a path, or s3://BUCKET/KEY")
    reader = importlib.import_module(KINDS[asked.kind][0]).READERS[asked.kind]
    try:
        # An object's name may be a path: a file at the root has no folder before it.
        yield from reader(
            open_bucket(folder or "."), name if folder else asked.file, asked.lines, asked.position
        )
    except BucketError as error:
        raise NotReadable(f"cannot be read: {error}; check its name") from error


def _until_unreadable(items: Iterable[Item], problems: list[NotReadable]) -> Iterator[Item]:
    """Yield items up to the end, or to what cannot be read, which goes to ``problems``."""
    try:
        yield from items
    except NotReadable as error:
        problems.append(error)
