"""Container logs in the kubelet's layout, of every kind that occurs, with the truth beside them.

A seed goes in; ``NAMESPACE_POD_UID/CONTAINER/N.log`` files come out, and a truth file that says
what each must give once it is parsed. It shares no code with the packages, so that an error there
cannot hide here.
"""

import argparse
import functools
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

FRAGMENT_BYTES = 16 << 10
START_NS = 1_700_000_000 * 10**9
TRUTH = "truth.json"
_OUTPUTS = ("stdout", "stderr")
_WORDS = (
    b"accepted closed connection refused timeout retry order user cache miss hit flushed segment "
    b"shard leader election lost gained token expired renewed queue depth worker idle request "
    b"response upstream handshake certificate config reloaded started stopped probe ready"
)
# Phrases are made once: 50 MB of lines shall take seconds.
_PHRASES = [b" ".join(random.Random(n).choices(_WORDS.split(), k=3 + n % 12)) for n in range(999)]
_UNICODE = ("Zürich", "naïve", "東京", "Ελλάδα", "🚚💨", "e\u0301", "\u202eright", "\u2028", "ß")
_BAD_UTF8 = (b"\xff\xfe", b"\xc3(", b"\xed\xa0\x80", b"\xf0\x9f\x92", b"\x80", b"caf\xe9")


@dataclass(slots=True)
class Truth:
    """What one file holds: its rows are the messages in file order, fragments joined.

    ``lines`` counts newlines, and a torn end as one more; ``rows`` counts the events after
    joining. ``sha256`` is over what ``row_bytes`` gives for each row, in file order; a joined row
    has place and time of its first fragment. A line without a timestamp is a row whose message is
    the whole line, of unknown time and output.
    """

    path: str
    bytes: int = 0
    lines: int = 0
    rows: int = 0
    sha256: str = ""
    kinds: dict[str, int] = field(default_factory=dict)


def row_bytes(time_ns: int | None, output: str | None, message: bytes) -> bytes:
    """Return ``<time> <output> <bytes of the message> <message>``, unknowns as ``-``."""
    known = "-" if time_ns is None else str(time_ns)
    return b"%s %s %d %s\n" % (known.encode(), (output or "-").encode(), len(message), message)


def cri_time(time_ns: int) -> bytes:
    """Return RFC 3339 in UTC as containerd writes it: a fraction ends in no zero."""
    seconds, fraction = divmod(time_ns, 10**9)
    digits = b".%09d" % fraction
    return _seconds(seconds) + digits.rstrip(b"0").rstrip(b".") + b"Z"


@functools.lru_cache(maxsize=16)
def _seconds(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


# -- kinds of messages -----------------------------------------------------------------------------

Maker = Callable[[random.Random], bytes]


def short(rng: random.Random) -> bytes:
    """A few words and a number."""
    return b"%s id=%07x" % (rng.choice(_PHRASES), rng.getrandbits(28))


def json_object(rng: random.Random) -> bytes:
    """A JSON object."""
    level = rng.choice((b"debug", b"info", b"info", b"warn", b"error"))
    values = (level, rng.choice(_PHRASES), rng.getrandbits(20), rng.getrandbits(64))
    return b'{"level":"%s","msg":"%s","n":%d,"trace":"%016x"}' % values


def long(rng: random.Random) -> bytes:
    """Two to five fragments' worth, sometimes exactly on the border."""
    size = rng.choice((FRAGMENT_BYTES + 1, 2 * FRAGMENT_BYTES, rng.randint(20_000, 70_000)))
    words = b" ".join(rng.choices(_PHRASES, k=50)) + b" "
    return (words * (size // len(words) + 1))[:size]


def empty(rng: random.Random) -> bytes:
    """Nothing."""
    return b""


def invalid_utf8(rng: random.Random) -> bytes:
    """Bytes that are not UTF-8, amid some that are."""
    return b"head " + rng.choice(_BAD_UTF8) + b" tail " + short(rng)


def nul(rng: random.Random) -> bytes:
    """NUL bytes and other controls, but no newline."""
    return b"a\x00b\x00\x00 \x1b[31mred\x1b[0m\t" + short(rng)


def unicode(rng: random.Random) -> bytes:
    """Letters of many scripts, of one to four bytes."""
    return " ".join(rng.choices(_UNICODE, k=rng.randint(2, 9))).encode()


def lookalike(rng: random.Random) -> bytes:
    """A message that holds what looks like a line's head."""
    return b"2023-01-29T08:42:09.123Z stdout P " + short(rng) + b" stderr F x"


MALFORMED = "malformed"
TORN = "torn"
MAKERS: dict[str, Maker] = {
    "short": short,
    "json": json_object,
    "long": long,
    "empty": empty,
    "invalid_utf8": invalid_utf8,
    "nul": nul,
    "unicode": unicode,
    "lookalike": lookalike,
}
USUAL = {"short": 60.0, "json": 35.0, "unicode": 4.0, "empty": 1.0}
EVERYTHING = {**dict.fromkeys(MAKERS, 10.0), "short": 40.0, "long": 2.0, MALFORMED: 3.0, TORN: 1.0}
_BAD_LINES = (
    b"no head at all",
    b"yesterday stdout F text",
    b"2023-13-45T99:00:00Z stdout F no such time",
    b"2023-01-29T08:42:09.1Z",
    b"\xff\xfe\x00",
)
_TIMELESS = (b"    at org.example.A.run(A.java:1)", b"no time at all", b"", b"\xff\xfe\x00")


# -- one file --------------------------------------------------------------------------------------


class File:
    """A file being made: events go in, bytes come out of ``take``, the truth is kept along."""

    def __init__(
        self, path: str, rng: random.Random, kinds: dict[str, float], line_format: str = "cri"
    ) -> None:
        """``path`` is for the truth only; ``kinds`` has the weight of each kind of line.

        ``line_format`` is cri, docker or plain.
        """
        self.truth = Truth(path)
        self._format = line_format
        self._rng = rng
        self._torn = TORN in kinds
        self._kinds = [kind for kind in kinds if kind != TORN]
        self._weights = [kinds[kind] for kind in self._kinds]
        self._digest = hashlib.sha256()
        self._lines: list[bytes] = []

    def events(self, first_ns: int, number: int, step_ns: int) -> int:
        """Add events of random kinds, about ``step_ns`` apart; return the time after the last."""
        rng = self._rng
        time_ns = first_ns
        for kind in rng.choices(self._kinds, self._weights, k=number):
            time_ns += rng.randrange(1, 2 * step_ns)
            self.truth.kinds[kind] = self.truth.kinds.get(kind, 0) + 1
            if kind == MALFORMED:
                self.malformed(rng.choice(_TIMELESS if self._format == "plain" else _BAD_LINES))
            elif kind == "long":
                time_ns = self.interleaved(time_ns, long(rng), long(rng))
            else:
                self.event(time_ns, rng.choice(_OUTPUTS), MAKERS[kind](rng))
        return time_ns

    def event(self, time_ns: int, output: str, message: bytes) -> int:
        """Add one event, split as the runtime does; return the time of its last fragment."""
        parts = [message] if self._format == "plain" else _fragments(message)
        for number, part in enumerate(parts):
            self._line(time_ns + number * 100, output, part, last=number == len(parts) - 1)
        self._row(time_ns, output, message)
        return time_ns + 100 * len(parts)

    def interleaved(self, time_ns: int, out: bytes, err: bytes) -> int:
        """Add a long event of each output, their fragments in turn, as two threads write them."""
        if self._format == "plain":
            return self.event(self.event(time_ns, "stdout", out), "stderr", err)
        left = {"stdout": _fragments(out), "stderr": _fragments(err)}
        messages = {"stdout": out, "stderr": err}
        first: dict[str, int] = {}
        while any(left.values()):
            output = self._rng.choice([name for name, parts in left.items() if parts])
            time_ns += 100
            first.setdefault(output, time_ns)
            part = left[output].pop(0)
            self._line(time_ns, output, part, last=not left[output])
        for output, began_ns in first.items():
            self._row(began_ns, output, messages[output])
        return time_ns

    def malformed(self, line: bytes) -> None:
        """Add a line that is none of the runtime's."""
        self._lines.append(line + b"\n")
        self.truth.lines += 1
        self._row(None, None, line)

    def end(self, time_ns: int) -> None:
        """Finish the truth; where torn ends are asked for, the last line has no newline."""
        if self._torn:
            self.event(time_ns, "stdout", b"torn " + short(self._rng))
            self._lines[-1] = self._lines[-1][:-1]
            self.truth.kinds[TORN] = 1

    def take(self) -> bytes:
        """Return the bytes since the last call, and bring the truth up to them."""
        data = b"".join(self._lines)
        self._lines.clear()
        self.truth.bytes += len(data)
        self.truth.sha256 = self._digest.hexdigest()
        return data

    def _line(self, time_ns: int, output: str, part: bytes, *, last: bool) -> None:
        self._lines.append(_LINES[self._format](time_ns, output, part, last))
        self.truth.lines += 1

    def _row(self, time_ns: int | None, output: str | None, message: bytes) -> None:
        self.truth.rows += 1
        if self._format == "docker" and time_ns is not None:
            message = b"".join(_readable(part) for part in _fragments(message))
        elif self._format == "plain" and time_ns is not None:
            output, message = None, cri_time(time_ns) + b" " + message
        self._digest.update(row_bytes(time_ns, output, message))


def _readable(part: bytes) -> bytes:
    """Return what Docker makes of bytes: replacement characters stand for what is no UTF-8."""
    return part.decode("utf-8", "replace").encode()


def _cri_line(time_ns: int, output: str, part: bytes, last: bool) -> bytes:
    tag = b"F" if last else b"P"
    return b"%s %s %s %s\n" % (cri_time(time_ns), output.encode(), tag, part)


def _docker_line(time_ns: int, output: str, part: bytes, last: bool) -> bytes:
    log = json.dumps(_readable(part).decode() + "\n" * last, ensure_ascii=False).encode()
    rest = (log, output.encode(), cri_time(time_ns))
    return b'{"log":%s,"stream":"%s","time":"%s"}\n' % rest


def _plain_line(time_ns: int, output: str, part: bytes, last: bool) -> bytes:
    return b"%s %s\n" % (cri_time(time_ns), part)


_LINES = {"cri": _cri_line, "docker": _docker_line, "plain": _plain_line}


def _fragments(message: bytes) -> list[bytes]:
    starts = range(0, max(len(message), 1), FRAGMENT_BYTES)
    return [message[start : start + FRAGMENT_BYTES] for start in starts]


# -- whole directories -----------------------------------------------------------------------------


def pod_directory(number: int, rng: random.Random) -> Path:
    """Return NAMESPACE_POD_UID/CONTAINER of the pod with this number."""
    uid = f"{rng.getrandbits(128):032x}"
    uid = "-".join((uid[:8], uid[8:12], uid[12:16], uid[16:20], uid[20:]))
    return Path(f"space-{number % 3}_pod-{number}_{uid}", "main")


def generate(
    out: Path,
    *,
    pods: int,
    lines: int,
    kinds: dict[str, float] | None = None,
    seed: int = 1,
    first_ns: int = START_NS,
    line_format: str = "cri",
) -> list[Truth]:
    """Write ``lines`` events to each of ``pods`` files below ``out``; return the truth of each.

    The truth is also in ``out``/truth.json. The same arguments give the same bytes.
    """
    truths = []
    for number in range(pods):
        rng = random.Random(f"{seed} {number}")
        path = pod_directory(number, rng) / "0.log"
        file = File(str(path), rng, kinds or USUAL, line_format)
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        with (out / path).open("wb") as written:
            time_ns = first_ns
            for start in range(0, lines, 10_000):
                time_ns = file.events(time_ns, min(10_000, lines - start), 1_000_000)
                written.write(file.take())
            file.end(time_ns + 1)
            written.write(file.take())
        truths.append(file.truth)
    write_truth(out, truths)
    return truths


def write_truth(out: Path, truths: Sequence[Truth]) -> None:
    """Write the truth so that it is on disk, whole, when this returns."""
    new = out / f"{TRUTH}.new"
    with new.open("w") as file:
        json.dump({"files": [asdict(truth) for truth in truths]}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    new.rename(out / TRUTH)


def read_truth(out: Path) -> list[Truth]:
    """Return what ``write_truth`` wrote."""
    return [Truth(**file) for file in json.loads((out / TRUTH).read_text())["files"]]


# -- files that grow -------------------------------------------------------------------------------


class Writer:
    """One container whose file grows and is rotated by size: rename with a stamp, new file.

    Messages are numbered over all files of the container: ``NUMBER text``. The truth of a file
    follows it through its rename; one that was deleted keeps its truth, under its last path.
    """

    def __init__(self, out: Path, number: int, *, rotate_bytes: int, keep: int, seed: int) -> None:
        """``keep`` is how many rotated files stay."""
        self._out = out
        self._rng = random.Random(f"{seed} {number}")
        self._directory = pod_directory(number, self._rng)
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._number = 0
        self._rotated: list[str] = []
        self._rotations = 0
        self.truths: list[Truth] = []
        self._open()

    def _open(self) -> None:
        path = self._directory / "0.log"
        (self._out / path).parent.mkdir(parents=True, exist_ok=True)
        self._file = File(str(path), self._rng, USUAL)
        self.truths.append(self._file.truth)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        self._fd = os.open(self._out / path, flags, 0o640)

    def write(self, time_ns: int, lines: int) -> None:
        """Append numbered lines, some of them long, with times from ``time_ns`` on."""
        for _ in range(lines):
            text = long(self._rng) if self._rng.random() < 0.01 else short(self._rng)
            message = b"%d %s" % (self._number, text)
            self._number += 1
            time_ns = 1 + self._file.event(time_ns, self._rng.choice(_OUTPUTS), message)
        data = memoryview(self._file.take())
        while data:
            data = data[os.write(self._fd, data) :]
        if self._file.truth.bytes >= self._rotate_bytes:
            self.rotate(time_ns)

    def rotate(self, time_ns: int) -> None:
        """Rename the file and start the next; delete the oldest beyond ``keep``."""
        # A stamp a second of its own, like the kubelet's, also if this comes more often.
        self._rotations += 1
        stamp = datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y%m%d-%H%M%S")
        rotated = str(self._directory / f"0.log.{stamp}-{self._rotations:06d}")
        (self._out / self._file.truth.path).rename(self._out / rotated)
        self._file.truth.path = rotated
        os.close(self._fd)
        self._rotated.append(rotated)
        while len(self._rotated) > self._keep:
            (self._out / self._rotated.pop(0)).unlink()
        self._open()

    def close(self) -> None:
        """Bring the file to the disk and close it."""
        os.fsync(self._fd)
        os.close(self._fd)


def main(argv: Sequence[str]) -> int:
    """Let files grow for a while, then write the truth; SIGTERM ends it early."""
    parser = argparse.ArgumentParser(prog="load_tests.generate", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pods", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--lines-per-second", type=float, default=1000.0, help="of all pods")
    parser.add_argument("--rotate-bytes", type=int, default=1 << 20)
    parser.add_argument("--keep", type=int, default=1_000_000, help="rotated files a pod")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stops.append(number))
    writers = [
        Writer(
            options.out, n, rotate_bytes=options.rotate_bytes, keep=options.keep, seed=options.seed
        )
        for n in range(options.pods)
    ]
    began = time.monotonic()
    written = 0
    for seconds in _ticks(began, options.seconds, stops):
        due = int(seconds * options.lines_per_second / options.pods) - written
        for writer in writers:
            writer.write(time.time_ns(), due)
        written += due
    for writer in writers:
        writer.close()
    write_truth(options.out, [truth for writer in writers for truth in writer.truths])
    print(f"wrote {written * len(writers)} events to {len(writers)} pods in {options.out}")
    return 0


def _ticks(began: float, seconds: float, stops: Sequence[int]) -> Iterator[float]:
    """Give the time since ``began`` about a hundred times a second, and once at the end."""
    while not stops and (passed := time.monotonic() - began) < seconds:
        yield passed
        time.sleep(0.01)
    if not stops:
        yield seconds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
