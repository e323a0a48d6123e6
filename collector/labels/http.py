"""One HTTP GET as the metadata of pods needs it: an answer at once, or one that never ends.

An address and the files of a token and an authority go in; the answer comes out in pieces. Both
files are read for each request, since they are replaced while the process runs. Every wait has an
end, every answer a largest size, and the token stands in no error.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from collector.errors import MetadataError, MetadataExpired

_PIECE_BYTES = 65_536
_SAID_CHARACTERS = 300
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class _Status(msgspec.Struct):
    """What Kubernetes says instead of an answer."""

    message: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask, as whom, and how long to wait; ``may`` is the permission it takes."""

    url: str
    ca: str
    token_file: str
    verify: bool
    may: str
    timeout_s: float
    response_bytes: int

    @contextlib.asynccontextmanager
    async def get(self, target: str, accept: str) -> AsyncIterator["Response"]:
        """Ask for ``target`` (path and query) and give the answer if it is 200.

        Raises MetadataError, also for what goes wrong while the answer is read.
        """
        where = urlsplit(self.url)
        token = self._token() if where.scheme == "https" else ""
        tls = self._context() if where.scheme == "https" else None
        writer = None
        try:
            async with asyncio.timeout(self.timeout_s):
                reader, writer = await asyncio.open_connection(
                    where.hostname, where.port or (443 if tls else 80), ssl=tls
                )
                _keep_alive(writer.get_extra_info("socket"))
                writer.write(_request(where.netloc, target, accept, token))
                answer = await _head(reader, self.response_bytes)
                if answer.status != 200:
                    raise self._refusal(answer, await answer.body(), token)
            yield answer
        except TimeoutError as error:
            raise MetadataError(
                f"{self.url} has not answered in time; is it overloaded?"
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise MetadataError(
                f"{self.url}: {error.verify_message}; set metadata_ca to the authority that signs "
                "its certificate"
            ) from error
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise MetadataError(f"{self.url}: {error or type(error).__name__}") from error
        finally:
            if writer is not None:
                writer.transport.abort()  # nothing is left to say, and a goodbye could hang

    async def body(self, target: str, accept: str) -> bytes:
        """Return the whole answer; raise MetadataError as ``get`` does."""
        async with self.get(target, accept) as answer, asyncio.timeout(self.timeout_s):
            return await answer.body()

    def _token(self) -> str:
        if not self.token_file:
            return ""
        try:
            token = Path(self.token_file).read_text("ascii").strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no token in it"
            raise MetadataError(
                f"metadata_token_file {self.token_file}: {reason}; mount the token there"
            ) from None  # its text could show bytes of the file
        if not token.isprintable() or " " in token or not token:
            raise MetadataError(
                f"metadata_token_file {self.token_file}: no token in it; mount the token there"
            )
        return token

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:
            raise MetadataError(
                f"metadata_ca {self.ca}: {error}; put PEM certificates there"
            ) from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _refusal(self, answer: "Response", body: bytes, token: str) -> MetadataError:
        try:
            said = msgspec.json.decode(body, type=_Status).message
        except (msgspec.MsgspecError, ValueError):
            said = body.decode(errors="replace").strip()
        if token:
            said = said.replace(token, "(token)")
        text = f"{self.url} answers {answer.status}: {said[:_SAID_CHARACTERS]}"
        if answer.status == 410:
            return MetadataExpired(text)
        if answer.status == 401:
            text += f"; the token in {self.token_file or '(no file)'} is not accepted, or expired"
        if answer.status == 403:
            text += f"; grant {self.may} to the collector's service account"
        return MetadataError(text, _seconds(answer.headers.get("retry-after", "")))


class Response:
    """Status and headers of an answer, and its body as it comes."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        status: int,
        headers: Mapping[str, str],
        most_bytes: int,
    ) -> None:
        """Take the body from ``reader``; no answer or line of it may exceed ``most_bytes``."""
        self.status = status
        self.headers = headers
        self._reader = reader
        self._most_bytes = most_bytes
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        # Bytes left of the chunk, or of the body; None: until the connection ends.
        self._left = 0 if self._chunked else None if length is None else _size(length, 10)
        self._ended = False

    async def body(self) -> bytes:
        """Return all of it; raise EOFError if it was cut off."""
        body = bytearray()
        while piece := await self._piece():
            body += piece
            self._check(len(body))
        return bytes(body)

    async def lines(self, most_s: float) -> AsyncGenerator[bytes, None]:
        """Yield each line as it comes; raise TimeoutError if that does not end in so long."""
        rest = b""
        end = asyncio.get_running_loop().time() + most_s
        while True:
            async with asyncio.timeout_at(end):
                piece = await self._piece()
            if not piece:
                return
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line
            self._check(len(rest))

    def _check(self, size: int) -> None:
        if size > self._most_bytes:
            raise MetadataError(
                f"an answer is longer than {self._most_bytes} bytes; raise metadata_response_bytes"
            )

    async def _piece(self) -> bytes:
        """Return some bytes of the body, none at its end."""
        if self._ended:
            return b""
        if self._chunked and not self._left:
            line = (await self._reader.readuntil(b"\n")).decode("latin-1")
            self._left = _size(line.partition(";")[0], 16)
        if self._left == 0:
            self._ended = True  # trailers are left where they are: the connection is not kept
            return b""
        piece = await self._reader.read(min(self._left or _PIECE_BYTES, _PIECE_BYTES))
        if self._left is not None:
            if not piece:
                raise EOFError("the answer was cut off")
            self._left -= len(piece)
            if self._chunked and not self._left:
                await self._reader.readexactly(2)
        return piece


def _keep_alive(connection: socket.socket) -> None:
    """Let the kernel find out within a minute that nobody is there any more.

    A watch may rightly be silent for its whole time: where no pod changes, no bookmark comes.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _request(host: str, target: str, accept: str, token: str) -> bytes:
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        f"Accept: {accept}",
        "User-Agent: everyline-collector",
        "Connection: close",
    ]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _head(reader: asyncio.StreamReader, most_bytes: int) -> Response:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head.rstrip().split("\r\n")
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("what answers there does not speak HTTP/1.1")
    headers = {name.strip().lower(): value.strip() for name, _, value in
               (line.partition(":") for line in rest)}  # fmt: skip
    return Response(reader, int(status[:3]), headers, most_bytes)


def _size(text: str, base: int) -> int:
    size = int(text, base)
    if size < 0:
        raise ValueError("an answer of a negative size")
    return size


def _seconds(text: str) -> float:
    """Return a Retry-After in seconds; Kubernetes sends no dates."""
    return float(text) if text.isascii() and text.isdigit() else 0.0
