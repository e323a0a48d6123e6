"""Which objects of the table storage has damaged, as far as that is known.

What the keeper's scrubber has noted and what reads of this service ran into goes in; out comes each
object's fault for as long as it matters: until the object has left the table, or a later round of
the scrubber has found it sound.
"""

import threading
from collections.abc import Mapping

from indexer.object_names import logs_folder
from indexer.store.bucket import Bucket
from indexer.table.damage import Damage, last_round
from query_api.completeness.replica import Snapshot


class Damages:
    """What is damaged in one cluster's table; its methods may be called from any thread."""

    def __init__(self, bucket: Bucket, cluster: str) -> None:
        """Know of nothing yet."""
        self._bucket = bucket
        self._cluster = cluster
        self._folder = logs_folder(cluster)
        self._lock = threading.Lock()
        self._met: dict[str, Damage] = {}

    def note(self, name: str, fault: str, now_ns: int) -> None:
        """Remember what a read of an object of the bucket ran into."""
        with self._lock:
            self._met.setdefault(name.removeprefix(self._folder), Damage(fault, now_ns))

    def of(self, snapshot: Snapshot) -> Mapping[str, Damage]:
        """Return what is wrong by name in the table; raise BucketUnavailable."""
        checked = last_round(self._bucket, self._cluster)
        with self._lock:
            there = snapshot.segments.held(self._met)
            self._met = {
                name: damage
                for name, damage in self._met.items()
                if name in there and damage.found_ns >= checked.complete_ns
            }
            return {**self._met, **checked.damaged}
