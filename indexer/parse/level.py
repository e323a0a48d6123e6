"""The level of a row, read from the text of its message by a compiled kernel.

In come the messages of a parse, out goes an index into ``schema.LEVELS`` per row.
``collector/levels.py`` says how a level is found, and which words say it.
"""

import numpy as np

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
from collector.token_bytes import IN_TOKEN
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
    starts_with,
    string_end,
)
from indexer.parse.lines import after_mark
from indexer.schema import LEVELS

_UNKNOWN = LEVELS.index(UNKNOWN)
_DEBUG, _INFO, _ERROR, _FATAL = (LEVELS.index(x) for x in ("debug", "info", "error", "fatal"))


def _levels_of(table: dict[str, str]) -> Codes:
    return np.array([LEVELS.index(table.get(chr(byte), UNKNOWN)) for byte in range(256)])


_LETTER_LEVELS, _SIGN_LEVELS = _levels_of(LETTERS), _levels_of(SIGNS)
_SEVERITY_LEVELS = np.array([LEVELS.index(level) for level in SEVERITIES])

_TAB, _RETURN, _ESCAPE, _PLUS, _MINUS, _DOT, _SLASH, _T, _BAR = 9, 13, 27, 43, 45, 46, 47, 84, 124
_LESS, _GREATER, _QUESTION, _AND, _PERCENT, _CLOSING_BRACE = 60, 62, 63, 38, 37, 125
# A word is compared by its length and its last eight bytes, in lower case, as one number.
_LOWER = 0x2020_2020_2020_2020


def _number(word: str) -> int:
    return int.from_bytes(word.encode()[-8:], "big") | _LOWER


_WORD_NUMBERS = np.array([_number(word) for words in WORDS.values() for word in words])
_WORD_SIZES = np.array([len(word) for words in WORDS.values() for word in words])
_WORD_LEVELS = np.array([LEVELS.index(level) for level, words in WORDS.items() for _ in words])
_KEY_NUMBERS = np.array([_number(key) for key in KEYS])
_KEY_SIZES = np.array([len(key) for key in KEYS])
_TEXT_KEYS = len(TEXT_KEYS)  # the first of KEYS
_WORD_MIN, _KEY_MIN = int(_WORD_SIZES.min()), int(_KEY_SIZES.min())
_SIZE_MAX = max(int(_WORD_SIZES.max()), int(_KEY_SIZES.max()))
_NUMBER_LEVELS = np.array([LEVELS.index(NUMBERS.get(number, UNKNOWN)) for number in range(1000)])
_LOG, _INF, _TRACE = _number(LOG), _number(INF), _number("trace")

_IN_TOKEN = np.frombuffer(IN_TOKEN, np.bool_)


def _word(text: str) -> Codes:
    return np.frombuffer(text.encode(), np.uint8)


_MONGODB = _word('{"t":{"$date":"')
_SEVERITY = _word('"},"s":"')
_PHP, _FATAL_ERROR, _PARSE_ERROR = _word("PHP "), _word("Fatal error:"), _word("Parse error:")


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
    if size in (2, 3) and decimal >= 10 ** (size - 1):
        return int(_NUMBER_LEVELS[decimal])
    return _level_of(number | _LOWER, size)


@compiled
def _json_level(text: Bytes, start: int, end: int) -> int:
    """Return the level of the line's own key for one, else of the first nested one."""
    at, stop = start, min(end, start + JSON_BYTES)
    depth, nested = 0, _UNKNOWN
    while at < stop:
        byte = text[at]
        at += 1
        if byte in (BRACE, OPENING):
            depth += 1
        elif byte in (_CLOSING_BRACE, CLOSING):
            depth -= 1
        if byte != QUOTE:
            continue
        first = at
        close = string_end(text, first, end)
        at = close + 1
        if not _KEY_MIN <= close - first <= _SIZE_MAX:
            continue
        number = 0
        for i in range(first, close):
            number = (number << 8) | integer(text[i])
        if not _is_key(number | _LOWER, close - first, _KEY_NUMBERS.size):
            continue
        value = at
        while value < end and text[value] == BLANK:
            value += 1
        if value < end and text[value] == COLON:
            value += 1
            while value < end and text[value] == BLANK:
                value += 1
            level = _value(text, value, end)
            if level != _UNKNOWN and depth == 1:
                return level
            if nested == _UNKNOWN:
                nested = level
    return nested


@compiled
def _is_json(text: Bytes, start: int, end: int) -> bool:
    """Tell whether a brace is followed by a key or by nothing."""
    at = start + 1
    while at < end and text[at] in (BLANK, _TAB, _RETURN):
        at += 1
    return bool(at == end or text[at] == QUOTE or text[at] == _CLOSING_BRACE)


@compiled
def _digits(text: Bytes, at: int, end: int) -> int:
    """Return where the digits at ``at`` end."""
    while at < end and 48 <= text[at] <= 57:
        at += 1
    return at


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
def _redis_sign(text: Bytes, start: int, end: int) -> int:
    """Return where the sign of a line of Redis' stands, below 0 if it is none of its lines."""
    at = _digits(text, start, end)
    if start < at <= start + 8 and at + 1 < end and text[at] == COLON:
        if not 65 <= text[at + 1] <= 90:
            return -1
        at += 2
    elif start < end and text[start] == OPENING:
        at = _digits(text, start + 1, end)
        if not start + 1 < at <= start + 9 or at >= end or text[at] != CLOSING:
            return -1
        at += 1
    else:
        return -1
    if end - at < 8 or _digits(text, at + 1, at + 3) != at + 3:
        return -1
    for blank in (at, at + 3, at + 7):
        if text[blank] != BLANK:
            return -1
    small = 97 <= text[at + 5] <= 122 and 97 <= text[at + 6] <= 122
    if not small or not 65 <= text[at + 4] <= 90:
        return -1
    at += 8
    if at + 5 <= end and _digits(text, at, at + 4) == at + 4 and text[at + 4] == BLANK:
        at += 5
    if end - at < 15 or text[at + 2] != COLON or text[at + 5] != COLON or text[at + 8] != _DOT:
        return -1
    if text[at + 12] != BLANK or text[at + 14] != BLANK:
        return -1
    for part in (at, at + 3, at + 6, at + 9):
        size = 3 if part == at + 9 else 2
        if _digits(text, part, part + size) != part + size:
            return -1
    return at + 13


@compiled
def _mongodb_level(text: Bytes, start: int, end: int) -> int:
    """Return the level of MongoDB's JSON, whose keys have an order and whose level a letter."""
    if not starts_with(text, start, end, _MONGODB):
        return _UNKNOWN
    at = first = start + _MONGODB.size
    while at < min(end, first + 41) and text[at] != QUOTE:
        at += 1
    if at == first or at + _SEVERITY.size >= end or not starts_with(text, at, end, _SEVERITY):
        return _UNKNOWN
    letter = text[at + _SEVERITY.size]
    if letter == 68:
        return _DEBUG
    return int(_LETTER_LEVELS[letter]) if letter in (70, 69, 87, 73) else _UNKNOWN


@compiled
def _letter_level(text: Bytes, start: int, end: int) -> int:
    """Return the level of a letter, a sign or a number at the place that its program gives it."""
    if end - start >= 12 and _is_klog(text, start, end):
        level = int(_LETTER_LEVELS[text[start]])
        if level != _UNKNOWN:
            return level
    if end - start >= 31 and text[start + 28] == BLANK and text[start + 30] == BLANK:
        level = _UNKNOWN
        if text[start + 4] == _MINUS and text[start + 26] == BLANK and text[start + 29] == _BAR:
            level = int(_LETTER_LEVELS[text[start + 27]])
        if level == _UNKNOWN and text[start + 10] == _T and text[start + 23] in (_PLUS, _MINUS):
            level = int(_LETTER_LEVELS[text[start + 29]])
        if level != _UNKNOWN:
            return level
    if start < end and text[start] == _LESS:
        at = _digits(text, start + 1, min(end, start + 4))
        if at < end and at > start + 1 and text[at] == _GREATER:
            priority = 0
            for i in range(start + 1, at):
                priority = priority * 10 + integer(text[i]) - 48
            return int(_SEVERITY_LEVELS[priority % 8]) if priority < 192 else _UNKNOWN
        return _UNKNOWN
    sign = _redis_sign(text, start, end)
    return int(_SIGN_LEVELS[text[sign]]) if sign >= 0 else _UNKNOWN


@compiled
def _told(
    text: Bytes, at: int, end: int, number: int, size: int, bits: int, before: int, second: int,
    quoted: bool, bracket: bool, lettered: bool,
) -> int:  # fmt: skip
    """Return the level that the token before ``at`` says, as it stands between its neighbours.

    ``before`` is the byte before it, ``second`` the one before that; ``bracket``: since the last
    ``[`` there was nothing but tokens, colons, dots and hyphens.
    """
    byte = integer(text[at]) if at < end else integer(BLANK)
    upper = bits & 0x20 == 0
    if byte == EQUALS:
        outside = not quoted and before not in (_QUESTION, _AND)
        told = outside and _is_key(number, size, _TEXT_KEYS)
        return _value(text, at + 1, end) if told else _UNKNOWN
    if size == 3 and number == _LOG:
        wide = at + 2 < end and text[at + 1] == BLANK and text[at + 2] == BLANK
        return _INFO if upper and byte == COLON and wide and not quoted else _UNKNOWN
    if size == 3 and number == _INF:
        return _INFO if upper and byte == CLOSING and before in (BLANK, OPENING) else _UNKNOWN
    alone = not quoted or (before == QUOTE and byte == QUOTE and second != EQUALS)
    path = before in (EQUALS, _SLASH, _QUESTION, _AND, _PERCENT)
    method = number == _TRACE and size == 5 and byte == BLANK and at + 1 < end
    method = method and text[at + 1] == _SLASH
    told = upper and alone and not path and not method
    told |= (
        byte == COLON and not quoted and (not lettered or (before == BLANK and second == CLOSING))
    )
    told |= byte == CLOSING and (before == OPENING or (before == COLON and bracket))
    told |= byte == _TAB and before == _TAB and at < end
    return _level_of(number, size) if told else _UNKNOWN


@compiled
def _text_level(text: Bytes, start: int, end: int) -> int:
    if starts_with(text, start, end, _FATAL_ERROR):
        return _FATAL
    if starts_with(text, start, end, _PARSE_ERROR):
        return _ERROR
    stop = min(end, start + TEXT_BYTES)
    number = size = bits = before = second = 0
    quoted = bracket = lettered = letters = False
    for at in range(start, stop + 1):
        byte = integer(text[at]) if at < end else integer(BLANK)
        if _IN_TOKEN[byte]:
            number = (number << 8) | byte
            bits |= byte
            letters |= not (48 <= byte <= 57 or byte | 32 in (116, 122))
            size += 1
            continue
        if _WORD_MIN <= size <= _SIZE_MAX:
            level = _told(
                text,
                at,
                end,
                number | _LOWER,
                size,
                bits,
                before,
                second,
                quoted,
                bracket,
                lettered,
            )
            if level != _UNKNOWN:
                return level
        lettered |= letters
        second = before if size == 0 else integer(0)
        before = byte
        quoted ^= byte == QUOTE
        bracket = byte == OPENING or (bracket and byte in (COLON, _DOT, _MINUS))
        number = size = bits = 0
        letters = False
    return _UNKNOWN


@compiled
def _level(text: Bytes, start: int, end: int) -> int:
    if start < end and text[start] == BRACE and _is_json(text, start, end):
        level = _mongodb_level(text, start, end)
        return level if level != _UNKNOWN else _json_level(text, start, end)
    level = _letter_level(text, start, end)
    if level != _UNKNOWN:
        return level
    first = start + 4 if starts_with(text, start, end, _PHP) else start
    return _text_level(text, first, end)


@compiled
def _without_colours(text: Bytes, start: int, end: int, bare: Bytes) -> int:
    """Copy the first bytes of a message without its colour codes; return how many are left."""
    stop = min(end, start + BARE_BYTES)
    at, size = start, 0
    while at < stop:
        if text[at] == _ESCAPE and at + 1 < stop and text[at + 1] == OPENING:
            close = at + 2
            while close < stop and not 64 <= text[close] <= 126:
                close += 1
            if close < stop:
                at = close + 1
                continue
        bare[size] = text[at]
        size, at = size + 1, at + 1
    return size


@compiled
def find_levels(text: Bytes, offsets: Ints, first_row: int, last_row: int, level: Codes) -> None:
    """Fill ``level`` with an index into ``LEVELS`` for rows ``[first_row, last_row)``."""
    base = text.ctypes.data
    bare = np.empty(BARE_BYTES, np.uint8)
    for row in range(first_row, last_row):
        end = integer(offsets[row + 1])
        start = after_mark(text, integer(offsets[row]), end)
        if start < end and memchr(base + start, _ESCAPE, min(end - start, BARE_BYTES)) != 0:
            level[row] = _level(bare, 0, _without_colours(text, start, end, bare))
        else:
            level[row] = _level(text, start, end)
