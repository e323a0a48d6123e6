"""A whole pipeline of real processes for one test: collectors, indexers, a topic and a bucket.

Log files in the kubelet's layout go in; the test kills, stops and starts what it likes and then
asks the table and its ledger what has come of them. Nothing outlives the test.
"""

import contextlib
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from indexer.errors import TableError
from indexer.ledger.bring_up import bring_up
from indexer.ledger.entries import missing
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable
from indexer.query.scope import Scope
from indexer.store.bucket import Bucket
from indexer.store.open import open_bucket
from indexer.table.table import Table
from load_tests.verify import Sum, sums_of_files, sums_of_table
from query_api.completeness.gaps import RECOVERED, Gap, find_gaps
from query_api.completeness.replica import Replica
from query_api.completeness.verdict import Trouble, judge

CLUSTER = "test"
_COLLECTOR = {
    "flush_age_ms": 100,
    "scan_interval_ms": 100,
    "inventory_interval_ms": 300,
    "inventory_full_interval_ms": 1_000,
    "seal_quiet_ms": 1_000,
    "event_wait_ms": 1_000,
    "checkpoint_interval_ms": 100,
}
# A group would give the partitions of one that was killed to nobody for seconds.
_INDEXER = {
    "partitions": "all",
    "flush_age_ms": 200,
    "check_interval_ms": 500,
    "retry_most_ms": 500,
}


def eventually(true: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait until ``true()``; fail with its last value otherwise."""
    until = time.monotonic() + timeout_s
    while not (value := true()):
        assert time.monotonic() < until, f"not within {timeout_s} s, last: {value!r}"
        time.sleep(0.05)


@dataclass
class Way:
    """One pipeline below ``folder``; ``topic`` and ``bucket`` are URLs."""

    folder: Path
    topic: str
    bucket: str
    partitions: int = 1
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def logs(self) -> Path:
        """The root that the collector watches."""
        return self.folder / "pods"

    def write(self, pod: str, data: bytes, name: str = "0.log") -> Path:
        """Append to a container's file; return its path."""
        path = self.logs / f"shop_{pod}_{pod}-uid" / "app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(data)
        return path

    # -- processes ---------------------------------------------------------------------------

    def collector(self, name: str = "collector", **more: Any) -> "subprocess.Popen[bytes]":
        """Start the collector of node-1, or start it again."""
        self.logs.mkdir(parents=True, exist_ok=True)
        flags = {
            "cluster": CLUSTER,
            "node": "node-1",
            "roots": self.logs,
            "topic": self.topic,
            "state": self.folder / "collector",
            "partitions": self.partitions,
            **_COLLECTOR,
            **more,
        }
        return self._start(name, "collector.run", flags)

    def indexer(self, name: str = "indexer", **more: Any) -> "subprocess.Popen[bytes]":
        """Start an indexer, or start it again."""
        flags = {"cluster": CLUSTER, "topic": self.topic, "bucket": self.bucket, **_INDEXER, **more}
        return self._start(name, "indexer.run", flags)

    def keeper(self, name: str = "keeper", **more: Any) -> "subprocess.Popen[bytes]":
        """Start a keeper, or start it again."""
        flags = {"cluster": CLUSTER, "bucket": self.bucket, **more}
        return self._start(name, "indexer.keeper.run", flags)

    def _start(self, name: str, module: str, flags: dict[str, Any]) -> "subprocess.Popen[bytes]":
        words = [f"--{key.replace('_', '-')}={value}" for key, value in flags.items()]
        program = (
            f"import os, sys; from {module} import main; sys.exit(main(sys.argv[1:], os.environ))"
        )
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", program, *words, "--listen=127.0.0.1:0"],
                stdout=log, stderr=log,
            )  # fmt: skip
        self.processes[name] = process
        return process

    def kill(self, name: str) -> None:
        """End a process as a power cut would."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str) -> int:
        """Ask a process to stop; return its exit code."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=30)

    def close(self) -> None:
        """Kill what still runs."""
        for process in self.processes.values():
            process.kill()
            process.wait()

    def said(self, name: str) -> str:
        """Return what a process has logged."""
        return (self.folder / f"{name}.log").read_text()

    def status(self, name: str) -> str:
        """Return what a process' status page says; empty while it does not answer."""
        process = psutil.Process(self.processes[name].pid)
        for listening in process.net_connections():
            if listening.status == psutil.CONN_LISTEN:
                with contextlib.suppress(OSError):
                    url = f"http://127.0.0.1:{listening.laddr.port}/status"
                    return str(urllib.request.urlopen(url, timeout=5).read(), "utf-8")
        return ""

    # -- what has come of it -----------------------------------------------------------------

    def opened(self) -> Bucket:
        """Return the bucket."""
        return open_bucket(self.bucket)

    def ledger(self) -> Ledger:
        """Return the ledger of the newest version; an empty one while there is no table."""
        table = Table(self.opened(), CLUSTER)
        try:
            version = table.snapshot().version()
        except TableError:
            return Ledger()
        return bring_up(LedgerTable(self.opened(), CLUSTER).load(), table, version)

    def gaps(self) -> list[Gap]:
        """Return every gap that a reader is told of, but those that were recovered."""
        return [gap for gap in find_gaps(self.ledger()) if gap.state != RECOVERED]

    def verdict(self, pod: str) -> str:
        """Return what an answer about all lines of a pod says of itself."""
        replica = Replica(self.opened(), CLUSTER, 1)
        scope = Scope(from_ns=0, to_ns=time.time_ns(), equals={"pod": (pod,)})
        return judge(replica.refresh(), scope, CLUSTER, Trouble()).verdict

    def covers(self, path: Path) -> bool:
        """Return whether some file of the table is covered to the size of ``path``."""
        size = path.stat().st_size
        pod = path.parts[-3].split("_")[1]
        return any(
            file.pod == pod and file.covered_end >= size and not list(missing(file, size))
            for file in self.ledger().files.values()
        )

    def covers_everything(self) -> bool:
        """Return whether as many bytes are covered as are on disk."""
        on_disk = sum(path.stat().st_size for path in self.logs.glob("*/*/*.log*"))
        files = self.ledger().files.values()
        return on_disk == sum(part.end - part.start for f in files for part in f.covered)

    def table_sums(self) -> list[Sum]:
        """Return the sum of each file in the table."""
        table = Table(self.opened(), CLUSTER)
        return sums_of_table(table.uri, table.bucket.storage_options)

    def differs(self) -> list[str]:
        """Return the files whose rows are not exactly their messages, and files too many."""
        table = sorted(each.digest for each in self.table_sums())
        files = sums_of_files([self.logs])
        wrong = ["/".join(key[1:]) for key, each in files.items() if each.digest not in table]
        if len(table) != len(files):
            wrong.append(f"{len(table)} files in the table, {len(files)} on disk")
        return wrong


@contextlib.contextmanager
def a_way(folder: Path, topic: str, bucket: str, partitions: int = 1) -> Iterator[Way]:
    """Give a pipeline and end whatever it has started."""
    way = Way(folder, topic, bucket, partitions)
    try:
        yield way
    finally:
        way.close()


def cri(number: int, message: str = "", output: str = "stdout", tag: str = "F") -> bytes:
    """Return one CRI line; lines with higher numbers are later."""
    time_text = f"2026-03-01T12:{number // 60 % 60:02d}:{number % 60:02d}.{number:09d}Z"
    return f"{time_text} {output} {tag} {message or f'line {number}'}\n".encode()


def lines(first: int, last: int) -> bytes:
    """Return CRI lines ``first`` to ``last - 1``."""
    return b"".join(cri(number) for number in range(first, last))


def environment(bucket: Any) -> dict[str, str]:
    """Return the variables with which every process finds the S3 server."""
    return {
        "AWS_ENDPOINT_URL": bucket.endpoint,
        "AWS_ACCESS_KEY_ID": bucket.access_key,
        "AWS_SECRET_ACCESS_KEY": bucket.secret_key,
        "AWS_REGION": bucket.region,
        "AWS_ALLOW_HTTP": "true",
    }
