"""The commands ``everyline delete`` and ``everyline deletions``: ask for rows to be removed.

Flags go in; a request is stored in the bucket, where the keeper finds it. Nothing is deleted here,
and what was asked for, by whom and why, and what became of it, can be listed at any time.
"""

import argparse
import getpass
import json
import time
import uuid
from collections.abc import Mapping

from indexer.object_names import delta_log_folder, logs_folder
from indexer.query.scope import WORDS
from indexer.store.bucket import Bucket
from indexer.store.open import open_bucket
from indexer.table.request import Deletion, DeletionRequest, Requests
from indexer.times import format_time
from query_api.command.answer_text import columns
from query_api.errors import BadParameter
from query_api.times import parse_time


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands to a parser."""
    delete = commands.add_parser(
        "delete",
        help="request the deletion of rows, with a record of who asked and why",
        description="Request the deletion of all rows that match every option given.",
    )
    delete.add_argument("--namespace", required=True)
    delete.add_argument("--pod", help="only rows of this pod")
    delete.add_argument("--container", help="only rows of this container")
    delete.add_argument("--text", help="only rows that a search for this query shows")
    delete.add_argument(
        "--regex", help="only rows whose message matches this regular expression (RE2)"
    )
    delete.add_argument("--from", dest="from_", required=True, metavar="TIME")
    delete.add_argument("--to", default="now", metavar="TIME", help="(default: now)")
    delete.add_argument("--reason", required=True, help="the reason; it is kept with the request")
    delete.add_argument("--by", default="", help="(default: the user's name)")
    delete.set_defaults(run=_delete)
    deletions = commands.add_parser(
        "deletions", help="list the requests for deletion, and their state"
    )
    deletions.add_argument("--output", "-o", choices=("text", "ndjson"), default="text")
    deletions.set_defaults(run=_deletions)
    for command in (delete, deletions):
        command.add_argument("--bucket", required=True, help="a directory, or s3://BUCKET/PREFIX")
        command.add_argument("--cluster", default="local", help="(default: local)")


def _delete(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    now_ns = time.time_ns()
    for name in ("namespace", "pod", "container", "text", "regex"):
        if getattr(asked, name) == "":
            # As an unset variable of a shell gives it: to take it as "any" would delete all rows.
            raise BadParameter(f"--{name} is empty", "give a value, or leave the option out")
    bucket = _bucket(asked)
    request = DeletionRequest(
        id=uuid.uuid4().hex[:12],
        requested_ns=now_ns,
        by=asked.by or getpass.getuser(),
        reason=asked.reason,
        namespace=(asked.namespace,),
        from_ns=parse_time(asked.from_, "from", now_ns),
        to_ns=parse_time(asked.to, "to", now_ns),
        pod=(asked.pod,) if asked.pod else (),
        container=(asked.container,) if asked.container else (),
        query=asked.text or "",
        regex=asked.regex or "",
    )
    Requests(bucket, asked.cluster).add(request)
    print(request.id)
    return 0


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
    found = [
        _view(request, done) for request, done in Requests(_bucket(asked), asked.cluster).all()
    ]
    if asked.output == "ndjson":
        for each in found:
            print(json.dumps(each, ensure_ascii=False))
    elif found:
        print("\n".join(columns(tuple(found[0]), (list(each.values()) for each in found))))
    return 0


def _view(request: DeletionRequest, done: Deletion | None) -> dict[str, str | int | None]:
    scope = request.scope
    return {
        "id": request.id,
        "state": "done" if done else "open",
        "rows": done.rows if done else None,
        "requested": format_time(request.requested_ns),
        "done": format_time(done.done_ns) if done else None,
        "by": request.by,
        **{name: ",".join(scope.equals.get(name, ())) for name in WORDS},
        "from": format_time(request.from_ns),
        "to": format_time(request.to_ns),
        "query": request.query or request.text or request.regex,
        "reason": request.reason,
    }
