"""The process ``everyline query``: settings, a loopback socket, signals, the HTTP service."""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence

import uvicorn

from collector.errors import SettingError
from collector.process import (
    address_of,
    listening,
    load_settings,
    log_to_stderr,
    look_for_cycles_rarely,
)
from query_api.http.app import make_app
from query_api.settings import QuerySettings

_log = logging.getLogger(__name__)
_GRACE_S = 5


class _Server(uvicorn.Server):
    """Signals are handled here: uvicorn's way ends a process by the signal, not by an exit code."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the query service until it is told to stop; return the exit code."""
    settings = load_settings(QuerySettings, "query", argv, environ)
    log_to_stderr(settings.log_level)
    look_for_cycles_rarely()
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with _listening(settings.listen) as listener:
        asyncio.run(_serve(settings, listener))
    return 0


def _listening(address: str) -> socket.socket:
    """Return a socket that listens on a loopback address; raise SettingError for another."""
    listener = listening(address, backlog=256)
    if ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback:
        return listener
    listener.close()
    raise SettingError(
        f"listen={address!r} can be reached from other machines, and the service asks nobody "
        "who they are; listen on 127.0.0.1 and let a proxy that does pass requests on"
    )


async def _serve(settings: QuerySettings, listener: socket.socket) -> None:
    config = uvicorn.Config(
        make_app(settings), log_config=None, timeout_graceful_shutdown=_GRACE_S, lifespan="on"
    )
    server = _Server(config)

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    _log.info("listening", extra={"address": address_of(listener), "bucket": settings.bucket})
    await server.serve(sockets=[listener])
    _log.info("stopped")
