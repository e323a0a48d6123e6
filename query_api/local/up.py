"""The command ``everyline up``: the whole way of a line as processes on one machine.

Directories of logs come in, or the demo's; collectors, indexer, keeper and query service run as
children of one supervisor on a local topic and a local bucket. One supervisor uses a data
directory at a time, and a file keeps the names it was first read under: they are its identity.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from collector.durable import locked, replace_file
from indexer.store.open import open_bucket
from indexer.times import format_time
from query_api.local.supervise import CannotStart, Child, Supervisor, free_port
from query_api.times import parse_time

DEFAULT_PORT = 8080
DEMO_PODS = Path("demo", "pods")
_CLI = ("-m", "query_api.command.cli")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_POLL_S = 0.2
_PATIENCE_SAID_S = 6.0
_FIRST_LINE_WAIT_S = 60.0
_SETTLED_S = 2.0  # given logs are old: wait until no more of them appear, but not for ever
_SETTLED_MAX_S = 8.0
_RECENT_NS = 50 * 60 * 10**9  # without a time range a search sees the last hour
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Names(msgspec.Struct):
    """What files of a data directory are called after; kept in ``names.json``.

    ``directories`` tells the node of each directory ever read; those inside the data directory
    are relative to it, so that it can be moved.
    """

    cluster: str = "local"
    node: str = "node-1"
    directories: dict[str, str] = msgspec.field(default_factory=dict)


@dataclass(slots=True)
class Rollout:
    """When the demo's collector is killed and comes back, in seconds of the monotonic clock."""

    first_s: float = 35.0
    period_s: float = 60.0
    down_s: float = 3.0
    kill_at: float = 0.0
    back_at: float = 0.0


@dataclass(slots=True)
class Introduction:
    """What has been said to the user, and what for that has been seen of the data."""

    began: float
    url_said: bool = False
    patience_said: bool = False
    done: bool = False
    first_line: float = 0.0
    range: tuple[str, str] | None = None
    changed: float = 0.0


def main(argv: Sequence[str], environ: Mapping[str, str], rollout: Rollout | None = None) -> int:
    """Run everything until it is told to stop; return the exit code.

    ``rollout``: other times for the demo than it usually has. Raises CannotStart, and
    BucketError for a path that no table can be in.
    """
    options = _parser().parse_args(argv)
    data = Path(os.path.expanduser(options.data)).resolve()
    open_bucket(str(data / "bucket"))  # refuses a path that nothing could be stored below
    with _only_one(data):
        names, nodes = settle_names(data, options.logs, options.cluster, options.node)
        port = _query_port(options.port)
        demo = None if options.logs else rollout or Rollout()
        return Everything(data, names.cluster, nodes, port, environ, demo).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="everyline up",
        description="Run collector, indexer, keeper and query service on this machine.",
    )
    parser.add_argument(
        "--logs",
        action="append",
        default=[],
        metavar="[NODE=]DIR",
        help="directory in the kubelet's layout, NAMESPACE_POD_UID/CONTAINER/N.log;"
        " may be repeated (default: a live demo)",
    )
    parser.add_argument(
        "--data",
        default=".everyline",
        help="folder to keep everything in (default: %(default)s)",
        metavar="DIR",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        help="port of the query service on 127.0.0.1; 0: any (default: %(default)s)",
    )
    parser.add_argument(
        "--cluster",
        help="name of the cluster (default: what DIR was first used with, else local)",
        metavar="NAME",
    )
    parser.add_argument(
        "--node",
        help="name of the node of each --logs without one (default:"
        " what DIR was first used with, else node-1)",
        metavar="NAME",
    )
    return parser


def _query_port(wanted: int) -> int:
    if not 0 <= wanted <= 65_535:
        raise CannotStart(f"--port {wanted} is not a port; choose one from 1 to 65535")
    if port := free_port(wanted):
        return port
    raise CannotStart(f"port {wanted} is in use; stop what listens there or choose another --port")


@contextlib.contextmanager
def _only_one(data: Path) -> Iterator[None]:
    """Hold the lock of ``data``, which is made if it is not there."""
    taken = CannotStart(f"another `everyline up` uses {data}; stop it or choose another --data")
    with contextlib.ExitStack() as held:
        try:
            data.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(data / "lock", or_raise=taken))
        except OSError as error:
            said = f"cannot keep data in {data}: {error}; choose another --data"
            raise CannotStart(said) from error
        yield


def settle_names(
    data: Path, logs: Sequence[str], cluster: str | None, node: str | None
) -> tuple[Names, dict[str, list[Path]]]:
    """Return the names of ``data``, and the directories that each node of this start reads.

    A node goes on reading what it read before: a file whose directory is no longer looked at
    would seem deleted. Raises CannotStart where a name would change under files already read.
    """
    names = _kept_names(data)
    if names is None:
        names = Names(_checked(cluster or "local", "cluster"), _checked(node or "node-1", "node"))
    elif cluster not in (None, names.cluster):
        raise CannotStart(
            f"{data} holds the cluster {names.cluster!r}, and its files are known by that name;"
            " leave --cluster out or choose another --data"
        )
    here = set()
    for name, directory in _given(data, logs, node or names.node):
        before = names.directories.setdefault(_relative(data, directory), name)
        if before != name:
            raise CannotStart(
                f"{directory} was read as node {before!r} before, and its files are known by that"
                f" name; write --logs {before}={directory} or choose another --data"
            )
        here.add(name)
    try:
        replace_file(data / "names.json", msgspec.json.encode(names) + b"\n", mode=0o666)
    except OSError as error:
        raise CannotStart(f"cannot write {data / 'names.json'}: {error}") from error
    nodes: dict[str, list[Path]] = {name: [] for name in sorted(here)}
    for path, name in names.directories.items():
        if name in nodes:
            nodes[name].append(data / path)
    return names, nodes


def _kept_names(data: Path) -> Names | None:
    path = data / "names.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Names)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise CannotStart(
            f"cannot read {path}: {error}; restore it: the identity of every file depends on it"
        ) from error


def _given(data: Path, logs: Sequence[str], node: str) -> Iterator[tuple[str, Path]]:
    """Give node and directory of each ``[NODE=]DIR``, or of the demo if there is none."""
    if not logs:
        (data / DEMO_PODS).mkdir(parents=True, exist_ok=True)
        yield _checked(node, "node"), data / DEMO_PODS
    for entry in logs:
        name, equals, directory = entry.partition("=")
        if not equals or Path(entry).is_dir():
            name, directory = node, entry
        path = Path(os.path.expanduser(directory)).resolve()
        if not path.is_dir():
            raise CannotStart(f"--logs {entry}: there is no directory {path}")
        if os.pathsep in str(path):
            raise CannotStart(f"--logs {entry}: the path may not hold {os.pathsep!r}")
        yield _checked(name, "node"), path


def _relative(data: Path, directory: Path) -> str:
    return str(directory.relative_to(data) if directory.is_relative_to(data) else directory)


def _checked(name: str, what: str) -> str:
    if _NAME.fullmatch(name):
        return name
    raise CannotStart(f"{name!r} is no name for a {what}: use letters, digits, '.', '_' and '-'")


class Everything:
    """The processes of one data directory, and what is said about them on the terminal."""

    def __init__(
        self,
        data: Path,
        cluster: str,
        nodes: Mapping[str, Sequence[Path]],
        port: int,
        environ: Mapping[str, str],
        rollout: Rollout | None,
    ) -> None:
        """``nodes`` has the directories of each; ``port`` is the query service's; with a
        ``rollout`` the demo runs.
        """
        self._data = data
        self._cluster = cluster
        self._nodes = nodes
        self._port = port
        self._url = f"http://127.0.0.1:{port}"
        self._rollout = rollout
        self._supervisor = Supervisor(environ, say, data / "processes.json")
        self._supervisor.heard = self._heard
        self._kept_ports = _kept_ports(data / "processes.json")
        self._introduction = Introduction(time.monotonic())

    def run(self) -> int:
        """Start all, watch until a signal comes, stop all."""
        supervisor = self._supervisor
        say(f"everyline: starting in {self._data}; Ctrl-C stops it")
        try:
            for child in self._children():
                supervisor.add(child)
            while not supervisor.stops:
                supervisor.watch()
                if not self._introduction.done:
                    self._introduce()
                if self._rollout is not None:
                    self._roll_out(self._rollout, time.monotonic())
                supervisor.wait(_POLL_S)
            say("everyline: stopping, what was read is committed first; Ctrl-C hurries")
        finally:
            supervisor.stop()
        say("everyline: stopped; the same command goes on from here")
        return 0

    # -- the processes -----------------------------------------------------------------------

    def _children(self) -> Iterator[Child]:
        data = self._data
        cluster = ("--cluster", self._cluster)
        topic = ("--topic", str(data / "topic"))
        bucket = ("--bucket", str(data / "bucket"))
        if self._rollout is not None:
            words = ("-m", "query_api.local.demo", str(data / DEMO_PODS))
            yield Child("demo", words, data / "logs" / "demo.log", 0, 2.0, fed=True)
        for node, directories in self._nodes.items():
            more = f" and {len(directories) - 1} more" if directories[1:] else ""
            say(f"everyline: node {node} reads {directories[0]}{more}")
            for empty in directories if self._rollout is None else ():
                if not any(empty.glob("*_*_*/*/*.log*")):
                    say(f"everyline: {empty} holds no NAMESPACE_POD_UID/CONTAINER/N.log yet")
            roots = ("--roots", os.pathsep.join(map(str, directories)))
            state = ("--state", str(data / "collector" / node), "--drain-ms", "6000")
            flags = (*cluster, "--node", node, *roots, *topic, *state)
            yield self._child(f"collector {node}", flags, 1, 8.0)
        yield self._child("indexer", (*cluster, *topic, *bucket), 2, 6.0)
        yield self._child("query", (*cluster, *bucket), 3, 6.0, self._port)
        keeper = self._child("keeper", (*cluster, *bucket), 3, 6.0)
        keeper.held = True  # it has nothing to keep before there is a table
        yield keeper

    def _child(
        self, name: str, words: Sequence[str], stage: int, stop_s: float, port: int = 0
    ) -> Child:
        port = port or free_port(self._kept_ports.get(name, 0)) or free_port()
        log = self._data / "logs" / f"{name.replace(' ', '-')}.log"
        words = (*_CLI, name.split()[0], *words, "--listen", f"127.0.0.1:{port}")
        return Child(name, words, log, stage, stop_s, port)

    # -- the demo ----------------------------------------------------------------------------

    def _roll_out(self, rollout: Rollout, now: float) -> None:
        """Kill the collector when it is time, and bring it back, as a rolling update does."""
        demo, collector = self._supervisor.children[:2]
        if not rollout.kill_at:
            if self._introduction.done:
                rollout.kill_at = now + rollout.first_s
                self._supervisor.feed(demo, "running")
        elif rollout.back_at and now >= rollout.back_at:
            rollout.back_at = 0.0
            self._supervisor.start(collector)
            self._supervisor.feed(demo, "running")
        elif now >= rollout.kill_at:
            rollout.kill_at += rollout.period_s
            if collector.process is not None:
                self._supervisor.kill(collector)
                self._supervisor.feed(demo, "evict")
                rollout.back_at = now + rollout.down_s

    def _heard(self, child: Child, line: dict[str, Any]) -> bool:
        """Take the demo's word for the eviction of a pod."""
        if child.name != "demo" or "evicted" not in line:
            return False
        gaps = self._command("gaps")
        say(f"demo: killed the collector and deleted {line['evicted']} unread: see `{gaps}`")
        return True

    # -- what to do next ---------------------------------------------------------------------

    def _introduce(self) -> None:
        """Say where it can be reached, and once a line is searchable what to try."""
        seen = self._introduction
        now = time.monotonic()
        status = _get(f"{self._url}/v1/status")
        if status is None:
            return
        if not seen.url_said:
            seen.url_said = True
            say(f"everyline: query service at {self._url}, its API at {self._url}/docs")
        span = time_range(status)
        if span != seen.range:
            if not seen.first_line:
                seen.first_line = now
                self._supervisor.start(self._supervisor.children[-1])
            seen.range, seen.changed = span, now
        if seen.range is None:
            if now - seen.began > _PATIENCE_SAID_S and not seen.patience_said:
                seen.patience_said = True
                say("everyline: no line yet; at the very first start the indexer is compiled first")
            if now - seen.began > _FIRST_LINE_WAIT_S:
                seen.done = True
                say("everyline: no line is searchable yet; try:")
                self._say_commands(None)
            return
        settled = now - seen.changed > _SETTLED_S or now - seen.first_line > _SETTLED_MAX_S
        if self._rollout is not None or settled:
            seen.done = True
            say(f"everyline: lines from {seen.range[0]} to {seen.range[1]} are searchable; try:")
            self._say_commands(seen.range)

    def _say_commands(self, span: tuple[str, str] | None) -> None:
        words = ["search"]
        if self._rollout is not None:
            words += ["--namespace", "shop", '"order placed"']
        else:
            words += ["--limit", "20"]
        between = between_flags(span, time.time_ns()) if span else []
        say("  " + self._command(*words, *between))
        say("  " + self._command("gaps"))

    def _command(self, *words: str) -> str:
        url = [] if self._port == DEFAULT_PORT else ["--url", self._url]
        return " ".join([own_command(), shlex.join([*words, *url])])


def say(text: str) -> None:
    """Print a line for the user; a terminal that has gone stops nothing."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def own_command() -> str:
    """Return how the user can call ``everyline`` from here."""
    if shutil.which("everyline"):
        return "everyline"
    script = Path(sys.executable).with_name("everyline")
    if not script.exists():
        return f"{sys.executable} -m query_api.command.cli"
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)


def time_range(status: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return first and last time of the searchable lines (RFC 3339); None if there is none."""
    first, last = status.get("first_time"), status.get("last_time")
    return (str(first), str(last)) if first and last else None


def between_flags(span: tuple[str, str], now_ns: int) -> list[str]:
    """Return the flags that make a search see all of ``span``; none if the last hour will do."""
    last_ns = parse_time(span[1], "last line", now_ns)
    if last_ns > now_ns - _RECENT_NS:
        return []
    after = format_time((last_ns // 10**9 + 1) * 10**9).replace(".000000000", "")
    return [f"--from={span[0]}", f"--to={after}"]


def _get(url: str) -> dict[str, Any] | None:
    """Return what a page of our own query service says; None while it does not answer."""
    try:
        with _OPENER.open(url, timeout=1.0) as answer:
            found = json.load(answer)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _kept_ports(record: Path) -> dict[str, int]:
    """Return the ports that the processes had before, by name."""
    try:
        listed = json.loads(record.read_bytes())["processes"]
        return {p["name"]: int(p["url"].rpartition(":")[2]) for p in listed if p["url"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
