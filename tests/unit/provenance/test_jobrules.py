"""What a job must be beside signed: each test breaks one rule of a job that keeps them all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.unit import world
from trainseal.api.model import InvalidObjectError
from trainseal.api.trainingjob import TrainingJob
from trainseal.provenance.configfiles import MAX_CONFIG_BYTES
from trainseal.provenance.jobrules import RunFacts, image_references, job_rules, job_warnings
from trainseal.provenance.verdicts import Outcome

Object = dict[str, Any]
FACTS = RunFacts(world.CLUSTER, 0)


def broken(
    change: Callable[[Object], object] = lambda _: None,
    facts: RunFacts = FACTS,
    **policy: Any,
) -> list[str]:
    job = world.job_object()
    change(job)
    found = job_rules(TrainingJob.parse(job), "sha256:x", world.policy(**policy), facts, world.NOW)
    assert all(v.outcome is Outcome.REFUTED and v.policy == "research" for v in found)
    assert all(v.remedy and v.found for v in found)
    return [v.reason for v in found]


def spec(**fields: Any) -> Callable[[Object], object]:
    return lambda job: job["spec"].update(fields)


def template(change: Callable[[Object], object]) -> Callable[[Object], object]:
    return lambda job: change(job["spec"]["roles"][0]["template"]["spec"])


def env(name: str, value: str) -> Callable[[Object], object]:
    return template(lambda s: s["containers"][0]["env"].append({"name": name, "value": value}))


def data(job: Object) -> None:
    claim = {"persistentVolumeClaim": {"claimName": "corpus"}}
    job["spec"]["data"] = [{"name": "corpus", "mountPath": "/data/corpus", "volume": claim}]


def test_a_job_that_keeps_every_rule_breaks_none() -> None:
    assert broken() == []


# Lanes ------------------------------------------------------------------------------------------


def notebooks(*scratch: str, namespace: str = "research") -> Object:
    """A policy's lanes: one, whose pods write to these claims."""
    lane = {
        "name": "notebooks",
        "reason": "interactive work",
        "namespaces": [namespace],
        "image": {"authorities": ["alice"]},
        "maxPods": 1,
        "maxGPUs": 1,
        "maxDurationSeconds": 60,
        "scratchClaims": [*scratch],
    }
    return {"lanes": [lane], "data": {"unverified": "Allow"}}


def test_what_notebooks_write_no_run_reads() -> None:
    assert broken(data, **notebooks("corp*")) == ["LaneScratch"]
    claim = world.job_object()["spec"]["checkpoints"]["volume"]["persistentVolumeClaim"]
    assert broken(**notebooks(claim["claimName"])) == ["LaneScratch"]


def test_other_claims_and_other_namespaces_are_none_of_the_lanes() -> None:
    assert broken(data, **notebooks("scratch-*")) == []
    assert broken(data, **notebooks("*", namespace="other")) == []


# Names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["1st", "Char", "a" * 41, "a.b", "a-", "", "a\n", "ä"])
def test_a_name_that_no_pod_could_carry_is_refused(name: str) -> None:
    assert "InvalidName" in broken(lambda j: j["metadata"].update(name=name))


@pytest.mark.parametrize("name", ["a", "a" * 40, "char-lm-2"])
def test_a_dns_label_is_a_name(name: str) -> None:
    assert broken(lambda j: j["metadata"].update(name=name)) == []


def twice(field: str) -> Callable[[Object], object]:
    def change(job: Object) -> None:
        second = dict(job["spec"][field][0])
        if "mountPath" in second:
            second["mountPath"] = "/elsewhere"
        job["spec"][field].append(second)

    return change


@pytest.mark.parametrize("field", ["code", "roles"])
def test_a_name_that_stands_twice_is_refused(field: str) -> None:
    assert broken(twice(field)) == ["DuplicateName"]


# Validity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("validity", "facts", "reasons"),
    [
        ({"notAfter": "2026-11-23T12:00:00Z"}, FACTS, []),
        ({"notAfter": "2026-11-23T11:59:59Z"}, FACTS, ["Expired"]),
        ({"notAfter": "2026-11-23T13:00:00+02:00"}, FACTS, ["Expired"]),
        ({"notAfter": "2026-11-23T13:00:00-02:00"}, FACTS, []),
        ({"maxRuns": 3}, RunFacts(None, 2), []),
        ({"maxRuns": 3}, RunFacts(None, 3), ["MaxRunsReached"]),
        ({"maxRuns": 3}, RunFacts(None, None), []),
        ({"cluster": world.CLUSTER}, FACTS, []),
        ({"cluster": "other"}, FACTS, ["OtherCluster"]),
        ({"cluster": "other"}, RunFacts(None, 0), []),
    ],
)
def test_a_job_runs_only_as_often_as_long_and_where_it_was_signed_for(
    validity: Object, facts: RunFacts, reasons: list[str]
) -> None:
    assert broken(spec(validity=validity), facts) == reasons


def test_a_policy_may_require_bounds() -> None:
    required = {"require": ["notAfter", "maxRuns"]}
    assert broken(validity=required) == ["ValidityMissing"] * 2
    late = (world.NOW + timedelta(days=1)).isoformat()
    assert broken(spec(validity={"notAfter": late, "maxRuns": 1}), validity=required) == []


@pytest.mark.parametrize("text", ["2026-11-23T12:00:00", "2026-11-23"])
def test_a_time_without_a_zone_is_no_bound(text: str) -> None:
    with pytest.raises(InvalidObjectError, match="notAfter"):
        broken(spec(validity={"notAfter": text}))


# Mounts -----------------------------------------------------------------------------------------


def at(path: str) -> Callable[[Object], object]:
    return spec(scratch=[{"mountPath": path}])


@pytest.mark.parametrize(
    "path",
    ["/workspace/inner", "/checkpoints", "/checkpoints/x", "/etc/training", "/etc/training/x"],
)
def test_a_mount_within_another_is_refused(path: str) -> None:
    assert broken(at(path)) == ["OverlappingMounts"]


@pytest.mark.parametrize(
    "path",
    [
        *("/usr", "/usr/local", "/usr/lib", "/usr/lib64/python3", "/usr/local/lib/python3.11"),
        *("/usr/bin", "/bin", "/lib", "/lib64/x", "/etc/ld.so.conf.d", "/proc", "/sys/fs"),
        *("/dev", "/var", "/var/run", "/var/run/secrets/x", "/run", "/gate/code"),
    ],
)
def test_a_mount_that_hides_the_system_is_refused(path: str) -> None:
    assert "OverlappingMounts" in broken(at(path))


@pytest.mark.parametrize(
    "path", ["/tmp", "/dev/shm", "/scratch", "/var/tmp", "/workspaces", "/home/me", "/root/.cache"]
)
def test_a_directory_of_its_own_is_a_mount(path: str) -> None:
    assert broken(at(path)) == []


# Code from where nobody signed ------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/checkpoints/run.py", "/tmp/run.py", "/data/corpus/run.py"])
def test_what_runs_from_unsigned_bytes_is_refused(path: str) -> None:
    """A dataset is read-only to the pod and unsigned all the same."""

    def change(job: Object) -> None:
        data(job)
        template(lambda s: s["containers"][0].update(command=["python", path]))(job)

    assert broken(change, data={"unverified": "Allow"}) == ["WritableCode"]


def test_code_in_checkpoints_that_end_with_the_pod_is_refused_too() -> None:
    def change(job: Object) -> None:
        job["spec"]["checkpoints"]["volume"] = {"emptyDir": {}}
        template(lambda s: s["containers"][0].update(command=["bash", "/checkpoints/run.sh"]))(job)

    assert broken(change) == ["WritableCode"]


@pytest.mark.parametrize(
    "name", ["HOME", "TORCH_HOME", "TORCH_EXTENSIONS_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME"]
)
def test_a_directory_that_programs_find_code_in_is_not_one_that_others_fill(name: str) -> None:
    assert broken(env(name, "/checkpoints/home")) == ["WritableCode"]
    assert broken(env(name, "/tmp/home")) == []
    assert broken(env("DATA_HOME_OF_MINE", "/checkpoints/home")) == []


def test_unverified_data_needs_the_policys_word() -> None:
    assert broken(data) == ["DataNotVerified"]
    assert broken(data, data={"unverified": "Allow"}) == []


# The rest ---------------------------------------------------------------------------------------


def test_code_stands_by_digest() -> None:
    def tagged(job: Object) -> None:
        job["spec"]["code"][0]["oci"]["reference"] = "registry.example/research/code:1"

    assert broken(tagged) == ["CodeNotByDigest"]


def test_the_template_rules_hold_for_every_role() -> None:
    def change(job: Object) -> None:
        template(lambda s: s.update(hostPID=True))(job)

    assert broken(change) == ["ForbiddenField"]


def test_a_config_that_no_config_map_holds_is_refused() -> None:
    def long(job: Object) -> None:
        job["spec"]["config"]["parameters"]["x"] = "x" * MAX_CONFIG_BYTES

    assert broken(long) == ["ConfigTooLarge"]


def test_every_image_of_every_container_is_named_once() -> None:
    job = world.job_object()
    pod = job["spec"]["roles"][0]["template"]["spec"]
    pod["initContainers"] = [{"name": "prepare", "image": world.IMAGE + "0"}]
    pod["containers"].append({"name": "second", "image": world.IMAGE})
    assert image_references(TrainingJob.parse(job)) == {
        world.IMAGE + "0": "roles[worker].initContainers[prepare]",
        world.IMAGE: "roles[worker].containers[trainer]",
    }


# Warnings ---------------------------------------------------------------------------------------


def warned(change: Callable[[Object], object] = lambda _: None) -> tuple[str, ...]:
    job = world.job_object()
    change(job)
    assert broken(change) == []
    return job_warnings(TrainingJob.parse(job))


PROBE = {"exec": {"command": ["true"]}}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (template(lambda s: s.update(activeDeadlineSeconds=60)), "activeDeadlineSeconds"),
        (template(lambda s: s["containers"][0].update(livenessProbe=PROBE)), "livenessProbe"),
        (template(lambda s: s["containers"][0].update(startupProbe=PROBE)), "startupProbe"),
    ],
)
def test_what_would_end_a_frozen_pod_is_said_and_not_refused(
    change: Callable[[Object], object], place: str
) -> None:
    (found,) = warned(change)
    assert found.startswith("spec.roles[0].template.spec.")
    assert place in found
    assert "frozen" in found


def test_what_goes_well_with_freezing_is_not_warned_of() -> None:
    assert warned() == ()
    assert warned(template(lambda s: s["containers"][0].update(readinessProbe=PROBE))) == ()


def test_warnings_come_to_an_end() -> None:
    def many(spec: Object) -> None:
        first = spec["containers"][0] | {"livenessProbe": PROBE}
        spec["containers"] = [first | {"name": f"c{n}"} for n in range(99)]

    assert len(warned(template(many))) == 16


# Platforms --------------------------------------------------------------------------------------


def test_nothing_runs_from_where_a_policy_lets_a_platform_mount() -> None:
    def sourcing(job: Object) -> None:
        container = job["spec"]["roles"][0]["template"]["spec"]["containers"][0]
        container["command"] = ["sh", "-c", ". /vault/secrets/env && python /workspace/train.py"]
        container.pop("args", None)

    addition = {"name": "vault", "reason": "x", "mounts": [{"volume": "v", "path": "/vault"}]}
    assert broken(sourcing) == []
    assert "WritableCode" in broken(sourcing, pods={"additions": [addition]})


# Checkpoints -------------------------------------------------------------------------------------


def kept_in(path: str) -> Callable[[Object], object]:
    return lambda job: job["spec"]["checkpoints"].update(path=path)


@pytest.mark.parametrize("path", ["runs/{run}", "{run}", "a-{run}/b", "runs"])
def test_a_directory_of_checkpoints_may_be_each_runs_own(path: str) -> None:
    assert broken(kept_in(path)) == []


@pytest.mark.parametrize("path", ["{seed}", "runs/{run", "{Run}", "{ru{run}n}", "}{", "{run}/{x}"])
def test_braces_that_nothing_stands_for_are_refused(path: str) -> None:
    assert broken(kept_in(path)) == ["CheckpointsPath"]


def of(*formats: str) -> Callable[[Object], object]:
    return lambda job: job["spec"]["checkpoints"].update(format=list(formats))


@pytest.mark.parametrize("accepted", [None, ["dcp", "safetensors"], ["pickle"]])
def test_a_job_may_say_which_of_the_accepted_formats_it_goes_on_from(
    accepted: list[str] | None,
) -> None:
    policy: dict[str, Any] = {} if accepted is None else {"checkpoints": {"formats": accepted}}
    assert broken(of("safetensors", "dcp"), **policy) == []


@pytest.mark.parametrize(
    ("named", "accepted"), [("pickle", None), ("pickle", ["dcp"]), ("dcp", ["safetensors"])]
)
def test_a_job_that_would_go_on_from_what_is_not_accepted_is_refused(
    named: str, accepted: list[str] | None
) -> None:
    policy: dict[str, Any] = {} if accepted is None else {"checkpoints": {"formats": accepted}}
    assert broken(of(named), **policy) == ["CheckpointFormat"]
