"""Where the next page of an answer starts, as an opaque text that only this table's services make.

A key, a version and bounds go in and come out as they were; a text of another question is refused,
and so is one whose signature says that it was not made for this table.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass

from query_api.errors import BadParameter
from query_api.scan.segment import Key

_SIGNATURE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the next page starts: behind ``key`` in ``version``, for the same question.

    ``verdict`` is what the ledger of that version said of the question.
    """

    version: int
    key: Key
    question: str
    from_ns: int
    to_ns: int
    verdict: str


def write_cursor(cursor: Cursor, secret: bytes) -> str:
    """Return the opaque text of a cursor, signed with the secret of its table."""
    time_ns, file_id, epoch, offset = cursor.key
    plain = [cursor.version, time_ns, file_id.hex(), epoch, offset]
    body = json.dumps(
        [*plain, cursor.question, cursor.from_ns, cursor.to_ns, cursor.verdict]
    ).encode()
    return base64.urlsafe_b64encode(_signature(body, secret) + body).decode().rstrip("=")


def _signature(body: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, body, hashlib.sha256)[:_SIGNATURE_BYTES]


def read_cursor(text: str, question: str, secret: bytes) -> Cursor:
    """Return the cursor in a text.

    Raises BadParameter if it is none, was not made for this table, or is of another question.
    """
    try:
        signed = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        signature, body = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, _signature(body, secret)):
            raise ValueError("not signed by a service of this table")
        version, time_ns, file_id, epoch, offset, asked, from_ns, to_ns, verdict = json.loads(body)
        key = (time_ns, bytes.fromhex(file_id), epoch, offset)
        cursor = Cursor(version, key, asked, from_ns, to_ns, verdict)
    except (ValueError, TypeError) as error:
        hint = "take `next` of the previous page as it is, or leave it out"
        raise BadParameter("cursor cannot be read", hint) from error
    if cursor.question != question:
        hint = "give the same parameters as for the previous page"
        raise BadParameter("cursor belongs to another question", hint)
    return cursor
