"""The level of a row, read from the text of its message by a compiled kernel.

In come the messages of a parse, out goes an index into ``schema.LEVELS`` per row.
``collector/levels.py`` says how a level is found, and which words say it.
"""

import numpy as np

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
from collector.tokens import IN_TOKEN
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

_UNKNOWN = LEVELS.index(UNKNOWN)
_LETTER_LEVELS = np.array([LEVELS.index(LETTERS.get(chr(byte), UNKNOWN)) for byte in range(256)])

# A word is compared by its length and its last eight bytes, in lower case, as one number.
_TAB, _PLUS, _MINUS, _T, _BAR = 9, 43, 45, 84, 124
_LOWER = 0x2020_2020_2020_2020


def _number(word: str) -> int:
    return int.from_bytes(word.encode()[-8:], "big") | _LOWER


_WORD_NUMBERS = np.array([_number(word) for words in WORDS.values() for word in words])
_WORD_SIZES = np.array([len(word) for words in WORDS.values() for word in words])
_WORD_LEVELS = np.array([LEVELS.index(level) for level, words in WORDS.items() for _ in words])
_KEY_NUMBERS = np.array([_number(key) for key in KEYS])
_KEY_SIZES = np.array([len(key) for key in KEYS])
_TEXT_KEYS = len(TEXT_KEYS)  # the first of KEYS
_SIZES = [len(word) for words in (*WORDS.values(), KEYS) for word in words]
_SIZE_MIN, _SIZE_MAX = min(_SIZES), max(_SIZES)
_NUMBER_LEVELS = np.array([LEVELS.index(NUMBERS.get(number, UNKNOWN)) for number in range(100)])

_IN_TOKEN = np.frombuffer(IN_TOKEN, np.bool_)


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
    while at < end and size <= _SIZE_MAX and _IN_TOKEN[text[at]]:
        byte = integer(text[at])
        digit = 48 <= byte <= 57 and decimal >= 0
        decimal = decimal * 10 + byte - 48 if digit else -1
        number = (number << 8) | byte
        size += 1
        at += 1
    if size == 2 and decimal >= 0:
        return int(_NUMBER_LEVELS[decimal])
    return _level_of(number | _LOWER, size)


@compiled
def _json_level(text: Bytes, start: int, end: int) -> int:
    base = text.ctypes.data
    at, stop = start + 1, min(end, start + JSON_BYTES)
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
def _is_klog(text: Bytes, start: int, end: int) -> bool:
    """Tell whether a date of four or eight digits, a blank and `15:04:` follow the letter."""
    at = start + 5
    if end - start >= 16 and text[at] != BLANK:
        at += 4
    if end - at < 7 or text[at] != BLANK or text[at + 3] != COLON or text[at + 6] != COLON:
        return False
    for i in range(start + 1, at + 6):
        if i != at and i != at + 3 and not 48 <= text[i] <= 57:
            return False
    return True


@compiled
def _letter_level(text: Bytes, start: int, end: int) -> int:
    """Return the level of a letter at the place that klog, etcd or MongoDB gives it."""
    if end - start >= 12 and _is_klog(text, start, end):
        return int(_LETTER_LEVELS[text[start]])
    if end - start < 31 or text[start + 28] != BLANK or text[start + 30] != BLANK:
        return _UNKNOWN
    if text[start + 4] == _MINUS and text[start + 26] == BLANK and text[start + 29] == _BAR:
        return int(_LETTER_LEVELS[text[start + 27]])
    if text[start + 10] == _T and text[start + 23] in (_PLUS, _MINUS):
        return int(_LETTER_LEVELS[text[start + 29]])
    return _UNKNOWN


@compiled
def _text_level(text: Bytes, start: int, end: int) -> int:
    stop = min(end, start + TEXT_BYTES)
    number = size = bits = before = 0
    for at in range(start, stop + 1):
        byte = integer(text[at]) if at < end else integer(BLANK)
        if _IN_TOKEN[byte]:
            number = (number << 8) | byte
            bits |= byte
            size += 1
            continue
        if _SIZE_MIN <= size <= _SIZE_MAX:
            level, told = _UNKNOWN, bits & 0x20 == 0
            if byte == BLANK or told:
                pass
            elif byte == COLON:
                told = at - size == start or (
                    before == BLANK and at - size >= start + 2 and text[at - size - 2] == CLOSING
                )
            elif byte == EQUALS:
                if _is_key(number | _LOWER, size, _TEXT_KEYS):
                    level = _value(text, at + 1, end)
            else:
                told = (byte == CLOSING and before == OPENING) or (byte == _TAB and before == _TAB)
            if told:
                level = _level_of(number | _LOWER, size)
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
            found = _letter_level(text, start, end)
        if found == _UNKNOWN:
            found = _text_level(text, start, end)
        level[row] = found
