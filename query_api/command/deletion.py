"""The commands ``everyline delete`` and ``everyline deletions``: ask for rows to be removed.

Options go in; a request is stored in the bucket for the keeper, or sent to the service for that.
Nothing is deleted here. What was asked for, by whom and why, and how far it is, can be listed.
"""

import argparse
import getpass
import json
import sys
import time
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from collector.levels import LEVELS, UNKNOWN
from indexer.object_names import delta_log_folder, logs_folder
from indexer.query.scope import WORDS
from indexer.store.bucket import Bucket
from indexer.store.open import open_bucket
from indexer.table.request import DeletionRequest
from query_api.command.answer_text import columns, visible
from query_api.command.client import Client
from query_api.command.given import SCOPE, refuse_empty
from query_api.errors import BadParameter
from query_api.times import parse_time


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands to a parser."""
    delete = commands.add_parser(
        "delete",
        help="request the deletion of rows, with a record of who asked and why",
        description="Request the deletion of all rows that a search with the same options shows.",
    )
    delete.add_argument("--namespace", action="append", required=True)
    for name in ("pod", "container", "node"):
        delete.add_argument(f"--{name}", action="append", help=f"only rows of this {name}")
    delete.add_argument(
        "--level", action="append", choices=(*LEVELS, UNKNOWN), help="only rows of this level"
    )
    delete.add_argument(
        "--query", "--text", dest="text", help="only rows that a search for this query shows"
    )
    delete.add_argument(
        "--regex", help="only rows whose message matches this regular expression (RE2)"
    )
    delete.add_argument("--from", dest="from_", required=True, metavar="TIME")
    delete.add_argument("--to", default="now", metavar="TIME", help="(default: now)")
    delete.add_argument("--reason", required=True, help="the reason; it is kept with the request")
    delete.add_argument("--by", default="", help="(default: the user's name)")
    delete.add_argument(
        "--dry-run", action="store_true", help="count the rows and show some; request nothing"
    )
    delete.set_defaults(run=_delete)
    deletions = commands.add_parser(
        "deletions", help="list the requests for deletion, and how far they are"
    )
    deletions.set_defaults(run=_deletions)
    for command in (delete, deletions):
        command.add_argument("--output", "-o", choices=("text", "ndjson"), default="text")
        place = command.add_mutually_exclusive_group(required=True)
        place.add_argument("--bucket", help="a directory, or s3://BUCKET/PREFIX")
        place.add_argument("--url", help="of a query service whose setting deletion is on")
        command.add_argument("--cluster", default="local", help="with --bucket (default: local)")


def _delete(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    # As an unset variable of a shell gives it: to take it as "any" would delete all rows.
    refuse_empty(asked, (*SCOPE, "text", "regex", "reason"))
    by = asked.by or getpass.getuser()
    words: dict[str, Any] = {name: tuple(getattr(asked, name) or ()) for name in WORDS}
    if asked.url:
        if asked.regex:
            raise BadParameter("--regex is for --bucket", "give --query, or a bucket")
        body = {name: values for name, values in words.items() if values}
        body |= {"query": asked.text} if asked.text else {}
        body |= {"from": asked.from_, "to": asked.to, "reason": asked.reason, "by": by}
        body["dry_run"] = asked.dry_run
        _show(asked, Client(asked.url).post("/v1/deletions", body))
        return 0
    now_ns, bucket = time.time_ns(), _bucket(asked)
    from_ns = parse_time(asked.from_, "from", now_ns)
    to_ns = parse_time(asked.to, "to", now_ns)
    if from_ns >= to_ns:
        raise BadParameter(f"from={asked.from_!r} is not before to={asked.to!r}", "swap them")
    # Arrow and Delta Lake take half a second, and a collector's installation lacks them.
    from query_api.deletion import ask, preview

    request = DeletionRequest(
        id=uuid.uuid4().hex[:12],
        requested_ns=now_ns,
        by=by,
        reason=asked.reason,
        from_ns=from_ns,
        to_ns=to_ns,
        query=asked.text or "",
        regex=asked.regex or "",
        **words,
    )
    if asked.dry_run:
        found = preview(bucket, asked.cluster, request)
        _show(asked, {"id": None, **msgspec.to_builtins(found)})
        return 0
    ask(bucket, asked.cluster, request)
    _show(asked, {"id": request.id})
    return 0


def _show(asked: argparse.Namespace, answer: Mapping[str, Any]) -> None:
    if asked.output == "ndjson":
        print(json.dumps(answer, ensure_ascii=False))
    elif answer["id"]:
        print(answer["id"])
    else:
        for row in answer["samples"]:
            print(visible(f"{row['time']}  {row['pod']}  {row['message']}"))
        what = f"{answer['rows']} rows, {answer['message_bytes']} bytes of messages"
        print(f"{what}, in {answer['segments']} segments; nothing was requested", file=sys.stderr)


def _bucket(asked: argparse.Namespace) -> Bucket:
    """Return the bucket; raise BadParameter if the cluster has no table in it."""
    bucket = open_bucket(asked.bucket)
    log = delta_log_folder(logs_folder(asked.cluster))
    if next(iter(bucket.names(log)), None) is None:
        raise BadParameter(
            f"there is no table of cluster {asked.cluster!r} in {asked.bucket}",
            "check --bucket and --cluster",
        )
    return bucket


def _deletions(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if asked.url:
        found = Client(asked.url).get("/v1/deletions", {})["deletions"]
    else:
        bucket = _bucket(asked)
        from query_api.deletion import listed  # as above

        found = listed(bucket, asked.cluster)
    if asked.output == "ndjson":
        for each in found:
            print(json.dumps(each, ensure_ascii=False))
    elif found:
        print("\n".join(columns(tuple(found[0]), (list(each.values()) for each in found))))
    return 0
