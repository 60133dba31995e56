"""What the recipes read from Debian's files and tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.images.debian import names_release
from tests.images.errors import ImageError
from tests.images.operator_image import ROOT, stages
from tests.images.training_image import is_elf, links, loaded

DEB822 = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
"""


@pytest.mark.parametrize(
    "text",
    [
        DEB822,
        DEB822.replace("bookworm bookworm-updates", "bookworm-security"),
        "Types: deb\nSuites: other\nComponents: main\n\n" + DEB822,
        "deb http://mirror.example/debian bookworm main contrib\n",
        "deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian bookworm main\n",
    ],
)
def test_the_distributions_own_source_is_taken(text: str) -> None:
    assert names_release(text, "bookworm")


@pytest.mark.parametrize(
    "text",
    [
        DEB822.replace("bookworm", "trixie"),
        DEB822.replace("main", "stable"),
        DEB822.replace("Suites:", "# Suites:"),
        "# deb http://mirror.example/debian bookworm main\n",
        "deb http://vendor.example/apt vendor-bookworm main\n",
        "deb-src http://mirror.example/debian bookworm main\n",
        "",
    ],
)
def test_anything_else_is_left_out(text: str) -> None:
    assert not names_release(text, "bookworm")


def test_libraries_are_read_from_the_output_of_ldd() -> None:
    listed = (
        "/usr/bin/python3:\n"
        "\tlinux-vdso.so.1 (0x00007ffd)\n"
        "\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)\n"
        "\tlibgone.so => not found\n"
        "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n"
    )
    assert loaded(listed) == {"/lib/x86_64-linux-gnu/libm.so.6"}


def test_links_are_followed_within_the_root_filesystem(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/arch"
    alternatives = tmp_path / "etc/alternatives"
    for made in (folder / "blas", alternatives):
        made.mkdir(parents=True)
    (folder / "blas/libblas.so.3.1").write_bytes(b"\x7fELF")
    (folder / "blas/libblas.so.3").symlink_to("libblas.so.3.1")
    (folder / "libblas.so.3").symlink_to("/etc/alternatives/libblas.so.3")
    (alternatives / "libblas.so.3").symlink_to("/usr/lib/arch/blas/libblas.so.3")
    found = links(tmp_path, "/lib/arch/libblas.so.3")
    assert found == [
        folder / "libblas.so.3",
        alternatives / "libblas.so.3",
        folder / "blas/libblas.so.3",
        folder / "blas/libblas.so.3.1",
    ]
    assert [is_elf(path) for path in found] == [False, False, False, True]


def test_the_containerfile_ends_in_one_small_stage_over_the_runtime() -> None:
    recipe, last_stage = stages((ROOT / "Containerfile").read_text())
    assert " AS runtime\n" in recipe
    assert "COPY operator/trainseal " in last_stage
    assert "COPY operator" not in recipe
    assert "USER 65532:65532" in last_stage


@pytest.mark.parametrize(
    "text",
    ["FROM base AS runtime\n", "FROM base AS runtime\n\nFROM runtime\nUSER 1\n\nFROM other\n"],
)
def test_a_containerfile_that_ends_otherwise_is_an_error(text: str) -> None:
    with pytest.raises(ImageError, match="does not end in one stage"):
        stages(text)
