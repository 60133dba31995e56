"""The image of TrainSeal itself, from the repository's Containerfile."""

from __future__ import annotations

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

_LAST_STAGE = "\nFROM runtime\n"


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
    recipe, last_stage = stages((ROOT / "Containerfile").read_text())
    built = "localhost/trainseal:latest"
    try:
        runtime = _runtime(store, base, wheels, context, recipe)
        (context / "Last").write_text(f"FROM {runtime}\n{last_stage}")
        with step("operator: our own code") as say:
            store.build(built, context / "Last", context, say)
        with step("operator: writing layers") as say:
            target = f"oci:{work / 'image'}"
            compress = ["--compression-format=zstd", "--compression-level=1"]
            store.buildah(["push", *compress, built, target], say)
    finally:
        shutil.rmtree(context)


def _runtime(store: _Store, base: Path, wheels: Path, context: Path, recipe: str) -> str:
    """Name in the storage of the image that has all but our own code."""
    base_name = f"localhost/trainseal-base:{base.parent.name}"
    inputs = Inputs().text("base", base.parent.name).text("wheels", wheels.name)
    name = f"localhost/trainseal-runtime:{inputs.text('recipe', recipe).digest}"
    if store.has(name):
        return name
    # Earlier runtimes and bases are of no more use; each is hundreds of megabytes.
    store.clear()
    with step("operator: dependencies") as say:
        store.copy_in(base, base_name, say)
        (context / "Runtime").write_text(recipe)
        store.build(name, context / "Runtime", context, say, f"--build-arg=BASE={base_name}")
    return name


def stages(containerfile: str) -> tuple[str, str]:
    """The Containerfile up to its last stage, and what stands in the last stage.

    Building both at once would read the whole runtime again for every change of ours.
    """
    recipe, found, last_stage = containerfile.partition(_LAST_STAGE)
    if not found or "\nFROM " in last_stage:
        raise ImageError(
            "Containerfile does not end in one stage over `runtime`",
            expected="`FROM runtime` as its last FROM line",
            action="keep that line, or change tests/images/operator_image.py with it",
        )
    return recipe + "\n", last_stage


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
        # Working containers that a killed build left.
        store._output("rm", "--all")
        return store

    def build(self, name: str, recipe: Path, context: Path, say: Say, *options: str) -> None:
        """Build the last stage of `recipe`, as one layer, under this name."""
        self.buildah(
            [
                "build-using-dockerfile", "--format=oci", "--pull-never", *options,
                f"--tag={name}", f"--file={recipe}", context,
            ],
            say,
        )  # fmt: skip
        # The image that had this name before, and the stages on the way.
        self._output("rmi", "--prune")

    def buildah(self, arguments: list[str | Path], say: Say) -> None:
        """Run buildah; `chroot` isolation needs no container runtime."""
        run(
            [*self._command, *arguments],
            say,
            doing="building the operator image",
            env=machine.environment({"BUILDAH_ISOLATION": "chroot"}),
        )

    def has(self, name: str) -> bool:
        """Whether an image has this name."""
        return bool(self._output("images", "--quiet", "--filter", f"reference={name}").strip())

    def copy_in(self, layout: Path, name: str, say: Say) -> None:
        """Take an OCI layout into the storage under this name."""
        run(
            [
                "skopeo", "copy", "--insecure-policy", f"oci:{layout}",
                f"containers-storage:[{self._place}]{name}",
            ],
            say,
            doing="copying the base image into buildah's storage",
            env=machine.environment(),
        )  # fmt: skip

    def clear(self) -> None:
        """Remove every image."""
        if self._output("images", "--all", "--quiet").strip():
            self._output("rmi", "--all", "--force")

    def _works(self) -> bool:
        done = subprocess.run(
            [*self._command, "info"], capture_output=True, env=machine.environment(), check=False
        )
        return done.returncode == 0

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
