"""The live demo: a handful of pods that log like real services, in the kubelet's layout.

A seed and the clock go in; files grow, rotate and go, as they do on a node. Nothing is deleted
before the collector has long read it, except the one pod that ``evict`` asks for.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.times import format_time
from query_api.local.demo_lines import (
    Writer,
    checkout_lines,
    ingress_lines,
    ledger_lines,
    random_hex,
    report_lines,
    strftime,
    web_lines,
)

FRAGMENT_BYTES = 16 << 10
"""Where containerd splits a long line (max_container_log_line_size)."""

_S = 1_000_000_000
_MS = 1_000_000
_ROTATED_KEPT = 3
_EVICTED_AFTER_NS = 1_500_000_000
_SWEEP_NS = (10 * _S, 25 * _S)  # after the collector came back, and well before it goes again
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # what Kubernetes makes names of
_TICK_S = 0.05


@dataclass(frozen=True, slots=True)
class Workload:
    """What its pods have in common; ``lives_s`` is for a job's pod, which then is replaced."""

    namespace: str
    name: str
    container: str
    per_s: float
    lines: Writer
    replicas: int = 1
    restarts_s: tuple[int, int] = (0, 0)
    lives_s: int = 0
    hello: str = "starting"
    template: str = ""


WORKLOADS = (
    Workload(
        "payments",
        "ledger",
        "ledger",
        4,
        ledger_lines,
        restarts_s=(90, 200),
        hello="Starting LedgerApplication using Java 21.0.4 with PID 1",
        template="7c9d5f6b8",
    ),
    Workload(
        "shop",
        "checkout",
        "checkout",
        8,
        checkout_lines,
        restarts_s=(150, 300),
        hello='{"level":"info","msg":"listening on :8080"}',
        template="5f94b7c66d",
    ),
    Workload(
        "shop",
        "web",
        "nginx",
        6,
        web_lines,
        replicas=2,
        hello="nginx: configuration is read, 4 workers",
        template="6b8c5d9f7",
    ),
    Workload(
        "platform",
        "ingress",
        "controller",
        10,
        ingress_lines,
        hello='level=info msg="synchronised 4 routes"',
        template="84d6f59bc9",
    ),
    Workload("batch", "report", "report", 3, report_lines, lives_s=50, hello="[report] starting"),
)
_EVICTED = ("ledger", "checkout", "ingress", "web")


@dataclass(slots=True)
class Pod:
    """One pod with one container: where it is on disk, and when what happens to it next."""

    workload: Workload
    directory: Path
    restart: int = 0
    fd: int = -1
    next_ns: int = 0
    rotates_ns: int = 0
    restarts_ns: int = 0
    ends_ns: int = 0

    @property
    def title(self) -> str:
        """Namespace and name."""
        namespace, name, _ = self.directory.name.split("_")
        return f"{namespace}/{name}"

    @property
    def path(self) -> Path:
        """The file that is written to."""
        return self.directory / self.workload.container / f"{self.restart}.log"


class Demo:
    """All pods; ``step`` writes what is due. Same seed and same times, same bytes."""

    def __init__(self, directory: Path, seed: int, now_ns: int) -> None:
        """Take up the pods that ``directory`` holds from an earlier run, or make them."""
        self._directory = directory
        self._rng = random.Random(f"{seed} {now_ns}")  # noqa: S311 - made-up logs
        self._evictions = 0
        self._evict_ns = 0
        self._running_ns = 0
        self._began_ns = now_ns
        self._finished: dict[Path, int] = {}
        self.pods: list[Pod] = []
        for workload in WORKLOADS:
            found = [self._resumed(workload, path) for path in self._newest(workload)]
            for number in range(workload.replicas):
                pod = found[number] if number < len(found) else self._new_pod(workload, now_ns)
                self._schedule(pod, now_ns)
                self.pods.append(pod)

    def _newest(self, workload: Workload) -> list[Path]:
        """Return the directories of a workload's live pods, the last written to first."""
        pattern = f"{workload.namespace}_{workload.name}-*/{workload.container}/*.log"
        logs = sorted(self._directory.glob(pattern), key=lambda log: -log.stat().st_mtime_ns)
        return list(dict.fromkeys(log.parents[1] for log in logs))[: workload.replicas]

    def _resumed(self, workload: Workload, directory: Path) -> Pod:
        logs = (directory / workload.container).glob("*.log")
        return Pod(workload, directory, restart=max(int(log.stem) for log in logs))

    def _new_pod(self, workload: Workload, now_ns: int) -> Pod:
        rng = self._rng
        end = "".join(rng.choices(_ALPHABET, k=5))
        middle = str(now_ns // (60 * _S)) if workload.lives_s else workload.template
        uid = random_hex(rng, 32)
        uid = f"{uid[:8]}-{uid[8:12]}-4{uid[13:16]}-a{uid[17:20]}-{uid[20:]}"
        name = f"{workload.namespace}_{workload.name}-{middle}-{end}_{uid}"
        pod = Pod(workload, self._directory / name)
        self._write(pod, now_ns, "stdout", workload.hello)
        return pod

    def _schedule(self, pod: Pod, now_ns: int) -> None:
        rng, workload = self._rng, pod.workload
        pod.next_ns = now_ns
        pod.rotates_ns = now_ns + rng.randrange(20 * _S, 40 * _S)
        if workload.restarts_s[1]:
            pod.restarts_ns = now_ns + rng.randint(*workload.restarts_s) * _S
        if workload.lives_s:
            pod.ends_ns = now_ns + workload.lives_s * _S

    def step(self, now_ns: int) -> str | None:
        """Write all lines due by ``now_ns``, rotate, restart; return the pod evicted, if one was.

        Raises OSError where the disk does not take a line; that line is lost, as a runtime's is.
        """
        for number, pod in enumerate(self.pods):
            pod.next_ns = max(pod.next_ns, now_ns - 2 * _S)  # the machine may have slept
            while pod.next_ns <= now_ns:
                at_ns = pod.next_ns
                pod.next_ns += int(self._rng.expovariate(pod.workload.per_s) * _S) + _MS
                self._event(pod, at_ns)
            if pod.ends_ns and now_ns >= pod.ends_ns:
                self._write(pod, now_ns, "stdout", "[report] finished")
                self._finished[pod.directory] = now_ns
                self._replace(number, now_ns)
            elif pod.restarts_ns and now_ns >= pod.restarts_ns:
                self._restart(pod, now_ns)
            elif now_ns >= pod.rotates_ns:
                self._rotate(pod, now_ns)
        if self._running_ns and now_ns - self._running_ns >= _SWEEP_NS[0]:
            if now_ns - self._running_ns <= _SWEEP_NS[1]:
                self._sweep(now_ns)
            self._running_ns = 0
        if self._evict_ns and now_ns >= self._evict_ns:
            self._evict_ns = 0
            return self._remove_one(now_ns)
        return None

    def _event(self, pod: Pod, at_ns: int) -> None:
        for output, message in pod.workload.lines(self._rng, at_ns):
            self._write(pod, at_ns, output, message)
            at_ns += self._rng.randrange(900, 9_000)

    @staticmethod
    def _write(pod: Pod, at_ns: int, output: str, message: str) -> None:
        if pod.fd < 0:
            pod.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            pod.fd = os.open(pod.path, flags, 0o640)
        for line in cri_lines(at_ns, output, message.encode()):
            os.write(pod.fd, line)

    @staticmethod
    def _close(pod: Pod) -> None:
        if pod.fd >= 0:
            os.close(pod.fd)
            pod.fd = -1

    def _rotate(self, pod: Pod, now_ns: int) -> None:
        """Rename with a stamp, as the kubelet does; the next line makes the new file."""
        pod.rotates_ns = now_ns + self._rng.randrange(20 * _S, 40 * _S)
        rotated = pod.path.with_name(pod.path.name + strftime(now_ns, ".%Y%m%d-%H%M%S"))
        if pod.fd >= 0 and not rotated.exists():
            self._close(pod)
            pod.path.rename(rotated)

    def _restart(self, pod: Pod, now_ns: int) -> None:
        """Let the container crash; its next instance writes to a file of its own."""
        self._write(pod, now_ns, "stderr", "fatal: out of memory, exit code 137")
        self._close(pod)
        pod.restart += 1
        self._schedule(pod, now_ns)
        self._write(pod, now_ns, "stdout", pod.workload.hello)

    def _replace(self, number: int, now_ns: int) -> None:
        self._close(self.pods[number])
        pod = self._new_pod(self.pods[number].workload, now_ns)
        self._schedule(pod, now_ns)
        self.pods[number] = pod

    def running(self, now_ns: int) -> None:
        """Take note that the collector is there: what it has long read may be deleted soon."""
        self._running_ns = now_ns

    def evict(self, now_ns: int) -> None:
        """Take note that the collector is away: one pod goes soon, with lines that none read."""
        self._running_ns = 0
        self._evict_ns = now_ns + _EVICTED_AFTER_NS

    def _remove_one(self, now_ns: int) -> str:
        name = _EVICTED[self._evictions % len(_EVICTED)]
        self._evictions += 1
        number = next(n for n, pod in enumerate(self.pods) if pod.workload.name == name)
        pod = self.pods[number]
        for event in range(5):
            self._event(pod, now_ns + event * _MS)
        self._close(pod)
        shutil.rmtree(pod.directory)
        self._replace(number, now_ns)
        return pod.title

    def _sweep(self, now_ns: int) -> None:
        """Delete what the kubelet would: old rotated files, old instances, pods long finished."""
        live = {pod.directory: pod for pod in self.pods}
        for directory in self._directory.iterdir():
            logs = list(directory.glob("*/*.log*"))
            pod = live.get(directory)
            if pod is None:
                # What an earlier run has left counts as finished when this one began.
                if now_ns - self._finished.setdefault(directory, self._began_ns) > 60 * _S:
                    shutil.rmtree(directory)
                continue
            numbers = [(int(log.name.split(".")[0]), log) for log in logs]
            for restart in range(pod.restart + 1):
                rotated = sorted(log for n, log in numbers if n == restart and log.suffix != ".log")
                old = rotated[:-_ROTATED_KEPT]
                if restart < pod.restart - 1:
                    old = [log for n, log in numbers if n == restart]
                for log in old:
                    log.unlink()

    def close(self) -> None:
        """Close all files."""
        for pod in self.pods:
            self._close(pod)


def cri_lines(at_ns: int, output: str, message: bytes) -> Iterator[bytes]:
    """Give the lines that containerd writes for one message; its times end in no zero."""
    while True:
        head, message = message[:FRAGMENT_BYTES], message[FRAGMENT_BYTES:]
        stamp = format_time(at_ns)[:-1].rstrip("0").rstrip(".") + "Z"
        yield f"{stamp} {output} {'P' if message else 'F'} ".encode() + head + b"\n"
        if not message:
            return
        at_ns += 1_000


def main(argv: Sequence[str]) -> int:
    """Write until told to stop, or until standard input ends; it takes ``evict``, ``running``."""
    parser = argparse.ArgumentParser(prog="query_api.local.demo", description=main.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stops.append(number))
    demo = Demo(options.directory, options.seed, time.time_ns())
    commands = {b"evict": demo.evict, b"running": demo.running}
    while not stops:
        if select.select([0], [], [], _TICK_S)[0]:
            if not (words := os.read(0, 4096)):
                break
            for word in words.split():
                commands[word](time.time_ns())
        try:
            if evicted := demo.step(time.time_ns()):
                _log("info", "deleted a pod unread", evicted=evicted)
        except OSError as error:
            _log("error", "cannot write the demo's logs", error=str(error))
    demo.close()
    return 0


def _log(level: str, message: str, **more: str) -> None:
    line = {"time": format_time(time.time_ns()), "level": level, "message": message, **more}
    sys.stderr.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
