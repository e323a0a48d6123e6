"""Every name of a file that the collector keeps for itself, and of those of a local topic.

    STATE/                        the state directory of one collector
        lock                          held as long as it runs
        checkpoint                    how far the topic has each file
        checkpoint.previous           the one before
        metadata                      what Kubernetes has said of the node's pods
        spool/POSITION.log            a finished batch that the topic has not taken yet
    TOPIC/                        a local topic
        lock                          held while it is made
        topic.json                    its id, and how many partitions it has
        PARTITION/lock                held while somebody appends
        PARTITION/POSITION.log        records from this position on

POSITION has 20 decimal digits, so that files sort as the records do. What is written aside has
``.tmp`` behind its name until it is whole.
"""

LOCK = "lock"
CHECKPOINT = "checkpoint"
PREVIOUS_CHECKPOINT = "checkpoint.previous"
METADATA = "metadata"
SPOOL = "spool"
TOPIC = "topic.json"


def log_name(position: int) -> str:
    """Return the name of a file of records, by the position of the first."""
    return f"{position:020d}.log"


def log_position(name: str) -> int | None:
    """Return the position in the name of a file of records; None for a file that is another."""
    stem = name.removesuffix(".log")
    if not (stem.isascii() and stem.isdecimal()) or name != log_name(int(stem)):
        return None
    return int(stem)
