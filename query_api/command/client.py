"""A client of the query service, for the command and for programs; standard library only.

Parameters go in, the service's JSON comes out as dictionaries, or its records one by one. An
error of the service is raised with its code, hint and column; an answer that was cut off is one.
"""

import http.client
import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from indexer.times import SECOND_NS, format_time, from_rfc_3339
from query_api.errors import ServiceError, ServiceUnavailable

_TIMEOUT_S = 120.0
FOLLOW_PAGE_ROWS = 1_000
LATE_S = 600
"""How old the time of a line may be when it comes, so that a follower still shows it."""

_WIDE_POLLS = 10  # every so many polls look back so far
SEEN_MAX = 100_000
"""So many rows are remembered as shown; where more are younger than LATE_S, older ones are not
asked for again."""

Parameters = Mapping[str, Any]


class Client:
    """Asks one service; each question has its own connection."""

    def __init__(self, url: str) -> None:
        """Take the service's base URL; raise ServiceUnavailable if it is not a URL."""
        parts = urllib.parse.urlsplit(url)
        try:
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
            is_url = is_url and parts.port != 0
        except ValueError:  # the port is no number
            is_url = False
        if not is_url:
            raise ServiceUnavailable(f"{url!r} is not a URL; write http://HOST:PORT")
        self.url = url.rstrip("/")
        self._parts = parts

    def get(self, path: str, parameters: Parameters) -> dict[str, Any]:
        """Return the JSON answer to a question."""
        with self._ask(path, parameters, "application/json") as response:
            return self._json(self._read(response))

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON answer to a request that changes something."""
        text = json.dumps(body).encode()
        with self._ask(path, {}, "application/json", text) as response:
            return self._json(self._read(response))

    def records(self, path: str, parameters: Parameters) -> Iterator[bytes]:
        """Yield the lines of a streamed answer; raise if the last record has not come."""
        line = b""
        with self._ask(path, parameters, "application/x-ndjson") as response:
            try:
                for line in response:
                    yield line
            except (OSError, http.client.HTTPException) as error:
                raise self._unavailable(error) from error
        if not line.endswith(b"\n") or "completeness" not in self._json(line):
            raise ServiceUnavailable("the answer ended before its last record; ask again")

    def _ask(
        self, path: str, parameters: Parameters, accept: str, body: bytes | None = None
    ) -> http.client.HTTPResponse:
        # What is empty goes along: the service refuses it, and it must not mean "any".
        given = {name: value for name, value in parameters.items() if value is not None}
        query = urllib.parse.urlencode(given, doseq=True)
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._parts.netloc.rpartition("@")[2], timeout=_TIMEOUT_S)
        try:
            target = f"{self._parts.path.rstrip('/')}{path}?{query}"
            headers = {"Accept": accept, "Connection": "close"}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request("GET" if body is None else "POST", target, body, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unavailable(error) from error
        if response.status != 200:
            with response:
                raise ServiceError(self._json(self._read(response)).get("error", {}))
        return response

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unavailable(error) from error

    def _json(self, body: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ServiceUnavailable(
                f"{self.url} answers, but is not the query service of Everyline"
            )
        return answer

    def _unavailable(self, error: Exception) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"cannot reach the query service at {self.url}: {error}; is it running? (--url)"
        )


class Follower:
    """New rows of a search, each once, in the order of time as far as they come in it.

    A poll asks again from ``complete_until`` on, and one in ten from LATE_S ago: what is complete
    says which bytes have come, and not which times later ones will have.
    """

    def __init__(self, client: Client, parameters: Parameters) -> None:
        """Name the search; its ``from``, ``to``, ``order`` and ``limit`` are set here."""
        self._client = client
        self._parameters = dict(parameters)
        self._floor = ""  # rows before it were never asked for
        self._from = ""
        self._wide = ""
        self._polls = 0
        self._seen: dict[tuple[str, str, int], None] = {}

    def start(self, first: Mapping[str, Any]) -> None:
        """Go on behind an answer whose rows have been shown, newest first."""
        rows = first["rows"]
        self._floor = rows[-1]["time"] if rows and first["next"] else first["from"]
        self._note(rows)
        self._move(first["completeness"]["complete_until"], first["to"])

    def poll(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the rows that are new, oldest first, and the completeness statement."""
        self._polls += 1
        from_ = self._from if self._polls % _WIDE_POLLS else self._wide
        asked = {**self._parameters, "from": from_, "to": "now", "order": "asc"}
        asked["limit"] = FOLLOW_PAGE_ROWS
        new: list[dict[str, Any]] = []
        while True:
            page = self._client.get("/v1/search", asked)
            late = (row for row in page["rows"] if row["time"] >= self._floor)
            new.extend(row for row in late if _key(row) not in self._seen)
            asked["cursor"] = page["next"]
            if not page["next"]:
                break
        self._note(new)
        completeness: dict[str, Any] = page["completeness"]
        self._move(completeness["complete_until"], page["to"])
        return new, completeness

    def _note(self, rows: list[dict[str, Any]]) -> None:
        self._seen.update(dict.fromkeys(map(_key, rows)))

    def _move(self, complete_until: str | None, now: str) -> None:
        """Ask from where rows may still come, and forget those that cannot come again."""
        if len(self._seen) > SEEN_MAX:
            kept = sorted(self._seen)[-SEEN_MAX // 2 :]
            self._floor = max(self._floor, kept[0][0])
        self._wide = max(self._floor, _seconds_before(now, LATE_S))
        self._from = max(self._wide, min(complete_until or self._wide, now))
        self._seen = {key: None for key in self._seen if key[0] >= self._wide}


def _key(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["time"], row["file_id"], row["offset"]


def _seconds_before(text: str, seconds: int) -> str:
    """Return a time of the service less some seconds, in the same form."""
    return format_time(from_rfc_3339(text) - seconds * SECOND_NS)


def follow(
    client: Client,
    parameters: Parameters,
    first: Mapping[str, Any],
    wait: Callable[[float], None],
    interval_s: float = 1.0,
) -> Iterator[list[dict[str, Any]]]:
    """Yield new rows behind an answer, for ever; a service that is away is asked again."""
    follower = Follower(client, parameters)
    follower.start(first)
    while True:
        wait(interval_s)
        try:
            rows, _ = follower.poll()
        except ServiceUnavailable:
            continue
        except ServiceError as error:
            if error.code not in ("table_unavailable", "version_gone"):
                raise
            continue
        if rows:
            yield rows
