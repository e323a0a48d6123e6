"""The level of a message, found as the indexer finds it, so that rules and rows agree.

The bytes of one message go in, the name of its level comes out. ``collector/levels.py`` says how
it is found; here that is done without a compiler, which the collector does not load. A test
compares it with the indexer's kernel.
"""

import re

from collector.levels import (
    BARE_BYTES,
    INF,
    JSON_BYTES,
    KEYS,
    LETTERS,
    LOG,
    NUMBERS,
    SEVERITIES,
    SIGNS,
    TEXT_BYTES,
    TEXT_KEYS,
    UNKNOWN,
    WORDS,
)
from collector.token_bytes import TOKEN_BYTES

# What a word, a number, a letter or a sign stands for.
_MEANS = {word.encode(): level for level, words in WORDS.items() for word in words}
_NUMBERS = {b"%d" % number: level for number, level in NUMBERS.items()}
_LETTER_MEANS = {letter.encode(): level for letter, level in (LETTERS | SIGNS).items()}
_LETTER_MEANS[b"D"] = "debug"  # MongoDB's

_MARK = "\ufeff".encode()
_COLOUR = re.compile(rb"\x1b\[[^@-~]*[@-~]")

_KEYS = frozenset(key.encode() for key in KEYS)
_TEXT_KEYS = frozenset(key.encode() for key in TEXT_KEYS)
_IS_JSON = re.compile(rb'\{[ \t\r]*(?:["}]|\Z)')
_JSON_PARTS = re.compile(rb'[{\[]|[}\]]|"((?:[^"\\]|\\.)*+)\\?(?:"|\Z)', re.DOTALL)
_COLON = re.compile(rb" *: *")
_VALUE = re.compile(rb'"?([%b]+)' % TOKEN_BYTES)

_LETTER = re.compile(
    rb"([%b])(?:\d{4})?\d{4} \d\d:\d\d:|.{4}-.{21} ([%b]) \| |.{10}T.{12}[+-].{4} ([%b]) "
    % ((b"".join(letter.encode() for letter in LETTERS),) * 3)
    + rb'|\{"t":\{"\$date":"[^"]{1,40}"\},"s":"([FEWID])'
    + rb"|(?:\d{1,8}:[A-Z]|\[\d{1,8}\]) \d\d [A-Z][a-z][a-z] (?:\d{4} )?\d\d:\d\d:\d\d\.\d{3} "
    + rb"([.\-*#]) ",
    re.DOTALL,
)
_PRIORITY = re.compile(rb"<(\d{1,3})>")
_PHP = re.compile(rb"(?:PHP )?(?:(Fatal)|Parse) error:")

# The words that may say a level; whether one does, its surroundings tell.
_CANDIDATE = re.compile(
    rb"(?<![%b])(?:%b)(?![%b])"
    % (
        TOKEN_BYTES,
        b"|".join(sorted({*_MEANS, *_TEXT_KEYS, LOG.encode(), INF.encode()}, reverse=True)),
        TOKEN_BYTES,
    ),
    re.IGNORECASE,
)
_LETTERED = re.compile(rb"[A-SU-Y_a-su-y\x80-\xff]")
_IN_BRACKET = re.compile(rb"\[[%b:.\-]*\Z" % TOKEN_BYTES)


def level_of(message: bytes) -> str:
    """Return one of ``levels.LEVELS``, or UNKNOWN."""
    text = _bare(message)
    if _IS_JSON.match(text):
        found = _letter_level(text) if text.startswith(b'{"t":') else UNKNOWN
        return _json_level(text) if found == UNKNOWN else found
    found = _letter_level(text)
    if found != UNKNOWN:
        return found
    if php := _PHP.match(text):
        return "fatal" if php[1] else "error"
    if text.startswith(b"PHP "):
        text = text[4:]
    for candidate in _CANDIDATE.finditer(text, 0, TEXT_BYTES + 16):
        if candidate.end() > TEXT_BYTES:
            break
        found = _text_level(text, candidate.start(), candidate.end())
        if found != UNKNOWN:
            return found
    return UNKNOWN


def _bare(message: bytes) -> bytes:
    text = message.removeprefix(_MARK)
    if b"\x1b" in text[:BARE_BYTES]:
        text = _COLOUR.sub(b"", text[:BARE_BYTES])
    return text


def _letter_level(text: bytes) -> str:
    if letter := _LETTER.match(text):
        return _LETTER_MEANS[letter[letter.lastindex or 0]]
    priority = _PRIORITY.match(text)
    if priority and int(priority[1]) < 192:
        return SEVERITIES[int(priority[1]) % 8]
    return UNKNOWN


def _json_level(text: bytes) -> str:
    depth, nested = 0, UNKNOWN
    for part in _JSON_PARTS.finditer(text):
        if part.start() >= JSON_BYTES:
            break
        key = part[1]
        if key is None:
            depth += 1 if part[0] in b"{[" else -1
        elif key.lower() in _KEYS and (colon := _COLON.match(text, part.end())):
            found = _value(text, colon.end())
            if found != UNKNOWN and depth == 1:
                return found
            nested = found if nested == UNKNOWN else nested
    return nested


def _value(text: bytes, at: int) -> str:
    value = _VALUE.match(text, at)
    if value is None:
        return UNKNOWN
    word = value[1].lower()
    return _MEANS.get(word) or _NUMBERS.get(word, UNKNOWN)


def _text_level(text: bytes, start: int, end: int) -> str:
    """Return the level that the word in ``[start, end)`` says where it stands."""
    word, before, after = text[start:end], text[max(0, start - 2) : start], text[end : end + 1]
    small = word.lower()
    quoted = text.count(b'"', 0, start) % 2 == 1
    if after == b"=":
        outside = not quoted and before[-1:] not in (b"?", b"&")
        return _value(text, end + 1) if small in _TEXT_KEYS and outside else UNKNOWN
    titled = after == b":" and (before == b"] " or not _LETTERED.search(text, 0, start))
    bracket = after == b"]" and (
        before[-1:] == b"[" or (before[-1:] == b":" and _IN_BRACKET.search(text, 0, start))
    )
    upper = word == word.upper() and not any(48 <= byte <= 57 for byte in word)
    if small == LOG.encode():
        return "info" if upper and text[end : end + 3] == b":  " and not quoted else UNKNOWN
    if small == INF.encode():
        named = upper and after == b"]" and before[-1:] in (b" ", b"[")
        return "info" if named else UNKNOWN
    alone = not quoted or (before[-1:] == b'"' and after == b'"' and before != b'="')
    free = alone and before[-1:] not in (b"=", b"/", b"?", b"&", b"%")
    told = upper and free and not (small == b"trace" and text[end : end + 2] == b" /")
    told = told or (titled and not quoted) or bool(bracket)
    told = told or (after == b"\t" and before[-1:] == b"\t")
    return _MEANS.get(small, UNKNOWN) if told else UNKNOWN
