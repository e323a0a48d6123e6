"""CPU time and memory of processes: of the command zstd, and of Everyline's own.

A command goes in, it runs, and what it has cost comes out, as the kernel has counted it.
"""

import atexit
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DEADLINE_S = 600
_POLL_S = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds (user and system) of one process, and its peak memory in bytes (0: not known).

    The peak is what /proc says of the running process: the one that wait4 tells is at least that
    of the process that has forked it.
    """

    cpu_s: float
    peak_bytes: int = 0


def median(costs: Sequence[Cost]) -> Cost:
    """Return the medians of both figures."""
    cpu_s = statistics.median(cost.cpu_s for cost in costs)
    return Cost(cpu_s, round(statistics.median(cost.peak_bytes for cost in costs)))


def cost_so_far(pid: int) -> Cost:
    """Return what a running process has cost, to a hundredth of a second."""
    # After the name, which may hold anything: utime and stime are fields 14 and 15 (proc(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    return Cost((int(fields[11]) + int(fields[12])) / _TICKS, peak_kib * 1024)


def end(process: "subprocess.Popen[bytes]") -> Cost:
    """Ask a running process to end and return what it has cost."""
    peak_bytes = cost_so_far(process.pid).peak_bytes
    process.terminate()
    return Cost(wait_for(process).cpu_s, peak_bytes)


def wait_for(process: "subprocess.Popen[bytes]") -> Cost:
    """Wait for a process to end and return what it has cost; fail if it failed."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{process.args!r} ended with {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime)


def run_zstd(*words: str) -> Cost:
    """Run the command zstd on one thread."""
    return wait_for(subprocess.Popen(["zstd", "--single-thread", "-q", "-f", *words]))


@dataclass(frozen=True, slots=True)
class Everyline:
    """One of Everyline's processes, with the address of its page."""

    process: "subprocess.Popen[bytes]"
    address: str

    @classmethod
    def start(cls, folder: Path, words: Sequence[str]) -> "Everyline":
        """Start a process; its modules are compiled into ``folder``, as an installer does."""
        address = f"127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "query_api.command.cli", *words, f"--listen={address}"]
        environ = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environ)
        atexit.register(process.kill)  # does nothing to one that has been waited for
        return cls(process, address)

    def wait_until(self, done: Callable[[], bool]) -> None:
        """Return once ``done``; stop the process and fail if it has ended or takes too long."""
        until = time.monotonic() + _DEADLINE_S
        while not done():
            if self.process.poll() is not None or time.monotonic() > until:
                self.process.kill()
                raise SystemExit(f"bench: {self.process.args!r} did not get done")
            time.sleep(_POLL_S)

    def status(self) -> Mapping[str, Any]:
        """Return its status; nothing while it does not listen yet."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/status", timeout=5) as answer:
                found: Mapping[str, Any] = json.load(answer)
                return found
        except OSError:
            return {}


def run_everyline(
    folder: Path, words: Sequence[str], done: Callable[[Mapping[str, Any]], bool]
) -> Cost:
    """Run one of Everyline's processes until its status page says that it is done."""
    running = Everyline.start(folder, words)
    running.wait_until(lambda: done(running.status()))
    return end(running.process)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def print_costs(costs: Mapping[str, Cost], raw_bytes: int, starts: Collection[str]) -> None:
    """Print a Markdown table of what each has needed for ``raw_bytes``; ``starts`` had no bytes."""
    print("| | CPU s | CPU s/GB | MB a CPU s | peak MB |")
    print("|---|---|---|---|---|")
    for name, cost in costs.items():
        per_gb, speed = f"{cost.cpu_s / raw_bytes * 1e9:.2f}", f"{raw_bytes / 1e6 / cost.cpu_s:.0f}"
        if name in starts:
            per_gb = speed = ""
        peak = f"{cost.peak_bytes / 1e6:.0f}" if cost.peak_bytes else ""
        print(f"| {name} | {cost.cpu_s:.2f} | {per_gb} | {speed} | {peak} |")
    print()
