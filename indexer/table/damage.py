"""What storage has damaged, as the scrubber notes it beside the table.

How far a round over all objects is goes in and comes out, with what was found; whoever answers
questions about the table tells of it. The note is itself an object: a damaged one says nothing.
"""

import contextlib

import msgspec

from indexer.errors import ObjectMissing
from indexer.object_names import scrub_folder
from indexer.store.bucket import Bucket


class Damage(msgspec.Struct, frozen=True):
    """What is wrong with an object, and since when that is known."""

    fault: str
    found_ns: int


class Round(msgspec.Struct):
    """How far the objects are checked; stored so that the next keeper goes on there."""

    began_ns: int = 0  # 0: none is under way
    after: str = ""  # the last one checked
    complete_ns: int = 0  # when the last complete round began: all objects are checked since
    damaged: dict[str, Damage] = {}


def read_round(bucket: Bucket, name: str) -> Round:
    """Return the round that an object holds, a new one if it is damaged; raise ObjectMissing."""
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(bucket.get(name), type=Round)
    return Round()


def last_round(bucket: Bucket, cluster: str) -> Round:
    """Return how far a cluster's scrubber is; raise BucketUnavailable."""
    while names := list(bucket.names(scrub_folder(cluster))):
        with contextlib.suppress(ObjectMissing):  # the next one is there before it goes
            return read_round(bucket, max(names))
    return Round()
