"""etcd and kube-apiserver on loopback, as `setup-envtest` runs them; the API server can be taken away."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from equipoise.ray_runtime import free_port

START_S = 180
USERS = {"admin": "system:masters", "submitter": "people", "nobody": "people"}
"""Users and the group of each; a user's token is `NAME-token`, its context in the kubeconfig NAME."""


class OwnServer:
    """One API server of our own, RBAC on.

    Args:
        assets: folder with `etcd` and `kube-apiserver`.
        folder: for keys, logs and data.
    """

    def __init__(self, assets: Path, folder: Path) -> None:
        self._assets, self._folder = assets, folder
        self._key, self._tokens = folder / "sa.key", folder / "tokens.csv"
        self._client, self._port = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self.kubeconfig = folder / "kubeconfig"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        make_key = ["openssl", "genrsa", "-out", str(self._key), "2048"]
        subprocess.run(make_key, check=True, capture_output=True)
        self.know(*USERS)
        self._write_kubeconfig()
        self._run(
            "etcd",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{self._client}",
            f"--advertise-client-urls=http://127.0.0.1:{self._client}",
            f"--listen-peer-urls=http://127.0.0.1:{free_port()}",
            "--unsafe-no-fsync",
        )
        self.start()

    def know(self, *users: str) -> None:
        """Whose tokens it takes from its next start on."""
        lines = [f'{user}-token,{user},{user},"{USERS[user]}"\n' for user in users]
        self._tokens.write_text("".join(lines), encoding="utf-8")

    def start(self, *, ready: int = 200) -> None:
        """Start the API server at its port and wait until it answers the administrator with a status."""
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._client}",
            f"--cert-dir={self._folder / 'certificates'}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            f"--token-auth-file={self._tokens}",
            "--authorization-mode=RBAC",
            # Its controller is not there to make the accounts that it would ask for.
            "--disable-admission-plugins=ServiceAccount",
        )
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        request = urllib.request.Request(
            f"{self.url}/readyz", headers={"Authorization": "Bearer admin-token"}
        )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._running["kube-apiserver"].poll() is None:
            try:
                with urllib.request.urlopen(request, timeout=5, context=trusting) as answer:
                    found = answer.status
            except urllib.error.HTTPError as error:
                found = error.code
            except (urllib.error.URLError, OSError):
                found = 0
            if found == ready:
                return
            time.sleep(0.2)
        log = (self._folder / "kube-apiserver.log").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"the API server did not become ready: {log[-3000:]}")

    def stop(self) -> None:
        """Kill the API server, as a node that loses power; what it has stored stays."""
        self._end("kube-apiserver", kill=True)

    def close(self) -> None:
        """End both."""
        for name in ("kube-apiserver", "etcd"):
            self._end(name)

    def _end(self, name: str, *, kill: bool = False) -> None:
        process = self._running.pop(name, None)
        if process is None:
            return
        if not kill:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        process.kill()
        process.wait(timeout=30)

    def _run(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            command = [str(self._assets / name), *arguments]
            self._running[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def _write_kubeconfig(self) -> None:
        cluster = {"server": self.url, "insecure-skip-tls-verify": True}
        tokens = {**{user: f"{user}-token" for user in USERS}, "expired": "no-longer-good"}
        values = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "admin",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}} for user, token in tokens.items()],
            "contexts": [{"name": user, "context": {"cluster": "test", "user": user}} for user in tokens],
        }
        self.kubeconfig.write_text(yaml.safe_dump(values), encoding="utf-8")
