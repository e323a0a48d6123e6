"""Identity of bytes: streams, files and ranges, and where a range may be cut.

In come raw bytes of a container's log file; out go names that stay the same on every replay and
cuts that fall where an event of the container runtime ends. Nothing here parses a line: a search
back from the end for the last line of each output tells whether an event is still open.
"""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any

from collector.checksum import crc32

FORMATS = ("cri", "docker", "plain")
"""How lines are written: by the kubelet's runtimes, by Docker's json-file driver, by a program."""

CRC_UNKNOWN = -1
"""In place of a CRC-32 of bytes on disk that nobody has: the middle of what was redacted."""

FIRST_LINE_BYTES = {"cri": 256, "docker": 64 << 10, "plain": 256}
"""How much of a file's first complete line enters its ``file_id``, by format.

A line of Docker's has its time, which tells it from others, at its end.
"""

STDOUT = 1
STDERR = 2
_TAGS = {STDOUT: b" stdout ", STDERR: b" stderr "}

# A CRI line is `<RFC 3339 time> <output> <tag> <message>`; the longest time has 35 bytes
# (kubelet's cri-api, `LogTagDelimiter`), so its first blank lies within this many bytes.
_TIME_BYTES_MAX = 64
_HEAD_BYTES_MAX = _TIME_BYTES_MAX + len(" stdout P ")

# A line of Docker's is `{"log":"…","stream":"stdout",…,"time":"…"}`. A quote inside a JSON string
# is escaped, so these bytes stand nowhere but at the end of `log` (moby, jsonlog.JSONLogs).
_LOG_ENDS = {STDOUT: b'","stream":"stdout"', STDERR: b'","stream":"stderr"'}

Whose = tuple[str, str, str]
"""Namespace, pod, container; what is empty may be any."""


@dataclass(frozen=True, slots=True, order=True)
class Stream:
    """The output of one container instance on one node of one cluster."""

    namespace: str
    pod: str
    pod_uid: str
    container: str
    restart: int

    @classmethod
    def of(cls, each: Any) -> "Stream":
        """Return the stream of what has these five fields among its own, as stored forms do."""
        return cls(each.namespace, each.pod, each.pod_uid, each.container, each.restart)

    @property
    def whose(self) -> Whose:
        """Return the container, of all its instances."""
        return self.namespace, self.pod, self.container

    def fields(self) -> dict[str, Any]:
        """Return the fields by name, to make something of that has them among its own."""
        return {name: getattr(self, name) for name in STREAM_FIELDS}


STREAM_FIELDS = tuple(field.name for field in fields(Stream))


def file_id(
    cluster: str,
    node: str,
    stream: Stream,
    first_line: bytes,
    line_format: str = "cri",
    born: bytes = b"",
) -> bytes:
    """Return the 16-byte name of a file, from its stream and its first complete line.

    ``first_line`` holds no newline; only its first FIRST_LINE_BYTES count. Rename and gzip do not
    change the name, and it comes out the same when it is computed again after a lost checkpoint.
    First lines of plain files repeat: ``born`` says which file on disk one is.
    """
    digest = hashlib.blake2b(digest_size=16)
    texts = (cluster, node, stream.pod_uid, stream.container, str(stream.restart))
    parts = [*(text.encode() for text in texts), first_line[: FIRST_LINE_BYTES[line_format]]]
    for part in [*parts, born] if born else parts:
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes ``[start, end)`` of one file as they are on disk.

    ``crc_before`` is the CRC-32 of all bytes of the file before ``start``. ``open_before`` and
    ``open_after`` are bit sets of STDOUT and STDERR: outputs whose event (a line that the runtime
    split, ``P…F``) began before the range, or goes on after it. ``torn_before`` says that the
    range starts inside a line. ``format`` is one of FORMATS. ``redacted`` names the rules that have
    overwritten bytes of ``data``; then ``crc_after`` is the CRC-32 of the bytes on disk up to the
    end, which ``data`` does not tell any more.
    """

    file_id: bytes
    epoch: int
    start: int
    data: bytes
    lines: int
    crc_before: int
    open_before: int = 0
    open_after: int = 0
    torn_before: bool = False
    format: str = "cri"
    redacted: str = ""
    crc_after: int | None = None

    @property
    def end(self) -> int:
        """Offset of the first byte after the range."""
        return self.start + len(self.data)


def _line_tag(data: bytes, line: int) -> tuple[int, bool] | None:
    """Return (output, is it a fragment) of the CRI line that starts at ``line``, else None."""
    blank = data.find(b" ", line, line + _TIME_BYTES_MAX)
    if blank < 0:
        return None
    for output, word in _TAGS.items():
        if data.startswith(word, blank):
            tag = blank + len(word)
            return output, data[tag : tag + 1] == b"P" and data[tag + 1 : tag + 2] in (b" ", b":")
    return None


def _last_cri(data: bytes, output: int, end: int) -> tuple[int, bool] | None:
    """Return (start, is it a fragment) of the last CRI line of ``output`` before ``end``.

    The output's name may stand in a message too, so each line is looked at once and the search
    goes on before it.
    """
    while (found := data.rfind(_TAGS[output], 0, end)) >= 0:
        line = data.rfind(b"\n", 0, found) + 1
        tag = _line_tag(data, line)
        if tag is not None and tag[0] == output:
            return line, tag[1]
        end = line
    return None


def _last_docker(data: bytes, output: int, end: int) -> tuple[int, bool] | None:
    """Return (start, is it a fragment) of the last line of Docker's of ``output``."""
    found = data.rfind(_LOG_ENDS[output], 0, end)
    if found < 0:
        return None
    line = data.rfind(b"\n", 0, found) + 1
    if not data.endswith(b"\\n", line, found):
        return line, True
    # After an even number of backslashes, the `n` is a letter of the message.
    text = data[line : found - 1]
    return line, (len(text) - len(text.rstrip(b"\\"))) % 2 == 0


_LAST = {"cri": _last_cri, "docker": _last_docker}


def open_outputs(
    data: bytes, before: int = 0, end: int | None = None, line_format: str = "cri"
) -> int:
    """Return the outputs (bit set) whose event is still open after ``data[:end]``.

    ``before`` is the bit set at the start of ``data``, which must start with a line.
    """
    if line_format == "plain":
        return 0
    end = len(data) if end is None else end
    tag = None
    if line_format == "cri" and end:
        line = data.rfind(b"\n", 0, end - 1) + 1
        tag = _line_tag(data[line : min(end, line + _HEAD_BYTES_MAX)], 0)
    state = 0
    for output, word in _TAGS.items():
        if tag is not None and tag[0] == output:  # the last line of all is its last
            state |= output if tag[1] else 0
            continue
        # Most CRI texts hold no fragment: then one search answers, if nothing was open before.
        if line_format == "cri" and not before & output and data.rfind(word + b"P", 0, end) < 0:
            continue
        last = _LAST[line_format](data, output, end)
        if before & output if last is None else last[1]:
            state |= output
    return state


def closed_cut(
    data: bytes, before: int = 0, end: int | None = None, line_format: str = "cri"
) -> int:
    """Return the last place in ``data[:end]`` after which no event is open; 0 if there is none.

    ``data`` starts with a line, and ``end`` lies behind a newline.
    """
    cut = len(data) if end is None else end
    while cut and (state := open_outputs(data, before, cut, line_format)):
        cut = min(
            _opened_at(data, output, before, cut, line_format) for output in _TAGS if state & output
        )
    return cut


def _opened_at(data: bytes, output: int, before: int, end: int, line_format: str) -> int:
    """Return where the open event of ``output`` before ``end`` starts; 0 if before ``data``."""
    start = end
    while (last := _LAST[line_format](data, output, start)) is not None:
        if not last[1]:
            return start
        start = last[0]
    return 0 if before & output else start


def split(whole: Range) -> tuple[Range, Range]:
    """Return two halves of a range of at least two bytes, cut at a newline if there is one."""
    middle = len(whole.data) // 2
    at = whole.data.rfind(b"\n", 0, middle) + 1 or middle
    left = whole.data[:at]
    head = left.find(b"\n") + 1 if whole.torn_before else 0
    state = whole.open_before
    if not whole.torn_before or head:
        state = open_outputs(left[head:], whole.open_before, None, whole.format)
    lines = left.count(b"\n")
    first = replace(whole, data=left, lines=lines, open_after=state, crc_after=None)
    second = replace(
        whole,
        start=first.end,
        data=whole.data[at:],
        lines=whole.lines - lines,
        crc_before=CRC_UNKNOWN if whole.redacted else crc32(left, whole.crc_before),
        open_before=state,
        torn_before=not left.endswith(b"\n"),
    )
    return first, second
