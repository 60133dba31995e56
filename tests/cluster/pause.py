"""Images of a single static binary, made without a registry or an image builder.

The pause image is Debian's catatonit: `catatonit -P` does what the pause container is for, it
sleeps and reaps what is left to it.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError

PAUSE_IMAGE = "localhost/trainseal-pause:1"

_CATATONIT = Path("/usr/bin/catatonit")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def pause_archive(path: Path, binary: Path = _CATATONIT) -> Path:
    """Write the pause image as a docker-archive, which `ctr images import` reads."""
    if not binary.exists():
        raise ClusterError(
            f"{binary} is missing",
            expected="Debian's catatonit, of which the pause image is made",
            action="apt-get install catatonit",
        )
    return binary_archive(path, PAUSE_IMAGE, binary, ["/bin/catatonit", "-P"])


def binary_archive(
    path: Path,
    image: str,
    binary: Path,
    entrypoint: Sequence[str],
    links: Sequence[str] = (),
    *,
    place: str = "",
    user: int = 0,
) -> Path:
    """Write an image whose only file is `place`, or else /bin/NAME, with `links` to that in /bin.

    It runs as `user`.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        _add(tar, place.removeprefix("/") or f"bin/{binary.name}", binary.read_bytes(), 0o755)
        for link in links:
            info = tarfile.TarInfo(f"bin/{link}")
            info.type, info.linkname = tarfile.SYMTYPE, binary.name
            tar.addfile(info)
    machine = platform.machine()
    config = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "Env": ["PATH=/bin"], "User": str(user)},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"],
        },
    }
    manifest = [{"Config": "config.json", "RepoTags": [image], "Layers": ["layer.tar"]}]
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
