"""Load a Docker image into nodes of a kind cluster, sending only the layers that they lack.

``kind load docker-image`` sends every layer each time: more than a gigabyte a node for a change
of one line. Usage: ``python3 hack/kind_load.py IMAGE NODE...``
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any, cast

GZIP = b"\x1f\x8b"
OCI = "application/vnd.oci.image"


class Archive:
    """What ``docker save`` wrote: a configuration and layers, by digest.

    Formats: https://github.com/moby/docker-image-spec (manifest.json) in, and
    https://github.com/opencontainers/image-spec/blob/main/image-layout.md out.
    """

    def __init__(self, saved: tarfile.TarFile) -> None:
        self._saved = saved
        (manifest,) = json.load(self._open("manifest.json"))
        self.config = self._open(manifest["Config"]).read()
        ids = json.loads(self.config)["rootfs"]["diff_ids"]
        self.layers = [
            self._describe(path, diff_id)
            for path, diff_id in zip(manifest["Layers"], ids, strict=True)
        ]

    def _open(self, path: str) -> io.BufferedReader:
        return cast("io.BufferedReader", self._saved.extractfile(path))

    def _describe(self, path: str, diff_id: str) -> dict[str, Any]:
        data = self._open(path)
        zipped = data.read(2) == GZIP
        data.seek(0)
        digest = f"sha256:{hashlib.file_digest(data, 'sha256').hexdigest()}" if zipped else diff_id
        kind = f"{OCI}.layer.v1.tar+gzip" if zipped else f"{OCI}.layer.v1.tar"
        size = data.seek(0, io.SEEK_END)
        return {"mediaType": kind, "digest": digest, "size": size, "path": path}

    def write_layout(self, name: str, present: set[str], out: IO[bytes]) -> int:
        """Write an OCI layout without the layers that are present; how many bytes it has left."""
        config = blob(f"{OCI}.config.v1+json", self.config)
        layers = [{k: v for k, v in layer.items() if k != "path"} for layer in self.layers]
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{OCI}.manifest.v1+json",
                "config": config,
                "layers": layers,
            }
        ).encode()
        entry = blob(f"{OCI}.manifest.v1+json", manifest)
        entry["annotations"] = {"io.containerd.image.name": name}
        index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        sent = 0
        with tarfile.open(fileobj=out, mode="w|") as tar:
            add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
            add(tar, "index.json", index)
            add(tar, blob_path(entry), manifest)
            add(tar, blob_path(config), self.config)
            for layer in self.layers:
                if layer["digest"] not in present:
                    info = tarfile.TarInfo(blob_path(layer))
                    info.size = layer["size"]
                    tar.addfile(info, self._open(layer["path"]))
                    sent += info.size
        return sent


def blob(kind: str, data: bytes) -> dict[str, Any]:
    """Descriptor of some bytes."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def blob_path(descriptor: dict[str, Any]) -> str:
    """Where a layout keeps a blob."""
    algorithm, _, value = descriptor["digest"].partition(":")
    return f"blobs/{algorithm}/{value}"


def add(tar: tarfile.TarFile, path: str, data: bytes) -> None:
    """Add a small file."""
    info = tarfile.TarInfo(path)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def full_name(image: str) -> str:
    """The name by which a kubelet knows a local image."""
    host, slash, _ = image.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def load(archive: Archive, image: str, node: str) -> None:
    """Send an image to one node.

    Raises:
        subprocess.CalledProcessError: the node refused it.
    """
    ctr = ("docker", "exec", "-i", node, "ctr", "--namespace=k8s.io")
    listing = subprocess.run((*ctr, "content", "ls", "-q"), check=True, capture_output=True)
    present = set(listing.stdout.decode().split())
    command = (*ctr, "images", "import", "--snapshotter=overlayfs", "-")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as importing:
        assert importing.stdin is not None
        sent = archive.write_layout(full_name(image), present, importing.stdin)
        importing.stdin.close()
    if importing.returncode:
        raise subprocess.CalledProcessError(importing.returncode, command)
    print(f"{image}: sent {sent / 1e6:.1f} MB to {node}", flush=True)


def main(image: str, nodes: list[str]) -> None:
    """Save the image once and send it to each node."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "image.tar")
        subprocess.run(("docker", "save", "--output", str(saved), image), check=True)
        with tarfile.open(saved) as tar:
            archive = Archive(tar)
            for node in nodes:
                load(archive, image, node)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
