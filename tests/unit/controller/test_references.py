"""What a run leans on: an edit, a deletion and another of its name are found; defaults are not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.unit import world
from trainseal.api.findings import FindingId
from trainseal.controller.ownreport import Seen
from trainseal.controller.references import (
    changes,
    job_changes,
    replaced_claim,
    surroundings,
)
from trainseal.provenance.additions import Additions
from trainseal.provenance.livepods import claims_of

Object = dict[str, Any]
SEALED = world.sealed_world()
RENDERED = world.render_job(SEALED.job)
MADE = world.NOW


def text(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def stored(wanted: Object, made: datetime = MADE - timedelta(seconds=1)) -> Object:
    """As the API server stores it (1.32), with the defaults of a headless Service."""
    live = copy.deepcopy(wanted)
    live["metadata"] |= {"uid": f"uid-{made.timestamp()}", "creationTimestamp": text(made)}
    if live["kind"] == "Service":
        live["spec"] |= {
            "clusterIPs": ["None"],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "type": "ClusterIP",
        }
        live["spec"]["ports"][0]["targetPort"] = live["spec"]["ports"][0]["port"]
        live["status"] = {"loadBalancer": {}}
    return live


WANTED: dict[str, Any] = {
    "ConfigMap": RENDERED.config_map,
    "Service": RENDERED.service,
    "NetworkPolicy": RENDERED.network_policy,
}


def found(kind: str, live: Object | None) -> list[Seen]:
    return list(surroundings(WANTED[kind], live, world.JOB_UID, MADE))


@pytest.mark.parametrize("kind", WANTED)
def test_an_object_as_the_api_server_stores_it_is_as_sealed(kind: str) -> None:
    assert found(kind, stored(WANTED[kind])) == []
    noted = stored(WANTED[kind])
    noted["metadata"]["labels"]["seen-by"] = "eve"
    noted["metadata"]["annotations"] = {"note": "x"}
    assert found(kind, noted) == []


EDITS: dict[str, tuple[str, Callable[[Object], object], str]] = {
    "the Service leads elsewhere": (
        "Service", lambda o: o["spec"].update(selector={"app": "evil"}), "spec.selector"),
    "the Service has another way in": (
        "Service", lambda o: o["spec"].update(externalIPs=["192.0.2.1"]), "spec.externalIPs"),
    "the Service is another host's name": (
        "Service", lambda o: o["spec"].update(type="ExternalName", externalName="evil"),
        "spec.externalName"),
    "the Service has another port": (
        "Service", lambda o: o["spec"]["ports"][0].update(port=1), "spec.ports"),
    "anybody may join the rendezvous": (
        "NetworkPolicy", lambda o: o["spec"].update(ingress=[{}]), "spec.ingress"),
    "the policy is for other pods": (
        "NetworkPolicy", lambda o: o["spec"]["podSelector"].update(matchLabels={"a": "b"}),
        "spec.podSelector"),
    "another learning rate": (
        "ConfigMap", lambda o: o["data"].update({"config.json": "{}"}), "data.config.json"),
    "a further file": ("ConfigMap", lambda o: o["data"].update(x="y"), "data.x"),
    "a further binary file": (
        "ConfigMap", lambda o: o.update(binaryData={"x": "eQ=="}), "binaryData"),
    "it may be edited": ("ConfigMap", lambda o: o.pop("immutable"), "immutable"),
    "nobody sees its changes": (
        "Service", lambda o: o["metadata"]["labels"].pop("trainseal.dev/job"),
        "metadata.labels[trainseal.dev/job]"),
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_is_found_with_its_place(what: str) -> None:
    kind, edit, path = EDITS[what]
    live = stored(WANTED[kind])
    edit(live)
    (seen,) = found(kind, live)
    assert seen.id is FindingId.OBJECT_CHANGED
    assert path in seen.message
    assert changes(WANTED[kind], live)[0].startswith(path)


@pytest.mark.parametrize("kind", WANTED)
def test_one_that_is_gone_made_anew_or_somebody_elses_was_deleted(kind: str) -> None:
    foreign = stored(WANTED[kind])
    foreign["metadata"]["ownerReferences"] = []
    anew = stored(WANTED[kind], MADE + timedelta(minutes=1))
    for live in (None, foreign, anew):
        (seen,) = found(kind, live)
        assert seen.id is FindingId.OBJECT_DELETED
    (again,) = found(kind, stored(WANTED[kind], MADE + timedelta(minutes=2)))
    assert again.occasion != anew["metadata"]["uid"], "each time counts"


def job_found(change: Callable[[Object], object], additions: Additions | None = None) -> list[str]:
    wanted = copy.deepcopy(RENDERED.roles[0].owner)
    wanted["spec"]["template"] = SEALED.template
    live = copy.deepcopy(SEALED.live)
    change(live)
    return [c.partition(":")[0] for c in job_changes(wanted, live, additions or Additions())]


def queued(live: Object) -> None:
    """What a queue writes when it lets a Job start, and what resuming does."""
    live["spec"]["suspend"] = False
    pod = live["spec"]["template"]["spec"]
    pod["nodeSelector"] = {"pool": "a100"}
    pod["tolerations"] = [{"operator": "Exists"}]
    live["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "other"


def test_a_job_that_was_queued_placed_and_resumed_is_as_sealed() -> None:
    assert job_found(lambda _: None) == []
    assert job_found(queued) == []


def test_what_a_policy_lets_a_platform_write_on_the_template_passes() -> None:
    def noted(live: Object) -> None:
        live["spec"]["template"]["metadata"]["labels"]["kueue.x-k8s.io/podset"] = "worker"

    assert job_found(noted) == ["spec.template.metadata.labels[kueue.x-k8s.io/podset]"]
    assert job_found(noted, Additions(labels=frozenset({"kueue.x-k8s.io/podset"}))) == []


JOB_EDITS: dict[str, tuple[Callable[[Object], object], str]] = {
    "fewer workers": (lambda j: j["spec"].update(parallelism=1), "spec.parallelism"),
    "ended soon": (
        lambda j: j["spec"].update(activeDeadlineSeconds=1), "spec.activeDeadlineSeconds"),
    "collected soon": (
        lambda j: j["spec"].update(ttlSecondsAfterFinished=0), "spec.ttlSecondsAfterFinished"),
    "another manager": (lambda j: j["spec"].update(managedBy="evil/x"), "spec.managedBy"),
    "another image while suspended": (
        lambda j: j["spec"]["template"]["spec"]["containers"][0].update(image="evil"),
        "spec.template.spec.containers"),
    "another run's label": (
        lambda j: j["metadata"]["labels"].update({"trainseal.dev/seal": "x"}),
        "metadata.labels[trainseal.dev/seal]"),
}  # fmt: skip


@pytest.mark.parametrize("what", JOB_EDITS)
def test_an_edited_job_is_found_with_its_place(what: str) -> None:
    edit, path = JOB_EDITS[what]
    assert job_found(edit) == [path]


def test_a_claim_is_replaced_only_if_it_is_younger_than_the_first_worker() -> None:
    claim: Object = {"metadata": {"name": "ckpt", "uid": "c", "creationTimestamp": text(MADE)}}
    assert replaced_claim(claim, None) is None, "the run waits for its claim"
    assert replaced_claim(claim, MADE - timedelta(seconds=30)) is None, "clocks differ"
    assert replaced_claim(claim, MADE + timedelta(days=1)) is None
    seen = replaced_claim(claim, MADE - timedelta(minutes=5))
    assert seen is not None
    assert seen.id is FindingId.VOLUME_REPLACED


def test_the_claims_of_a_template_are_those_its_volumes_name() -> None:
    volumes = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "ckpt"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "ckpt"}},
        {"name": "c", "emptyDir": {}},
    ]
    template: Object = {"spec": {"volumes": volumes}}
    assert claims_of(template) == ("ckpt",)
