"""Go: what is missing or too old is said before anything is built."""

import re
from pathlib import Path

import pytest

from tests.cluster import golang
from tests.cluster.errors import ClusterError
from tests.cluster.golang import needed, require_go, version_of


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only `go` on the PATH: a new enough one, which a test may replace."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return says(tmp_path / "go", "go1.26.8", "local")


def says(program: Path, version: str, toolchain: str) -> Path:
    """A `go` whose `env` prints these, and where its caches are."""
    lines = "\\n".join((version, toolchain, "/caches/build", "/caches/modules"))
    program.write_text(f"#!/bin/sh\nprintf '{lines}\\n'\n")
    program.chmod(0o755)
    return program


def test_a_new_go_builds_and_says_where_its_caches_are(go: Path) -> None:
    found = require_go()
    assert (found.build_cache, found.module_cache) == (
        Path("/caches/build"),
        Path("/caches/modules"),
    )


def test_no_go_is_said_with_where_to_get_it(go: Path) -> None:
    go.unlink()
    with pytest.raises(ClusterError, match="no `go` on the PATH") as caught:
        require_go()
    assert "expected: Go 1.26" in caught.value.message
    assert "https://go.dev/dl" in caught.value.message


@pytest.mark.parametrize("toolchain", ["auto", "local+auto", "go1.25.1+auto"])
def test_an_older_go_that_fetches_the_newer_one_is_good_enough(go: Path, toolchain: str) -> None:
    says(go, "go1.22.4", toolchain)
    assert require_go().version == (1, 22, 4)


@pytest.mark.parametrize("toolchain", ["local", "path", "local+path", "go1.25.1"])
def test_an_older_go_that_must_not_fetch_is_refused_with_the_setting(
    go: Path, toolchain: str
) -> None:
    says(go, "go1.25.1", toolchain)
    with pytest.raises(
        ClusterError, match=rf"is 1\.25\.1, with GOTOOLCHAIN={re.escape(toolchain)}"
    ) as caught:
        require_go()
    assert "or set GOTOOLCHAIN=auto" in caught.value.message


def test_a_go_from_before_toolchains_is_refused_whatever_it_is_told(go: Path) -> None:
    says(go, "go1.19.8", "")
    with pytest.raises(ClusterError, match=r"is 1\.19\.8\n  expected: Go 1\.26") as caught:
        require_go()
    assert "GOTOOLCHAIN" not in caught.value.message


def test_a_go_that_fails_is_shown(go: Path) -> None:
    go.write_text("#!/bin/sh\necho 'go: cannot find GOROOT' >&2; exit 2\n")
    with pytest.raises(ClusterError, match=r"(?s)ended with 2.*cannot find GOROOT"):
        require_go()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go1.26.8", (1, 26, 8)),
        ("1.26.0", (1, 26, 0)),
        ("go1.26", (1, 26, 0)),
        ("go1.26rc1", (1, 26, -1)),
        ("go1.26.8 X:nodwarf5", (1, 26, 8)),
        ("devel go1.27-3f3c2a1 Mon", (1, 27, 0)),
    ],
)
def test_versions_are_read_as_go_writes_them(text: str, version: golang.Version) -> None:
    assert version_of(text) == version


def test_what_is_no_version_is_an_error() -> None:
    with pytest.raises(ClusterError, match="says 'unknown'"):
        version_of("unknown")


def test_what_is_needed_is_what_the_go_mod_files_name() -> None:
    assert needed() >= (1, 26, 0)
