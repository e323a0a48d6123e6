"""What a token of a message is: a run of ASCII letters, digits, ``_``, and all that is not ASCII.

The bytes of one are given in the two forms that others need. Rules and levels, the filters of
segments and the terms of a query all go by this, so that they agree where a word begins and ends.
"""

import re
from collections.abc import Iterator

TOKEN_BYTES = rb"0-9A-Za-z_\x80-\xff"
"""The bytes of a token, as they stand in the brackets of a regular expression."""

IN_TOKEN = bytes(
    re.fullmatch(rb"[%b]" % TOKEN_BYTES, bytes([byte])) is not None for byte in range(256)
)
"""For each byte, 1 if it is one of a token, else 0."""

_TOKEN = re.compile(rb"[%b]+" % TOKEN_BYTES)


def tokens_within(text: str, starts_token: bool, ends_token: bool) -> Iterator[bytes]:
    """Yield the tokens that each message with ``text`` in it holds, in either case, lower-cased.

    Those at the edges of the text are whole only where ``starts_token`` says that no character of
    a token stands before it, and ``ends_token`` that none stands behind it.
    """
    data = text.encode("utf-8", "surrogatepass")
    for found in _TOKEN.finditer(data):
        start, end = found.span()
        if (start or starts_token) and (end < len(data) or ends_token):
            yield found[0].lower()
