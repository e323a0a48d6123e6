"""The level of a message, found as the indexer finds it, so that rules and rows agree.

The bytes of one message go in, the name of its level comes out. ``collector/levels.py`` says how
it is found; here that is done by regular expressions, since the collector loads no compiler. A test
compares it with the indexer's kernel.
"""

import re

from collector.levels import (
    JSON_BYTES,
    KEYS,
    LETTERS,
    NUMBERS,
    TEXT_BYTES,
    TEXT_KEYS,
    UNKNOWN,
    WORDS,
)
from collector.tokens import TOKEN_BYTES

# What a word, a number or a letter stands for.
_MEANS = {word.encode(): level for level, words in WORDS.items() for word in words}
_MEANS |= {b"%d" % number: level for number, level in NUMBERS.items()}
_LETTER_MEANS = {letter.encode(): level for letter, level in LETTERS.items()}

_WORD = b"|".join(word.encode() for words in WORDS.values() for word in words)
_END = rb"(?![%b])" % TOKEN_BYTES
_VALUE = rb'"?(?P<value>' + _WORD + rb"|[1-5]\d|60)" + _END

_JSON_KEY = b"|".join(re.escape(key.encode()) for key in KEYS)
# A level's key with a value that is one, or else any string, so that no key is found inside of one.
_JSON = re.compile(
    rb'"(?:(?:' + _JSON_KEY + rb')" *: *' + _VALUE + rb'|(?:[^"\\]|\\.)*+\\?(?:"|\Z))',
    re.IGNORECASE | re.DOTALL,
)
_LETTER = re.compile(
    rb"([%b])(?:\d{4})?\d{4} \d\d:\d\d:|.{4}-.{21} ([%b]) \| |.{10}T.{12}[+-].{4} ([%b]) "
    % ((b"".join(_LETTER_MEANS),) * 3),
    re.DOTALL,
)
_FIRST = re.compile(rb"(" + _WORD + rb"):", re.IGNORECASE)
# Each alternative is told by one character, which few characters are: that is what makes it fast.
_NO_TOKEN = rb"[^%b]" % TOKEN_BYTES
_KEY = b"|".join(
    rb"(?<=%b%b=)" % (before, key)
    for key in map(str.encode, TEXT_KEYS)
    for before in (rb"\A", _NO_TOKEN)
)
_NO_UPPER_KEY = b"".join(rb"(?<!%b=)" % key.upper().encode() for key in TEXT_KEYS)
_TEXT = re.compile(
    rb"[A-Z\[=\]\t](?:"
    rb"(?<=(?=(?P<upper>" + _WORD.upper() + rb")" + _END + rb")(?<![%b])[A-Z])" % TOKEN_BYTES
    + rb"|(?<=\[)(?i:(?P<word>" + _WORD + rb"))(?=\])"
    + rb"|(?<=\]) (?i:(?P<titled>" + _WORD + rb"))(?=:)"
    + rb"|(?<=\t)(?i:(?P<column>" + _WORD + rb"))(?=\t)"
    # The indexer takes a key in upper case for a word, which it is not.
    + rb"|(?<==)" + _NO_UPPER_KEY + rb"(?i:(?:" + _KEY + rb")" + _VALUE + rb"))"
)  # fmt: skip


def level_of(message: bytes) -> str:
    """Return one of ``levels.LEVELS``, or UNKNOWN."""
    if message.startswith(b"{"):
        for found in _JSON.finditer(message, 1):
            if found.start() >= JSON_BYTES:
                break
            if found["value"]:
                return _MEANS[found["value"].lower()]
    if letter := _LETTER.match(message):
        return _LETTER_MEANS[letter[letter.lastindex or 0]]
    if first := _FIRST.match(message):
        return _MEANS[first[1].lower()]
    # A key that ends in the first bytes may have its value behind them.
    if text := _TEXT.search(message, 0, TEXT_BYTES + 16):
        name = text.lastgroup or ""
        if (text.start() if name == "value" else text.end(name)) <= TEXT_BYTES:
            return _MEANS[text[name].lower()]
    return UNKNOWN
