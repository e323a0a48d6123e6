"""A proxy on loopback in front of an HTTP server, which does to requests what networks do.

Requests go in and are forwarded as they are, so that their signatures stay valid; for each one a
fault may be armed that refuses, holds, cuts or alters it. A fault counts how often it has struck,
so that a test can tell that it did. What is held is let go, and every thread ends, with the proxy.
"""

import contextlib
import http.client
import random
import re
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.real_parts.s3 import Bucket

_TIMEOUT_S = 60.0
# These are about one connection, and the proxy has two.
_HOP = frozenset({"connection", "expect", "keep-alive", "transfer-encoding"})


@dataclass(frozen=True)
class Answer:
    """What the server, or a fault in its place, says."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


@dataclass(frozen=True)
class Exchange:
    """A request that has come in whole, and the ways to go on with it."""

    method: str
    path: str  # with its query
    headers: Sequence[tuple[str, str]]
    body: bytes
    server: str  # host:port
    client: "_Client"

    def forward(self, share: float = 1.0) -> Answer:
        """Send the request to the server and return its answer.

        With a ``share`` below one, only so much of the body is sent, and the answer is empty.
        """
        connection = http.client.HTTPConnection(self.server, timeout=_TIMEOUT_S)
        try:
            connection.putrequest(self.method, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers:
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            connection.endheaders(self.body[: int(len(self.body) * share)])
            if share < 1:
                return Answer(0)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def answer(self, answer: Answer, share: float = 1.0) -> None:
        """Answer the client; with a ``share`` below one, cut the connection within the body."""
        client = self.client
        client.send_response_only(answer.status)
        for name, value in answer.headers:
            # A HEAD tells the length of what it does not send.
            if name.lower() not in _HOP and (
                self.method == "HEAD" or name.lower() != "content-length"
            ):
                client.send_header(name, value)
        if self.method != "HEAD":
            client.send_header("Content-Length", str(len(answer.body)))
        client.end_headers()
        client.wfile.write(answer.body[: int(len(answer.body) * share)])
        if share < 1:
            self.cut()

    def cut(self) -> None:
        """Close the client's connection with no more said."""
        self.client.close_connection = True


Action = Callable[[Exchange], None]


def passing(exchange: Exchange) -> None:
    """Do nothing to a request: to count some."""
    exchange.answer(exchange.forward())


def error(status: int, code: str) -> Answer:
    """Return an answer of S3's that says that something went wrong."""
    body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    return Answer(status, (("Content-Type", "application/xml"),), body)


def refusing(status: int, code: str, *, done: bool = False) -> Action:
    """Answer with an error: 500 InternalError, 503 SlowDown, 409 ConditionalRequestConflict, …

    With ``done`` the server has done all the same what was asked.
    """

    def act(exchange: Exchange) -> None:
        if done:
            exchange.forward()
        exchange.answer(error(status, code))

    return act


def cutting(*, done: bool = False) -> Action:
    """Cut the connection without an answer; with ``done`` the server has done what was asked."""

    def act(exchange: Exchange) -> None:
        if done:
            exchange.forward()
        exchange.cut()

    return act


def cutting_request(share: float = 0.5) -> Action:
    """Cut both connections when only a part of the request's body has reached the server."""

    def act(exchange: Exchange) -> None:
        exchange.forward(share)
        exchange.cut()

    return act


def cutting_answer(share: float = 0.5) -> Action:
    """Cut the connection within the answer's body."""
    return lambda exchange: exchange.answer(exchange.forward(), share)


def pretending() -> Action:
    """Answer that it is done, and do nothing."""
    return lambda exchange: exchange.answer(Answer(200, (("ETag", '"00"'),)))


def without(header: str, bucket: Bucket) -> Action:
    """Forward without a header that asks for something, as to a server that does not know it."""
    return lambda exchange: exchange.answer(_signed(exchange, bucket, {header}).forward())


def storing_otherwise(change: Callable[[bytes], bytes], bucket: Bucket) -> Action:
    """Forward other content than the client has sent, of which it is told nothing."""

    def act(exchange: Exchange) -> None:
        changed = replace(exchange, body=change(exchange.body))
        about_old = {n for n, _ in exchange.headers if re.search("(?i)checksum|md5|sha256", n)}
        exchange.answer(_signed(changed, bucket, about_old).forward())

    return act


def _signed(exchange: Exchange, bucket: Bucket, leave_out: Collection[str]) -> Exchange:
    """Return a request without some headers, signed again."""
    gone = {"authorization", "x-amz-date", "content-length", *_HOP}
    gone |= {name.lower() for name in leave_out}
    kept = {name: value for name, value in exchange.headers if name.lower() not in gone}
    url = f"{bucket.endpoint}{exchange.path}"
    request = AWSRequest(exchange.method, url, kept, exchange.body)
    request.headers["Content-Length"] = str(len(exchange.body))
    credentials = Credentials(bucket.access_key, bucket.secret_key)
    S3SigV4Auth(credentials, "s3", bucket.region).add_auth(request)
    return replace(exchange, headers=request.headers.items())


def answering_otherwise(change: Callable[[Answer], Answer]) -> Action:
    """Forward, and change what the server answers."""
    return lambda exchange: exchange.answer(change(exchange.forward()))


def flipped(answer: Answer) -> Answer:
    """Return an answer with one bit in the middle of its body turned over."""
    body = bytearray(answer.body)
    body[len(body) // 2] ^= 1
    return replace(answer, body=bytes(body))


class Hold:
    """Holds each request, before the server sees it or, with ``done``, before its answer.

    ``release`` lets what is held go on by ``then``, and what comes later too.
    """

    def __init__(self, then: Action = passing, *, done: bool = False) -> None:
        self._then, self._done = then, done
        self._held = threading.Semaphore(0)
        self._released = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        """Hold one request."""
        answer = exchange.forward() if self._done else None
        self._held.release()
        self._released.wait(_TIMEOUT_S)
        if answer:
            exchange.answer(answer)
        else:
            self._then(exchange)

    def wait(self, timeout_s: float = 30.0) -> None:
        """Return when one more request is held; fail if none comes."""
        assert self._held.acquire(timeout=timeout_s), f"nothing to hold within {timeout_s} s"

    def release(self) -> None:
        """Let everything go on."""
        self._released.set()


class Delay:
    """Makes each request late, until the proxy is disarmed."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        """Pass one request on late."""
        self._over.wait(self._seconds)
        passing(exchange)

    def release(self) -> None:
        """Let everything go on."""
        self._over.set()


class Fault:
    """An action and the requests that it is for; ``struck`` counts those that it was done to."""

    def __init__(
        self,
        action: Action,
        method: str,
        path: str,
        first: int,
        times: int | None,
        chance: Callable[[], bool],
    ) -> None:
        self.action = action
        self._method, self._path = method, re.compile(path)
        self._first, self._times, self._chance = first, times, chance
        self.seen = 0
        self.struck = 0

    def strikes(self, method: str, path: str) -> bool:
        """Whether this request is one to act on; counts it."""
        if self._method not in ("", method) or not self._path.search(path):
            return False
        self.seen += 1
        if self.seen < self._first or self.struck == self._times or not self._chance():
            return False
        self.struck += 1
        return True


class FaultProxy:
    """A running proxy at ``endpoint``; without faults it changes nothing."""

    def __init__(self, endpoint: str) -> None:
        """Forward to the server at ``endpoint``, an URL of http on this machine."""
        self._to = endpoint.removeprefix("http://")
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.requests: list[str] = []  # "PUT /bucket/key", as they came
        self.failures: list[BaseException] = []  # of the proxy itself
        self._server = _Server(self)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def arm(
        self,
        action: Action,
        method: str = "",
        path: str = "",
        *,
        first: int = 1,
        times: int | None = 1,
        chance: float = 1.0,
        seed: int = 0,
    ) -> Fault:
        """Do ``action`` to requests of this method whose path and query hold the pattern.

        Strikes from the ``first`` such request on, so many ``times`` (None: always), each time
        with this ``chance``. Of several faults the one armed first that strikes is done.
        """
        dice = random.Random(seed)
        fault = Fault(action, method, path, first, times, lambda: dice.random() < chance)
        with self._lock:
            self._faults.append(fault)
        return fault

    def disarm(self) -> None:
        """Let go what is held, and pass everything from now on."""
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            if isinstance(fault.action, Hold | Delay):
                fault.action.release()

    def exchange(self, client: "_Client") -> None:
        """Serve one request of a client."""
        length = int(client.headers.get("Content-Length", 0))
        body = client.rfile.read(length)
        if len(body) < length:
            client.close_connection = True
            return
        method = client.command
        exchange = Exchange(method, client.path, client.headers.items(), body, self._to, client)
        with self._lock:
            self.requests.append(f"{method} {client.path}")
            found = [fault for fault in self._faults if fault.strikes(method, client.path)]
        (found[0].action if found else passing)(exchange)

    def close(self) -> None:
        """Let go what is held, cut every connection, and end; raise what went wrong in here."""
        self.disarm()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if self.failures:
            raise self.failures[0]


@contextlib.contextmanager
def a_fault_proxy(endpoint: str) -> Iterator[FaultProxy]:
    """Give a proxy in front of a server, and end it."""
    proxy = FaultProxy(endpoint)
    try:
        yield proxy
    finally:
        proxy.close()


class _Client(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"

    def _serve(self) -> None:
        self.server.proxy.exchange(self)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Client)
        self.proxy = proxy
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what is wrong with the proxy; that a client or the server has gone is not."""
        failure = sys.exception()
        if failure is not None and not isinstance(failure, OSError | http.client.HTTPException):
            self.proxy.failures.append(failure)

    def server_close(self) -> None:
        """Cut the connections that are open, and wait for their threads."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        super().server_close()
