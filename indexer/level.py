"""The level of a row, read from the text of its message by a compiled kernel.

In come the messages of a parse, out goes an index into ``schema.LEVELS`` per row. The first rule
that finds a level wins, and in a rule the first place in the text:

1. JSON, where the message starts with ``{``: a key ``level``, ``severity``, ``lvl``,
   ``log.level``, ``loglevel`` or ``levelname`` (any case, any depth) that begins in the first
   4096 bytes, with a word of the table or a number of pino and bunyan as its value.
2. klog, at the start of the message: ``I``, ``W``, ``E`` or ``F``, then ``0102 15:04:``.
3. In the first 256 bytes: a whole token in upper case (``INFO``), a token in brackets
   (``[error]``, any case), or ``level=``, ``lvl=``, ``severity=`` with a value as in JSON.

| level | words | numbers | klog |
|---|---|---|---|
| trace | trace | 10-19 | |
| debug | debug | 20-29 | |
| info | info, information, notice | 30-39 | I |
| warn | warn, warning | 40-49 | W |
| error | error, err, severe | 50-59 | E |
| fatal | fatal, critical, crit, panic, alert, emerg, emergency | 60 | F |
"""

import numpy as np

from indexer.kernels import (
    BLANK,
    BRACE,
    CLOSING,
    COLON,
    EQUALS,
    OPENING,
    QUOTE,
    Bytes,
    Codes,
    Ints,
    compiled,
    integer,
    memchr,
    string_end,
)
from indexer.schema import LEVELS

_TEXT_BYTES = 256
_JSON_BYTES = 4096

_UNKNOWN = LEVELS.index("unknown")
_INFO, _WARN, _ERROR, _FATAL = (LEVELS.index(word) for word in ("info", "warn", "error", "fatal"))

# A word is compared by its length and its last eight bytes, in lower case, as one number.
_LOWER = 0x2020_2020_2020_2020


def _number(word: str) -> int:
    return int.from_bytes(word.encode()[-8:], "big") | _LOWER


_WORDS = {
    "trace": ("trace",),
    "debug": ("debug",),
    "info": ("info", "information", "notice"),
    "warn": ("warn", "warning"),
    "error": ("error", "err", "severe"),
    "fatal": ("fatal", "critical", "crit", "panic", "alert", "emerg", "emergency"),
}
_KEYS = ("level", "lvl", "severity", "log.level", "loglevel", "levelname")

_WORD_NUMBERS = np.array([_number(word) for words in _WORDS.values() for word in words])
_WORD_SIZES = np.array([len(word) for words in _WORDS.values() for word in words])
_WORD_LEVELS = np.array([LEVELS.index(level) for level, words in _WORDS.items() for _ in words])
_KEY_NUMBERS = np.array([_number(key) for key in _KEYS])
_KEY_SIZES = np.array([len(key) for key in _KEYS])
_TEXT_KEYS = 3  # the first three of _KEYS count in plain text too
_SIZE_MIN, _SIZE_MAX = 3, 11

_IN_WORD = np.array([chr(byte).isalnum() or byte == 95 for byte in range(128)] + [True] * 128)


@compiled
def _level_of(number: int, size: int) -> int:
    for i in range(_WORD_NUMBERS.size):
        if _WORD_NUMBERS[i] == number and _WORD_SIZES[i] == size:
            return int(_WORD_LEVELS[i])
    return _UNKNOWN


@compiled
def _is_key(number: int, size: int, keys: int) -> bool:
    for i in range(keys):  # noqa: SIM110 - a kernel knows no any()
        if _KEY_NUMBERS[i] == number and _KEY_SIZES[i] == size:
            return True
    return False


@compiled
def _value(text: Bytes, at: int, end: int) -> int:
    """Return the level that the word or the number at ``at``, quoted or not, stands for."""
    if at < end and text[at] == QUOTE:
        at += 1
    number = size = decimal = 0
    while at < end and size <= _SIZE_MAX and _IN_WORD[text[at]]:
        byte = integer(text[at])
        digit = 48 <= byte <= 57 and decimal >= 0
        decimal = decimal * 10 + byte - 48 if digit else -1
        number = (number << 8) | byte
        size += 1
        at += 1
    if size == 2 and 10 <= decimal <= 60:
        return int(decimal // 10 - 1)
    return _level_of(number | _LOWER, size)


@compiled
def _json_level(text: Bytes, start: int, end: int) -> int:
    base = text.ctypes.data
    at, stop = start + 1, min(end, start + _JSON_BYTES)
    while at < stop:
        found = memchr(base + at, QUOTE, stop - at)
        if found == 0:
            return _UNKNOWN
        at = found - base + 1
        close = string_end(text, at, end)
        size = close - at
        after = close + 1
        if _SIZE_MIN <= size <= _SIZE_MAX:
            number = 0
            for i in range(at, close):
                number = (number << 8) | integer(text[i])
            if _is_key(number | _LOWER, size, _KEY_NUMBERS.size):
                while after < end and text[after] == BLANK:
                    after += 1
                if after < end and text[after] == COLON:
                    after += 1
                    while after < end and text[after] == BLANK:
                        after += 1
                    level = _value(text, after, end)
                    if level != _UNKNOWN:
                        return level
        at = after
    return _UNKNOWN


@compiled
def _klog_level(text: Bytes, start: int, end: int) -> int:
    if end - start < 12 or text[start + 5] != BLANK or text[start + 8] != COLON:
        return _UNKNOWN
    for i in (1, 2, 3, 4, 6, 7, 9, 10):
        if text[start + i] < 48 or text[start + i] > 57:
            return _UNKNOWN
    if text[start + 11] != COLON:
        return _UNKNOWN
    head = text[start]
    if head == 73:
        return _INFO
    if head == 87:
        return _WARN
    if head == 69:
        return _ERROR
    return _FATAL if head == 70 else _UNKNOWN


@compiled
def _text_level(text: Bytes, start: int, end: int) -> int:
    stop = min(end, start + _TEXT_BYTES)
    number = size = bits = before = 0
    for at in range(start, stop + 1):
        byte = integer(text[at]) if at < end else integer(BLANK)
        if _IN_WORD[byte]:
            number = (number << 8) | byte
            bits |= byte
            size += 1
            continue
        if _SIZE_MIN <= size <= _SIZE_MAX:
            level = _UNKNOWN
            if bits & 0x20 == 0 or (before == OPENING and byte == CLOSING):
                level = _level_of(number | _LOWER, size)
            elif byte == EQUALS and _is_key(number | _LOWER, size, _TEXT_KEYS):
                level = _value(text, at + 1, end)
            if level != _UNKNOWN:
                return level
        number = size = bits = 0
        before = byte
    return _UNKNOWN


@compiled
def find_levels(text: Bytes, offsets: Ints, first_row: int, last_row: int, level: Codes) -> None:
    """Fill ``level`` with an index into ``LEVELS`` for rows ``[first_row, last_row)``."""
    for row in range(first_row, last_row):
        start, end = integer(offsets[row]), integer(offsets[row + 1])
        found = _UNKNOWN
        if start < end and text[start] == BRACE:
            found = _json_level(text, start, end)
        if found == _UNKNOWN:
            found = _klog_level(text, start, end)
        if found == _UNKNOWN:
            found = _text_level(text, start, end)
        level[row] = found
