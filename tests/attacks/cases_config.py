"""Group *Config*: the configuration of a signed job changed before it is submitted, or after."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from tests.attacks.case import Attack, Case, NotTried, Refused
from tests.attacks.scene import Scene
from tests.attacks.submitting import Making, refused, submit
from tests.e2e.lab import Lab, Object, changed
from tests.stage.jobs import trainer
from tests.stage.signing import signed
from tests.stage.waiting import eventually

GROUP = "Config"


def _changed_after(change: Callable[[Object], None]) -> Making:
    """A job that was changed after alice had signed it."""
    return lambda lab: changed(lab.signed_job("config"), change)


def _changed_before(change: Callable[[Object], None]) -> Making:
    """The same change, made before she signs."""
    return lambda lab: signed(changed(lab.job("config"), change), lab.alice)


def _parameter(name: str, value: object) -> Callable[[Object], None]:
    def change(job: Object) -> None:
        job["spec"]["config"]["parameters"][name] = value

    return change


def _world_size(job: Object) -> None:
    job["spec"]["roles"][0]["replicas"] = 2


def _data_path(job: Object) -> None:
    job["spec"]["checkpoints"]["volume"] = {"persistentVolumeClaim": {"claimName": "another"}}


def _variable(job: Object) -> None:
    trainer(job).setdefault("env", []).append({"name": "NCCL_ALGO", "value": "Tree"})


def _value(job: Object) -> None:
    trainer(job)["env"][0]["value"] = "64"


def _command(job: Object) -> None:
    trainer(job)["command"] = ["python3", "/workspace/finish.py"]


def _secret(job: Object) -> None:
    """Its keys become variables: one may be LD_PRELOAD."""
    trainer(job)["envFrom"] = [{"secretRef": {"name": "anything"}}]


def _switch(job: Object) -> None:
    trainer(job).setdefault("env", []).append({"name": "PYTHONUNBUFFERED", "value": "1"})


def _for_cluster(uid: Callable[[Lab], str]) -> Making:
    def make(lab: Lab) -> Object:
        job = lab.job("config")
        job["spec"]["validity"] = {"cluster": uid(lab)}
        return signed(job, lab.alice)

    return make


def _this_cluster(lab: Lab) -> str:
    return lab.admin("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")


def _runs_again(allowed: int) -> Attack:
    """A job that has run once is submitted again."""

    def do(scene: Scene) -> None:
        lab = scene.lab
        job = lab.job(f"again-{allowed}", "finish.py")
        job["spec"]["validity"] = {"maxRuns": allowed}
        job["spec"]["config"]["parameters"]["nonce"] = secrets.token_hex(8)
        job = signed(job, lab.alice)
        lab.admin("apply", "-f", "-", stdin=job)
        try:
            lab.wait_for_phase(job, "Succeeded")
        finally:
            lab.delete(job)
        label = f"trainseal.dev/job={job['metadata']['name']}"
        place = ("-n", scene.namespace, "-l", label, "-o", "name")
        eventually(
            lambda: not lab.admin("get", "trainingjobs,jobs,pods", *place), "the run is gone"
        )
        submit(lab, job)

    return do


def _case(name: str, change: Callable[[Object], None]) -> Case:
    return refused(
        GROUP, name, "T1565", "changed after signing",
        _changed_after(change), _changed_before(change), "changed before it is signed",
    )  # fmt: skip


CASES = (
    _case("learning rate changed", _parameter("learning_rate", 0.3)),
    _case("seed changed", _parameter("seed", 13)),
    _case("optimizer changed", _parameter("optimizer", "sgd")),
    _case("world size changed", _world_size),
    _case("path of data changed", _data_path),
    _case("environment variable added", _variable),
    _case("environment variable changed", _value),
    _case("command changed", _command),
    refused(
        GROUP, "Secret through envFrom, a key of it LD_PRELOAD", "T1574.006", "LD_PRELOAD",
        _changed_before(_secret), _changed_before(_switch), "a variable that loads nothing",
    ),
    refused(
        GROUP, "signed job submitted in another cluster", "T1565", "signed for cluster another",
        _for_cluster(lambda _: "another"), _for_cluster(_this_cluster), "in the cluster it is for",
    ),
    Case(
        GROUP, "signed job submitted beyond maxRuns", "T1565", Refused("1 run of this signed job"),
        _runs_again(1), _runs_again(2), "within it",
    ),
    Case(
        GROUP, "parameter that YAML readers take differently", "T1565",
        NotTried("both readers in one process. In tests/integration, test_canonical_roundtrip"),
    ),
)  # fmt: skip
