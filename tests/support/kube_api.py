"""A real Kubernetes API for tests: etcd and kube-apiserver out of the directory that KUBEBUILDER_ASSETS names, no nodes.

One per test process, ready in two seconds; each test has a namespace of its own. Without the variable every test that
asks for it is skipped, and says so by name.
"""

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.local.ports import free_ports
from services.local.processes import die_with_parent, on_linux

ADMIN = "admin-token"
READY_S_MAX = 120.0
WANTED = ("etcd", "kube-apiserver", "kubectl")


@dataclass(frozen=True, slots=True)
class KubeApi:
    """A running API. directory: for files of its clients; kubectl: the program; ca_file: who signed its certificate."""

    directory: Path
    port: int
    kubectl_program: Path
    ca_file: Path

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(self, name: str, token: str, namespace: str, port: int | None = None) -> Path:
        """Write a kubeconfig for whoever has the token; port: of a proxy in between."""
        server = f"https://127.0.0.1:{port or self.port}"
        path = self.directory / f"{name}.kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "clusters": [
                {
                    "name": "it",
                    "cluster": {"server": server, "certificate-authority": str(self.ca_file)},
                }
            ],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [
                {"name": "it", "context": {"cluster": "it", "user": "it", "namespace": namespace}}
            ],
        }
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    def kubectl(self, *arguments: str, namespace: str = "default", stdin: str = "") -> str:
        """Run kubectl as administrator; return what it prints.

        Raises:
            subprocess.CalledProcessError: it failed; its words are in `stderr`.
        """
        config = self.kubeconfig(f"admin-{namespace}", ADMIN, namespace)
        done = subprocess.run(
            [self.kubectl_program, "--kubeconfig", config, *arguments],
            input=stdin, capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        return done.stdout


@pytest.fixture(scope="module")
def kube_api() -> Iterator[KubeApi]:
    """A running API with an administrator. A module's, not a session's: it is never idle, whoever else needs the machine."""
    named = os.environ.get("KUBEBUILDER_ASSETS", "")
    if not named:
        pytest.skip("KUBEBUILDER_ASSETS names no directory with etcd, kube-apiserver and kubectl")
    assets = Path(named)
    missing = [name for name in WANTED if not (assets / name).exists()]
    assert not missing, f"KUBEBUILDER_ASSETS={named}: without {', '.join(missing)}"
    directory = Path(tempfile.mkdtemp(prefix="kalshi-data-kube-"))
    with contextlib.ExitStack() as running:
        running.callback(shutil.rmtree, directory, ignore_errors=True)
        yield _start(assets, directory, running)


def _start(assets: Path, directory: Path, running: contextlib.ExitStack) -> KubeApi:
    etcd, peer, port = free_ports(3)
    (directory / "tokens.csv").write_text(f"{ADMIN},admin,1,system:masters\n")
    key = directory / "accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    store = f"http://127.0.0.1:{etcd}"
    _launch(running, directory / "etcd.log", [
        assets / "etcd", "--data-dir", directory / "etcd", "--unsafe-no-fsync", "--log-level", "error",
        "--listen-client-urls", store, "--advertise-client-urls", store,
        "--listen-peer-urls", f"http://127.0.0.1:{peer}",
    ])  # fmt: skip
    server = _launch(running, directory / "api.log", [
        assets / "kube-apiserver", f"--etcd-servers={store}", f"--cert-dir={directory}/certificates",
        f"--secure-port={port}", "--bind-address=127.0.0.1", "--service-cluster-ip-range=10.0.0.0/24",
        f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=RBAC",
        f"--token-auth-file={directory}/tokens.csv", "--disable-admission-plugins=ServiceAccount",
    ])  # fmt: skip
    _wait_ready(port, server, directory / "api.log")
    return KubeApi(directory, port, assets / "kubectl", directory / "certificates/apiserver.crt")


def _launch(
    running: contextlib.ExitStack, log: Path, command: list[Path | str]
) -> "subprocess.Popen[bytes]":
    handle = running.enter_context(log.open("wb"))
    process = subprocess.Popen(
        command, stdout=handle, stderr=handle, start_new_session=True,
        preexec_fn=die_with_parent(9) if on_linux() else None,  # noqa: PLW1509 - before any thread
    )  # fmt: skip
    running.callback(process.wait)
    running.callback(process.kill)
    return process


def _wait_ready(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(
        f"https://127.0.0.1:{port}/readyz", headers={"Authorization": f"Bearer {ADMIN}"}
    )
    until = time.monotonic() + READY_S_MAX
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()[-2000:]
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(request, timeout=2, context=context).status == 200:
                return
        time.sleep(0.05)
    raise TimeoutError(log.read_text()[-2000:])
