"""Packages come without their daemons; a killed installation leaves nothing for good."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import packages
from tests.cluster.errors import ClusterError
from tests.cluster.packages import install_packages, missing_packages

THEIRS = "#!/bin/sh\nexit 101\n"
"""What Docker's Debian images have: another's, however like ours."""


class Apt:
    """An apt-get that puts a program on the PATH, or does what a test says."""

    def __init__(self, bin_folder: Path, policy: Path) -> None:
        self.calls: list[str] = []
        self.policies: list[str] = []
        self.does: Callable[[], None] = lambda: None
        self._bin = bin_folder
        self._policy = policy

    def get(self, *arguments: str) -> None:
        self.calls.append(arguments[0] if arguments[0] == "update" else " ".join(arguments[3:]))
        self.policies.append(self._policy.read_text())
        self.does()
        if "install" in arguments:
            for package in arguments[3:]:
                (self._bin / packages.PACKAGES[package]).write_text("#!/bin/sh\n")
                (self._bin / packages.PACKAGES[package]).chmod(0o755)


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where policy-rc.d would be."""
    path = tmp_path / "sbin/policy-rc.d"
    path.parent.mkdir()
    monkeypatch.setattr(packages, "_POLICY", path)
    return path


@pytest.fixture
def apt(tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    """A machine with apt-get, on which nothing is installed yet."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "apt-get").write_text("#!/bin/sh\n")
    (folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("TRAINSEAL_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(packages, "daemon_environment", lambda: {"PATH": str(folder)})
    monkeypatch.setattr(packages, "PACKAGES", {"nftables": "nft", "openssl": "openssl"})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = Apt(folder, policy)
    monkeypatch.setattr(packages, "_apt_get", made.get)
    return made


WANTED = ("nftables", "openssl")


def test_what_is_missing_is_installed_and_no_daemon_starts_meanwhile(
    apt: Apt, policy: Path
) -> None:
    install_packages(WANTED)
    assert apt.calls == ["update", "nftables openssl"]
    assert all("exit 101" in text for text in apt.policies)
    assert not policy.exists()
    assert missing_packages(WANTED) == []


def test_what_is_there_is_not_installed_again(apt: Apt) -> None:
    install_packages(WANTED)
    install_packages(WANTED)
    assert len(apt.calls) == 2


def test_only_what_is_wanted_is_installed(apt: Apt) -> None:
    install_packages(["openssl"])
    assert apt.calls == ["update", "openssl"]


def test_a_policy_of_somebody_else_is_left_as_it_is(apt: Apt, policy: Path) -> None:
    policy.write_text(THEIRS)
    install_packages(WANTED)
    assert policy.read_text() == THEIRS
    assert set(apt.policies) == {THEIRS}


@pytest.fixture
def left_behind(apt: Apt, policy: Path) -> str:
    """What an installation left that was killed, so that nothing of it ran afterwards."""
    contents: list[str] = []

    def killed() -> None:
        contents.append(policy.read_text())
        raise KeyboardInterrupt

    apt.does = killed
    with pytest.raises(KeyboardInterrupt):
        install_packages(WANTED)
    apt.does = lambda: None
    policy.write_text(contents[0])
    return contents[0]


@pytest.mark.usefixtures("left_behind")
def test_a_policy_that_a_killed_installation_left_goes_with_the_next(
    apt: Apt, policy: Path
) -> None:
    install_packages(WANTED)
    assert not policy.exists()


def test_it_goes_also_where_nothing_is_left_to_install(
    apt: Apt, policy: Path, left_behind: str
) -> None:
    install_packages(WANTED)
    policy.write_text(left_behind)
    install_packages(WANTED)
    assert not policy.exists()


def test_an_installation_that_fails_takes_its_policy_away(apt: Apt, policy: Path) -> None:
    def fails() -> None:
        raise ClusterError("`apt-get` failed")

    apt.does = fails
    with pytest.raises(ClusterError, match="failed"):
        install_packages(WANTED)
    assert not policy.exists()


def test_what_is_missing_after_all_is_said(apt: Apt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_apt_get", lambda *_: None)
    with pytest.raises(ClusterError, match="still missing after installation: nftables, openssl"):
        install_packages(WANTED)


@pytest.mark.parametrize("lacking", ["root", "apt-get"])
def test_who_cannot_install_is_told_what_is_missing(
    apt: Apt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacking: str
) -> None:
    if lacking == "root":
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    else:
        (tmp_path / "bin/apt-get").unlink()
    with pytest.raises(ClusterError, match=r"missing: nft \(nftables\), openssl \(openssl\)"):
        install_packages(WANTED)
    assert apt.calls == []


def test_what_apt_says_when_it_fails_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 100, "E: Unable to locate package nftables\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ClusterError, match=r"(?s)apt-get -q update.*Unable to locate"):
        packages._apt_get("update")
