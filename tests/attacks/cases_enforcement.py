"""Group *Around the gate*, once more: what decides what is enforced, changed by its owners.

They may, and nothing keeps them from it; but it shows, with the person where admission saw them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime

from tests.attacks.case import Attack, Case, Told
from tests.attacks.cases_api import GATE
from tests.attacks.scene import Scene
from tests.e2e.lab import Lab, Object
from tests.sample_objects import public_root
from tests.stage.policies import policy
from tests.stage.release import CHART, NAMESPACE
from tests.stage.waiting import eventually
from trainseal.cluster.api import connect
from trainseal.controller.ruleswatch import EVERY_SECONDS, RulesWatch

_ROOT = "root@example.org"
_AS_ROOT = (f"--as={_ROOT}", "--as-group=system:masters")
#: Seconds in which the controller looks at everything, whenever it began.
_LOOK = 2 * EVERY_SECONDS
_NOWHERE = "nowhere-*"


# What no admission sees ---------------------------------------------------------------------------


def _patched(kind: str, name: str, path: str, weak: object, words: str) -> Attack:
    """An administrator changes one value by JSON patch; the controller tells of it within a minute
    by Event, saying where, and by alert. ``weak`` None: the value is taken out.
    """

    def do(scene: Scene) -> float:
        lab = scene.lab
        live = json.loads(lab.admin("get", kind, name, "-o", "json"))
        was = live
        for part in path.strip("/").split("/"):
            was = was[int(part)] if isinstance(was, list) else was[part]
        change = (
            {"op": "remove", "path": path}
            if weak is None
            else {"op": "replace", "path": path, "value": weak}
        )
        back = {"op": "add" if weak is None else "replace", "path": path, "value": was}
        lab.admin("patch", kind, name, "--type=json", "-p", json.dumps([change]))
        try:
            eventually(lambda: _told(lab, live["kind"], name, words), f"told of {name}", _LOOK)
            if lab.alertmanager is not None:
                eventually(lambda: _alerted(lab, live["kind"], name), f"alerted of {name}")
        finally:
            lab.admin("patch", kind, name, "--type=json", "-p", json.dumps([back]))
        return 0.0

    return do


def _told(lab: Lab, kind: str, name: str, words: str) -> bool:
    events = lab.listed("events", NAMESPACE, fields="reason=RuleChanged")
    return any(
        f"{kind} {name} is not as the chart made it" in event["message"]
        and words in event["message"]
        for event in events
    )


def _alerted(lab: Lab, kind: str, name: str) -> bool:
    assert lab.alertmanager is not None
    return any(
        alert["labels"].get("alertname") == "TrainSealEnforcement"
        and (alert["labels"].get("kind"), alert["labels"].get("name")) == (kind, name)
        for alert in lab.alertmanager.told
    )


def _as_the_chart_made_it(act: Callable[[Lab], object]) -> Attack:
    """The twin: after it, whoever compares finds nothing changed."""

    def do(scene: Scene) -> None:
        act(scene.lab)
        assert asyncio.run(_differences(scene.lab)) == {}

    return do


async def _differences(lab: Lab) -> dict[tuple[str, str], tuple[str, ...]]:
    """What the controller finds in a look of its own, begun after this call."""
    async with connect(str(lab.target.kubeconfig)) as kube:
        watch = RulesWatch(kube, NAMESPACE, lambda: datetime.now(UTC), lambda _: None)
        return {rule: found for rule, found in (await watch.look()).items() if found}


def _upgraded(lab: Lab) -> None:
    lab.target.helm(
        "upgrade", "trainseal", str(CHART), "--namespace", NAMESPACE, "--reuse-values",
        "--wait", "--timeout", "4m",
    )  # fmt: skip


def _annotated(lab: Lab) -> None:
    lab.admin("annotate", "crd", "driftreports.trainseal.dev", "example.org/note=x", "--overwrite")


# What the webhook puts on record ------------------------------------------------------------------


def _policy(lab: Lab, name: str) -> Object:
    """One that holds nowhere, with two persons for a job."""
    return policy(
        name, _NOWHERE, signers=[lab.alice, lab.bob], image_signers=[lab.platform],
        registries=list(lab.registries), threshold=2,
    )  # fmt: skip


def _changes(name: str, change: Callable[[Lab, Object], None], weakens: str) -> Attack:
    """An administrator makes a policy and changes it: the record names them, and says whether less
    is demanded (``weakens``, empty where not).
    """

    def do(scene: Scene) -> float:
        lab = scene.lab
        made = _policy(lab, name)
        lab.admin("apply", "-f", "-", stdin=made)
        try:
            change(lab, made)
            lab.admin(*_AS_ROOT, "apply", "-f", "-", stdin=made)
            _is_on_record(lab, name, weakens)
        finally:
            lab.delete(made)
        return 0.0

    return do


def _is_on_record(lab: Lab, name: str, weakens: str) -> None:
    records = [
        item
        for item in lab.listed("accessrecords.trainseal.dev", NAMESPACE)
        if item["spec"].get("object", {}).get("name") == name and item["spec"]["action"] == "Change"
    ]
    assert [r["spec"]["username"] for r in records] == [_ROOT], records
    label = records[0]["metadata"].get("labels", {}).get("trainseal.dev/weakens", "")
    assert (label == "true") == bool(weakens), records
    assert weakens in records[0]["spec"].get("message", ""), records
    if weakens and lab.alertmanager is not None:
        kind = records[0]["spec"]["object"]["kind"]
        eventually(lambda: _alerted(lab, kind, name), f"alerted of {name}", _LOOK)


def _audits(_: Lab, made: Object) -> None:
    made["spec"]["mode"] = "Audit"


def _one_person(_: Lab, made: Object) -> None:
    made["spec"]["requirements"]["job"]["threshold"] = 1


def _one_more_signer(lab: Lab, made: Object) -> None:
    key = {"publicKey": lab.mallory.public_pem}
    made["spec"]["authorities"].append({"name": "mallory", "key": key})
    made["spec"]["requirements"]["job"]["authorities"].append("mallory")


def _reordered(_: Lab, made: Object) -> None:
    made["spec"]["authorities"].reverse()
    made["spec"]["requirements"]["job"]["authorities"].reverse()
    made["spec"]["registries"]["allow"].reverse()


def _one_signer_less(lab: Lab, made: Object) -> None:
    made["spec"]["requirements"]["code"]["authorities"].remove(lab.bob.name)


def _stricter(_: Lab, made: Object) -> None:
    made["spec"]["validity"] = {"require": ["notAfter"]}


def _trust_root_removed(scene: Scene) -> float:
    lab = scene.lab
    made: Object = public_root("nowhere-root")
    lab.admin("apply", "-f", "-", stdin=made)
    lab.admin(*_AS_ROOT, "delete", "trustroot", "nowhere-root")
    records = [
        (item["spec"]["username"], item["spec"]["action"])
        for item in lab.listed("accessrecords.trainseal.dev", NAMESPACE)
        if item["spec"].get("object", {}).get("name") == "nowhere-root"
    ]
    assert (_ROOT, "DeleteObject") in records
    return 0.0


def _trust_root_read(scene: Scene) -> None:
    scene.lab.admin("get", "trustroots", "-o", "yaml")


_TOLD_BY_ALL = Told("told by Event and alert within two minutes; the person is in the audit log")
_TOLD_BY_NAME = Told("access record with the person and what is weaker; alert")

CASES = (
    Case(
        GATE, "webhook configuration weakened, by an administrator", "T1562.001", _TOLD_BY_ALL,
        _patched("validatingwebhookconfiguration", "trainseal", "/webhooks/0/failurePolicy",
                 "Ignore", "failurePolicy"),
        _as_the_chart_made_it(_upgraded), "the chart upgraded",
    ),
    Case(
        GATE, "rule of a kind taken out, by an administrator", "T1562.001", _TOLD_BY_ALL,
        _patched(
            "crd", "driftreports.trainseal.dev",
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations",
            None, "x-kubernetes-validations",
        ),
        _as_the_chart_made_it(_annotated), "an annotation on the kind",
    ),
    Case(
        GATE, "policy set to Audit, by an administrator", "T1562.001", _TOLD_BY_NAME,
        _changes("nowhere-audit", _audits, "mode: found Audit"),
        _changes("nowhere-order", _reordered, ""), "the policy written in another order",
    ),
    Case(
        GATE, "policy that demands one person less, by an administrator", "T1562.001",
        _TOLD_BY_NAME,
        _changes("nowhere-one", _one_person, "requirements.job.threshold: found 1"),
        _changes("nowhere-strict", _stricter, ""), "the policy made stricter",
    ),
    Case(
        GATE, "policy by which one more person may sign, by an administrator", "T1562.001",
        _TOLD_BY_NAME,
        _changes("nowhere-more", _one_more_signer, "now counts, and did not before: mallory"),
        _changes("nowhere-less", _one_signer_less, ""), "one person fewer may sign code",
    ),
    Case(
        GATE, "trust root removed, by an administrator", "T1562.001",
        Told("access record with the person; alert"), _trust_root_removed,
        _trust_root_read, "trust roots read",
    ),
)  # fmt: skip
