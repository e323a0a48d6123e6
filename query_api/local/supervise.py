"""Child processes of one supervisor: started, watched, restarted, stopped in order.

Command lines go in; short messages for the terminal come out, each child's own log goes to a file.
No child outlives the supervisor, however it ends; one that dies is started again, later and later,
but one that refuses to start at all ends the whole with its own message.
"""

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from collector.durable import replace_file
from query_api.errors import QueryError

LOG_BYTES = 10 << 20
"""A log larger than this at the start of its process is put aside, the one before it removed."""

_PR_SET_PDEATHSIG = 1  # prctl(2)
_REFUSED_S = 15.0  # who fails by itself within this time of the first start will fail again
_STEADY_S = 60.0
_BACK_OFF_S = (0.5, 30.0)
_REPEAT_S = 60.0
_SHOWN_CHARACTERS = 200
_SHOWN = {"warning": "warning", "error": "error", "critical": "error"}

Say = Callable[[str], None]


class CannotStart(QueryError):
    """What ``everyline up`` was asked for cannot be done; the message says what to change."""


@dataclass(slots=True)
class Child:
    """One process: ``words`` follow the Python interpreter; stages stop in ascending order.

    ``port`` is where its own page listens on loopback, 0 if it has none. ``stop_s`` is how long a
    stop may take before it is killed. ``fed`` gives it a standard input to write to.
    """

    name: str
    words: Sequence[str]
    log: Path
    stage: int
    stop_s: float
    port: int = 0
    fed: bool = False
    process: "subprocess.Popen[bytes] | None" = None
    held: bool = False  # not to be restarted by itself
    _started: float = 0.0
    _starts: int = 0
    _failures: int = 0
    _due: float = 0.0
    _read: int = 0  # of the log
    _began: int = 0  # where the log of this start begins
    _rest: bytes = b""
    _said: dict[str, float] = field(default_factory=dict)


class Supervisor:
    """The children and the loop's building blocks: ``watch`` them, ``wait`` between, ``stop``."""

    def __init__(self, environ: Mapping[str, str], say: Say, record: Path) -> None:
        """``record`` is the JSON file that lists the processes, their pages and logs."""
        # The children import what the supervisor imports, wherever it was started from.
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
        self._environ = {**environ, "PYTHONPATH": paths}
        self._say = say
        self._record = record
        self.children: list[Child] = []
        self.heard: Callable[[Child, dict[str, Any]], bool] = lambda child, line: False
        self.stops = 0
        self._wake, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        self.stops += 1

    def wait(self, seconds: float) -> None:
        """Sleep until a signal comes or a child ends, at most ``seconds``."""
        select.select([self._wake], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._wake, 1024)

    def add(self, child: Child) -> None:
        """Take on a child; ``watch`` starts it unless it is held."""
        self.children.append(child)

    def start(self, child: Child) -> None:
        """Start a child; its log goes on where it ended."""
        child.log.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if child.log.stat().st_size > LOG_BYTES:
                os.replace(child.log, child.log.with_suffix(".log.1"))
        with child.log.open("ab") as log:
            child._read = child._began = log.tell()
            child._rest = b""
            child.process = subprocess.Popen(
                [sys.executable, "-P", *child.words],
                stdin=subprocess.PIPE if child.fed else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
                start_new_session=True,  # Ctrl-C is the supervisor's to pass on, in order
                preexec_fn=_die_with(os.getpid()),
            )
        child.held = False
        child._started = time.monotonic()
        child._starts += 1
        self.write_record()

    def watch(self) -> None:
        """Show what the children warn of, and restart those that died.

        Raises CannotStart with the message of one that refused to start.
        """
        now = time.monotonic()
        for child in self.children:
            if child.process is None:
                if not child.held and now >= child._due:
                    self.start(child)
                continue
            code = child.process.poll()
            self._listen(child, now)
            if code is not None:
                self._died(child, code, now)

    def _died(self, child: Child, code: int, now: float) -> None:
        lasted = now - child._started
        self._reap(child)
        why = last_words(child.log, child._began)
        if code > 0 and child._starts == 1 and lasted < _REFUSED_S:
            raise CannotStart(f"{child.name} does not start: {why or f'exit code {code}'}")
        child._failures = 1 if lasted > _STEADY_S else child._failures + 1
        pause = min(_BACK_OFF_S[0] * 2 ** (child._failures - 1), _BACK_OFF_S[1])
        child._due = now + pause
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        said = f" ({why})" if why and code > 0 else ""
        self._say(f"{child.name} ended, {how}{said}; restarting in {pause:g} s, see {child.log}")

    def kill(self, child: Child) -> None:
        """End a child as a crash would; it stays down until ``start``."""
        child.held = True
        if child.process is not None:
            child.process.kill()
            self._reap(child)
            self.write_record()

    def feed(self, child: Child, line: str) -> None:
        """Write one line to a child's standard input, if it still reads."""
        if child.process is not None and child.process.stdin is not None:
            with suppress(OSError):
                child.process.stdin.write(line.encode() + b"\n")
                child.process.stdin.flush()

    def stop(self) -> None:
        """Stop stage by stage; a second request to stop kills what is left."""
        asked = self.stops
        for stage in sorted({child.stage for child in self.children}):
            running = [c for c in self.children if c.stage == stage and c.process is not None]
            for child in running:
                if child.process is not None and child.process.poll() is None:
                    child.process.terminate()
            until = time.monotonic() + max((child.stop_s for child in running), default=0.0)
            while any(c.process is not None and c.process.poll() is None for c in running):
                left = until - time.monotonic()
                if left <= 0 or self.stops > asked:
                    break
                self.wait(min(left, 0.2))
            for child in running:
                self._end(child)
        self.write_record()

    def _end(self, child: Child) -> None:
        process = child.process
        if process is None:
            return
        if process.poll() is None:
            process.kill()
            self._say(f"{child.name} was killed before it had stopped; nothing is lost by that")
        self._listen(child, time.monotonic())
        self._reap(child)

    @staticmethod
    def _reap(child: Child) -> None:
        if child.process is not None:
            if child.process.stdin is not None:
                with suppress(OSError):
                    child.process.stdin.close()
            child.process.wait()
            child.process = None

    def _listen(self, child: Child, now: float) -> None:
        """Take what is new in the log: to ``heard``, or to the terminal if it is a warning."""
        try:
            with child.log.open("rb") as log:
                log.seek(child._read)
                news = log.read(LOG_BYTES)
        except OSError:
            return
        child._read += len(news)
        *lines, child._rest = (child._rest + news).split(b"\n")
        for line in lines:
            parsed = _object(line)
            if not parsed or self.heard(child, parsed) or parsed.get("level") not in _SHOWN:
                continue
            text = one_line(child.name, parsed)
            if now - child._said.get(text, -_REPEAT_S) >= _REPEAT_S:
                child._said = {t: at for t, at in child._said.items() if now - at < _REPEAT_S}
                child._said[text] = now
                self._say(text)

    def write_record(self) -> None:
        """List the processes with their pids (null: not running), pages and logs."""
        processes = [
            {
                "name": child.name,
                "pid": child.process.pid if child.process is not None else None,
                "url": f"http://127.0.0.1:{child.port}" if child.port else None,
                "log": str(child.log),
            }
            for child in self.children
        ]
        text = json.dumps({"supervisor": os.getpid(), "processes": processes}, indent=1)
        try:
            replace_file(self._record, f"{text}\n".encode(), mode=0o666)
        except OSError as error:
            self._say(f"cannot write {self._record}: {error}; going on without")


def _die_with(parent: int) -> Callable[[], None]:
    """Return what a child does before exec, so that the kernel kills it with its parent."""
    prctl: Any = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def free_port(wanted: int = 0) -> int:
    """Return ``wanted`` if it is free on 127.0.0.1, else 0; any free one if 0 is wanted."""
    with closing(socket.socket()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
        port: int = sock.getsockname()[1]
        return port


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


_BESIDE = frozenset({"time", "level", "logger", "message", "exception"})


def one_line(name: str, line: Mapping[str, Any]) -> str:
    """Return a child's log line as one short line for people."""
    # The longest last: it is what is cut.
    more = sorted((f"{key}={value}" for key, value in line.items() if key not in _BESIDE), key=len)
    fields = " ".join(more)
    text = f"{name}: {_SHOWN.get(line['level'], line['level'])}: {line.get('message', '')}"
    text = " ".join(f"{text} ({fields})".split() if fields else text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def last_words(log: Path, began: int) -> str:
    """Return the last thing a process wrote since ``began`` (bytes), as one short line."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(began, log.stat().st_size - 65_536))
        for line in reversed(file.read().splitlines()):
            if parsed := _object(line):
                error = parsed.get("error")
                exception = str(parsed.get("exception", "")).strip().splitlines()
                parts = [parsed.get("message"), error, exception[-1] if exception else None]
                return ": ".join(str(part) for part in parts if part)[: _SHOWN_CHARACTERS * 2]
            if line.strip():
                return line.decode(errors="replace").strip()[: _SHOWN_CHARACTERS * 2]
    return ""
