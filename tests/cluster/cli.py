"""The command line: `python -m tests.cluster up|down|status|shell|load-image|…`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.cluster import readiness
from tests.cluster.api import needed_packages, needed_tools, require_ready
from tests.cluster.cluster import DEFAULT_NAME, Cluster, names, names_of_this_checkout, remove
from tests.cluster.errors import ClusterError
from tests.cluster.packages import missing_packages
from tests.cluster.pins import API_ONLY, ENGINES, INTEGRATION, PROGRAMS
from tests.cluster.places import cache_dir
from tests.cluster.progress import minutes, say
from tests.cluster.toolchain import cached, tools, unbuilt

_SETS = {"integration": INTEGRATION, "engines": ENGINES}
_SET_NAMES = " or ".join(_SETS)

_EXAMPLES = """\
examples:
  python -m tests.cluster up                     a whole cluster (the first time, 20 to 30 minutes
                                                 of building its tools; then 10 to 20 seconds)
  python -m tests.cluster shell                  a shell with kubectl, helm, cosign and crane
  python -m tests.cluster load-image app.tar     push an image; prints its reference by digest
  python -m tests.cluster up --name b            a second cluster beside the first
  python -m tests.cluster up --api-only --name api     etcd, API server and controllers alone; no
                                                 root needed
  python -m tests.cluster check                  what this machine lacks, without doing anything
  python -m tests.cluster status -o json
  python -m tests.cluster down --all

environment:
  TRAINSEAL_CACHE        where built tools are kept (default ~/.cache/trainseal)
  TRAINSEAL_STATE        where clusters live (default /var/lib/trainseal-clusters)
  TRAINSEAL_KUBECONFIG   demo and end-to-end tests use this cluster instead of ours, with
  TRAINSEAL_REGISTRY     the registry that it pulls from
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it did what it was asked, 1 with the reason on standard error."""
    args = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except ClusterError as error:
        say(f"error: {error.message}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; `up` again continues cleanly, `down` removes what there is")
        return 130


def _up(args: argparse.Namespace) -> int:
    begin = time.monotonic()
    cluster = Cluster.up(args.name, api_only=args.api_only, gpus=args.gpus)
    say(f"{cluster.name} is up ({minutes(time.monotonic() - begin)}).")
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def _check(args: argparse.Namespace) -> int:
    if args.api_only:
        readiness.require_for_api_server()
        needed: Sequence[str] = API_ONLY
    else:
        require_ready(install=False)
        needed = needed_tools()
        if missing := missing_packages(needed_packages()):
            say(f"Debian packages that will be installed: {', '.join(missing)}")
    if left := unbuilt(needed):
        time_needed = minutes(sum(program.seconds for program in left))
        named = ", ".join(program.name for program in left)
        say(f"Tools that will be built (about {time_needed} on 2 cores): {named}")
    print("This machine has what is needed.")
    return 0


def _down(args: argparse.Namespace) -> int:
    chosen = names() if args.all else names_of_this_checkout() if args.checkout else [args.name]
    for name in chosen:
        say(f"{name}: {'removed' if remove(name) else 'nothing to remove'}")
    return 0


def _status(args: argparse.Namespace) -> int:
    cluster = Cluster.find(args.name)
    if cluster is None:
        if args.output == "json":
            print(json.dumps({"name": args.name, "healthy": False, "mode": None}))
        else:
            print(f"{args.name}: not up")
        return 1
    status = cluster.status()
    print(json.dumps(status, indent=2) if args.output == "json" else _as_text(status))
    return 0 if status["healthy"] else 1


def _as_text(status: dict[str, Any]) -> str:
    health = "healthy" if status["healthy"] else "NOT healthy (`up` makes it anew)"
    lines = [f"{status['name']}: {health}"]
    keys = ("mode", "server", "kubeconfig", "registry", "registryWithoutReferrers", "runDir")
    lines += [f"  {key:26}{status[key]}" for key in keys if status[key]]
    for name, component in status["components"].items():
        state = f"pid {component['pid']}" if component["running"] else "DEAD"
        lines.append(f"  {name:26}{state:14}{component['log']}")
    return "\n".join(lines)


def _shell(args: argparse.Namespace) -> int:
    cluster = _existing(args.name)
    env = cluster.environment() | {
        "TRAINSEAL_CLUSTER": cluster.name,
        "REGISTRY": cluster.registry,
        "REGISTRY_PLAIN": cluster.registry_plain,
    }
    command = args.command or [os.environ.get("SHELL", "/bin/sh")]
    if not args.command:
        say(f"{cluster.name}: kubectl, helm, cosign and crane are on the PATH; $REGISTRY is set.")
    sys.stdout.flush()
    os.execvpe(command[0], command, env)  # noqa: S606 - the point of the command


def _load_image(args: argparse.Namespace) -> int:
    cluster = _existing(args.name)
    if not cluster.registry:
        raise ClusterError(f"{args.name} has no registry", expected="a cluster with a node")
    print(cluster.push_image(args.image, args.repository or _repository_of(args.image)))
    return 0


def _repository_of(image: str) -> str:
    """`/tmp/app.tar` and `localhost/app:1` both become `app`."""
    last = image.rstrip("/").rpartition("/")[2]
    return last.partition("@")[0].partition(":")[0].removesuffix(".tar").lower()


def _kubeconfig(args: argparse.Namespace) -> int:
    print(_existing(args.name).kubeconfig)
    return 0


def _build_tools(args: argparse.Namespace) -> int:
    wanted = _named(args.tool) if args.tool else needed_tools()
    if args.list:
        for name in wanted:
            path = cached(PROGRAMS[name])
            print(f"{name:26}{path if path.exists() else 'not built'}")
        return 0
    if args.tool:
        readiness.require_to_build(wanted)
    else:
        require_ready()
    tools(wanted)
    say(f"{len(wanted)} tools are in {cache_dir() / 'tools'}.")
    return 0


def _named(given: Sequence[str]) -> tuple[str, ...]:
    unknown = set(given) - {*PROGRAMS, *_SETS}
    if unknown:
        raise ClusterError(
            f"no such tool: {', '.join(sorted(unknown))}",
            expected=f"of {', '.join(PROGRAMS)}; or {_SET_NAMES}, for what those tests run",
            action="see `python -m tests.cluster build-tools --help`",
        )
    return tuple(dict.fromkeys(tool for name in given for tool in _SETS.get(name, (name,))))


def _existing(name: str) -> Cluster:
    cluster = Cluster.find(name)
    if cluster is None:
        raise ClusterError(
            f"there is no cluster {name}", action=f"python -m tests.cluster up --name {name}"
        )
    return cluster


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster",
        description="Real Kubernetes clusters for tests, built from package registries alone.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, *, named: bool = True
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        if named:
            sub.add_argument("--name", default=DEFAULT_NAME, help="(default: %(default)s)")
        return sub

    up = command("up", _up, "start a cluster, or find it running; heal what a killed one left")
    up.add_argument(
        "--api-only", action="store_true", help="etcd, API server and controllers, no node"
    )
    up.add_argument("--gpus", type=int, default=8, help="GPUs the node offers (default: 8)")
    check = command(
        "check", _check, "say what this machine lacks; install and start nothing", named=False
    )
    check.add_argument("--api-only", action="store_true", help="for etcd and API server alone")
    down = command("down", _down, "end a cluster and remove everything it made")
    which = down.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="every cluster of this machine")
    which.add_argument("--checkout", action="store_true", help="every one this checkout made")
    status = command("status", _status, "what runs, and where its logs are")
    status.add_argument("-o", "--output", choices=["text", "json"], default="text")
    shell = command("shell", _shell, "a shell, or a command, with KUBECONFIG and the tools")
    shell.add_argument("command", nargs="*", help="a command instead of a shell, after --")
    load = command("load-image", _load_image, "push an image to the cluster's registry")
    load.add_argument("image", help="archive, OCI layout folder, or name in buildah's storage")
    load.add_argument("--repository", help="where in the registry (default: the image's name)")
    command("kubeconfig", _kubeconfig, "print the path of the administrator's kubeconfig")
    build = command("build-tools", _build_tools, "build the pinned tools, once", named=False)
    build.add_argument(
        "tool",
        nargs="*",
        help=f"of {', '.join(PROGRAMS)}; or {_SET_NAMES}, for what those tests run (default: what "
        "a cluster needs, or a cluster of yours, after a look at this machine)",
    )
    build.add_argument("--list", action="store_true", help="say which are built, and where")
    return parser
