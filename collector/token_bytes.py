"""What a token of a message is: a run of ASCII letters, digits, ``_``, and all that is not ASCII.

The bytes of one are given in the two forms that others need. Rules and levels, the filters of
segments and the terms of a query all go by this, so that they agree where a word begins and ends.
"""

import re

TOKEN_BYTES = rb"0-9A-Za-z_\x80-\xff"
"""The bytes of a token, as they stand in the brackets of a regular expression."""

IN_TOKEN = bytes(
    re.fullmatch(rb"[%b]" % TOKEN_BYTES, bytes([byte])) is not None for byte in range(256)
)
"""For each byte, 1 if it is one of a token, else 0."""
