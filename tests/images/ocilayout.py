"""An OCI image layout with one layer, straight from a root filesystem.

A builder would copy hundreds of megabytes several times to reach the same bytes. Layers are
zstd: containerd and skopeo read it, and it is many times quicker than gzip both ways.
Source: OCI image-spec 1.1, image-layout.md, manifest.md, config.md, layer.md.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.images.errors import ImageError
from tests.images.machine import environment

_CHUNK = 1 << 20
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What the image says about how to run it."""

    title: str
    env: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Blob:
    """One blob of the layout: `sha256:…` and its size in bytes."""

    digest: str
    size: int


def write_layout(rootfs: Path, target: Path, config: ImageConfig) -> str:
    """Write the layout of `rootfs` into the folder `target`; the manifest's digest."""
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer, diff_id = _layer(rootfs, blobs)
    document = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "Env": [f"{name}={value}" for name, value in config.env.items()],
            "Cmd": list(config.command),
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": config.title},
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": f"trainseal: {config.title}"}],
    }
    own = _put_json(blobs, document)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _descriptor("application/vnd.oci.image.config.v1+json", own),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+zstd", layer)],
    }
    head = _put_json(blobs, manifest)
    index = {"schemaVersion": 2, "manifests": [_descriptor(_MANIFEST, head)]}
    (target / "index.json").write_text(json.dumps(index))
    (target / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return head.digest


def manifest_digest(layout: Path) -> str:
    """Digest of the one manifest of a layout."""
    index = json.loads((layout / "index.json").read_text())
    [only] = index["manifests"]
    return str(only["digest"])


def compressed_size(layout: Path) -> int:
    """Bytes of all blobs: about what a registry stores."""
    return sum(path.stat().st_size for path in (layout / "blobs" / "sha256").iterdir())


def _layer(rootfs: Path, blobs: Path) -> tuple[Blob, str]:
    """The layer's blob and its diff id (digest of the bytes before compression)."""
    plain = hashlib.sha256()
    staged = blobs / ".layer"
    with (
        staged.open("wb") as sink,
        subprocess.Popen(
            [
                "tar", "--create", "--sort=name", "--numeric-owner", "--xattrs", "--format=posix",
                "--pax-option=delete=atime,delete=ctime", "--exclude=./dev/*", "--exclude=./proc/*",
                "--exclude=./sys/*", "--exclude=./run/*", "--exclude=./tmp/*",
                "--directory", str(rootfs), ".",
            ],
            stdout=subprocess.PIPE, env=environment(),
        ) as tar,
        subprocess.Popen(
            ["zstd", "-q", "-T0", "-3"], stdin=subprocess.PIPE, stdout=sink, env=environment()
        ) as zstd,
    ):  # fmt: skip
        assert tar.stdout is not None
        assert zstd.stdin is not None
        while chunk := tar.stdout.read(_CHUNK):
            plain.update(chunk)
            zstd.stdin.write(chunk)
        zstd.stdin.close()
    if tar.returncode != 0 or zstd.returncode != 0:
        raise ImageError(
            f"writing a layer failed: tar {tar.returncode}, zstd {zstd.returncode}",
            action=f"see whether the disk of {blobs} is full",
        )
    with staged.open("rb") as source:
        packed = hashlib.file_digest(source, "sha256").hexdigest()
    staged.rename(blobs / packed)
    return (
        Blob(f"sha256:{packed}", (blobs / packed).stat().st_size),
        f"sha256:{plain.hexdigest()}",
    )


def _put_json(blobs: Path, document: object) -> Blob:
    raw = json.dumps(document, separators=(",", ":")).encode()
    digest = hashlib.sha256(raw).hexdigest()
    (blobs / digest).write_bytes(raw)
    return Blob(f"sha256:{digest}", len(raw))


def _descriptor(media_type: str, blob: Blob) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}
