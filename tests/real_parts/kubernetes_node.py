"""One Kubernetes node, containerd and a kubelet without a cluster, started for a test run.

Pods that write numbered lines go in; the kubelet's log files come out, rotated, compressed and
deleted by nobody but the kubelet, and how many lines each container has written. It needs Linux
and root; when it has stopped, no process, mount, cgroup or file of it is left.
"""

import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real_parts.guard import TOOLS, Guarded, ServerError, accepts, free_port
from tests.real_parts.kubernetes import kubernetes_binary

NODE = "node-1"
NAMESPACE = "shop"
_FIRST_PROCESS = Path(__file__).parent / "kubernetes" / "first_process.py"
_IMAGE = "docker.io/everyline/write-lines:1"
_PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "unshare": "util-linux",
}

_CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "/run/containerd/state"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
sandbox_image = "{image}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"  # on any file system
"""


@dataclass(frozen=True)
class Written:
    """How many lines one start of a container has written, and when the last of them."""

    stdout: int
    stderr: int
    last_ns: int


@dataclass
class KubernetesNode:
    """A running node; ``logs`` is the directory of its pods' logs."""

    folder: Path
    server: Guarded

    @classmethod
    def start(
        cls, max_size: str = "2Mi", max_files: int = 3, interval: str = "3s"
    ) -> "KubernetesNode":
        """Start a node whose kubelet rotates logs like this; returns when it serves, after 2 s."""
        _check()
        folder = Path(tempfile.mkdtemp(prefix="everyline-node-"))
        try:
            for name in ("pods", "manifests", "counts"):
                (folder / name).mkdir()
            health = free_port()
            rotation = {
                "containerLogMaxSize": max_size,
                "containerLogMaxFiles": max_files,
                "containerLogMonitorInterval": interval,
            }
            kubelet = _configure(folder, health, rotation)
            _write_image(folder / "image.tar")
            first = [sys.executable, str(_FIRST_PROCESS)]
            alone = ["unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child"]
            server = Guarded(
                [*alone, *first, "run", folder.name, str(folder), *kubelet],
                folder,
                after=[*first, "remove", folder.name],
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        server.wait_until(lambda: accepts(health), timeout_s=90)
        return cls(folder, server)

    @property
    def logs(self) -> Path:
        """What is /var/log/pods elsewhere."""
        return self.folder / "pods"

    def run_pod(
        self, name: str, lines_per_second: int, *, padding: int = 32, lines: int = 0, code: int = 0
    ) -> None:
        """Run a pod, or another one in the place of that name; it writes until it is deleted.

        With ``lines`` its container ends after that many with the exit code, and starts again.
        """
        words = [name, *map(str, (lines_per_second, padding, lines, code))]
        new = self.folder / "pod.json"
        new.write_text(json.dumps(_pod(name, words, self.folder / "counts")))
        new.rename(self._manifest(name))

    def delete_pod(self, name: str) -> None:
        """Delete a pod; the kubelet stops it and, after a while, removes its logs."""
        self._manifest(name).unlink()

    def pods(self) -> list[str]:
        """The names of the pods that run, or are to run."""
        return sorted(path.stem for path in (self.folder / "manifests").iterdir())

    def written(self) -> dict[str, Written]:
        """What each container has written, by its unique name."""
        files = list((self.folder / "counts").iterdir())
        counts = {path: path.read_text().split() for path in files}
        return {
            path.name: Written(int(count[0]), int(count[1]), path.stat().st_mtime_ns)
            for path, count in counts.items()
            if count
        }

    def _manifest(self, name: str) -> Path:
        return self.folder / "manifests" / f"{name}.json"

    def close(self) -> None:
        """End every container and the node; remove all that they have written."""
        self.server.stop()


def _check() -> None:
    if not sys.platform.startswith("linux"):
        raise ServerError("a Kubernetes node runs on Linux only")
    if os.geteuid() != 0:
        raise ServerError("a Kubernetes node needs root: it makes cgroups and namespaces")
    for command, package in _PACKAGES.items():
        if shutil.which(command) is None:
            raise ServerError(f"the command {command} is missing; apt-get install {package}")
    if not (TOOLS / "bin" / "write_lines").exists():
        raise ServerError("write_lines is missing in .tools/bin; run make test-node")
    kubernetes_binary("kubelet")


def _configure(folder: Path, health: int, rotation: Mapping[str, Any]) -> list[str]:
    """Write the settings of containerd and kubelet; return the kubelet's command."""
    (folder / "containerd.toml").write_text(_CONTAINERD.format(folder=folder, image=_IMAGE))
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "staticPodPath": f"{folder}/manifests",
        "podLogsDir": f"{folder}/pods",
        **rotation,
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{folder.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "enforceNodeAllocatable": [],
        # A full disk of this machine is no reason to end the pods of a test.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "resolvConf": "",
        "enableServer": False,  # so nobody can ask it for anything
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": health,
    }
    (folder / "kubelet.json").write_text(json.dumps(settings))
    return [
        str(kubernetes_binary("kubelet")),
        f"--config={folder}/kubelet.json",
        f"--root-dir={folder}/kubelet",
        f"--hostname-override={NODE}",
    ]


def _pod(name: str, words: list[str], counts: Path) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "annotations": {"run": uuid.uuid4().hex},  # the uid is a hash of all this
        },
        "spec": {
            "hostNetwork": True,
            "terminationGracePeriodSeconds": 10,
            "containers": [
                {
                    "name": "app",
                    "image": _IMAGE,
                    "imagePullPolicy": "Never",
                    "args": words,
                    "volumeMounts": [{"name": "counts", "mountPath": "/counts"}],
                }
            ],
            "volumes": [{"name": "counts", "hostPath": {"path": str(counts)}}],
        },
    }


def _write_image(path: Path) -> None:
    """Write an image that holds one program, as `docker save` does."""
    layer = _tar({"write_lines": ((TOOLS / "bin" / "write_lines").read_bytes(), 0o755)})
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {"Entrypoint": ["/write_lines"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [_IMAGE], "Layers": ["layer.tar"]}]
    parts = {"layer.tar": layer}
    parts["config.json"] = json.dumps(config).encode()
    parts["manifest.json"] = json.dumps(manifest).encode()
    path.write_bytes(_tar({name: (data, 0o644) for name, data in parts.items()}))


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """A tar of files: name -> content and mode."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
