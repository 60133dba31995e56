"""`python -m tests.demo`: the demo, and the taking away of what it made."""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
from types import FrameType

from tests.cluster import ClusterError
from tests.cluster.progress import say
from tests.demo.acts import Play
from tests.demo.afterwards import how_to_use, look_around, where_next
from tests.demo.limit import overrun, products
from tests.demo.show import Show
from tests.demo.world import TEAM, World
from tests.images import ImageError

DEFAULT_NAME = "trainseal-demo"


def main(arguments: list[str] | None = None) -> int:
    """0 if everything went as promised; 1 with what did not; 130 if interrupted.

    The time is promised, too, but for a cluster of the user's.
    """
    given = _parser().parse_args(arguments)
    built = products()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    show = Show()
    try:
        world = World(show, given.name, keep=given.keep)
    except ClusterError as error:
        say(f"error: {error.message}")
        return 1
    play = Play(world)
    failure = ""
    try:
        play.everything()
    except (ClusterError, ImageError, subprocess.SubprocessError) as error:
        failure = error.message if isinstance(error, ClusterError) else str(error)
        with contextlib.suppress(KeyboardInterrupt, ClusterError):
            look_around(world, play.cast)
    except KeyboardInterrupt:
        failure = "interrupted"
    finally:
        closed = _end(world, show, keep=given.keep)
    if failure:
        show.failure(f"The demo failed: {failure}" if failure != "interrupted" else "Interrupted.")
        if given.keep:
            how_to_use(world, play.cast)
        elif failure != "interrupted":
            show.note("`python -m tests.demo --keep` leaves it all up to look at.")
        return 130 if failure == "interrupted" else 1
    show.summary()
    if given.keep:
        how_to_use(world, play.cast)
    where_next(show)
    late = "" if world.foreign else overrun(show.seconds, built, products())
    if late:
        show.failure(f"The demo was too slow: {late}")
    return 0 if closed and not late else 1


def _end(world: World, show: Show, *, keep: bool) -> bool:
    """Takes away what the demo made, or leaves it; False where something could not be removed."""
    if keep:
        world.keep()
        return True
    # A second Ctrl-C would leave half of it behind; what follows is bounded.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        with show.step(
            "The cluster is taken down" if world.ours else "What the demo made is removed"
        ):
            world.close()
            if not (world.ours or world.foreign):
                show.note(
                    "The cluster was up before, and stays; to take it down: "
                    f"python -m tests.cluster down --name {world.name}"
                )
    except (ClusterError, subprocess.SubprocessError) as error:
        again = (
            f"python -m tests.cluster down --name {world.name}"
            if world.ours
            else f"kubectl delete namespace {TEAM}; helm uninstall trainseal -n trainseal-system"
        )
        show.failure(f"Not all of it could be removed: {error}\n  to do: {again}")
        return False
    return True


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.demo",
        description="A signed training runs on a real cluster; five attempts against it fail, the "
        "last while it runs.",
        epilog="TRAINSEAL_KUBECONFIG and TRAINSEAL_REGISTRY: use that cluster, in a namespace "
        f"{TEAM}, and remove from it what the demo made.",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave everything up, and say how to use it"
    )
    parser.add_argument(
        "--name", default=DEFAULT_NAME, help="the cluster's name (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
