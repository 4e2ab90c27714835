"""The real Kueue for tests: built from its Go module, run beside an API server of `apiserver`.

    python hack/kueue.py build            # 10 minutes on two cores; into .headway/kueue
    with manager(kubeconfig, folder): ... # a controller manager without webhooks

Without its webhooks nothing is defaulted: a Workload has to be right by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

VERSION = "v0.19.0"
HOME = Path(os.environ.get("HEADWAY_KUEUE") or Path(__file__).parents[1] / ".headway" / "kueue")
BINARY = HOME / "kueue"
CRDS = HOME / "crds"
START_SECONDS = 60.0
_CERTIFICATES = "KUEUE_METRICS_CERTIFICATES"


def build() -> None:
    """Build the manager and copy its CRDs."""
    module = f"sigs.k8s.io/kueue@{VERSION}"
    HOME.mkdir(parents=True, exist_ok=True)
    told = subprocess.run(
        ["go", "mod", "download", "-json", module], check=True, capture_output=True, cwd=HOME
    )
    source = json.loads(told.stdout)["Dir"]
    shutil.copytree(Path(source, "config/components/crd/bases"), CRDS, dirs_exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:  # the module's own is read-only
        copy = Path(folder, "kueue")
        subprocess.run(["cp", "-r", "--no-preserve=mode", source, copy], check=True)
        main = copy / "cmd/kueue/main.go"
        text, place = main.read_text(), '"/etc/kueue/metrics/certs"'
        assert text.count(place) == 1
        main.write_text(text.replace(place, f'os.Getenv("{_CERTIFICATES}")'))
        subprocess.run(
            ["go", "build", "-buildvcs=false", "-o", str(BINARY), "./cmd/kueue"],
            check=True,
            cwd=copy,
            env={**os.environ, "CGO_ENABLED": "0"},
        )


def crds() -> list[dict[str, Any]]:
    """Kueue's CRDs."""
    return [yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml"))]


@contextmanager
def manager(kubeconfig: Path, folder: Path, port: int) -> Iterator[None]:
    """Run the controller manager until the end of the block.

    Args:
        kubeconfig: of an administrator.
        folder: for its files.
        port: where it answers probes.

    Raises:
        RuntimeError: it did not start; the message has its last words.
    """
    certificates = folder / "certificates"
    certificates.mkdir()
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    request += " -keyout tls.key -out tls.crt"
    subprocess.run(request.split(), check=True, capture_output=True, cwd=certificates)
    settings = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": f"127.0.0.1:{port}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": port + 1, "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "waitForPodsReady": {"timeout": "5m"},
        "integrations": {
            "frameworks": ["batch/job"],
            "externalFrameworks": ["TrainingJob.v1alpha1.headway.dev"],
        },
    }
    (folder / "kueue.yaml").write_text(yaml.safe_dump(settings))
    log = folder / "kueue.log"
    command = [str(BINARY), "--config", str(folder / "kueue.yaml"), "--zap-log-level", "3"]
    command += ["--feature-gates", "VisibilityOnDemand=false"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, "KUBECONFIG": str(kubeconfig), _CERTIFICATES: str(certificates)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        _await_ready(process, f"http://127.0.0.1:{port}/readyz", log)
        yield
    finally:
        process.kill()
        process.wait()
        print(f"--- log of kueue\n{log.read_text()[-20000:]}")


def _await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Kueue did not start:\n{log.read_text()[-4000:]}") from None
        time.sleep(0.1)


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit(__doc__)
    build()
