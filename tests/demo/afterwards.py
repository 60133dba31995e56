"""What is said when the demo is over, or has failed."""

from __future__ import annotations

from tests.demo.acts import Cast
from tests.demo.show import Show
from tests.demo.world import TEAM, World
from tests.stage.release import NAMESPACE as RELEASE


def look_around(world: World, cast: Cast | None) -> None:
    """What the cluster looks like when something went wrong."""
    if cast is None:
        return
    world.show.heading("What the cluster looks like:")
    for command in (
        f"kubectl get tj,seal,jobs,pods -n {TEAM} -o wide",
        f"kubectl get events -n {TEAM} --sort-by=.lastTimestamp | tail -n 20",
        f"kubectl logs -n {RELEASE} -l app.kubernetes.io/name=trainseal --prefix --tail=15",
    ):
        world.show.command("admin", command)
        world.show.answer(cast.admin.look(command))


def how_to_use(world: World, cast: Cast | None) -> None:
    """How to go on by hand with what is left up."""
    show = world.show
    show.heading("Left up, to try things:")
    if not world.foreign:
        show.note(f"a shell      python -m tests.cluster shell --name {world.name}")
    if cast is not None:
        (world.folder / "env").write_text(world.variables())
        show.note(f"admin        export KUBECONFIG={world.target.kubeconfig}")
        for actor in (cast.alice, cast.mallory):
            show.note(f"{actor.name:12} export KUBECONFIG={actor.environment['KUBECONFIG']}")
        show.note(f"files, keys  cd {cast.alice.folder} && . ../env")
        show.note("run it again kubectl apply -f longer.yaml && trainseal status char-lm --watch")
    if world.foreign:
        show.note("take away    run the demo again without --keep")
    else:
        show.note(f"take down    python -m tests.cluster down --name {world.name}")
    show.note(f"the files    rm -r {world.folder}")


def where_next(show: Show) -> None:
    """What to read."""
    show.heading("Where to look next:")
    show.note("docs/tutorial.md                  the same, slowly, on a cluster of yours")
    show.note("docs/how-to/read-a-refusal.md     what each refusal means, and what to do")
    show.note("docs/how-to/respond-to-drift.md   what each finding means, and what to do")
    show.note("docs/threat-model.md              who is kept from what, and what is not done yet")
    show.note("examples/char-lm/                 the code and the job that ran")
