"""Where the next page of an answer starts, as an opaque text.

A key and a version go in and come out as they were; a text of another question is refused.
"""

import base64
import json
from dataclasses import dataclass

from query_api.errors import BadParameter
from query_api.scan.segment import (
    Key,
)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the next page starts: behind ``key`` in ``version``, for the same question."""

    version: int
    key: Key
    question: str
    from_ns: int
    to_ns: int


def write_cursor(cursor: Cursor) -> str:
    """Return the opaque text of a cursor."""
    time_ns, file_id, epoch, offset = cursor.key
    plain = [cursor.version, time_ns, file_id.hex(), epoch, offset]
    text = json.dumps([*plain, cursor.question, cursor.from_ns, cursor.to_ns])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str, question: str) -> Cursor:
    """Return the cursor in a text; raise BadParameter if it is not one, or of another question."""
    try:
        body = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        version, time_ns, file_id, epoch, offset, asked, from_ns, to_ns = json.loads(body)
        key = (int(time_ns), bytes.fromhex(file_id), int(epoch), int(offset))
        cursor = Cursor(int(version), key, str(asked), int(from_ns), int(to_ns))
        if len(key[1]) != 16 or cursor.version < 0:
            raise ValueError("not of this service")
        for number in (time_ns, offset, from_ns, to_ns):
            int(number).to_bytes(8, "big", signed=True)
        cursor.key[2].to_bytes(4, "big", signed=True)
    except (ValueError, TypeError, OverflowError) as error:
        hint = "take `next` of the previous page as it is, or leave it out"
        raise BadParameter("cursor cannot be read", hint) from error
    if cursor.question != question:
        hint = "give the same parameters as for the previous page"
        raise BadParameter("cursor belongs to another question", hint)
    return cursor
