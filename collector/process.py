"""What every long-running process of Everyline has: settings, structured logs, a page of metrics.

A frozen settings class goes in; its values come from defaults, then a TOML file, then the
environment, then flags, the later ones winning. An unknown name is an error, never ignored.
"""

import argparse
import contextlib
import difflib
import gc
import http.server
import json
import logging
import os
import socket
import socketserver
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import prometheus_client

from collector.errors import SettingError

S = TypeVar("S", bound=msgspec.Struct)

ENVIRONMENT_PREFIX = "EVERYLINE_"
_SELDOM_S = 60.0
_CLIENTS_MOST = 16
_CLIENT_S = 5.0
_OBJECTS_BETWEEN_LOOKS = 50_000  # Python's own default is 700

_log = logging.getLogger(__name__)


def setting(text: str, *, ge: float | None = None, le: float | None = None) -> msgspec.Meta:
    """Return the annotation of a setting: one sentence, and its bounds."""
    return msgspec.Meta(description=text, ge=ge, le=le)


def described(kind: type[msgspec.Struct]) -> dict[str, tuple[Any, str]]:
    """Return default and description of each setting, by name, those of its parts too."""
    hints = get_type_hints(kind, include_extras=True)
    parts = _parts(kind)
    found: dict[str, tuple[Any, str]] = {}
    for field in msgspec.structs.fields(kind):
        if part := parts.get(field.name):
            found |= described(part)
            continue
        hint = hints[field.name]
        notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        text = next((n.description for n in notes if isinstance(n, msgspec.Meta)), None) or ""
        default = None if field.default is msgspec.NODEFAULT else field.default
        found[field.name] = (default, text)
    return found


def _parts(kind: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """Return the fields whose values are settings of their own, with their kind."""
    return {
        field.name: field.type
        for field in msgspec.structs.fields(kind)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
    }


def _built(kind: type[S], values: Mapping[str, Any]) -> S:
    """Return the settings that have these values, by name, each in the part that knows it."""
    parts = {name: _built(part, values) for name, part in _parts(kind).items()}
    own = {name: values[name] for name in kind.__struct_fields__ if name in values}
    return msgspec.structs.replace(msgspec.convert(own, kind, strict=False), **parts)


def load_settings(
    kind: type[S], section: str, argv: Sequence[str], environ: Mapping[str, str]
) -> S:
    """Return the settings of one process; ``section`` names its table, prefix and flags.

    A field of ``kind`` may be settings itself: those of a part, which stand beside its own here.
    ``--config FILE`` (or EVERYLINE_CONFIG) names a TOML file with a table ``[section]``; the
    environment has ``EVERYLINE_<SECTION>_<NAME>``, flags are ``--name-with-dashes``. Raises
    SettingError, which names the setting and where it came from.
    """
    known = described(kind)
    parser = argparse.ArgumentParser(prog=f"everyline {section}", description=kind.__doc__)
    parser.add_argument("--config", help=f"TOML file with a table [{section}]", metavar="FILE")
    for name, (default, text) in known.items():
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(
            "--" + name.replace("_", "-"),
            help=(text + shown).replace("%", "%%"),
            default=argparse.SUPPRESS,
            metavar="VALUE",
        )
    flags = vars(parser.parse_args(argv))
    config = flags.pop("config", None) or environ.get(ENVIRONMENT_PREFIX + "CONFIG")
    values: dict[str, Any] = {}
    if config:
        values.update(_from_file(Path(config), section, known))
    prefix = f"{ENVIRONMENT_PREFIX}{section.upper()}_"
    for variable, value in environ.items():
        if variable.startswith(prefix):
            name = variable[len(prefix) :].lower()
            _check_known(name, known, f"environment variable {variable}")
            values[name] = value
    values.update(flags)
    try:
        return _built(kind, values)
    except msgspec.ValidationError as error:
        raise SettingError(f"setting of {section}: {error}") from error


def _from_file(path: Path, section: str, known: Mapping[str, Any]) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text("utf-8")).get(section, {})
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"cannot read settings from {path}: {error}") from error
    for name in table:
        _check_known(name, known, f"{path}, table [{section}]")
    return dict(table)


def _check_known(name: str, known: Mapping[str, Any], where: str) -> None:
    if name not in known:
        hint = did_you_mean(name, known)
        raise SettingError(f"unknown setting {name!r} in {where}" + (f"; {hint}" if hint else ""))


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return a question for the known name that is like this one; ``otherwise`` if none is."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


_PLAIN = frozenset(vars(logging.makeLogRecord({})))


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and what ``extra`` gave."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({k: v for k, v in vars(record).items() if k not in _PLAIN and k != "taskName"})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class Seldom(logging.Filter):
    """Lets each text of one logger and those below it pass once a minute, and all of others."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(name)
        self._clock = clock
        self._passed: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record passes."""
        if not super().filter(record):
            return True
        text, now = record.getMessage(), self._clock()
        self._passed = {each: at for each, at in self._passed.items() if now - at < _SELDOM_S}
        if text in self._passed:
            return False
        self._passed[text] = now
        return True


def look_for_cycles_rarely() -> None:
    """Let Python look for unreachable cycles after many new objects only, and not after a few.

    Whoever folds makes many objects that stay and hardly a cycle: looking took a sixth of a fold.
    """
    gc.set_threshold(_OBJECTS_BETWEEN_LOOKS, 10, 10)


def log_to_stderr(level: str) -> None:
    """Send the process' logs to stderr as JSON lines, at ``level`` and above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(Seldom("aiokafka"))  # it says the same ten times a second in an outage
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiokafka").setLevel(max(logging.WARNING, logging.getLogger().level))


def listening(address: str, *, backlog: int = 64) -> socket.socket:
    """Return a socket that listens on HOST:PORT, [IPV6]:PORT or, on 127.0.0.1, :PORT.

    ``[::]`` is every address, of IPv4 too where the system allows it; of a name's addresses it is
    the first of IPv4, or of IPv6 if there is none. Raises SettingError.
    """
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or "127.0.0.1",
            int(port),
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        family, *_, place = min(found, key=lambda each: each[0] != socket.AF_INET)
        both = family == socket.AF_INET6 and place[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(place, family=family, backlog=backlog, dualstack_ipv6=both)
    except (OSError, ValueError, OverflowError) as error:
        raise SettingError(
            f"cannot listen on {address!r}: {error}; choose another HOST:PORT"
        ) from error


def address_of(listener: socket.socket) -> str:
    """Return where a socket listens, as HOST:PORT or [IPV6]:PORT."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class StatusServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """The process' own HTTP page: ``/metrics``, ``/status``, and three answers for probes.

    ``/livez`` fails where a restart may help, ``/healthz`` where anything does not work, and
    ``/readyz`` until the process has begun its work. Each client has a thread while it is answered.
    Of too many the one that has been there longest is cut off, so that slow ones hold up nobody.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        address: str,
        registry: prometheus_client.CollectorRegistry,
        status: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Listen on ``address`` (as ``listening``). ``status()`` gives a JSON object with
        ``healthy``, ``ready``, and ``alive`` where that is not ``healthy``; it is called from other
        threads.
        """
        self.registry = registry
        self.status = status
        self._lock = threading.Lock()
        self._clients: dict[Any, None] = {}  # sockets, in the order in which they came
        listener = listening(address)
        self.address_family = listener.family
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        threading.Thread(target=self.serve_forever, name="page", daemon=True).start()

    @property
    def clients(self) -> int:
        """How many are being answered."""
        return len(self._clients)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a client in a thread of its own."""
        with self._lock:
            if len(self._clients) >= _CLIENTS_MOST:
                oldest = next(iter(self._clients))
                del self._clients[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread then ends
            self._clients[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Let a client go."""
        with self._lock:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what has failed here; a client that is slow or has gone is no news."""
        if not isinstance(sys.exc_info()[1], OSError):
            _log.exception("cannot answer a request for the status")


class _Handler(http.server.BaseHTTPRequestHandler):
    server: StatusServer
    timeout = _CLIENT_S  # of each read and write

    def do_GET(self) -> None:
        kind = "application/json"
        code = 200
        if self.path == "/metrics":
            body = prometheus_client.generate_latest(self.server.registry)
            kind = prometheus_client.CONTENT_TYPE_LATEST
        elif self.path in ("/livez", "/healthz", "/readyz", "/status"):
            status = self.server.status()
            is_well = {
                "/livez": status.get("alive", status["healthy"]),
                "/healthz": status["healthy"],
                "/readyz": status["ready"],
            }.get(self.path, True)
            code = 200 if is_well else 503
            body = json.dumps(status, default=str).encode()
        else:
            code, body = 404, b'{"error": "try /metrics, /livez, /healthz, /readyz or /status"}'
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a scrape every few seconds is no news."""


def own_version() -> str:
    """Return the installed version of Everyline."""
    from importlib import metadata

    return metadata.version("everyline")


def data_directory(path: str) -> Path:
    """Return ``path`` as a directory that exists; raise SettingError if it cannot."""
    directory = Path(os.path.expanduser(path))
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(f"cannot make the directory {directory}: {error}") from error
    return directory
