"""Group *Around the gate*: what somebody with the edit role makes of a lane for notebooks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

from tests.attacks.case import Attack, Case, Refused, Told
from tests.attacks.cases_api import GATE
from tests.attacks.scene import Scene
from tests.attacks.submitting import submit
from tests.e2e.lab import EDITOR, TEAM, Lab, Object
from tests.e2e.lanes import open_lane
from tests.stage import notebooks
from tests.stage.notebooks import LABEL, LANE, SCRATCH
from tests.stage.signing import signed
from tests.stage.waiting import eventually

SPACE = "research-notebooks"
#: How many notebooks the lane has places for.
PLACES = 2


def _opened(lab: Lab) -> None:
    """The administrator opens a lane for notebooks in a namespace of its own, once."""
    if not lab.admin("get", "provenancepolicy", SPACE, "--ignore-not-found", "-o", "name"):
        open_lane(lab, SPACE, PLACES)


def _notebook(lab: Lab) -> Object:
    """One that its lane takes; the label stands in it, as somebody may write it themselves."""
    made = notebooks.pod("mallory", SPACE, lab.image)
    made["metadata"]["labels"] = {LABEL: LANE}
    return made


def _submits(change: Callable[[Lab, Object], object]) -> Attack:
    def do(scene: Scene) -> None:
        _opened(scene.lab)
        made = _notebook(scene.lab)
        change(scene.lab, made)
        submit(scene.lab, made)

    return do


def _as_it_is(_: Lab, pod: Object) -> None:
    del pod["metadata"]["labels"]


def _container(**fields: object) -> Callable[[Lab, Object], object]:
    return lambda _, pod: pod["spec"]["containers"][0].update(fields)


def _spec(**fields: object) -> Callable[[Lab, Object], object]:
    return lambda _, pod: pod["spec"].update(fields)


def _volume(**volume: object) -> Callable[[Lab, Object], object]:
    return _spec(volumes=[{"name": "x", **volume}])


def _unsigned(lab: Lab, pod: Object) -> None:
    pod["spec"]["initContainers"] = [{"name": "init", "image": lab.variant_of_image("mallory")}]


def _signed(lab: Lab, pod: Object) -> None:
    pod["spec"]["initContainers"] = [{"name": "init", "image": lab.image}]


def _elsewhere(lab: Lab, pod: Object) -> None:
    del lab
    pod["metadata"]["namespace"] = TEAM


def _annotated(key: str) -> Callable[[Lab, Object], object]:
    return lambda _, pod: pod["metadata"].update(annotations={key: "nvidia.com/gpu=all"})


def _writes(claim: str) -> Callable[[Lab, Object], object]:
    return lambda _, pod: notebooks.mounting(pod, claim)


def _sealed(scene: Scene) -> Object:
    """A notebook that says that it is the run's: it has its worker's owner."""
    made = _notebook(scene.lab)
    owners = scene.pod["metadata"]["ownerReferences"]
    made["metadata"]["ownerReferences"] = [{**o, "blockOwnerDeletion": False} for o in owners]
    return made


def _passes_for_sealed(scene: Scene) -> None:
    _opened(scene.lab)
    submit(scene.lab, _sealed(scene))


def _job(scene: Scene, gpus: int) -> None:
    _opened(scene.lab)
    spec = notebooks.pod("x", SPACE, scene.lab.image, gpus)["spec"]
    made: Object = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "mallory", "namespace": SPACE},
        "spec": {"suspend": True, "template": {"spec": {**spec, "restartPolicy": "Never"}}},
    }
    submit(scene.lab, made)


@contextlib.contextmanager
def _living(scene: Scene, *names: str) -> Iterator[None]:
    """Notebooks that run; gone afterwards, and their places with them."""
    lab = scene.lab
    _opened(lab)
    try:
        for name in names:
            pod = notebooks.pod(name, SPACE, lab.image)
            # A place that was promised lately is free again half a minute after.
            eventually(lambda pod=pod: not lab.answer(pod), f"there is a place for {name}")  # type: ignore[misc]
            lab.apply(pod)
        for name in names:
            words = (f"pod/{name}", "-n", SPACE, "--for=condition=Ready", "--timeout=90s")
            lab.admin("wait", *words)
        yield
    finally:
        lab.admin("delete", "pod", *names, "-n", SPACE, "--ignore-not-found", "--timeout=60s")


def _one_too_many(scene: Scene) -> None:
    with _living(scene, *(f"nb-{n}" for n in range(PLACES))):
        submit(scene.lab, _notebook(scene.lab))


def _patches(patch: Object) -> Attack:
    """Patches a notebook that runs; @IMAGE stands for an unsigned one."""

    def do(scene: Scene) -> None:
        text = json.dumps(patch)
        if "@IMAGE" in text:
            text = text.replace("@IMAGE", scene.lab.variant_of_image("later"))
        with _living(scene, "patched"):
            words = ("patch", "pod", "patched", "--dry-run=server", "-p", text)
            scene.lab.kubectl(*words, namespace=SPACE)

    return do


def _exec(scene: Scene) -> float:
    lab = scene.lab
    with _living(scene, "entered"):
        lab.kubectl("exec", "entered", "--", "true", namespace=SPACE)
        words = ("get", "accessrecords", "-n", SPACE, "-l", f"{LABEL}={LANE}", "-o", "json")
        found = [r["spec"] for r in json.loads(lab.admin(*words))["items"]]
    assert [(r["username"], r["action"]) for r in found] == [(EDITOR, "Exec")], found
    return 0.0


def _looks(scene: Scene) -> None:
    _opened(scene.lab)
    scene.lab.kubectl("get", "pods", namespace=SPACE)


def _run_on(claim: str) -> Attack:
    def do(scene: Scene) -> None:
        lab = scene.lab
        _opened(lab)
        made = lab.job("reads", namespace=SPACE)
        made["spec"]["checkpoints"]["volume"] = {"persistentVolumeClaim": {"claimName": claim}}
        submit(lab, signed(made, lab.alice))

    return do


def _case(
    name: str, field: str, says: str, bad: Attack, good: Attack | None = None, like: str = ""
) -> Case:
    twin = good or _submits(_as_it_is)
    return Case(GATE, name, field, Refused(says), bad, twin, like or "a notebook as it should be")


_HOST = {"hostPath": {"path": "/dev"}}
_LABELLED = "bears a label of TrainSeal's"
_CHANGED = "found a change of"

CASES = (
    _case("lane: its label on a GPU pod elsewhere", "T1036", _LABELLED, _submits(_elsewhere)),
    _case(
        "lane: unsigned image of an allowed registry", "T1610", "refuted", _submits(_unsigned),
        _submits(_signed), "a second signed image",
    ),
    _case(
        "lane: one notebook too many", "T1496", f"expected at most {PLACES}", _one_too_many,
    ),
    _case(
        "lane: more GPUs than it has", "T1496", "9 GPUs",
        _submits(_container(resources={"limits": {"nvidia.com/gpu": 9}})),
    ),
    _case(
        "lane: GPU Job", "T1610", "make it a TrainingJob", lambda s: _job(s, 1),
        lambda s: _job(s, 0), "a Job without a GPU",
    ),
    _case(
        "lane: pod with a sealed pod's owner", "T1036", "label of TrainSeal's", _passes_for_sealed
    ),
    _case(
        "lane: privileged container", "T1611", "securityContext.privileged",
        _submits(_container(securityContext={"privileged": True})),
    ),
    _case("lane: path of the node mounted", "T1611", "hostPath", _submits(_volume(**_HOST))),
    _case("lane: processes of the node", "T1611", "spec.hostPID", _submits(_spec(hostPID=True))),
    _case(
        "lane: devices by an annotation for the runtime", "T1610", _LABELLED,
        _submits(_annotated("cdi.k8s.io/mine")), _submits(_annotated("example.org/note")),
        "another annotation",
    ),
    _case(
        "lane: a Secret that it does not name", "T1552.007", "Secret other",
        _submits(_volume(secret={"secretName": "other"})),
        _submits(_volume(configMap={"name": "other"})), "a ConfigMap",
    ),
    _case(
        "lane: a run's claim mounted to write", "T1565", "read-only, or one of the lane's scratch",
        _submits(_writes("results")), _submits(_writes(SCRATCH)), "its scratch",
    ),
    _case(
        "lane: image of a running notebook changed", "T1525", _CHANGED,
        _patches({"spec": {"containers": [{"name": "main", "image": "@IMAGE"}]}}),
        _patches({"metadata": {"labels": {"team": "blue"}}}), "a label of one's own",
    ),
    _case(
        "lane: running notebook made a Job's pod", "T1036", _CHANGED,
        _patches({"metadata": {"labels": {"batch.kubernetes.io/controller-uid": "x"}}}),
        _patches({"metadata": {"annotations": {"example.org/note": "x"}}}), "a note on it",
    ),
    _case(
        "lane: run on what notebooks wrote", "T1565", "write without a signature", _run_on(SCRATCH),
        _run_on("results"), "a run on another claim",
    ),
    Case(
        GATE, "lane: exec into a notebook", "T1609", Told("access record: Exec, by name"), _exec,
        _looks, "notebooks listed",
    ),
)  # fmt: skip
