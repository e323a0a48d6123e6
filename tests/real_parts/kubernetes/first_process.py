"""The first process of a test node: it starts containerd and kubelet where nothing can escape.

It runs in a process and a mount namespace of its own, so that the kernel ends every container and
takes back every mount when it dies. What no namespace holds, the cgroups, the same program takes
away afterwards.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
# containerd's shims and the kubelet write to fixed places below these, whatever their settings say.
_MOUNTS = (
    "mount -t tmpfs tmpfs /run",
    "mount -t tmpfs tmpfs /var/log",
    "mkdir /run/upper /run/work",
    "mount -t overlay overlay -o lowerdir=/var/lib,upperdir=/run/upper,workdir=/run/work /var/lib",
)
_START_S = 30


def cgroups(name: str) -> list[Path]:
    """The cgroup of a node in each hierarchy: one in version 2, one a controller in version 1."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS / name]
    return [path / name for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def run(cgroup: str, folder: Path, kubelet_command: list[str]) -> int:
    """Start all of the node and wait until a part of it ends; return 1."""
    for command in _MOUNTS:
        subprocess.run(command.split(), check=True)
    for path in cgroups(cgroup):
        path.mkdir()
    with (folder / "containerd.log").open("ab") as log:
        containerd = subprocess.Popen(
            ["containerd", "--config", folder / "containerd.toml"], stdout=log, stderr=log
        )
    _wait_for(folder / "containerd.sock")
    ctr = f"ctr --address {folder}/containerd.sock --namespace k8s.io"
    image = f"images import --snapshotter native {folder}/image.tar"
    subprocess.run([*ctr.split(), *image.split()], check=True)
    kubelet = subprocess.Popen(kubelet_command)
    # Containers whose shim has gone are this process' children, too.
    while os.wait()[0] not in (containerd.pid, kubelet.pid):
        pass
    return 1


def _wait_for(path: Path) -> None:
    end = time.monotonic() + _START_S
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path} did not appear within {_START_S} s")
        time.sleep(0.05)


def remove(cgroup: str) -> None:
    """Remove what a node has left, once its last process has gone."""
    end = time.monotonic() + _START_S
    for top in cgroups(cgroup):
        for path in sorted([top, *top.rglob("*/")], reverse=True):
            while path.is_dir() and time.monotonic() < end:
                for pid in (path / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                with contextlib.suppress(OSError):
                    path.rmdir()
                    break
                time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1] == "remove":
        remove(sys.argv[2])
    else:
        sys.exit(run(sys.argv[2], Path(sys.argv[3]), sys.argv[4:]))
