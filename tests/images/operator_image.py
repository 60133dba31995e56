"""The image of TrainSeal itself, from the repository's Containerfile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.images import debian, machine
from tests.images.base import build_base_image
from tests.images.cache import Inputs, images_dir, product
from tests.images.errors import ImageError
from tests.images.progress import Say, run, step

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

_MOST_IMAGES = 60


def build_operator_image() -> str:
    """OCI layout (a folder) of the operator image; built unless it is in the cache.

    A change below operator/ alone rebuilds the last layers only.
    """
    base = build_base_image()
    wheels = _wheels()
    inputs = (
        Inputs()
        .text("base", base.parent.name)
        .text("wheels", wheels.name)
        .file("Containerfile", ROOT / "Containerfile")
        .code(Path(__file__))
        .tree("trainseal", ROOT / "operator" / "trainseal")
    )
    return str(product("operator", inputs, lambda work: _build(base, wheels, work)) / "image")


def _wheels() -> Path:
    """Folder with the wheels of requirements/run.txt for the base's Python."""
    locked = ROOT / "requirements" / "run.txt"
    inputs = Inputs().file("run.txt", locked).text("python", debian.python_version())

    def download(work: Path) -> None:
        with step("operator: downloading wheels") as say:
            run(
                [
                    sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes",
                    "--only-binary", ":all:", "--implementation", "cp",
                    "--python-version", debian.python_version(), "-r", locked, "-d", work,
                ],
                say,
                doing="downloading the wheels of requirements/run.txt",
                action=f"see whether `{sys.executable} -m pip download` works on this machine",
            )  # fmt: skip

    return product("wheels", inputs, download)


def _build(base: Path, wheels: Path, work: Path) -> None:
    machine.ensure_tools("buildah", "skopeo")
    context = work / "context"
    _context(wheels, context)
    store = _Store.open()
    tag = f"localhost/trainseal:{work.name.lstrip('.')}"
    try:
        with step("operator: image") as say:
            store.buildah(
                [
                    "build-using-dockerfile", "--layers", "--format=oci",
                    f"--build-arg=BASE={store.base(base, say)}", f"--tag={tag}",
                    f"--file={context / 'Containerfile'}", context,
                ],
                say,
            )  # fmt: skip
        with step("operator: writing layers") as say:
            store.buildah(
                [
                    "push", "--compression-format=zstd", "--compression-level=1", tag,
                    f"oci:{work / 'image'}",
                ],
                say,
            )  # fmt: skip
    finally:
        shutil.rmtree(context)


def _context(wheels: Path, context: Path) -> None:
    """What the Containerfile copies, and nothing else of a checkout."""
    shutil.copytree(
        ROOT / "operator" / "trainseal",
        context / "operator" / "trainseal",
        ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
    )
    shutil.copytree(wheels, context / "build" / "wheels", copy_function=os.link)
    (context / "requirements").mkdir()
    shutil.copy2(ROOT / "requirements" / "run.txt", context / "requirements")
    shutil.copy2(ROOT / "Containerfile", context)


class _Store:
    """Buildah's storage in our cache; the layers of earlier builds make later ones quick."""

    def __init__(self, driver: str) -> None:
        storage = images_dir() / f".storage-{driver}"
        running = images_dir() / f".runroot-{driver}"
        # As containers-storage transports write it.
        self._place = f"{driver}@{storage}+{running}"
        self._command = [
            "buildah", f"--storage-driver={driver}", f"--root={storage}", f"--runroot={running}",
        ]  # fmt: skip

    @classmethod
    def open(cls) -> _Store:
        """The storage, with overlay where the machine can (seconds quicker), else with vfs."""
        wanted = os.environ.get("STORAGE_DRIVER")
        store = cls(wanted or "overlay")
        if wanted is None and not store._works():
            store = cls("vfs")
        store._tidy()
        return store

    def buildah(self, arguments: list[str | Path], say: Say) -> None:
        """Run buildah; `chroot` isolation needs no container runtime."""
        run(
            [*self._command, *arguments],
            say,
            doing="building the operator image",
            env=machine.environment({"BUILDAH_ISOLATION": "chroot"}),
        )

    def base(self, layout: Path, say: Say) -> str:
        """Name in the storage of a base image; copied in once."""
        name = f"localhost/trainseal-base:{layout.parent.name}"
        if not self._output("images", "--quiet", "--filter", f"reference={name}").strip():
            run(
                ["skopeo", "copy", f"oci:{layout}", f"containers-storage:[{self._place}]{name}"],
                say,
                doing="copying the base image into buildah's storage",
                env=machine.environment(),
            )
        return name

    def _works(self) -> bool:
        done = subprocess.run(
            [*self._command, "info"], capture_output=True, env=machine.environment(), check=False
        )
        return done.returncode == 0

    def _tidy(self) -> None:
        """Remove working containers that a killed build left, and a storage grown too large."""
        self._output("rm", "--all")
        images: list[object] = json.loads(self._output("images", "--all", "--json") or "[]") or []
        if len(images) > _MOST_IMAGES:
            self._output("rmi", "--all", "--force")

    def _output(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            capture_output=True,
            text=True,
            env=machine.environment({"BUILDAH_ISOLATION": "chroot"}),
            check=False,
        )
        if done.returncode != 0:
            raise ImageError(
                f"buildah {arguments[0]} ended with status {done.returncode}",
                action=f"if its storage is damaged, remove {images_dir()}/.storage-*",
                detail=(done.stdout + done.stderr)[-3000:],
            )
        return done.stdout
