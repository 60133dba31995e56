"""What is asked of the machine before anything long begins, all of it at once.

A tool build takes half an hour: who lacks root, a kernel feature or room on disk is told before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.cluster import machine, packages, pins
from tests.cluster.disk import GIB, Need, require_space
from tests.cluster.errors import ClusterError
from tests.cluster.golang import require_go
from tests.cluster.places import cache_dir, state_root
from tests.cluster.toolchain import unbuilt
from tests.images.cache import images_dir

# After a build of all tools from nothing there were 3.3, 6.0 and 0.7 GiB, and more while it linked.
_MODULES, _BUILD_CACHE, _TOOLS = 4 * GIB, 7 * GIB, GIB
# The training image's root filesystem is 1.4 GiB before it is trimmed, and is copied on the way; a
# cluster unpacks the images once more.
_IMAGES, _CLUSTERS = 3 * GIB, 3 * GIB

#: What the network is tried out with; before the packages are there it cannot be.
_NETWORK_PROGRAMS = ("iproute2", "nftables")


def require_for_cluster(*, install: bool = True) -> None:
    """Whether this machine can run a whole cluster, with images and tools built on it.

    With `install`, missing Debian packages are installed on the way; else only looked for.
    """
    machine.require_linux()
    _together(
        machine.require_release,
        machine.require_root,
        *_to_build(pins.CLUSTER, _images_and_clusters()),
    )
    _together(
        machine.require_kernel,
        machine.require_cgroups,
        machine.require_overlayfs,
        machine.require_no_kubelet,
    )
    if install:
        packages.install_packages()
    if not packages.missing_packages(_NETWORK_PROGRAMS):
        machine.require_network()


def require_for_api_server() -> None:
    """Whether it can run etcd and API server alone; any user can."""
    machine.require_linux()
    _together(*_to_build(pins.API_ONLY))


def require_for_foreign(*, install: bool = True) -> None:
    """Whether it can do its part beside a cluster of the user's: a few tools, and images."""
    machine.require_linux()
    _together(
        machine.require_release,
        machine.require_root,
        *_to_build(pins.FOREIGN, _images_and_clusters()[:1]),
    )
    if install:
        packages.install_packages(packages.FOREIGN)


def require_to_build(names: Iterable[str]) -> None:
    """Whether it can build these tools, as far as the cache lacks them."""
    machine.require_linux()
    _together(*_to_build(names))


def _to_build(names: Iterable[str], needs: Iterable[Need] = ()) -> list[Callable[[], None]]:
    """The checks of Go and of disk space; `needs` is what takes room beside the tools."""
    missing = unbuilt(names)
    if not missing:
        return [lambda: require_space(needs)]

    def go_and_space() -> None:
        go = require_go()
        share = sum(p.seconds for p in missing) / sum(p.seconds for p in pins.PROGRAMS.values())
        of_tools = (
            ("Go modules", go.module_cache, _MODULES),
            ("Go's build cache", go.build_cache, _BUILD_CACHE),
            ("tools", cache_dir(), _TOOLS),
        )
        require_space(
            [*(Need(what, at, round(size * share)) for what, at, size in of_tools), *needs]
        )

    return [go_and_space]


def _images_and_clusters() -> list[Need]:
    """Room for the images and for the clusters that run them, unless they were built before."""
    if any(images_dir().glob("training-*")):
        return []
    return [Need("images", images_dir(), _IMAGES), Need("clusters", state_root(), _CLUSTERS)]


def _together(*checks: Callable[[], None]) -> None:
    """Run all; ClusterError with everything that they find lacking."""
    errors = []
    for check in checks:
        try:
            check()
        except ClusterError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ClusterError(
            f"this machine lacks {len(errors)} things",
            detail="\n".join(error.message for error in errors),
        )
