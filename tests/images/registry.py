"""From the cache into a registry, or into an archive for a container runtime."""

from __future__ import annotations

from pathlib import Path

from tests.images import machine
from tests.images.ocilayout import manifest_digest
from tests.images.progress import run, step


def push(layout: str, reference: str, *, plain_http: bool = True) -> str:
    """Copy an image to `HOST/REPOSITORY:TAG`; its reference by digest, `HOST/REPOSITORY@sha256:…`.

    Layers that the registry has are not sent again, and no byte is changed on the way: the digest
    is the one of the layout.
    """
    machine.ensure_tools("skopeo")
    with step(f"pushing {reference}") as say:
        run(
            [
                "skopeo", "copy", "--insecure-policy", "--preserve-digests",
                f"--dest-tls-verify={'false' if plain_http else 'true'}",
                f"oci:{layout}", f"docker://{reference}",
            ],
            say,
            doing=f"pushing to {reference}",
            action="see whether the registry answers",
            env=machine.environment(),
        )  # fmt: skip
    return by_digest(reference, manifest_digest(Path(layout)))


def by_digest(reference: str, digest: str) -> str:
    """`HOST/REPOSITORY:TAG` with the digest in the tag's place; a port is no tag."""
    host, slash, rest = reference.rpartition("/")
    return f"{host}{slash}{rest.partition(':')[0]}@{digest}"


def archive(layout: str, reference: str, target: Path) -> Path:
    """Write an image as an OCI archive that `ctr images import` stores under `reference`."""
    machine.ensure_tools("skopeo")
    with step(f"writing {target.name}") as say:
        target.unlink(missing_ok=True)
        run(
            [
                "skopeo", "copy", "--insecure-policy", "--preserve-digests",
                f"oci:{layout}", f"oci-archive:{target}:{reference}",
            ],
            say,
            doing=f"writing {target}",
            env=machine.environment(),
        )  # fmt: skip
    return target
