"""The command ``everyline``: starts each process, asks the query service, looks into files.

Data goes to standard output, everything about it to standard error. A subcommand loads only what
it needs. Exit codes: 0 complete, 3 incomplete or unknown, 2 a question that cannot be understood,
1 any other error.
"""

import argparse
import importlib
import importlib.util
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from collector.errors import CollectorError
from collector.process import own_version
from indexer.errors import BadQuery, BadRequest, IndexerError
from query_api.command import deletion, inspect_command
from query_api.command.answer_text import (
    Paint,
    completeness_lines,
    damaged_lines,
    gap_lines,
    row_line,
    status_lines,
    stream_lines,
    visible,
    visible_json,
)
from query_api.command.client import LATE_S, Client, follow
from query_api.command.given import (
    OUTPUTS,
    SCOPE,
    query_of,
    refuse_empty,
    refuse_other_bytes,
    with_denials,
    with_times,
)
from query_api.errors import BadParameter, QueryError, ServiceError


class Process(NamedTuple):
    """What a command starts, and the extra of the package that it is installed with."""

    module: str
    help: str
    extra: str
    needs: tuple[str, ...] = ()  # by the processes that it starts itself


PROCESSES = {
    "collector": Process(
        "collector.run", "ship the container logs of this node to the topic", "collector"
    ),
    "indexer": Process("indexer.run", "write the topic's batches to the table", "indexer"),
    "keeper": Process(
        "indexer.keeper.run",
        "keep the table in order: compact, expire, delete, fold the ledger",
        "indexer",
    ),
    "ledger": Process(
        "indexer.keeper.ledger_command",
        "compare the ledger with its coverage, or rebuild it",
        "indexer",
    ),
    "retire": Process(
        "indexer.keeper.retire_command",
        "wait no longer for a node that is gone for good",
        "indexer",
    ),
    "query": Process("query_api.run", "answer searches over HTTP", "query-api"),
    "up": Process(
        "query_api.local.up",
        "run all of these on this machine; without --logs a demo",
        "all",
        needs=("deltalake", "fastapi", "numba", "pyarrow", "uvicorn"),
    ),
}
_READS_TABLES = "query-api"  # the extra of every other command that needs one
_OWN = ("collector", "indexer", "query_api")
COMPLETE, FAILED, BAD_QUESTION, NOT_COMPLETE = 0, 1, 2, 3
CUT_OFF = 141  # the reader went before the verdict: as a shell says it of SIGPIPE
_URL = "http://127.0.0.1:8080"
_BAD = ("bad_query", "bad_parameter")


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the command; return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    environ = os.environ if environ is None else environ
    asked: argparse.Namespace | None = None
    try:
        if argv and argv[0] in PROCESSES:
            return _start(PROCESSES[argv[0]], argv[1:], environ)
        _ready_output()
        refuse_other_bytes(argv)
        asked = _parser(environ).parse_args(with_denials(with_times(argv)))
        code: int = asked.run(asked, environ)
        sys.stdout.flush()
        return code
    except (BadParameter, BadQuery, ServiceError) as error:
        return _show_error(error, query_of(asked) if asked else "")
    except BadRequest as error:
        print(f"everyline: {error}", file=sys.stderr)
        return BAD_QUESTION
    except (CollectorError, IndexerError, QueryError) as error:
        print(f"everyline: {error}", file=sys.stderr)
        return FAILED
    except ModuleNotFoundError as error:
        if not error.name or error.name.split(".")[0] in _OWN:
            raise
        known = PROCESSES.get(argv[0])
        print(
            f"everyline: {argv[0]} needs the package {error.name.split('.')[0]!r}, which is not "
            f"installed: pip install 'everyline[{known.extra if known else _READS_TABLES}]'",
            file=sys.stderr,
        )
        return FAILED
    except BrokenPipeError:
        _leave_pipe()
        return CUT_OFF
    except OSError as error:  # a full disk, for one
        _leave_pipe()
        print(f"everyline: cannot write: {error.strerror or error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130


def _ready_output() -> None:
    """Let no row end the command: a stream that is closed is said, a character that cannot be
    written is written as an escape."""
    if sys.stdout is None:
        raise BadParameter("standard output is closed", "send it somewhere, such as /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _leave_pipe() -> None:
    # The reader has what it wanted; Python's own flush at exit must not complain either.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _start(process: Process, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    for name in process.needs:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    code: int = importlib.import_module(process.module).main(argv, environ)
    return code


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    processes = "\n".join(f"  {name:<10} {each.help}" for name, each in PROCESSES.items())
    parser = argparse.ArgumentParser(
        prog="everyline",
        description="A Kubernetes log pipeline that proves what it holds and names what is missing",
        epilog=f"processes (each has its own --help):\n{processes}\n\n"
        "exit codes: 0 complete, 3 incomplete or unknown, 2 bad question, 1 any other error",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"everyline {own_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    search = commands.add_parser(
        "search",
        help="find log lines",
        description='Find lines by words, "phrases", patterns, fields and AND, OR, NOT. '
        "deploy/QUERY.md describes all of the language.",
        epilog="For your shell, put the whole query in quotes: everyline search "
        """'"connection refused" -healthz'""",
    )
    search.add_argument("query", nargs="*", metavar="QUERY", help="words, phrases, field:value")
    _add_scope(search, default_from="-1h")
    search.add_argument("--level", action="append", help="for example error; may be repeated")
    search.add_argument(
        "--limit", type=int, default=100, help="maximum number of lines (default: 100)"
    )
    search.add_argument(
        "--order",
        choices=("desc", "asc"),
        default="desc",
        help="which lines if there are more: the newest (desc) or the oldest; "
        "text is in the order of time either way",
    )
    search.add_argument(
        "--follow", "-f", action="store_true", help="keep running, and print new lines as they come"
    )
    search.set_defaults(run=_search)
    explain = commands.add_parser("explain", help="say what a query means, and what it prunes by")
    explain.add_argument("query", nargs="+", metavar="QUERY", help="as for search")
    explain.set_defaults(run=_explain)
    gaps = commands.add_parser("gaps", help="list missing logs, with their proof")
    _add_scope(gaps, default_from=None)
    gaps.add_argument("--type", action="append", help="for example LOST_TOPIC; may be repeated")
    gaps.add_argument("--state", action="append", help="LOST, UNKNOWN or RECOVERED")
    gaps.set_defaults(run=_gaps)
    streams = commands.add_parser("streams", help="list the containers that have written logs")
    _add_scope(streams, default_from=None)
    streams.set_defaults(run=_streams)
    status = commands.add_parser("status", help="show how far nodes and partitions have got")
    status.set_defaults(run=_status)
    deletion.add_commands(commands)
    inspect_command.add_command(commands)
    for command in (search, gaps, streams, status):
        command.add_argument(
            "--url",
            default=environ.get("EVERYLINE_URL") or _URL,
            help=f"the query service (default: EVERYLINE_URL or {_URL})",
        )
        command.add_argument("--output", "-o", choices=OUTPUTS, default="text")
    return parser


def _add_scope(command: argparse.ArgumentParser, default_from: str | None) -> None:
    since = default_from or "the start"
    command.add_argument(
        "--from",
        dest="from_",
        default=default_from,
        metavar="TIME",
        help="2026-01-31T08:30:00Z, 2026-01-31, 08:30 (today, UTC), yesterday, -15m "
        f"(default: {since}); --since 15m is --from -15m",
    )
    command.add_argument("--to", default="now", metavar="TIME", help="(default: now)")
    for name in ("namespace", "pod", "container", "node"):
        command.add_argument(f"--{name}", action="append", help="may be repeated")


def _scope(asked: argparse.Namespace) -> dict[str, Any]:
    refuse_empty(asked, (*SCOPE, "type", "state"))
    names = ("namespace", "pod", "container", "node")
    return {"from": asked.from_, "to": asked.to, **{name: getattr(asked, name) for name in names}}


def _search(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    client = Client(asked.url)
    parameters = {
        **_scope(asked),
        "level": asked.level,
        "query": query_of(asked),
        "order": asked.order,
        "limit": asked.limit,
    }
    if asked.follow:
        return _follow(client, asked, parameters, environ)
    if asked.output == "ndjson":
        return _stream(client, parameters)
    answer = client.get("/v1/search", parameters)
    if asked.output == "json":
        _print_json(answer)
        return _code(answer["completeness"])
    rows = answer["rows"] if asked.order == "asc" else reversed(answer["rows"])
    try:
        _print_rows(rows, asked.output, environ)
    except BrokenPipeError:  # whoever has read enough is told the verdict all the same
        _leave_pipe()
    if answer["next"]:
        print(f"more than {asked.limit} lines: --limit, or a shorter time", file=sys.stderr)
    for hint in answer["hints"]:
        print(visible(hint), file=sys.stderr)
    _say_completeness(answer["completeness"], environ)
    return _code(answer["completeness"])


def _stream(client: Client, parameters: Mapping[str, Any]) -> int:
    line = b""
    for line in client.records("/v1/search", parameters):
        text = line.decode()
        sys.stdout.write(visible_json(text) if sys.stdout.isatty() else text)
    return _code(json.loads(line)["completeness"])


def _follow(
    client: Client,
    asked: argparse.Namespace,
    parameters: Mapping[str, Any],
    environ: Mapping[str, str],
) -> int:
    """Show the newest lines, then new ones until Ctrl-C."""
    output = "ndjson" if asked.output == "json" else asked.output
    first = client.get("/v1/search", {**parameters, "to": "now", "order": "desc"})
    _print_rows(reversed(first["rows"]), output, environ)
    if output == "text":
        _say_completeness(first["completeness"], environ)
    late = f"lines whose time is more than {LATE_S // 60} minutes old when they come are not shown"
    print(late, file=sys.stderr)
    try:
        for rows in follow(client, parameters, first, time.sleep):
            _print_rows(rows, output, environ)
    except KeyboardInterrupt:
        return COMPLETE
    return COMPLETE


def _gaps(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    parameters = {**_scope(asked), "type": asked.type, "state": asked.state}
    return _list(asked, environ, "gaps", parameters)


def _streams(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _list(asked, environ, "streams", _scope(asked))


def _list(
    asked: argparse.Namespace, environ: Mapping[str, str], name: str, parameters: Mapping[str, Any]
) -> int:
    answer = Client(asked.url).get(f"/v1/{name}", parameters)
    entries = answer[name]
    if asked.output == "json":
        _print_json(answer)
    elif asked.output == "ndjson":
        for entry in entries:
            _print_json(entry, None)
        for each in answer.get("damaged", ()):
            _print_json({"damaged": each}, None)
        _print_json({"completeness": answer["completeness"], "total": answer["total"]}, None)
    else:
        if entries:
            print("\n".join((gap_lines if name == "gaps" else stream_lines)(entries)))
        else:
            print(f"no {name}", file=sys.stderr)
        if lines := damaged_lines(answer.get("damaged", ())):
            print("\n".join(lines))
        if answer["total"] > len(entries):
            print(f"{answer['total'] - len(entries)} more: narrow the scope", file=sys.stderr)
        _say_completeness(answer["completeness"], environ, gaps=name != "gaps")
    return _code(answer["completeness"])


def _explain(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    # Not at the top: who only asks a service needs no column of a table.
    from indexer.query.explain import explained
    from indexer.query.parse import parse_query

    print("\n".join(explained(parse_query(query_of(asked)))))
    return COMPLETE


def _status(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    status = Client(asked.url).get("/v1/status", {})
    if asked.output == "text":
        print("\n".join(status_lines(status)))
    elif asked.output == "json":
        _print_json(status)
    else:
        _print_json(status, None)
    return COMPLETE if status["healthy"] else NOT_COMPLETE


def _print_json(answer: Any, indent: int | None = 2) -> None:
    text = json.dumps(answer, indent=indent, ensure_ascii=False)
    print(visible_json(text) if sys.stdout.isatty() else text)


def _print_rows(rows: Iterable[Mapping[str, Any]], output: str, environ: Mapping[str, str]) -> None:
    paint = Paint(sys.stdout.isatty() and not environ.get("NO_COLOR"))
    for row in rows:
        if output == "text":
            print(row_line(row, paint))
        else:
            _print_json(row, None)
    sys.stdout.flush()


def _say_completeness(
    completeness: Mapping[str, Any], environ: Mapping[str, str], gaps: bool = True
) -> None:
    sys.stdout.flush()
    paint = Paint(sys.stderr.isatty() and not environ.get("NO_COLOR"))
    shown = completeness if gaps else {**completeness, "gaps": [], "gaps_total": 0}
    print("\n".join(completeness_lines(shown, paint)), file=sys.stderr)


def _code(completeness: Mapping[str, Any]) -> int:
    return COMPLETE if completeness["verdict"] == "complete" else NOT_COMPLETE


def _show_error(error: BadParameter | BadQuery | ServiceError, query: str) -> int:
    print(f"everyline: {error}", file=sys.stderr)
    column = error.error.get("column") if isinstance(error, ServiceError) else None
    if isinstance(error, BadQuery):
        column = error.column
    if column:
        print(f"  {query}\n  {' ' * (column - 1)}^", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)
    return BAD_QUESTION if error.code in _BAD else FAILED


if __name__ == "__main__":
    sys.exit(main())
