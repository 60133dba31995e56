"""A valid world for the gate: a signed tree in a registry, a sealed config, empty volumes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from trainseal.api.gateplan import GatePlan
from trainseal.gate.code import Registry
from trainseal.gate.main import Patience, run
from trainseal.provenance.bundles import encode_bundle, make_bundle_dsse
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.keys import private_key_of
from trainseal.provenance.manifests import TreeManifest
from trainseal.registry.blobs import mismatch
from trainseal.registry.descriptors import OCI_MANIFEST, Descriptor, Manifest
from trainseal.registry.errors import NotFound, RegistryUnavailable
from trainseal.registry.references import Reference

KEY = private_key_of(ec.generate_private_key(ec.SECP256R1()))
REPOSITORY = "registry.example/research/code"
TAR = "application/vnd.oci.image.layer.v1.tar"
TAR_GZIP = TAR + "+gzip"


def digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def plain(name: str, content: bytes = b"", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    return info, content


def special(name: str, kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def tar(members: Sequence[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@dataclass
class FakeRegistry:
    """Blobs by digest, verified as the real client does; ``served`` replaces bytes in transit."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    served: dict[str, bytes] = field(default_factory=dict)
    failures: int = 0
    chunk: int = 700
    most_taken: int = 0

    def put(self, content: bytes) -> str:
        self.blobs[digest(content)] = content
        return digest(content)

    async def manifest(self, reference: Reference) -> Manifest:
        raw = await self.blob(reference, reference.digest or "", 1 << 20)
        media_type = json.loads(raw).get("mediaType", "")
        return Manifest(raw, media_type, digest(raw))

    async def blob(self, reference: Reference, content: Descriptor | str, max_bytes: int) -> bytes:
        wanted = content if isinstance(content, str) else content.digest
        raw = self._get(wanted)
        assert len(raw) <= max_bytes
        if digest(raw) != wanted:
            raise mismatch(str(reference), digest(raw), wanted)
        return raw

    async def blob_stream(
        self, reference: Reference, content: Descriptor
    ) -> AsyncGenerator[bytes, None]:
        raw = self._get(content.digest)
        for start in range(0, len(raw), self.chunk):
            self.most_taken = max(self.most_taken, start + self.chunk)
            yield raw[start : start + self.chunk]
        if digest(raw) != content.digest or len(raw) != content.size:
            raise mismatch(str(reference), digest(raw), content.digest)

    def _get(self, wanted: str) -> bytes:
        if self.failures:
            self.failures -= 1
            raise RegistryUnavailable(REPOSITORY, "the registry cannot be reached")
        if wanted not in self.blobs:
            raise NotFound(REPOSITORY, f"no {wanted}")
        return self.served.get(wanted, self.blobs[wanted])


@dataclass
class World:
    """Change one thing, then ``run``."""

    root: Path
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    signed: dict[str, bytes] = field(
        default_factory=lambda: {
            "train.py": b"import torch\n",
            "lib/model.py": b"class Model: ...\n" * 100,
            "lib/deep/er/empty": b"",
            "run.sh": b"#!/bin/sh\n",
        }
    )
    config: dict[str, bytes] = field(
        default_factory=lambda: {"config.yaml": b"lr: 0.1\n", "config.json": b'{"lr": 0.1}'}
    )
    members: list[tuple[tarfile.TarInfo, bytes]] = field(default_factory=list)
    layers: list[tuple[str, bytes]] | None = None
    slept: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.members = [
            plain(name, content, 0o755 if name == "run.sh" else 0o644)
            for name, content in self.signed.items()
        ]
        for folder in (self.code, self.config_target, self.config_source):
            folder.mkdir(parents=True)
        self.write_config_map("..2026_1", self.config)
        (self.root / "termination-log").touch()

    @property
    def code(self) -> Path:
        return self.root / "code"

    @property
    def config_target(self) -> Path:
        return self.root / "config"

    @property
    def config_source(self) -> Path:
        return self.root / "config-map"

    def write_config_map(self, version: str, files: dict[str, bytes]) -> None:
        """As the kubelet does: ``name`` → ``..data/name``, ``..data`` → a dated folder."""
        (self.config_source / version).mkdir()
        for name, content in files.items():
            (self.config_source / version / name).write_bytes(content)
            if not (self.config_source / name).is_symlink():
                (self.config_source / name).symlink_to(f"..data/{name}")
        (self.config_source / "..new").symlink_to(version)
        (self.config_source / "..new").rename(self.config_source / "..data")

    def manifest(self) -> TreeManifest:
        return TreeManifest.of(
            "code", {name: digest(c).removeprefix("sha256:") for name, c in self.signed.items()}
        )

    def push(self) -> GatePlan:
        """Everything pushed; the plan that names it."""
        layers = self.layers if self.layers is not None else [(TAR, tar(self.members))]
        manifest = self.manifest()
        bundle = make_bundle_dsse(KEY, manifest.to_statement(), IN_TOTO_PAYLOAD_TYPE)
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor.of("application/vnd.oci.empty.v1+json", b"{}").document(),
            "layers": [Descriptor.of(kind, content).document() for kind, content in layers],
        }
        for _, content in layers:
            self.registry.put(content)
        artifact = self.registry.put(json.dumps(document).encode())
        return GatePlan.model_validate(
            {
                "code": [
                    {
                        "name": "trainer",
                        "reference": f"{REPOSITORY}@{artifact}",
                        "treeDigest": manifest.root_digest,
                        "bundle": self.registry.put(encode_bundle(bundle)),
                        "target": str(self.code),
                    }
                ],
                "config": {
                    "source": str(self.config_source),
                    "target": str(self.config_target),
                    "files": {name: digest(content) for name, content in self.config.items()},
                },
            }
        )

    def run(
        self, change: Callable[[dict[str, object]], object] = lambda _plan: None
    ) -> tuple[int, str]:
        """Exit code and termination message of the gate on the (changed) plan."""
        document = self.push().wire()
        change(document)  # type: ignore[arg-type]
        return self.run_plan(GatePlan.model_validate(document))

    def run_plan(self, plan: GatePlan) -> tuple[int, str]:
        @asynccontextmanager
        async def connect(_plan: GatePlan) -> AsyncIterator[Registry]:
            yield self.registry

        async def sleep(seconds: float) -> None:
            self.slept.append(seconds)

        code = run(
            plan,
            termination_log=self.root / "termination-log",
            patience=Patience((1.0, 2.0), sleep),
            connect=connect,
            clock=lambda: 0.0,
        )
        return code, (self.root / "termination-log").read_text()

    def placed(self) -> dict[str, bytes]:
        """What stands in the code volume."""
        return {
            path.relative_to(self.code).as_posix(): path.read_bytes()
            for path in self.code.rglob("*")
            if path.is_file()
        }
