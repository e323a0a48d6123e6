"""The level of a message, found as the indexer finds it, so that rules and rows agree.

The bytes of one message go in, the name of its level comes out. The words, the places where they
count and their order are those of the indexer's kernel, which a test compares with this; here they
are regular expressions, since the collector loads no compiler.
"""

import re

from collector.tokens import TOKEN_BYTES

WORDS = {
    "trace": ("trace", "trc"),
    "debug": ("debug", "debu", "dbg"),
    "info": ("info", "information", "notice"),
    "warn": ("warn", "wrn", "warning"),
    "error": ("error", "err", "erro", "severe"),
    "fatal": ("fatal", "fata", "ftl", "critical", "crit", "panic", "alert", "emerg", "emergency"),
}
LEVELS = tuple(WORDS)
UNKNOWN = "unknown"

_TEXT_BYTES = 256
_JSON_BYTES = 4096

# What a word or number stands for; numbers are those of pino and bunyan.
_MEANS = {word.encode(): level for level, words in WORDS.items() for word in words}
_MEANS |= {b"%d" % n: LEVELS[n // 10 - 1] for n in range(10, 61)}
_LETTER_MEANS = {
    b"I": "info",
    b"N": "info",
    b"W": "warn",
    b"E": "error",
    b"F": "fatal",
    b"C": "fatal",
}

_WORD = b"|".join(word.encode() for words in WORDS.values() for word in words)
_END = rb"(?![%b])" % TOKEN_BYTES
_VALUE = rb'"?(?P<value>' + _WORD + rb"|[1-5]\d|60)" + _END

# A level's key with a value that is one, or else any string, so that no key is found inside of one.
_JSON = re.compile(
    rb'"(?:(?:level|severity|lvl|log\.level|loglevel|levelname)" *: *'
    + _VALUE
    + rb'|(?:[^"\\]|\\.)*+\\?(?:"|\Z))',
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
    for key in (b"level", b"lvl", b"severity")
    for before in (rb"\A", _NO_TOKEN)
)
_TEXT = re.compile(
    rb"[A-Z\[=\]\t](?:"
    rb"(?<=(?=(?P<upper>" + _WORD.upper() + rb")" + _END + rb")(?<![%b])[A-Z])" % TOKEN_BYTES
    + rb"|(?<=\[)(?i:(?P<word>" + _WORD + rb"))(?=\])"
    + rb"|(?<=\]) (?i:(?P<titled>" + _WORD + rb"))(?=:)"
    + rb"|(?<=\t)(?i:(?P<column>" + _WORD + rb"))(?=\t)"
    # The indexer takes a key in upper case for a word, which it is not.
    + rb"|(?<==)(?<!LEVEL=)(?<!LVL=)(?<!SEVERITY=)(?i:(?:" + _KEY + rb")" + _VALUE + rb"))"
)  # fmt: skip


def level_of(message: bytes) -> str:
    """Return one of LEVELS, or UNKNOWN."""
    if message.startswith(b"{"):
        for found in _JSON.finditer(message, 1):
            if found.start() >= _JSON_BYTES:
                break
            if found["value"]:
                return _MEANS[found["value"].lower()]
    if letter := _LETTER.match(message):
        return _LETTER_MEANS[letter[letter.lastindex or 0]]
    if first := _FIRST.match(message):
        return _MEANS[first[1].lower()]
    # A key that ends in the first bytes may have its value behind them.
    if text := _TEXT.search(message, 0, _TEXT_BYTES + 16):
        name = text.lastgroup or ""
        if (text.start() if name == "value" else text.end(name)) <= _TEXT_BYTES:
            return _MEANS[text[name].lower()]
    return UNKNOWN
