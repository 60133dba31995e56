"""The pause image, made without a registry: Debian's statically linked catatonit.

`catatonit -P` does what the pause container is for: it sleeps, and reaps what is left to it.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from tests.cluster.errors import ClusterError

PAUSE_IMAGE = "localhost/trainseal-pause:1"

_CATATONIT = Path("/usr/bin/catatonit")


def pause_archive(path: Path, binary: Path = _CATATONIT) -> Path:
    """Write the image as a docker-archive, which `ctr images import` reads."""
    if not binary.exists():
        raise ClusterError(
            f"{binary} is missing",
            expected="Debian's catatonit, of which the pause image is made",
            action="apt-get install catatonit",
        )
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        _add(tar, "catatonit", binary.read_bytes(), 0o755)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/catatonit", "-P"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"],
        },
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        _add(tar, "layer.tar", layer.getvalue(), 0o644)
        _add(tar, "config.json", json.dumps(config).encode(), 0o644)
        _add(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)
    return path


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = mode
    tar.addfile(info, io.BytesIO(content))
