"""What to give up when the spool is full: the ranges of the largest pod, as exact GAPs.

A spooled batch goes in; out comes one with the same number, control entries and files, in which
GAPs stand for the ranges of one pod. So lanes keep their numbers, and every lost byte has a name.
"""

from collections.abc import Mapping

import msgspec
import zstandard

from collector.ship.pack import SENT_HEADER, Sent, without_pod
from collector.topic.interface import Record
from collector.wire import batch as wire

WHY = "the spool was full"


def largest(pods: Mapping[str, int]) -> str:
    """Return the pod with the most bytes; empty if there is none."""
    return max(pods, key=lambda pod: (pods[pod], pod), default="")


def shed(record: Record, pod: str, now_ns: int, level: int) -> tuple[Record, int] | None:
    """Return the record without the ranges of ``pod``, and how many raw bytes that gives up.

    None if it holds none of them. ``level`` is zstd's.
    """
    headers = dict(record.headers)
    known = msgspec.msgpack.decode(headers[SENT_HEADER], type=Sent)
    if pod not in known.pods:
        return None
    batch = wire.decode(record.value, zstandard.ZstdDecompressor())
    value = wire.encode(without_pod(batch, pod, now_ns, WHY), zstandard.ZstdCompressor(level=level))
    pods = {each: size for each, size in known.pods.items() if each != pod}
    headers[SENT_HEADER] = msgspec.msgpack.encode(msgspec.structs.replace(known, pods=pods))
    return Record(record.position, value, tuple(headers.items())), known.pods[pod]
