"""Runs one server for a test run, and ends it with that run, whatever ends the run.

Comes in: a folder and a command. The guard is a process between the two: it kills the server and
removes the folder when its standard input closes or its parent is gone, and the kernel kills the
server when the guard dies. A run that is killed with SIGKILL therefore leaves nothing behind.
"""

import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".tools"

_PR_SET_PDEATHSIG = 1  # prctl(2)
_KEEP = b"k"


class ServerError(Exception):
    """A server is not installed, did not get ready, or died."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether somebody on 127.0.0.1 takes connections at this port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Guarded:
    """A running server; its output goes to `server.log` in its folder.

    `pid` is the server's own, so that a test can stop it with a signal of its choice. `after` is a
    command that removes what the server leaves outside of its folder.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str] | None = None,
        after: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        words = [str(os.getpid()), str(folder), str(len(after)), *after, *command]
        self._guard = subprocess.Popen(
            [sys.executable, __file__, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C must reach the guard as an end of input
            env={**os.environ, **(env or {})},
        )
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        if not line:
            self._guard.communicate()
            raise ServerError(f"{command[0]} did not start")
        self.pid = int(line)

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Return when `ready()` is true; raise ServerError with the log if that takes too long."""
        end = time.monotonic() + timeout_s
        while not ready():
            if not self.alive() or time.monotonic() > end:
                log = self.log()
                self.stop()
                raise ServerError(f"server is not ready; its log ends with:\n{log[-4000:]}")
            time.sleep(0.05)

    def alive(self) -> bool:
        """Whether the server runs; a death shows within half a second."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def log(self) -> str:
        """What the server has said so far."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self, *, keep_folder: bool = False) -> None:
        """Kill the server with SIGKILL and wait for its end; remove its folder unless kept."""
        try:
            self._guard.communicate(_KEEP if keep_folder else b"", timeout=30)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            raise


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _guard(parent_pid: int, folder: Path, command: Sequence[str], after: Sequence[str]) -> None:
    keep = False
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_die_with_parent,  # safe: the guard has one thread
        )
        print(server.pid, flush=True)  # noqa: T201 - the parent reads it
        # A fork of the run can hold the pipe open, hence the look at the parent as well.
        while os.getppid() == parent_pid:
            server.poll()  # reaps a server that died, so that the parent sees it
            if select.select([sys.stdin], [], [], 0.25)[0]:
                keep = os.read(sys.stdin.fileno(), 1) == _KEEP
                break
        server.kill()
        server.wait()
        if after:
            subprocess.run(after, check=False, stdout=log, stderr=log)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    words = sys.argv[4:]
    split = int(sys.argv[3])
    _guard(int(sys.argv[1]), Path(sys.argv[2]), words[split:], words[:split])
