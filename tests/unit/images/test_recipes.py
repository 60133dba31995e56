"""What the recipes read from Debian's files and tools."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.images import debian
from tests.images.debian import codename, names_release, python_version
from tests.images.errors import ImageError
from tests.images.operator_image import ROOT, stages
from tests.images.training_image import is_elf, links, loaded, programs

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


@pytest.fixture
def os_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a Debian 12."""
    file = tmp_path / "os-release"
    file.write_text(
        'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\nID=debian\n'
    )
    monkeypatch.setattr(debian, "_OS_RELEASE", file)
    return file


def test_a_debian_release_is_known_by_its_codename(os_release: Path) -> None:
    assert (codename(), python_version()) == ("bookworm", "3.11")


@pytest.mark.parametrize("change", [("ID=debian", "ID=ubuntu"), ("VERSION_CODENAME", "X")])
def test_another_system_is_refused_by_its_name(os_release: Path, change: tuple[str, str]) -> None:
    text = os_release.read_text().replace(*change).replace("Debian GNU/Linux 12", "Other 24.04")
    os_release.write_text(text)
    with pytest.raises(ImageError, match=r"runs Other 24\.04 .*\n  expected: Debian 12"):
        codename()


def test_a_system_without_a_name_is_refused_too(os_release: Path) -> None:
    os_release.unlink()
    with pytest.raises(ImageError, match="does not say its name"):
        codename()


def test_a_release_that_nobody_knows_is_refused(os_release: Path) -> None:
    os_release.write_text(os_release.read_text().replace("bookworm", "duke"))
    with pytest.raises(ImageError, match="Debian duke, whose Python"):
        python_version()


@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_modules_of_whatever_python_keep_their_libraries(tmp_path: Path, version: str) -> None:
    wanted = [
        tmp_path / f"usr/lib/python{version}/lib-dynload/_ssl.so",
        tmp_path / "usr/lib/python3/dist-packages/numpy/core.so",
    ]
    for path in (*wanted, tmp_path / "usr/lib/arch/libssl.so.3"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x7fELF")
    assert sorted(programs(tmp_path)) == sorted(wanted)


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


def test_of_the_dependencies_programs_py_spy_alone_stays_in_the_image(tmp_path: Path) -> None:
    (line,) = [
        line
        for line in (ROOT / "Containerfile").read_text().splitlines()
        if "find /opt/trainseal/bin" in line
    ]
    for name in ("pip", "kopf", "py-spy", "trainseal"):
        (tmp_path / name).write_text("")
    (tmp_path / "python").symlink_to("/usr/bin/python3")
    command = line.strip(" &\\").replace("/opt/trainseal/bin", str(tmp_path))
    subprocess.run(["sh", "-ec", command], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["py-spy", "python"]


def test_no_byte_code_in_the_image_depends_on_the_times_of_its_sources() -> None:
    recipe = (ROOT / "Containerfile").read_text().replace("\\\n", " ")
    instructions = [line for line in recipe.splitlines() if not line.startswith("#")]
    compiled = [line for line in instructions if "compileall" in line]
    assert [line.split()[0] for line in compiled] == ["RUN", "RUN"]
    assert all(re.search(r'--invalidation-mode"?,? +"?unchecked-hash', line) for line in compiled)
    (installed,) = (line for line in instructions if "pip install" in line)
    assert "--no-compile" in installed
