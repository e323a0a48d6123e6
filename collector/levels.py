"""Which words of a message say its level, and where they count.

Whoever finds levels goes by these tables: the rules of a node by regular expressions, the indexer
by a kernel. Both follow the same three steps, so that a rule drops exactly the rows that would
have the level. The first step that finds one wins, and in a step the first place in the text:

1. JSON, where the message starts with ``{``: one of KEYS (any case, any depth) that begins in the
   first JSON_BYTES, with a word of the table or a number of pino and bunyan as its value.
2. A letter at a fixed place of the message: klog's ``I0102 15:04:`` or ``I20260102 15:04:``,
   etcd's ``2026-01-02 15:04:05.000000 W | ``, MongoDB's ``2026-01-02T15:04:05.000+0000 I ``.
3. In the first TEXT_BYTES: a whole token in upper case (``INFO``); in any case a token in brackets
   (``[error]``), between tabs, or before a colon at the start or after ``] `` (``error: ``); or
   one of TEXT_KEYS and ``=``, with a value as in JSON.
"""

WORDS = {
    "trace": ("trace", "trc"),
    "debug": ("debug", "debu", "dbg"),
    "info": ("info", "information", "notice"),
    "warn": ("warn", "wrn", "warning"),
    "error": ("error", "err", "erro", "severe"),
    "fatal": ("fatal", "fata", "ftl", "critical", "crit", "panic", "alert", "emerg", "emergency"),
}
"""Level -> its words, in any case. ``INF`` is none: it stands in paths, as in ``/WEB-INF/``."""

LEVELS = tuple(WORDS)
"""The levels in order of weight."""

UNKNOWN = "unknown"
"""What stands for the level of a message that says none."""

LETTERS = {"I": "info", "N": "info", "W": "warn", "E": "error", "F": "fatal", "C": "fatal"}
"""Letter of klog, etcd and MongoDB -> level."""

NUMBERS = {number: LEVELS[number // 10 - 1] for number in range(10, 61)}
"""Number of pino and bunyan -> level: trace has 10 to 19, and so on; fatal has 60."""

TEXT_KEYS = ("level", "lvl", "severity")
KEYS = (*TEXT_KEYS, "log.level", "loglevel", "levelname")

TEXT_BYTES = 256
JSON_BYTES = 4096
