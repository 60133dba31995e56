"""The pages' own commands, as they are printed: signing, letting in, and being refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.e2e.lab import TEAM, Object
from tests.e2e.saved import runs
from tests.guides.ground import ADMIN, Ground
from tests.guides.pages import ROOT
from tests.guides.tutorial import tutorial, with_keys
from tests.guides.walk import Walk
from tests.stage import notebooks
from tests.stage.signing import signed

#: A TrainJob and the runtime that it names.
TRAINJOB = ROOT / "tests/unit/cli/wrapping/manifests"


@pytest.fixture(scope="module")
def ground(ground: Ground) -> Iterator[Ground]:
    """What readers of these pages have; the team's policy is put back at the end."""
    before = ground.lab.get("provenancepolicy", TEAM, "")
    yield ground
    ground.apply({**before, "metadata": {"name": TEAM}})


@pytest.fixture
def guide(ground: Ground) -> Iterator[Callable[..., Walk]]:
    """A walk through a page; what it leaves in the team's namespace goes."""
    yield ground.walk
    ground.lab.admin("delete", "trainingjobs,trainingtemplates", "--all", "-n", TEAM)


def dumped(obj: Object) -> str:
    return yaml.safe_dump(obj, sort_keys=False)


def test_tutorial(ground: Ground, guide: Callable[..., Walk]) -> None:
    """tutorial.md: its own world is there, since its time is measured as well."""
    tutorial(ground).go()


def test_two_people_sign(ground: Ground, guide: Callable[..., Walk]) -> None:
    walk = guide("how-to/sign-with-two-people.md")
    (walk.folder / "examples" / "char-lm").rename(walk.folder / "src")
    repository = f"{walk.registry}/{TEAM}/char-lm-code"
    sign = f"trainseal sign code ./src --key ada.key --push {repository}"
    status, said = walk.run(sign, "ada")
    assert status == 0, said
    walk.file("job.yaml", dumped(ground.job(said.split()[-1])))
    walk.go()


def test_pending(ground: Ground, guide: Callable[..., Walk]) -> None:
    walk = guide("how-to/pending.md")
    ground.put(ground.rules("ada", "grace", "alan", threshold=2))
    job = ground.job(ground.code("ada"))
    job["spec"]["config"]["parameters"]["learning_rate"] = 0.0003
    ground.runs(walk, job, "ada", "grace")
    ground.lab.admin("delete", "trainingjob", "char-lm", "-n", TEAM)
    ground.put(
        ground.rules("ada", "grace", "alan", threshold=2, **yaml.safe_load(walk.printed(0))["spec"])
    )
    job["spec"]["config"]["parameters"]["learning_rate"] = 0.001
    walk.file("job.yaml", dumped(job))

    def another() -> None:
        """The same once more, which waits."""
        ground.lab.admin("delete", "trainingjob", "char-lm", "-n", TEAM)
        status, said = walk.run("kubectl apply -f job.yaml", "ada")
        assert status == 0, said

    walk.before("trainseal approve", walk.become("grace"))
    walk.before("trainseal approve char-lm -n research", another)
    walk.go()


def test_templates(ground: Ground, guide: Callable[..., Walk]) -> None:
    walk = guide("how-to/templates.md", "alice", groups={"bob": ["research"]})
    ground.put(ground.rules("alice", persons={"alice": "Alice"}))
    job = ground.job(ground.code("alice"))
    parameters: Any = {"optim": {"lr": 0.0003, "name": "adamw"}, "seed": 1}
    job["spec"]["config"]["parameters"] = parameters
    walk.file("job.yaml", dumped(job))
    walk.file("conf/config.yaml", dumped(parameters))

    def next_one() -> None:
        text = (walk.folder / "pretrain-v7.yaml").read_text()
        walk.file(
            "pretrain-v8.yaml", text.replace("pretrain-v7", "pretrain-v8").replace("65535", "1000")
        )

    def run() -> None:
        walk.person = "bob"
        walk.file("run.yaml", walk.printed(1))

    walk.statuses["trainseal template diff"] = 1  # as diff says that they differ
    walk.before("trainseal template diff", next_one)
    walk.before("kubectl create -f run.yaml", run)
    walk.before("kubectl create role", walk.become(ADMIN))
    walk.before("kubectl patch tmpl", walk.become("alice"))
    walk.go()
    ground.lab.admin("delete", "role,rolebinding", "sweeps", "-n", TEAM)
    for kind in ("clusterrole", "clusterrolebinding"):
        ground.lab.admin("delete", kind, "katib-trainingjobs")


def test_wrap(ground: Ground, guide: Callable[..., Walk]) -> None:
    walk = guide("how-to/wrap.md", "alice")
    made = ground.rules("alice")
    ground.put(made)
    walk.file("policy.yaml", dumped(made))
    ground.tag(ground.lab.image, "1")
    example = walk.folder / "examples" / "char-lm" / "pytorchjob.yaml"
    image = ground.lab.image.partition("@")[0] + ":1"
    walk.file("pytorchjob.yaml", example.read_text().replace("IMAGE", image))
    for name in ("trainjob.yaml", "runtime.yaml"):
        walk.file(name, (TRAINJOB / name).read_text())
    walk.statuses["trainseal wrap"] = 1
    walk.go()


def test_refused(ground: Ground, guide: Callable[..., Walk]) -> None:
    walk = guide("how-to/refused.md")
    ground.put(ground.rules("ada"))
    job = ground.job(ground.code("ada"))
    walk.file("job.yaml", dumped(signed(job, ground.keys["ada"])))
    status, said = walk.run(
        "trainseal template from-job -f job.yaml --name t --user u > template.yaml", "ada"
    )
    assert status == 0, said
    # Policies are the cluster's: who has a role in a namespace does not see them.
    walk.before("kubectl get provpol", walk.become(ADMIN))
    walk.before("kubectl get trainingtemplates", walk.become("ada"))
    walk.go()


def test_reading_a_refusal(ground: Ground, guide: Callable[..., Walk]) -> None:
    walk = guide("how-to/read-a-refusal.md")
    ground.put(ground.rules("ada"))
    pushed = ground.code("ada")
    for reference in (ground.lab.image, pushed):
        ground.tag(reference, "1")
    job = ground.job(pushed.partition("@")[0] + ":1")
    job["spec"]["roles"][0]["template"]["spec"]["containers"][0]["image"] = (
        ground.lab.image.partition("@")[0] + ":1"
    )
    walk.file("job.yaml", dumped(job))
    walk.before("trainseal status", lambda: ground.runs(walk, ground.job(pushed), "ada"))
    walk.go()


def test_writing_a_policy(ground: Ground, guide: Callable[..., Walk]) -> None:
    walk = guide("how-to/write-a-policy.md", ADMIN)
    ground.without_policy()
    walk.file("policy.yaml", with_keys(walk, walk.printed(0), "ada", "alice"))

    def run() -> None:
        """Platforms are learnt from while nothing is enforced."""
        walk.person = "ada"
        ground.put(ground.rules("ada", mode="Audit"))
        ground.runs(walk, ground.job(ground.code("ada")), "ada")

    walk.before("trainseal policy learn-additions", run)
    walk.go()


def test_keyless(ground: Ground, guide: Callable[..., Walk]) -> None:
    walk = guide("how-to/keyless.md", ADMIN)
    walk.file("trustroot.yaml", walk.printed(0))
    walk.file("job.yaml", dumped(ground.job(ground.code("ada"))))
    walk.go()
    ground.lab.admin("delete", "trustroot", "public-good")


def test_rolling_out(ground: Ground, guide: Callable[..., Walk]) -> None:
    lab, walk = ground.lab, guide("how-to/roll-out-from-audit-to-enforce.md", ADMIN)
    ground.without_policy()
    key = json.dumps(ground.keys["ada"].public_pem)
    walk.file("audit.yaml", walk.printed(0).replace('"…"', key))
    walk.file("gpu.yaml", dumped(notebooks.pod("gpu", TEAM, lab.image)))
    walk.file("research.yaml", dumped(ground.rules("ada")))
    walk.file("job.yaml", dumped(signed(ground.job(ground.code("ada")), ground.keys["ada"])))
    walk.statuses["trainseal simulate"] = 1
    walk.instead["trainseal simulate --enforce"] = "; policies: audit-everything (Enforce)"
    walk.go()
    lab.admin("delete", "pod", "gpu", "-n", TEAM)
    lab.admin("delete", "provenancepolicy", "audit-everything")


def test_install_and_upgrade(guide: Callable[..., Walk]) -> None:
    guide("how-to/install-and-upgrade.md", ADMIN).go()


def test_metrics(guide: Callable[..., Walk]) -> None:
    guide("how-to/metrics.md", ADMIN).go()


def test_break_glass(ground: Ground, guide: Callable[..., Walk]) -> None:
    lab = ground.lab
    walk = guide("how-to/break-glass.md", ADMIN, groups={"bob": ["oncall", "leads"]})
    ground.put(ground.rules("ada", **yaml.safe_load(walk.printed(0))["spec"]))
    job = ground.job(ground.code("ada"))
    ground.runs(walk, job, "ada")
    walk.known["char-lm-worker-0-x7f2p"] = runs(lab, job)
    walk.instead["trainseal break-glass list"] = "approved by bob@example.org"
    walk.statuses |= {"trainseal drift": 1, "trainseal break-glass list": 1}
    walk.before("trainseal break-glass", walk.become("bob"))
    walk.before("kubectl exec", walk.become("ann"))
    walk.before("trainseal break-glass list", walk.become("bob"))
    walk.go()
