"""One Kubernetes API server over one etcd, started for a test run, without any node or controller.

Goes out: an address on loopback, a certificate and tokens; pods that tests make, change and delete
as a cluster would. Make builds the server outside of the tree; data and keys are in a folder of
the run, and nothing outlives it.
"""

import json
import os
import re
import secrets
import shutil
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real_parts.certificates import Authority
from tests.real_parts.guard import Guarded, ServerError, accepts, free_port

_MODULE = Path(__file__).parent / "kubernetes" / "go.mod.in"

ADMIN = "admin"
COLLECTOR = "collector"
_GROUPS = {ADMIN: "system:masters", COLLECTOR: "collectors"}
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_PATCH = "application/strategic-merge-patch+json"


def kubernetes_binary(name: str) -> Path:
    """A program of Kubernetes that make has built; raises ServerError if it is not there."""
    found = re.search(r"require k8s.io/kubernetes v(\S+)", _MODULE.read_text())
    assert found is not None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "everyline" / f"kubernetes-{found[1]}" / name
    if not path.exists():
        raise ServerError(f"{path} is missing; run make test-kubernetes or make test-node")
    return path


class ApiError(Exception):
    """The API server has answered with an error; ``code`` is its HTTP status."""

    def __init__(self, code: int, status: Mapping[str, Any]) -> None:
        super().__init__(f"{code} {status.get('reason')}: {status.get('message')}")
        self.code = code
        self.reason = status.get("reason")


@dataclass
class ApiServer:
    """A running API server; ``url`` is its address, ``ca`` the certificate to trust.

    ``tokens`` maps ADMIN, who may do all, and COLLECTOR, who may list and watch pods, to tokens.
    """

    url: str
    ca: Path
    tokens: Mapping[str, str]
    folder: Path
    etcd: Guarded
    server: Guarded
    etcd_url: str

    @classmethod
    def start(cls) -> "ApiServer":
        """Start etcd and a server on new folders; returns when it serves, after some 5 s."""
        if shutil.which("etcd") is None:
            raise ServerError("the command etcd is missing; apt-get install etcd-server")
        kubernetes_binary("kube-apiserver")
        etcd, etcd_url = _start_etcd()
        folder = Path(tempfile.mkdtemp(prefix="everyline-apiserver-"))
        try:
            authority = Authority(folder / "authority")
            signed = authority.sign("apiserver")
            shutil.copy(signed.certificate, folder / "tls.pem")
            shutil.copy(signed.key, folder / "tls.key")
            tokens = _new_tokens(folder)
            port = free_port()
            server = _serve(folder, port, etcd_url, authority.certificate)
        except BaseException:
            etcd.stop()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        url = f"https://127.0.0.1:{port}"
        self = cls(url, authority.certificate, tokens, folder, etcd, server, etcd_url)
        self._let_collectors_read_pods()
        return self

    def _let_collectors_read_pods(self) -> None:
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
        role = {"metadata": {"name": COLLECTOR}, "rules": rules}
        self.request("POST", f"{_RBAC}/clusterroles", role)
        group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group"}
        binding = {
            "metadata": {"name": COLLECTOR},
            "roleRef": {**group, "kind": "ClusterRole", "name": COLLECTOR},
            "subjects": [{**group, "name": _GROUPS[COLLECTOR]}],
        }
        self.request("POST", f"{_RBAC}/clusterrolebindings", binding)

    # -- its life ----------------------------------------------------------------------------

    def kill(self) -> None:
        """End the server as a power cut would, but keep its data and address."""
        self.server.stop(keep_folder=True)

    def restart(self) -> None:
        """Start the server again after ``kill``, at the same address with the same data."""
        port = int(self.url.rpartition(":")[2])
        self.server = _serve(self.folder, port, self.etcd_url, self.ca)

    def exchange_tokens(self) -> None:
        """Give new tokens to everybody; the old ones are refused from now on."""
        self.kill()
        self.tokens = _new_tokens(self.folder)
        self.restart()

    def forget_history(self) -> None:
        """Drop all versions of objects but the latest, as the server does each five minutes.

        What it has cached of them it still gives out until its next start.
        """
        body = json.dumps({"key": "AA=="}).encode()  # any read tells the revision
        revision = _json(_ask(f"{self.etcd_url}/v3/kv/range", body))["header"]["revision"]
        body = json.dumps({"revision": revision, "physical": True}).encode()
        _ask(f"{self.etcd_url}/v3/kv/compaction", body)

    def close(self) -> None:
        """End server and etcd, and remove all that they have written."""
        self.server.stop()
        self.etcd.stop()

    # -- what a cluster does -----------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        content_type: str = "application/json",
    ) -> Any:
        """Send a request, as the admin if no token is given; return what the answer says."""
        return _json(self.open(method, path, body, token=token, content_type=content_type))

    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        content_type: str = "application/json",
    ) -> Any:
        """Do as ``request`` does, but return the open answer: a watch gives a line an event."""
        data = None if body is None else json.dumps(body).encode()
        headers = {
            "Authorization": f"Bearer {self.tokens[ADMIN] if token is None else token}",
            "Content-Type": content_type,
        }
        context = ssl.create_default_context(cafile=str(self.ca))
        return _ask(self.url + path, data, method=method, headers=headers, context=context)

    def create_namespace(self, name: str) -> None:
        """Create a namespace, which pods need."""
        self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def create_pod(
        self,
        namespace: str,
        name: str,
        node: str,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        owners: Sequence[tuple[str, str]] = (),
    ) -> dict[str, Any]:
        """Create a pod bound to a node; ``owners`` are (kind, name), the first its controller."""
        references = [
            {"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": f"{kind}-{owner}-uid",
             "controller": at == 0}
            for at, (kind, owner) in enumerate(owners)
        ]  # fmt: skip
        pod = {
            "metadata": {
                "name": name,
                "labels": labels or {},
                "annotations": annotations or {},
                "ownerReferences": references,
            },
            "spec": {"nodeName": node, "containers": [{"name": "app", "image": "none"}]},
        }
        created: dict[str, Any] = self.request("POST", _pods(namespace), pod)
        return created

    def set_labels(self, namespace: str, name: str, labels: Mapping[str, str | None]) -> None:
        """Set labels of a pod; None removes one."""
        body = {"metadata": {"labels": dict(labels)}}
        self.request("PATCH", f"{_pods(namespace)}/{name}", body, content_type=_PATCH)

    def delete_pod(self, namespace: str, name: str) -> None:
        """Delete a pod at once: there is no kubelet to wait for."""
        self.request("DELETE", f"{_pods(namespace)}/{name}", {"gracePeriodSeconds": 0})


def _pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def _ask(url: str, data: bytes | None, **more: Any) -> Any:
    context = more.pop("context", None)
    request = urllib.request.Request(url, data, **more)
    try:
        return urllib.request.urlopen(request, timeout=30, context=context)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
        try:
            status = json.loads(text)
        except ValueError:
            status = {"message": text.decode(errors="replace")}
        raise ApiError(error.code, status) from None


def _json(answer: Any) -> Any:
    with answer:
        return json.load(answer)


def _new_tokens(folder: Path) -> dict[str, str]:
    """Write the server's file of tokens again; it is read at the next start."""
    tokens = {user: secrets.token_hex(20) for user in _GROUPS}
    lines = [f'{token},{user},{user},"{_GROUPS[user]}"\n' for user, token in tokens.items()]
    (folder / "tokens.csv").write_text("".join(lines))
    return tokens


def _start_etcd() -> tuple[Guarded, str]:
    folder = Path(tempfile.mkdtemp(prefix="everyline-etcd-"))
    port, peers = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        "etcd",
        f"--data-dir={folder}/data",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls=http://127.0.0.1:{peers}",
        "--log-level=warn",
    ]
    etcd = Guarded(command, folder)
    etcd.wait_until(lambda: accepts(port), timeout_s=30)
    return etcd, url


def _serve(folder: Path, port: int, etcd_url: str, ca: Path) -> Guarded:
    command = [
        str(kubernetes_binary("kube-apiserver")),
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder}/certificates",
        f"--tls-cert-file={folder}/tls.pem",
        f"--tls-private-key-file={folder}/tls.key",
        f"--token-auth-file={folder}/tokens.csv",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder}/tls.key",
        f"--service-account-signing-key-file={folder}/tls.key",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--disable-admission-plugins=ServiceAccount",  # no controller makes any
    ]
    server = Guarded(command, folder)
    context = ssl.create_default_context(cafile=str(ca))

    def ready() -> bool:
        try:
            _ask(f"https://127.0.0.1:{port}/readyz", None, context=context).close()
        except (ApiError, OSError):
            return False
        return True

    server.wait_until(ready, timeout_s=60)
    return server
