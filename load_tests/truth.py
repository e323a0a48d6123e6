"""What a kubelet of ``load_tests.kubelet`` has written: numbered lines, and what became of files.

Events go in as they happen, one JSON array a line; out comes each file with every byte that it
ever held, also long after it was deleted. The lines are recreated from the seed, so the truth of
a day's writing is small, and it is the same on every machine.
"""

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from load_tests.generate import FRAGMENT_BYTES, cri_time

OUTPUTS = (b"stdout", b"stderr")
LONG_EVERY = 1024
"""One number in this many is an event of several fragments on each output, interleaved."""

_POOL_BYTES = 2 << 20  # of hexadecimal text: half of it is left after compression
_LINE_NS = 1_000
_MASK = (1 << 64) - 1


def cri_line(time_ns: int, output: bytes, message: bytes, *, last: bool = True) -> bytes:
    """Return one line as containerd writes it; ``last``: it ends its event."""
    return b"%s %s %s %s\n" % (cri_time(time_ns), output, b"F" if last else b"P", message)


class Lines:
    """All lines that a seed can give: those of a writer with a number are ``NUMBER text``."""

    def __init__(self, seed: int) -> None:
        """Make the text that every message is a piece of."""
        self._pool = random.Random(seed).randbytes(_POOL_BYTES // 2).hex().encode()

    def message(self, writer: int, number: int, text_bytes: int | None = None) -> bytes:
        """Return the message with this number; of 40 to 167 bytes of text if not told."""
        mixed = _mixed(writer, number)
        length = 40 + (mixed & 127) if text_bytes is None else text_bytes
        at = (mixed >> 16) % (_POOL_BYTES - length)
        return b"%d %s" % (number, self._pool[at : at + length])

    def output(self, writer: int, number: int) -> bytes:
        """Return the output of an event."""
        return OUTPUTS[_mixed(writer, number) >> 7 & 1]

    def block(self, writer: int, first: int, count: int, time_ns: int) -> bytes:
        """Return the lines of ``count`` events from ``first`` on; they begin at ``time_ns``."""
        lines: list[bytes] = []
        for number in range(first, first + count):
            if _mixed(writer, number) % LONG_EVERY:
                message = self.message(writer, number)
                lines.append(cri_line(time_ns, self.output(writer, number), message))
            else:
                lines += self._interleaved(writer, number, time_ns)
            time_ns += _LINE_NS
        return b"".join(lines)

    def _interleaved(self, writer: int, number: int, time_ns: int) -> Iterable[bytes]:
        """Give the fragments of a long event of each output in turn, as two threads do."""
        mixed = _mixed(writer, number) >> 20
        for at in range(0, 4 * FRAGMENT_BYTES, FRAGMENT_BYTES):
            for turn, output in enumerate(OUTPUTS):
                size = FRAGMENT_BYTES * (1 + (mixed >> turn & 1)) + (mixed >> 2 & 0x1FFF)
                message = self.message(writer, number, size)
                if at < len(message):
                    last = at + FRAGMENT_BYTES >= len(message)
                    part = message[at : at + FRAGMENT_BYTES]
                    yield cri_line(time_ns + at // FRAGMENT_BYTES, output, part, last=last)

    def part(self, writer: int, number: int, start: int, end: int, time_ns: int) -> bytes:
        """Return a fragment of an event that was open when its file was closed.

        Its first one (``start`` 0) ends nothing, since the rest goes to the next file, if anywhere.
        """
        message = self.message(writer, number)[start:end]
        return cri_line(time_ns, self.output(writer, number), message, last=start > 0)


def _mixed(writer: int, number: int) -> int:
    """Return 64 bits that look like chance (the last steps of SplitMix64)."""
    mixed = (writer * 0x9E3779B97F4A7C15 + number * 0xD1342543DE82EF95 + 1) & _MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    return mixed ^ mixed >> 31


# -- events ----------------------------------------------------------------------------------------


class Began(msgspec.Struct, array_like=True, tag="began"):
    """First of all: what the lines are made from."""

    seed: int


class Opened(msgspec.Struct, array_like=True, tag="opened"):
    """A file with the next number came to be, at a path below the root."""

    writer: int
    path: str
    at_ns: int


class Wrote(msgspec.Struct, array_like=True, tag="wrote"):
    """A block of lines."""

    file: int
    offset: int
    first: int
    count: int
    time_ns: int


class Parted(msgspec.Struct, array_like=True, tag="part"):
    """A fragment of an event that goes over the end of a file."""

    file: int
    offset: int
    number: int
    start: int
    end: int
    time_ns: int


class Moved(msgspec.Struct, array_like=True, tag="moved"):
    """A file was renamed, or compressed into a new one."""

    file: int
    path: str
    at_ns: int


class Deleted(msgspec.Struct, array_like=True, tag="deleted"):
    """A file was unlinked with this (uncompressed) size; ``why``: excess, restart or pod."""

    file: int
    at_ns: int
    size: int
    why: str


Event = Began | Opened | Wrote | Parted | Moved | Deleted


@dataclass
class File:
    """One file, as its writer knows it; ``path`` is the last that it had."""

    number: int
    writer: int
    path: str
    opened_ns: int
    written: list[Wrote | Parted] = field(default_factory=list)
    deleted: Deleted | None = None

    @property
    def name(self) -> tuple[str, str, str, str, int]:
        """Return namespace, pod, pod uid, container and restart."""
        pod, container, name = self.path.split("/")
        namespace, pod_name, uid = pod.split("_")
        return namespace, pod_name, uid, container, int(name.partition(".")[0])

    def content(self, lines: Lines) -> bytes:
        """Return every byte that the file ever held."""
        data = bytearray()
        for wrote in self.written:
            assert wrote.offset == len(data), f"{self.path}: a hole in the truth at {len(data)}"
            if isinstance(wrote, Wrote):
                data += lines.block(self.writer, wrote.first, wrote.count, wrote.time_ns)
            else:
                data += lines.part(self.writer, wrote.number, wrote.start, wrote.end, wrote.time_ns)
        return bytes(data)


class Log:
    """The truth while it happens."""

    def __init__(self, path: Path, seed: int) -> None:
        """Begin a truth at ``path``."""
        self._file: BinaryIO = path.open("wb")
        self._encoder = msgspec.json.Encoder()
        self._files = 0
        self.add(Began(seed))

    def add(self, event: Event) -> None:
        """Note that something has happened."""
        self._file.write(self._encoder.encode(event) + b"\n")

    def opened(self, writer: int, path: str, at_ns: int) -> int:
        """Note a new file; return its number."""
        self.add(Opened(writer, path, at_ns))
        self._files += 1
        return self._files - 1

    def close(self) -> None:
        """Bring everything to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def read(path: Path) -> tuple[Lines, list[File]]:
    """Return what a Log has noted."""
    decode: Callable[[bytes], Event] = msgspec.json.Decoder(Event).decode
    files: list[File] = []
    seed = 0
    for line in path.read_bytes().splitlines():
        event = decode(line)
        if isinstance(event, Began):
            seed = event.seed
        elif isinstance(event, Opened):
            files.append(File(len(files), event.writer, event.path, event.at_ns))
        elif isinstance(event, Wrote | Parted):
            files[event.file].written.append(event)
        elif isinstance(event, Moved):
            files[event.file].path = event.path
        else:
            files[event.file].deleted = event
    return Lines(seed), files
