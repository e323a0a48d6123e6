"""Every error that the collector and its topic raise, in one tree.

CollectorError
├── SettingError            a setting is wrong or unknown
├── WireError               bytes that are not a batch
│   ├── TornBatch             cut, corrupt or not a batch at all
│   └── NewerWireVersion      written by a newer collector than this reader knows
├── TopicError              the topic did not do what was asked
│   ├── TopicUnavailable      it may do so later (retriable)
│   ├── TopicMissing          it is not there, or has too few partitions
│   ├── BatchTooLarge         it does not accept a record of this size
│   └── PositionOutOfRange    the position asked for is not in the topic
├── WrongStage              a file cannot go from its stage to another: a bug
├── CheckpointError         the state directory cannot be used
├── MetadataError           labels and owners cannot be had now (retriable)
│   └── MetadataExpired       the version asked from is forgotten: list again
└── AnotherCollector        a second collector holds the state directory
"""


class CollectorError(Exception):
    """Root of the tree; ``retriable`` says whether the same call may succeed later."""

    retriable = False


class SettingError(CollectorError):
    """A setting is unknown, of the wrong type or out of its bounds."""


class WireError(CollectorError):
    """Bytes that cannot be read as a batch."""


class TornBatch(WireError):
    """A batch that is cut, corrupt or no batch at all."""


class NewerWireVersion(WireError):
    """A batch of a newer wire version: upgrade the reader; nothing may be skipped."""


class TopicError(CollectorError):
    """The topic did not do what was asked."""


class TopicUnavailable(TopicError):
    """The topic is away; the same call may succeed later."""

    retriable = True


class TopicMissing(TopicError):
    """The topic, or a partition of it, does not exist."""


class BatchTooLarge(TopicError):
    """A record of ``size`` bytes, which the topic will never take: send it in parts."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the topic does not accept a record of {size} bytes; send it in parts")
        self.size = size


class PositionOutOfRange(TopicError):
    """A position below the topic's start or above its end."""

    def __init__(self, partition: int, position: int) -> None:
        super().__init__(f"position {position} of partition {partition} is not in the topic")
        self.partition = partition
        self.position = position


class WrongStage(CollectorError):
    """A file was to go from one stage of its life to one that may not follow: a bug, not a fault
    of the node.
    """


class CheckpointError(CollectorError):
    """The state directory cannot be read or written."""


class MetadataError(CollectorError):
    """Labels and owners cannot be had now; ``retry_after_s`` is what the server asks for."""

    retriable = True

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class MetadataExpired(MetadataError):
    """The server no longer knows the version that a list or a watch goes on from."""


class AnotherCollector(CollectorError):
    """Another collector holds the lock of this state directory."""
