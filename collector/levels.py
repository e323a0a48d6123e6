"""Which words of a message say its level, and where they count.

Whoever finds levels goes by these tables: the rules of a node in Python, the indexer by a kernel.
Both follow the same steps, so that a rule drops exactly the rows that would have the level. A byte
order mark before the message and colour codes in its first BARE_BYTES do not count. The first step
that finds a level wins, and in a step the first place in the text:

1. JSON, where the message starts with ``{`` and then a key or nothing: one of KEYS (any case) that
   begins in the first JSON_BYTES, with a word of the table or a number of pino, bunyan or monolog
   as its value; the line's own keys before those of what is nested in it. If there is none, no
   other step counts: the words of a text within JSON speak of something else.
2. A letter or a number at a fixed place: klog's ``I0102 15:04:`` or ``I20260102 15:04:``, etcd's
   ``2026-01-02 15:04:05.000000 W | ``, MongoDB's ``2026-01-02T15:04:05.000+0000 I `` and
   ``{"t":{"$date":"…"},"s":"W",``, the sign of Redis' ``1:M 02 Jan 2026 15:04:05.000 * ``, and
   syslog's priority ``<11>``.
3. In the first TEXT_BYTES: a whole token in upper case (``INFO``), but not the value of something
   (``status=ERROR``), nor a method (``TRACE /``), nor inside of a quote unless it is all of it; in
   any case a token in brackets (``[error]``, ``[core:error]``), between tabs, or before a colon
   with no word before it or after ``] `` (``12:30 error: ``); ``LOG:`` of PostgreSQL, ``INF]`` of
   Serilog, PHP's ``Fatal error:``; or one of TEXT_KEYS and ``=``, outside of quotes and URLs, with
   a value as in JSON.
"""

WORDS = {
    "trace": ("trace", "trc", "trce", "verbose", "vrb", *(f"trace{n}" for n in range(1, 9))),
    "debug": ("debug", "debu", "dbg", "dbug", *(f"debug{n}" for n in range(1, 6))),
    "info": ("info", "information", "notice"),
    "warn": ("warn", "wrn", "warning"),
    "error": ("error", "err", "erro", "severe", "fail"),
    "fatal": ("fatal", "fata", "ftl", "critical", "crit", "panic", "alert", "emerg", "emergency"),
}
"""Level -> its words, in any case. ``INF`` is none: it stands in paths, as in ``/WEB-INF/``."""

LOG, INF = "log", "inf"
"""Words of ``info`` at one place each: ``LOG:`` and two blanks, ``INF]`` after a blank or ``[``."""

LEVELS = tuple(WORDS)
"""The levels in order of weight."""

UNKNOWN = "unknown"
"""What stands for the level of a message that says none."""

LETTERS = {"I": "info", "N": "info", "W": "warn", "E": "error", "F": "fatal", "C": "fatal"}
"""Letter of klog, etcd and MongoDB -> level."""

SIGNS = {".": "debug", "-": "debug", "*": "info", "#": "warn"}
"""Sign of Redis -> level."""

SEVERITIES = ("fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug")
"""Severity of syslog, the last three bits of a priority -> level (RFC 5424, 6.2.1)."""

NUMBERS = {number: LEVELS[number // 10 - 1] for number in range(10, 61)}
"""Number of pino and bunyan -> level: trace has 10 to 19, and so on; fatal has 60. And monolog's:
debug has 100, info 200, notice 250, up to emergency with 600.
"""
NUMBERS |= dict.fromkeys(range(100, 200), "debug") | dict.fromkeys(range(200, 300), "info")
NUMBERS |= dict.fromkeys(range(300, 400), "warn") | dict.fromkeys(range(400, 500), "error")
NUMBERS |= dict.fromkeys(range(500, 601), "fatal")

TEXT_KEYS = ("level", "lvl", "severity")
KEYS = (
    *TEXT_KEYS, "log.level", "loglevel", "levelname", "log_level", "level_name", "severitytext",
    "severity_text", "@l",
)  # fmt: skip

TEXT_BYTES = 256
JSON_BYTES = 4096
BARE_BYTES = 8192
