"""Containers that write, and a kubelet that rotates, compresses and deletes what they wrote.

A seed and rates go in; files in the kubelet's layout come and go, by the steps of kubelet and
containerd, and a truth beside them says what each file ever held. One tick stands for the
kubelet's ten seconds: time in ticks is true to life, whatever a tick's length.

Sources: pkg/kubelet/logs/container_log_manager.go and pkg/kubelet/kuberuntime/kuberuntime_gc.go of
Kubernetes, internal/cri/io/logger.go of containerd.
"""

import argparse
import gzip
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from load_tests.generate import pod_directory
from load_tests.truth import Deleted, Lines, Log, Moved, Parted, Wrote

TICK_S = 10
"""Seconds between two looks of a real kubelet: what a tick stands for."""

GC_TICKS = 6
"""Dead containers are collected once a minute."""

_WRITE_MS = 100
_NOISY_EVERY = 10
_NOISE = 10  # a noisy container writes this many times what another does


@dataclass(frozen=True, slots=True)
class Rates:
    """How much happens: ``lines_per_s`` of ``files`` containers together, the rest per minute.

    ``max_bytes`` and ``max_files`` are the kubelet's containerLogMaxSize and -MaxFiles.
    ``linger_ticks``: what is dead stays at least so long before it is collected.
    """

    files: int = 200
    lines_per_s: float = 5000.0
    tick_ms: int = 1000
    max_bytes: int = 100_000
    max_files: int = 5
    restarts_per_min: float = 0.0
    pods_per_min: float = 0.0
    linger_ticks: int = 0


@dataclass(slots=True)
class Logger:
    """An open file of a container, as its runtime holds it."""

    fd: int
    file: int
    size: int = 0


@dataclass(slots=True)
class Late:
    """A fragment that a closed logger still writes to its file, which has been renamed."""

    due_ns: int
    logger: Logger
    number: int
    end: int


class Container:
    """One container of a pod of its own: it writes numbered lines, restarts and ends."""

    def __init__(
        self, root: Path, log: Log, lines: Lines, number: int, rng: random.Random, now_ns: int
    ) -> None:
        """Open its first file; ``number`` tells it from every other that there ever was."""
        self.directory = pod_directory(number, random.Random(f"{rng.random()} {number}"))
        self.number = number
        self.restart = 0
        self.dead: list[tuple[int, int]] = []  # restart number, tick of its end
        self.names: dict[str, Logger] = {}
        self._root = root
        self._log = log
        self._lines = lines
        self._rng = rng
        self._next = 0
        self._due = 0.0
        self._late: list[Late] = []
        (root / self.directory).mkdir(parents=True)
        self._logger = self._open(now_ns)

    @property
    def path(self) -> Path:
        """Return the file that is written to."""
        return self._root / self.directory / f"{self.restart}.log"

    def _open(self, now_ns: int) -> Logger:
        path = self.path
        fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o640)
        below = str(path.relative_to(self._root))
        logger = Logger(fd, self._log.opened(self.number, below, now_ns))
        self.names[path.name] = logger
        return logger

    def write(self, now_ns: int, lines: float) -> None:
        """Write as many lines as are due, and what closed loggers still hold."""
        for late in [late for late in self._late if late.due_ns <= now_ns]:
            self._flush_late(late, now_ns)
        self._due += lines
        if count := int(self._due):
            self._due -= count
            logger = self._logger
            data = self._lines.block(self.number, self._next, count, now_ns)
            self._log.add(Wrote(logger.file, logger.size, self._next, count, now_ns))
            self._next += count
            _append(logger, data)

    def _part(self, logger: Logger, number: int, start: int, end: int, now_ns: int) -> None:
        data = self._lines.part(self.number, number, start, end, now_ns)
        self._log.add(Parted(logger.file, logger.size, number, start, end, now_ns))
        _append(logger, data)

    def _flush_late(self, late: Late, now_ns: int) -> None:
        self._late.remove(late)
        self._part(late.logger, late.number, 0, late.end, now_ns)
        os.close(late.logger.fd)

    def _half_an_event(self) -> tuple[int, int, int]:
        """Return the number of the next event, how much of it is there by now, and its length."""
        number, length = self._next, len(self._lines.message(self.number, self._next))
        self._next += 1
        return number, self._rng.randrange(length // 2, length), length

    def reopen(self, now_ns: int, late_ns: int) -> None:
        """Go over to a new file, as containerd does when its file was renamed.

        The logger before may hold half of an event. It flushes that, as a fragment, up to
        ``late_ns`` after the new file is there, where the other half goes.
        """
        before, self._logger = self._logger, self._open(now_ns)
        if self._rng.random() < 0.5:
            os.close(before.fd)
            return
        number, cut, length = self._half_an_event()
        self._part(self._logger, number, cut, length, now_ns)
        self._late.append(Late(now_ns + self._rng.randrange(late_ns), before, number, cut))

    def end(self, now_ns: int) -> None:
        """Exit, half of the time with an output that does not end in a newline."""
        for late in list(self._late):
            self._flush_late(late, now_ns)
        if self._rng.random() < 0.5:
            number, cut, _ = self._half_an_event()
            self._part(self._logger, number, 0, cut, now_ns)
        os.close(self._logger.fd)

    def start_again(self, now_ns: int, tick: int) -> None:
        """Exit and start as the next instance."""
        self.end(now_ns)
        self.dead.append((self.restart, tick))
        self.restart += 1
        self._logger = self._open(now_ns)

    def renamed(self, old: str, new: str, now_ns: int) -> None:
        """Note that the file ``old`` of the directory is ``new`` from now on."""
        self.names[new] = logger = self.names.pop(old)
        self._log.add(Moved(logger.file, str(self.directory / new), now_ns))

    def deleted(self, name: str, why: str, now_ns: int) -> None:
        """Note that a file of the directory has been deleted."""
        logger = self.names.pop(name)
        self._log.add(Deleted(logger.file, now_ns, logger.size, why))


def _append(logger: Logger, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(logger.fd, view) :]
    logger.size += len(data)


class Kubelet:
    """All containers of a node. Time is handed in; the disk is the only memory of the rotation."""

    def __init__(self, root: Path, truth: Path, rates: Rates, seed: int, now_ns: int) -> None:
        """Start the containers below ``root``."""
        self._root = root
        self._rates = rates
        self._rng = random.Random(seed)
        self._log = Log(truth, seed)
        self._lines = Lines(seed)
        self._tick = 0
        self._began_ns = now_ns
        self._written_ns = now_ns
        self._pods = 0
        self._restarts_due = self._pods_due = 0.0
        self._ended: list[tuple[Container, int]] = []
        self.containers = [self._new_container(now_ns) for _ in range(rates.files)]
        noisy = len(range(0, rates.files, _NOISY_EVERY))
        self._unit = rates.lines_per_s / (rates.files + noisy * (_NOISE - 1))

    def _new_container(self, now_ns: int) -> Container:
        self._pods += 1
        return Container(self._root, self._log, self._lines, self._pods - 1, self._rng, now_ns)

    def write(self, now_ns: int) -> None:
        """Let every container write what is due since the last time."""
        passed_s = (now_ns - self._written_ns) / 1e9
        self._written_ns = now_ns
        for at, container in enumerate(self.containers):
            noise = 1 if at % _NOISY_EVERY else _NOISE
            container.write(now_ns, passed_s * self._unit * noise)

    def tick(self, now_ns: int) -> None:
        """Do what a kubelet does every ten seconds, and each minute's part if it is time."""
        self._tick += 1
        for container in self.containers:
            self.rotate(container, now_ns)
        share = self._rates.tick_ms / 60_000
        self._restarts_due += self._rates.restarts_per_min * share
        self._pods_due += self._rates.pods_per_min * share
        while self._restarts_due >= 1:
            self._restarts_due -= 1
            self._rng.choice(self.containers).start_again(now_ns, self._tick)
        while self._pods_due >= 1:
            self._pods_due -= 1
            at = self._rng.randrange(len(self.containers))
            self.containers[at].end(now_ns)
            self._ended.append((self.containers[at], self._tick))
            self.containers[at] = self._new_container(now_ns)
        if self._tick % GC_TICKS == 0:
            self._collect_garbage(now_ns)

    # -- rotation ------------------------------------------------------------------------------

    def rotate(self, container: Container, now_ns: int) -> None:
        """Rotate the file of a running container if it has reached its size."""
        path = container.path
        late_ns = self._rates.tick_ms * 500_000
        try:
            if path.stat().st_size < self._rates.max_bytes:
                return
        except FileNotFoundError:  # a kubelet died between rename and reopen
            container.reopen(now_ns, late_ns)
            return
        rotated = _without_unused(sorted(path.parent.glob(f"{path.name}.*")))
        excess = max(len(rotated) - (self._rates.max_files - 2), 0)
        for old in rotated[:excess]:
            old.unlink()
            container.deleted(old.name, "excess", now_ns)
        for old in rotated[excess:]:
            if old.suffix != ".gz":
                _compress(old)
                container.renamed(old.name, f"{old.name}.gz", now_ns)
        new = path.with_name(f"{path.name}.{self._stamp(now_ns)}")
        path.rename(new)
        container.renamed(path.name, new.name, now_ns)
        container.reopen(now_ns, late_ns)

    def _stamp(self, now_ns: int) -> str:
        """Return the time to the second, of a clock on which a tick takes ten seconds.

        A stamp has no more than that, and nobody looks whether the name is taken.
        """
        passed_s = (now_ns - self._began_ns) / 1e6 / self._rates.tick_ms * TICK_S
        time_s = self._began_ns // 10**9 + passed_s
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y%m%d-%H%M%S")

    # -- deletion ------------------------------------------------------------------------------

    def _collect_garbage(self, now_ns: int) -> None:
        """Delete the files of all but the last dead instance, and the directories of ended pods."""
        newest = self._tick - self._rates.linger_ticks
        for container in self.containers:
            for restart, tick in container.dead[:-1]:
                if tick <= newest:
                    self._delete(container, f"{restart}.log", "restart", now_ns)
                    container.dead.remove((restart, tick))
        for container, tick in list(self._ended):
            if tick <= newest:
                self._delete(container, "", "pod", now_ns)
                shutil.rmtree((self._root / container.directory).parent)
                self._ended.remove((container, tick))

    def _delete(self, container: Container, start: str, why: str, now_ns: int) -> None:
        for name in [name for name in container.names if name.startswith(start)]:
            (self._root / container.directory / name).unlink()
            container.deleted(name, why, now_ns)

    def close(self, now_ns: int) -> None:
        """End every container, and bring the truth to the disk."""
        for container in self.containers:
            container.end(now_ns)
        self._log.close()

    def run(self, seconds: float, stops: Sequence[int]) -> None:
        """Write and tick by the clock until ``seconds`` have passed or ``stops`` holds anything."""
        until_ns = self._began_ns + int(seconds * 1e9)
        next_tick_ns = self._began_ns
        while not stops and (now_ns := time.time_ns()) < until_ns:
            self.write(now_ns)
            if now_ns >= next_tick_ns:
                self.tick(now_ns)
                next_tick_ns = now_ns + self._rates.tick_ms * 1_000_000  # ticks do not pile up
            time.sleep(max(_WRITE_MS / 1000 - (time.time_ns() - now_ns) / 1e9, 0.001))
        self.close(time.time_ns())


def _without_unused(rotated: Sequence[Path]) -> list[Path]:
    """Delete gzips in the making, and plain files that were compressed; return the rest."""
    names = {path.name for path in rotated}
    kept = []
    for path in rotated:
        if path.suffix == ".tmp" or f"{path.name}.gz" in names:
            path.unlink()
        else:
            kept.append(path)
    return kept


def _compress(path: Path) -> None:
    making = path.with_name(f"{path.name}.tmp")
    with path.open("rb") as plain, gzip.open(making, "wb", compresslevel=1) as compressed:
        shutil.copyfileobj(plain, compressed)
    making.rename(path.with_name(f"{path.name}.gz"))
    path.unlink()


def main(argv: Sequence[str]) -> int:
    """Be a node for a while; SIGTERM ends it early, with its truth on the disk."""
    parser = argparse.ArgumentParser(prog="load_tests.kubelet", description=main.__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    defaults = Rates()
    names = Rates.__slots__
    for name in names:
        default = getattr(defaults, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help="%(default)s"
        )
    options = parser.parse_args(argv)
    stops: list[int] = []
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda number, frame: stops.append(number))
    rates = Rates(**{name: getattr(options, name) for name in names})
    options.root.mkdir(parents=True, exist_ok=True)
    kubelet = Kubelet(options.root, options.truth, rates, options.seed, time.time_ns())
    kubelet.run(options.seconds, stops)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
