"""Requests for deletion: who wants which rows removed, and why, as objects beside the table.

A request is stored once and never changed; a second object says when it was done and how many rows
went. Whoever may write to the bucket may ask, and every request stays readable afterwards.
"""

import re
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from collector.levels import LEVELS, UNKNOWN
from indexer.errors import BadRequest
from indexer.object_names import DONE, deletions_folder, done_name, is_done_name, request_name
from indexer.query.scope import WORDS, Scope
from indexer.query.tree import EVERYTHING
from indexer.store.bucket import Bucket

_Kind = TypeVar("_Kind")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class DeletionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows of ``[from_ns, to_ns)`` for which all that is named besides is true.

    It names what a search does, and means the rows that this would show. A column that is one word
    and no list, ``text`` and ``regex`` stand in requests of an earlier version only.
    """

    id: str
    requested_ns: int
    by: str
    reason: str
    from_ns: int
    to_ns: int
    query: str = ""  # in the language of a search; empty: whatever the message
    namespace: tuple[str, ...] | str = ()  # one of these values; none: any
    pod: tuple[str, ...] | str = ()
    container: tuple[str, ...] | str = ()
    node: tuple[str, ...] = ()
    level: tuple[str, ...] = ()
    text: str = ""  # stands in the message, to the letter
    regex: str = ""  # RE2, found in the message

    @property
    def scope(self) -> Scope:
        """The span of time and the values of columns that it names."""
        named = {name: getattr(self, name) for name in WORDS}
        equals = {
            name: (value,) if isinstance(value, str) else value
            for name, value in named.items()
            if value
        }
        return Scope(self.from_ns, self.to_ns, equals)


class Deletion(msgspec.Struct, frozen=True):
    """What became of a request: no row of the table's ``version`` fits it any more."""

    request: str
    rows: int
    version: int
    done_ns: int


class Requests:
    """The requests of one cluster in a bucket."""

    def __init__(self, bucket: Bucket, cluster: str) -> None:
        """Name the place; nothing is read yet."""
        self._bucket = bucket
        self._folder = deletions_folder(cluster)

    def add(self, request: DeletionRequest) -> None:
        """Store a request; raise BadRequest if it makes none, ObjectExists if its id is used."""
        checked(request)
        self._bucket.put(request_name(self._folder, request.id), msgspec.json.encode(request))

    def finish(self, deletion: Deletion) -> None:
        """Store that a request is done."""
        name = done_name(request_name(self._folder, deletion.request))
        self._bucket.put(name, msgspec.json.encode(deletion))

    def all(self) -> Iterator[tuple[DeletionRequest, Deletion | None]]:
        """Yield every request with what became of it, in the order of their ids.

        Raises BadRequest for an object that holds none, once all others are yielded.
        """
        names = sorted(self._bucket.names(self._folder))
        bad: BadRequest | None = None
        for name in names:
            if is_done_name(name):
                continue
            done = done_name(name)
            try:
                request = self._decoded(name, DeletionRequest)
                deletion = self._decoded(done, Deletion) if done in names else None
            except BadRequest as error:
                bad = bad or error
                continue
            yield request, deletion
        if bad is not None:
            raise bad

    def _decoded(self, name: str, kind: type[_Kind]) -> _Kind:
        try:
            return msgspec.json.decode(self._bucket.get(name), type=kind)
        except msgspec.MsgspecError as error:
            raise BadRequest(f"object {name} is no {kind.__name__}: {error}") from error


def checked(request: DeletionRequest) -> DeletionRequest:
    """Return the request; raise BadRequest if it makes no sense, BadQuery for such a query."""
    if not _ID.fullmatch(request.id) or request.id.endswith(DONE):
        raise BadRequest(f"request id {request.id!r}: use letters, digits, '.', '_' and '-'")
    if not request.by or not request.reason:
        raise BadRequest("a request for deletion needs a name of who asks, and a reason")
    if not all(-(2**63) <= time_ns < 2**63 for time_ns in (request.from_ns, request.to_ns)):
        raise BadRequest("a request for deletion has times that 64 bits of nanoseconds can hold")
    if request.from_ns >= request.to_ns:
        raise BadRequest("a request for deletion must end after it begins")
    _check_rows(request)
    if request.regex:
        _check_regex(request)
    return request


def _check_rows(request: DeletionRequest) -> None:
    """Raise BadRequest if what is to name the rows is empty, unknown, or more than it seems."""
    equals = request.scope.equals
    if request.namespace == "":
        raise BadRequest("a request for deletion needs a namespace")
    for name, values in equals.items():
        if "" in values:
            raise BadRequest(f"a request for deletion has an empty {name}")
        if pattern := next((value for value in values if "*" in value), ""):
            raise BadRequest(
                f"{name} {pattern!r} of a request for deletion is a pattern; put {name}:{pattern} "
                "into its query"
            )
    for level in request.level:
        if level not in (*LEVELS, UNKNOWN):
            raise BadRequest(f"level {level!r} of a request for deletion is none")
    if request.text and request.regex:
        raise BadRequest("a request for deletion takes a text or a regular expression, not both")
    from indexer.query.parse import parse_query  # as below; a grammar is an extra too

    asks = parse_query(request.query) != EVERYTHING
    if request.query and not asks:
        raise BadRequest("a request for deletion has an empty query")
    if not equals and not asks:
        raise BadRequest("a request for deletion must name a query, a namespace or another value")


def _check_regex(request: DeletionRequest) -> None:
    import pyarrow as pa  # not at the top: to ask for a deletion, a command loads no more
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), pattern=request.regex)
    except pa.ArrowInvalid as error:
        raise BadRequest(f"request {request.id}: {error}") from error
