"""Everything that a machine lacks is said at once, and before anything long begins."""

from pathlib import Path

import pytest

from tests.cluster import api, machine, packages, pins, readiness
from tests.cluster.api import Foreign, connect
from tests.cluster.cluster import Cluster
from tests.cluster.disk import Need
from tests.cluster.errors import ClusterError
from tests.cluster.golang import Go
from tests.cluster.pins import Program

CHECKS = (
    "require_release",
    "require_root",
    "require_kernel",
    "require_cgroups",
    "require_overlayfs",
    "require_no_kubelet",
    "require_network",
)


class World:
    """A machine that has everything; a test takes something away. What is asked is noted."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.lacks: set[str] = set()
        self.unbuilt: list[Program] = []
        self.packages_missing = False
        self.needs: list[Need] = []

    def ask(self, what: str) -> None:
        self.asked.append(what)
        if what in self.lacks:
            raise ClusterError(f"no {what}", expected=what, action=f"get {what}")

    def go(self) -> Go:
        self.ask("go")
        return Go((1, 26, 0), "local", Path("/go/build"), Path("/go/modules"))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    made = World()
    monkeypatch.setenv("TRAINSEAL_CACHE", str(tmp_path))
    monkeypatch.delenv("TRAINSEAL_KUBECONFIG", raising=False)
    for name in CHECKS:
        monkeypatch.setattr(machine, name, lambda name=name: made.ask(name))
    monkeypatch.setattr(readiness, "require_go", made.go)
    monkeypatch.setattr(readiness, "require_space", lambda needs: made.needs.extend(needs))
    monkeypatch.setattr(readiness, "unbuilt", lambda _: made.unbuilt)
    monkeypatch.setattr(packages, "install_packages", lambda *_: made.ask("packages"))
    monkeypatch.setattr(packages, "missing_packages", lambda *_: made.packages_missing)
    return made


def test_a_machine_that_has_everything_passes_and_is_asked_about_all_of_it(world: World) -> None:
    world.unbuilt = list(pins.PROGRAMS.values())
    readiness.require_for_cluster()
    assert {*CHECKS, "go", "packages"} == set(world.asked)
    assert world.asked.index("packages") < world.asked.index("require_network")


def test_all_that_is_lacking_is_said_together(world: World) -> None:
    world.unbuilt = [pins.PROGRAMS["helm"]]
    world.lacks = {"require_root", "require_release", "go"}
    with pytest.raises(ClusterError, match="lacks 3 things") as caught:
        readiness.require_for_cluster()
    for what in world.lacks:
        assert f"to do:    get {what}" in caught.value.message
    assert "packages" not in world.asked


@pytest.mark.parametrize("what", CHECKS)
def test_each_thing_that_is_lacking_alone_is_said_in_its_own_words(world: World, what: str) -> None:
    world.lacks = {what}
    with pytest.raises(ClusterError, match=f"^no {what}"):
        readiness.require_for_cluster()


def test_a_look_alone_installs_nothing_and_tries_no_network_without_its_programs(
    world: World,
) -> None:
    world.packages_missing = True
    readiness.require_for_cluster(install=False)
    assert not {"packages", "require_network"} & set(world.asked)


def test_with_all_tools_built_go_is_not_asked_for(world: World) -> None:
    world.lacks = {"go"}
    readiness.require_for_cluster()
    readiness.require_for_api_server()


def test_an_api_server_alone_needs_neither_root_nor_debian(world: World) -> None:
    world.unbuilt = [pins.PROGRAMS["etcd"]]
    readiness.require_for_api_server()
    assert world.asked == ["go"]


def test_room_is_asked_for_what_is_still_to_be_built(world: World, tmp_path: Path) -> None:
    def asked() -> int:
        world.needs.clear()
        readiness.require_for_cluster()
        return sum(need.size for need in world.needs)

    world.unbuilt = list(pins.PROGRAMS.values())
    everything = asked()
    world.unbuilt = [pins.PROGRAMS["etcd"]]
    one = asked()
    world.unbuilt = []
    images = asked()
    (tmp_path / "images/training-1").mkdir(parents=True)
    assert 0 == asked() < images < one < everything


@pytest.fixture
def foreign(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The kubeconfig of a cluster of the user's, named by the environment."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("{}")
    monkeypatch.setenv("TRAINSEAL_KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("TRAINSEAL_REGISTRY", "registry.example:5000")
    monkeypatch.delenv("TRAINSEAL_REGISTRY_FROM_HOST", raising=False)
    return kubeconfig


@pytest.mark.usefixtures("foreign")
def test_with_a_cluster_of_the_users_only_what_is_needed_then_is_asked(world: World) -> None:
    world.unbuilt = [pins.PROGRAMS["helm"]]
    api.require_ready()
    assert set(world.asked) == {"require_release", "require_root", "go", "packages"}


@pytest.mark.usefixtures("foreign")
def test_with_a_cluster_of_the_users_four_tools_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[str, ...]] = []
    monkeypatch.setattr(api, "tools", built.append)
    connected = connect("some-name")
    assert not connected.owned
    assert built == [api.needed_tools()] == [("kubectl", "helm", "cosign", "crane")]
    assert "openssl" in api.needed_packages()
    assert "containerd" not in api.needed_packages()


def test_without_one_all_of_them_are(world: World) -> None:
    assert api.needed_tools() == pins.CLUSTER
    assert "containerd" in api.needed_packages()


def test_without_one_a_cluster_of_ours_is_started(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, bool]] = []
    monkeypatch.setattr(Cluster, "up", lambda name, temporary: calls.append((name, temporary)))
    connect("some-name", temporary=True)
    connect("another")
    assert calls == [("some-name", True), ("another", False)]


def test_the_registry_is_called_the_same_from_here_unless_it_says_otherwise(foreign: Path) -> None:
    variables = {"TRAINSEAL_KUBECONFIG": str(foreign), "TRAINSEAL_REGISTRY": "a:1"}
    assert Foreign.of(variables) == Foreign(foreign, "a:1", "a:1")
    variables |= {"TRAINSEAL_REGISTRY_FROM_HOST": "b:2"}
    assert Foreign.of(variables) == Foreign(foreign, "a:1", "b:2")


@pytest.mark.parametrize("empty", [{}, {"TRAINSEAL_KUBECONFIG": ""}])
def test_no_variable_is_no_cluster(empty: dict[str, str]) -> None:
    assert Foreign.of(empty) is None


def test_a_kubeconfig_that_is_not_there_is_said_before_anything_is_built(
    foreign: Path, world: World
) -> None:
    foreign.unlink()
    for attempt in (api.require_ready, api.needed_tools, connect):
        with pytest.raises(ClusterError, match="which is no file"):
            attempt()
    assert world.asked == []


@pytest.mark.usefixtures("foreign")
def test_a_registry_that_nobody_named_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINSEAL_REGISTRY")
    with pytest.raises(ClusterError, match="TRAINSEAL_REGISTRY is not") as caught:
        api.require_ready()
    assert "HOST:PORT" in caught.value.expected


@pytest.mark.usefixtures("foreign")
def test_a_user_of_a_foreign_cluster_is_impersonated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "tools", lambda _: None)
    connected = connect()
    view = "users: [{name: admin, user: {token: t}}]"
    monkeypatch.setattr(type(connected), "kubectl", lambda *_, **__: view)
    first = connected.user_kubeconfig("mallory@example.org", ["ml"])
    second = connected.user_kubeconfig("alice@example.org")
    assert "as: mallory@example.org" in first.read_text()
    assert "- ml\n" in first.read_text()
    assert "- system:authenticated" in second.read_text()
    assert "ml" not in second.read_text()
    assert first.stat().st_mode & 0o077 == 0
