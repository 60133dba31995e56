"""Moves images from archives or buildah's storage into a registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.cluster.errors import ClusterError


def push(source: str | Path, destination: str) -> str:
    """Push `source` to `HOST:PORT/REPOSITORY[:TAG]` and return the digest, `sha256:…`."""
    with tempfile.TemporaryDirectory() as folder:
        digest_file = Path(folder) / "digest"
        argv = _command(str(source), destination, digest_file, Path(folder))
        if shutil.which(argv[0]) is None:
            raise ClusterError(f"{argv[0]} is not installed", action=f"apt-get install {argv[0]}")
        result = subprocess.run(
            argv,
            # The storage in which images are built without a Docker engine; a caller that
            # uses another says so in the environment.
            env={"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"} | os.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise ClusterError(
                f"pushing {source} to {destination} failed",
                expected="an oci-archive, a docker-archive, an OCI layout folder, or the name of "
                "an image in buildah's storage (`buildah images`)",
                detail=result.stderr[-3000:],
            )
        return digest_file.read_text().strip()


def archive_transport(path: Path) -> str:
    """skopeo's name for what kind of image a file or folder is."""
    if path.is_dir():
        return "oci"
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if name == "oci-layout":
                    return "oci-archive"
                if name == "manifest.json":
                    return "docker-archive"
    except tarfile.TarError as error:
        raise ClusterError(f"{path} is no tar archive: {error}") from None
    raise ClusterError(
        f"{path} holds neither oci-layout nor manifest.json",
        expected="an archive as `buildah push … oci-archive:FILE` or `docker save` writes it",
    )


def _command(source: str, destination: str, digest_file: Path, folder: Path) -> list[str]:
    target = f"docker://{destination}"
    if not Path(source).exists():
        if source.startswith(("/", ".")) or source.endswith(".tar"):
            raise ClusterError(f"there is no file {source}")
        storage = ["buildah", "push", "--tls-verify=false", "--digestfile", str(digest_file)]
        policy = folder / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        return [*storage, "--signature-policy", str(policy), source, target]
    path = Path(source)
    options = ["--insecure-policy", "copy", "--dest-tls-verify=false"]
    return [
        "skopeo",
        *options,
        "--digestfile",
        str(digest_file),
        f"{archive_transport(path)}:{path}",
        target,
    ]
