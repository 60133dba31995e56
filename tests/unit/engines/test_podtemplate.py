"""The rendered pods: what TrainSeal adds to a signed template, and that it takes nothing away."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit import world
from trainseal.api.gateplan import GatePlan
from trainseal.api.trainingjob import TrainingJob
from trainseal.engines.job import render
from trainseal.engines.podtemplate import (
    RenderInputs,
    asks_for_list,
    object_name,
    service_name,
)
from trainseal.provenance.configfiles import config_files, file_digests

Object = dict[str, Any]
Change = Callable[[Object], object]


def rendered(change: Change = lambda _: None) -> Object:
    job = world.job_object()
    change(job)
    made: Any = world.render_job(job).roles[0].owner
    found: Object = made["spec"]["template"]
    return found


def template(change: Change) -> Change:
    return lambda job: change(job["spec"]["roles"][0]["template"]["spec"])


def spec(**fields: Any) -> Change:
    return lambda job: job["spec"].update(fields)


def trainer(found: Object) -> Object:
    container: Object = found["spec"]["containers"][0]
    return container


def env(found: Object) -> Object:
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in trainer(found)["env"]}


def test_nothing_of_the_signed_template_is_taken_away() -> None:
    signed = world.job_object()["spec"]["roles"][0]["template"]
    found = rendered()
    assert found["metadata"]["labels"].items() >= signed["metadata"]["labels"].items()
    before, after = signed["spec"]["containers"][0], trainer(found)
    assert after["env"][: len(before["env"])] == before["env"]
    assert {k: v for k, v in after.items() if k not in ("env", "volumeMounts")} == {
        k: v for k, v in before.items() if k != "env"
    }


def test_rendering_changes_no_input_and_gives_the_same_again() -> None:
    job = TrainingJob.parse(world.job_object())
    inputs = RenderInputs("seal", world.JOB_UID, world.GATE_IMAGE, (world.sealed_code(),))
    once = copy.deepcopy(render(job, inputs))
    assert render(job, inputs) == once
    assert job == TrainingJob.parse(world.job_object())


def test_each_retry_is_a_new_pod_with_a_new_gate() -> None:
    found = rendered()
    assert found["spec"]["restartPolicy"] == "Never"
    assert [c["name"] for c in found["spec"]["initContainers"]] == ["trainseal-gate"]


def test_the_gate_goes_before_the_signed_init_containers() -> None:
    prepare = {"name": "prepare", "image": world.IMAGE, "command": ["true"]}
    found = rendered(template(lambda s: s.update(initContainers=[prepare])))
    assert [c["name"] for c in found["spec"]["initContainers"]] == ["trainseal-gate", "prepare"]
    mounts = found["spec"]["initContainers"][1]["volumeMounts"]
    assert {m["mountPath"]: m.get("readOnly") for m in mounts}["/workspace"] is True


def test_only_the_gate_reads_the_config_map_and_writes_code_and_config() -> None:
    found = rendered()
    gate = found["spec"]["initContainers"][0]
    assert [m["name"] for m in gate["volumeMounts"]] == ["code-trainer", "config", "config-source"]
    mounts = {m["name"]: m for m in trainer(found)["volumeMounts"]}
    assert "config-source" not in mounts
    assert mounts["code-trainer"]["readOnly"] is mounts["config"]["readOnly"] is True
    assert mounts["checkpoints"] == {
        "name": "checkpoints",
        "mountPath": "/checkpoints",
        "subPath": "runs/char-lm",
    }
    assert mounts["scratch-0"] == {"name": "scratch-0", "mountPath": "/tmp"}


def test_the_gate_has_no_rights_and_its_plan_holds_every_digest() -> None:
    gate = rendered()["spec"]["initContainers"][0]
    assert gate["image"] == world.GATE_IMAGE
    assert gate["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert gate["securityContext"]["readOnlyRootFilesystem"]
    plan = GatePlan.model_validate(json.loads(gate["args"][2]))
    files = config_files(world.job_object()["spec"]["config"]["parameters"])
    assert plan.config
    assert plan.config.files == file_digests(files)
    (code,) = plan.code
    assert (code.reference, code.tree_digest, code.bundle) == (
        world.CODE,
        world.TREE,
        world.CODE_BUNDLE,
    )


def test_a_job_without_code_and_config_has_no_gate() -> None:
    found = rendered(lambda j: [j["spec"].pop("code"), j["spec"].pop("config")])
    assert "initContainers" not in found["spec"]
    assert [v["name"] for v in found["spec"]["volumes"]] == ["checkpoints", "scratch-0"]


def test_every_mount_has_its_volume_and_no_name_stands_twice() -> None:
    def everything(job: Object) -> None:
        claim = {"persistentVolumeClaim": {"claimName": "corpus"}}
        job["spec"]["data"] = [{"name": "corpus", "mountPath": "/data/a", "volume": claim}]
        job["spec"]["scratch"] = [
            {"mountPath": "/tmp"},
            {"mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "1Gi"},
        ]

    found = rendered(everything)["spec"]
    volumes = [v["name"] for v in found["volumes"]]
    assert len(set(volumes)) == len(volumes)
    for container in [*found["initContainers"], *found["containers"]]:
        assert {m["name"] for m in container["volumeMounts"]} <= set(volumes)
    by_name = {v["name"]: v for v in found["volumes"]}
    assert by_name["data-corpus"]["persistentVolumeClaim"]["readOnly"] is True
    assert "readOnly" not in by_name["checkpoints"]["persistentVolumeClaim"]
    assert by_name["scratch-1"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}


# Private registries -----------------------------------------------------------------------------


def plan_of(found: Object) -> GatePlan:
    return GatePlan.model_validate_json(found["spec"]["initContainers"][0]["args"][2])


def pulling(*names: Any) -> Change:
    return template(lambda s: s.update(imagePullSecrets=[{"name": n} for n in names]))


def test_pull_secrets_of_the_template_are_mounted_into_the_gate_and_into_nothing_else() -> None:
    prepare = {"name": "prepare", "image": world.IMAGE, "command": ["true"]}

    def change(job: Object) -> None:
        pulling("team", "platform")(job)
        template(lambda s: s.update(initContainers=[prepare]))(job)

    found = rendered(change)["spec"]
    assert found["imagePullSecrets"] == [{"name": "team"}, {"name": "platform"}]
    (volume,) = (v for v in found["volumes"] if "projected" in v)
    key = {"key": ".dockerconfigjson"}
    assert volume["projected"] == {
        "sources": [
            {"secret": {"name": n, "items": [key | {"path": f"{i}/config.json"}], "optional": True}}
            for i, n in enumerate(["team", "platform"])
        ]
    }
    containers: list[Object] = found["initContainers"] + found["containers"]
    gate, *others = containers
    assert gate["volumeMounts"][-1] == {
        "name": volume["name"],
        "mountPath": "/gate/pull-secrets",
        "readOnly": True,
    }
    assert len(others) == 2
    for container in others:
        assert volume["name"] not in {m["name"] for m in container["volumeMounts"]}


def test_the_plan_names_each_pull_secret_once_in_the_templates_order() -> None:
    planned = plan_of(rendered(pulling("b", "a", "b"))).pull_secrets
    assert [(s.name, s.file) for s in planned] == [
        ("b", "/gate/pull-secrets/0/config.json"),
        ("a", "/gate/pull-secrets/1/config.json"),
    ]


def test_without_pull_secrets_or_without_code_the_gate_has_no_such_volume() -> None:
    def no_code(job: Object) -> None:
        pulling("team")(job)
        del job["spec"]["code"]

    for found in (rendered(), rendered(no_code)):
        assert not any("projected" in v for v in found["spec"]["volumes"])
        assert plan_of(found).pull_secrets == []


def test_what_names_no_secret_and_what_is_too_many_breaks_no_rendering() -> None:
    # Refused by the rules for templates; in Audit it is rendered all the same.
    names = ["../x", "", 7, "A", "a..b", *(f"s{i}" for i in range(20))]
    planned = plan_of(rendered(pulling(*names))).pull_secrets
    assert [s.name for s in planned] == [f"s{i}" for i in range(16)]
    assert plan_of(rendered(template(lambda s: s.update(imagePullSecrets="x")))).pull_secrets == []


def test_the_platforms_registry_authorities_stand_in_the_gates_arguments() -> None:
    job = TrainingJob.parse(world.job_object())
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    inputs = RenderInputs(
        "seal", world.JOB_UID, world.GATE_IMAGE, (world.sealed_code(),), registry_ca=pem
    )
    made: Any = render(job, inputs).roles[0].owner
    assert plan_of(made["spec"]["template"]).registry_ca == pem
    assert plan_of(rendered()).registry_ca is None


# Rendezvous -------------------------------------------------------------------------------------


def test_the_rendezvous_is_explicit_and_no_service_link_makes_another() -> None:
    found = rendered()
    assert found["spec"]["enableServiceLinks"] is False
    assert found["spec"]["subdomain"] == service_name("char-lm") == "char-lm"
    assert env(found)["MASTER_ADDR"] == "char-lm-worker-0.char-lm.research.svc"
    assert (env(found)["MASTER_PORT"], env(found)["WORLD_SIZE"]) == ("29500", "2")
    assert "job-completion-index" in env(found)["RANK"]["fieldRef"]["fieldPath"]


def test_what_was_signed_of_it_stands() -> None:
    def own(s: Object) -> None:
        s["containers"][0]["env"].append({"name": "MASTER_PORT", "value": "1234"})

    found = rendered(template(own))
    assert [e["name"] for e in trainer(found)["env"]].count("MASTER_PORT") == 1
    assert env(found)["MASTER_PORT"] == "1234"


def test_several_roles_are_one_world_and_know_no_rank_of_their_own() -> None:
    def second(job: Object) -> None:
        role = copy.deepcopy(job["spec"]["roles"][0])
        job["spec"]["roles"].append(role | {"name": "server", "replicas": 3})

    job = world.job_object()
    second(job)
    for role in world.render_job(job).roles:
        made: Any = role.owner
        found = made["spec"]["template"]
        assert env(found)["WORLD_SIZE"] == "5"
        assert env(found)["MASTER_ADDR"].startswith("char-lm-worker-0.")
        assert "RANK" not in env(found)


def test_of_an_elastic_role_nobody_is_told_how_many_there_are() -> None:
    found = rendered(world.elastic)
    assert env(found)["MASTER_ADDR"].startswith("char-lm-worker-0.")
    assert not {"WORLD_SIZE", "RANK"} & env(found).keys()


def test_how_many_pods_there_are_is_no_part_of_their_placement() -> None:
    def three(job: Object) -> None:
        world.elastic(job)
        job["spec"]["scheduling"] = {"replicas": {"worker": 3}, "priorityClassName": "low"}

    found = rendered(three)["spec"]
    assert found["priorityClassName"] == "low"
    assert "replicas" not in found


# Service account --------------------------------------------------------------------------------


def test_no_token_is_mounted_unless_the_template_asks_for_it() -> None:
    assert rendered()["spec"]["automountServiceAccountToken"] is False
    asks = template(lambda s: s.update(automountServiceAccountToken=True))
    assert rendered(asks)["spec"]["automountServiceAccountToken"] is True


# Placement --------------------------------------------------------------------------------------


def test_unsigned_placement_adds_to_the_signed_one_and_never_replaces_it() -> None:
    def signed(s: Object) -> None:
        s["nodeSelector"] = {"pool": "trusted"}
        s["tolerations"] = [{"key": "a"}]
        s["schedulingGates"] = [{"name": "a"}]

    def change(job: Object) -> None:
        template(signed)(job)
        job["spec"]["scheduling"] = {
            "queueName": "research",
            "nodeSelector": {"pool": "mine", "zone": "a"},
            "tolerations": [{"key": "b"}],
            "schedulingGates": [{"name": "b"}],
            "priorityClassName": "low",
        }

    found = rendered(change)["spec"]
    assert found["nodeSelector"] == {"pool": "trusted", "zone": "a"}
    assert found["tolerations"] == [{"key": "a"}, {"key": "b"}]
    assert found["schedulingGates"] == [{"name": "a"}, {"name": "b"}]
    assert found["priorityClassName"] == "low"
    assert "queueName" not in found


def test_scheduling_changes_placement_and_nothing_else() -> None:
    scheduling = {
        "nodeSelector": {"zone": "a"},
        "affinity": {"x": 1},
        "tolerations": [{"key": "b"}],
        "topologySpreadConstraints": [{"maxSkew": 1}],
        "priorityClassName": "low",
        "schedulingGates": [{"name": "platform.example/checked"}],
    }
    with_it, without = rendered(spec(scheduling=scheduling)), rendered()
    assert {k for k, v in with_it["spec"].items() if without["spec"].get(k) != v} == set(scheduling)
    assert with_it["metadata"] == without["metadata"]


def test_a_gate_that_is_named_twice_is_one() -> None:
    twice = [{"name": "a"}, {"name": "b"}, {"name": "a"}]
    found = rendered(spec(scheduling={"schedulingGates": twice}))["spec"]
    assert found["schedulingGates"] == [{"name": "a"}, {"name": "b"}]


# Names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "role"),
    [("a", "b"), ("a" * 40, "worker"), ("a" * 40, "b" * 63), ("a-" * 20 + "b", "c")],
)
def test_names_leave_room_for_the_pods_own(job: str, role: str) -> None:
    name = object_name(job, role)
    assert len(f"{name}-16383") <= 63 - 6
    assert not name.endswith("-")
    assert object_name(job, role) == name


def test_long_names_that_differ_late_stay_apart() -> None:
    assert object_name("a" * 40, "b" * 20 + "c") != object_name("a" * 40, "b" * 20 + "d")


def test_a_template_without_metadata_gets_our_labels() -> None:
    found = rendered(lambda j: j["spec"]["roles"][0]["template"].pop("metadata"))
    assert found["metadata"]["labels"]["trainseal.dev/job"] == "char-lm"


def test_a_runs_own_directory_is_named_by_its_seal_and_written_out() -> None:
    found = rendered(lambda job: job["spec"]["checkpoints"].update(path="runs/{run}"))
    seal = found["metadata"]["labels"]["trainseal.dev/seal"]
    (mount,) = [m for m in trainer(found)["volumeMounts"] if m["name"] == "checkpoints"]
    assert mount["subPath"] == f"runs/{seal}"


# The run's own checkpoints ------------------------------------------------------------------------


def keeping(**checkpoints: Any) -> Any:
    """The pods of a job that keeps whole checkpoints in a directory of the run's own."""
    job = world.job_object()
    job["spec"]["checkpoints"] |= {"path": "runs/{run}", "complete": {"marker": ".done"}}
    job["spec"]["checkpoints"] |= checkpoints
    inputs = RenderInputs(
        "seal", world.JOB_UID, world.GATE_IMAGE, (world.sealed_code(),),
        signs=world.SEAL_KEY.public,
    )  # fmt: skip
    made: Any = render(TrainingJob.parse(job), inputs).roles[0].owner
    return made["spec"]["template"]


def test_the_gate_of_a_run_with_whole_checkpoints_of_its_own_looks_at_them() -> None:
    template = keeping()
    own = plan_of(template).own
    assert own is not None
    assert (own.run, own.namespace, own.marker) == ("seal", "research", ".done")
    assert own.key == world.SEAL_KEY.public.pem
    gate = template["spec"]["initContainers"][0]
    mounts = {m["mountPath"]: m for m in gate["volumeMounts"]}
    kept = mounts[own.source]
    assert (kept["name"], kept["subPath"], kept["readOnly"]) == ("checkpoints", "runs/seal", True)
    (volume,) = [v for v in template["spec"]["volumes"] if v["name"] == "signed-list"]
    assert volume["configMap"] == {"name": "seal-checkpoints", "optional": True}
    assert own.signed.startswith(mounts["/gate/signed"]["mountPath"])
    assert "/gate/signed" not in {m["mountPath"] for m in trainer(template)["volumeMounts"]}
    assert asks_for_list(template)


@pytest.mark.parametrize(
    "checkpoints",
    [
        {"path": "runs/char-lm"},
        {"complete": None},
        {"volume": {"emptyDir": {}}},
    ],
)
def test_where_it_cannot_tell_whose_or_which_they_are_it_does_not(
    checkpoints: dict[str, Any],
) -> None:
    template = keeping(**checkpoints)
    assert plan_of(template).own is None
    assert not asks_for_list(template)


def test_where_no_agent_tells_of_checkpoints_no_gate_asks() -> None:
    assert plan_of(rendered()).own is None
