"""The CRDs on a real API server: what it stores, what it refuses and in which words."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.integration.conftest import ApiServer, RefusedError
from tests.sample_objects import (
    SAMPLES,
    STATUS_FAULTS,
    access_record,
    break_glass,
    drift_report,
    evidence_item,
    hold_release,
    launched_job,
    pod_template,
    provenance_policy,
    public_root,
    put,
    sealed_run,
    stack_request,
    status_of,
    training_job,
    training_template,
    trust_root,
)
from trainseal.api.crd import KINDS, all_crds
from trainseal.provenance.canonical import job_digest

Object = dict[str, Any]
Change = Callable[[Object], None]


def without_nulls(value: Any) -> Any:
    """The value as it can be signed and as ``kubectl apply`` leaves its objects."""
    if isinstance(value, dict):
        return {name: without_nulls(v) for name, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_nulls(v) for v in value if v is not None]
    return value


@pytest.fixture
def live(api_server: ApiServer) -> Iterator[Callable[[Object], Object]]:
    """Creates objects and takes them away after the test; returns each as it is stored."""
    made: list[Object] = []

    def create(obj: Object) -> Object:
        made.append(obj)
        return api_server.create(obj)

    yield create
    for obj in made:
        api_server.delete(obj)


# --- the definitions themselves -------------------------------------------------------------


def test_every_crd_is_established_and_structural(api_server: ApiServer) -> None:
    for name in all_crds():
        crd = json.loads(api_server.kubectl("get", "crd", name, "-o", "json"))
        conditions = {c["type"]: c["status"] for c in crd["status"]["conditions"]}
        assert conditions["Established"] == "True", name
        assert conditions["NamesAccepted"] == "True", name
        assert "NonStructuralSchema" not in conditions, name


def test_the_api_server_stores_our_schemas_as_they_are_written(api_server: ApiServer) -> None:
    for name, crd in all_crds().items():
        stored = json.loads(api_server.kubectl("get", "crd", name, "-o", "json"))
        assert stored["spec"]["versions"][0]["schema"] == crd["spec"]["versions"][0]["schema"]


def test_all_kinds_are_listed_under_the_category(api_server: ApiServer) -> None:
    listed = api_server.kubectl("api-resources", "--categories=trainseal", "-o", "name").split()
    assert sorted(listed) == sorted(all_crds())


def test_kubectl_explains_fields_with_our_words(api_server: ApiServer) -> None:
    text = api_server.kubectl("explain", "trainingjob.spec.scheduling")
    assert "not signed, and changeable while the job lives" in text
    assert "queueName" in text


# --- what is stored -------------------------------------------------------------------------


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_valid_object_is_stored_as_it_was_sent(
    sample: Callable[[], Object], live: Callable[[Object], Object]
) -> None:
    obj = sample()
    assert live(obj)["spec"] == obj["spec"]


def test_a_stored_job_has_the_digest_that_was_signed(
    live: Callable[[Object], Object], api_server: ApiServer
) -> None:
    obj = without_nulls(training_job())
    live(obj)
    assert job_digest(api_server.get(obj)) == job_digest(obj)


def test_nulls_in_parameters_survive_creation(live: Callable[[Object], Object]) -> None:
    obj = training_job()
    obj["spec"]["config"]["parameters"] = {"dropout": None, "deep": {"er": None}}
    assert live(obj)["spec"]["config"]["parameters"] == {"dropout": None, "deep": {"er": None}}


def test_a_job_with_defaults_filled_in_nowhere_stays_as_small_as_it_was(
    live: Callable[[Object], Object],
) -> None:
    obj = training_job()
    obj["spec"] = {"engine": "Job", "roles": obj["spec"]["roles"][:1]}
    assert live(obj)["spec"] == obj["spec"]


def test_applying_the_same_yaml_again_changes_nothing(api_server: ApiServer) -> None:
    obj = without_nulls(training_job("again"))
    text = json.dumps(obj).replace('"batch_size": 64', '"batch_size": 64.0, "lr": 3e-4')
    try:
        assert "created" in api_server.kubectl("apply", "-f", "-", stdin=text)
        assert "unchanged" in api_server.kubectl("apply", "-f", "-", stdin=text)
    finally:
        api_server.delete(obj)


def test_kubectl_apply_drops_null_members_before_it_sends_them(api_server: ApiServer) -> None:
    """Nothing of ours can help: what is to be signed must hold no null members of objects."""
    obj = without_nulls(training_job("nulls"))
    sent = copy.deepcopy(obj)
    sent["spec"]["config"]["parameters"]["dropout"] = None
    sent["spec"]["roles"][0]["template"]["metadata"]["creationTimestamp"] = None
    try:
        api_server.kubectl("apply", "-f", "-", stdin=json.dumps(sent))
        assert api_server.get(obj)["spec"] == obj["spec"]
    finally:
        api_server.delete(obj)


def test_a_whole_number_written_with_a_point_is_stored_without_it(
    live: Callable[[Object], Object],
) -> None:
    obj = training_job()
    obj["spec"]["config"]["parameters"]["batch_size"] = 64.0
    assert str(live(obj)["spec"]["config"]["parameters"]["batch_size"]) == "64"


def test_an_update_that_writes_it_with_a_point_again_is_taken_for_a_change(
    standing_job: Object, api_server: ApiServer
) -> None:
    """A known limit, on the safe side: clients in Go, kubectl among them, never send this."""
    obj = copy.deepcopy(standing_job)
    obj["spec"]["config"]["parameters"]["batch_size"] = 64.0
    with api_server.refuses("spec.config: Forbidden"):
        api_server.replace(obj, dry_run=True)


def test_server_side_apply_stores_the_same_and_may_be_repeated(api_server: ApiServer) -> None:
    obj = without_nulls(training_job("server-side"))
    try:
        for _ in range(2):
            api_server.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(obj))
            assert job_digest(api_server.get(obj)) == job_digest(obj)
    finally:
        api_server.delete(obj)


# --- unknown fields -------------------------------------------------------------------------


def _closed_objects(node: Object, where: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Paths to the typed objects of a sample: those in which an unknown field must be refused."""
    opaque = ("parameters", "template", "bundle", "trustedRoot", "replicas", "affinity")
    maps = ("nodeSelector", "credential")
    yield where
    for name, value in node.items():
        if name in (*opaque, *maps, "tolerations", "topologySpreadConstraints"):
            continue
        if isinstance(value, dict) and name != "code":  # there: a map of names
            yield from _closed_objects(value, (*where, name))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    yield from _closed_objects(item, (*where, name, index))


def _text(where: tuple[str | int, ...]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in where).lstrip(".")


PLACES = [
    pytest.param(sample, where, id=f"{sample.__name__}:{_text(where)}")
    for sample in SAMPLES
    for where in _closed_objects(sample()["spec"], ("spec",))
]


@pytest.mark.parametrize(("sample", "where"), PLACES)
def test_an_unknown_field_is_refused_and_not_pruned(
    sample: Callable[[], Object], where: tuple[str | int, ...], api_server: ApiServer
) -> None:
    obj = sample()
    target: Any = obj
    for part in where:
        target = target[part]
    target["unheardOf"] = 1
    with pytest.raises(RefusedError) as refused:
        api_server.create(obj, dry_run=True)
    assert "holds a field that does not exist" in refused.value.causes[_text(where)]


def test_an_unknown_field_below_a_name_of_a_map_is_refused(api_server: ApiServer) -> None:
    obj = training_template()
    obj["spec"]["code"]["trainer"]["unheardOf"] = 1
    with api_server.refuses("spec.code[trainer]: Invalid value: holds a field that does not"):
        api_server.create(obj, dry_run=True)


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_part_at_the_wrong_depth_is_refused(
    sample: Callable[[], Object], api_server: ApiServer
) -> None:
    obj = sample() | {"validity": {"require": ["notAfter"]}}
    with api_server.refuses("holds a field that does not exist; the fields here are spec"):
        api_server.create(obj, dry_run=True)


def test_two_unknown_fields_do_not_pass_for_two_absent_ones(api_server: ApiServer) -> None:
    obj = training_job()
    obj["spec"]["validity"] = {"maxRun": 1, "notAftr": "2027-03-01T00:00:00Z"}
    with api_server.refuses("spec.validity: Invalid value: holds a field that does not exist"):
        api_server.create(obj, dry_run=True)


def test_kubectl_shows_the_place_and_the_fields_that_exist(api_server: ApiServer) -> None:
    obj = training_job("typo")
    obj["spec"]["scheduling"]["queueNam"] = "research"
    with pytest.raises(CommandError) as refused:
        api_server.kubectl("create", "-f", "-", stdin=json.dumps(obj))
    assert "spec.scheduling" in refused.value.stderr
    assert "the fields here are queueName, priorityClassName" in refused.value.stderr


# --- bad values -----------------------------------------------------------------------------


def _set(path: str, value: object) -> Change:
    return lambda obj: put(obj, path, value)


JOB_FAULTS: list[tuple[str, object, str]] = [
    ("spec.engine", "RayJob", "spec.engine: Unsupported value"),
    ("spec.engine", None, "spec.engine: Invalid value: is required without templateRef"),
    ("spec.roles", None, "spec.roles: Invalid value: is required without templateRef"),
    ("spec.roles", [], "spec.roles: Invalid value"),
    ("spec.roles", [{"name": f"r{i}", "replicas": 1, "template": {}} for i in range(9)], "roles"),
    ("spec.roles.0.name", "Upper", "spec.roles[0].name: Invalid value"),
    ("spec.roles.0.name", "n" * 64, "spec.roles[0].name: Too long"),
    ("spec.roles.0.replicas", 0, "spec.roles[0].replicas: Invalid value"),
    ("spec.roles.0.replicas", 16385, "spec.roles[0].replicas: Invalid value"),
    ("spec.roles.0.replicas", {"min": 1}, "spec.roles[0].replicas.max: Required value"),
    ("spec.roles.0.replicas", {"min": 1, "max": 2, "x": 1}, "spec.roles[0].replicas: Too many"),
    ("spec.roles.0.template", "text", "spec.roles[0].template: Invalid value"),
    ("spec.roles.0.template", dict.fromkeys("abcde", 1), "spec.roles[0].template: Too many"),
    ("spec.code.0.mountPath", "relative", "spec.code[0].mountPath: Invalid value"),
    ("spec.code.0.mountPath", "/a/../b", "spec.code[0].mountPath: Invalid value"),
    ("spec.code.0.mountPath", "/a//b", "spec.code[0].mountPath: Invalid value"),
    ("spec.code.0.mountPath", "/" + "a" * 512, "spec.code[0].mountPath: Too long"),
    ("spec.code.0.oci", None, "spec.code[0].oci: Required value"),
    ("spec.code.0.oci.reference", "r" * 513, "spec.code[0].oci.reference: Too long"),
    ("spec.config.parameters", [1], "spec.config.parameters: Invalid value"),
    ("spec.config.parameters", {f"p{i}": i for i in range(1025)}, "spec.config.parameters: Too"),
    ("spec.checkpoints.path", "../up", "spec.checkpoints.path: Invalid value"),
    ("spec.checkpoints.path", "/absolute", "spec.checkpoints.path: Invalid value"),
    ("spec.checkpoints.volume", {}, "takes exactly one of persistentVolumeClaim, emptyDir"),
    ("spec.checkpoints.volume.emptyDir", {}, "takes exactly one of persistentVolumeClaim"),
    ("spec.scratch.0.medium", "Disk", "spec.scratch[0].medium: Unsupported value"),
    ("spec.scratch.0.sizeLimit", "1 GiB", "spec.scratch[0].sizeLimit: Invalid value"),
    ("spec.scheduling.queueName", "q" * 257, "spec.scheduling.queueName: Too long"),
    ("spec.scheduling.nodeSelector", {"k" * 318: "v"}, "holds a name of more than 317 characters"),
    ("spec.scheduling.schedulingGates.0.name", "a/b/c", "schedulingGates[0].name: Invalid value"),
    ("spec.scheduling.schedulingGates", [{"name": f"g{i}"} for i in range(17)], "Gates: Too many"),
    ("spec.validity.notAfter", "tomorrow", "spec.validity.notAfter: Invalid value"),
    ("spec.validity.maxRuns", 0, "spec.validity.maxRuns: Invalid value"),
    ("spec.validity.maxRuns", 1.5, "spec.validity.maxRuns: Invalid value"),
    ("spec.suspend", "yes", "spec.suspend: Invalid value"),
    ("spec.signatures", [{"bundle": {}}] * 17, "spec.signatures: Too many"),
    ("spec.signatures.0.bundle", "e30=", "spec.signatures[0].bundle: Invalid value"),
]


@pytest.mark.parametrize(("path", "value", "words"), JOB_FAULTS)
def test_a_faulty_job_is_refused_by_its_field(
    path: str, value: object, words: str, api_server: ApiServer
) -> None:
    obj = training_job("faulty")
    _set(path, value)(obj)
    with api_server.refuses(words):
        api_server.create(obj, dry_run=True)


def test_a_range_of_replicas_with_its_ends_the_wrong_way_round_is_left_to_the_webhook(
    api_server: ApiServer,
) -> None:
    """A known limit: CEL does not look into what is a number or an object."""
    obj = training_job("reversed")
    obj["spec"]["roles"][1]["replicas"] = {"min": 5, "max": 2}
    stored = api_server.create(obj, dry_run=True)
    assert stored["spec"]["roles"][1]["replicas"] == {"min": 5, "max": 2}


def test_generate_name_is_refused(api_server: ApiServer) -> None:
    obj = training_job()
    obj["metadata"] = {"generateName": "char-lm-", "namespace": "default"}
    with api_server.refuses("a signature binds the job's name"):
        api_server.create(obj, dry_run=True)


OTHER_FAULTS: list[tuple[Callable[[], Object], str, object, str]] = [
    (provenance_policy, "spec.mode", "Warn", "spec.mode: Unsupported value"),
    (provenance_policy, "spec.requirements.code", None, "spec.requirements.code: Required"),
    (provenance_policy, "spec.requirements.job.threshold", 0, "threshold: Invalid value"),
    (provenance_policy, "spec.requirements.job.threshold", 3, "above the number of authorities"),
    (provenance_policy, "spec.requirements.job.authorities", ["eve"], "that spec.authorities lac"),
    (provenance_policy, "spec.authorities.1.name", "alice", "names an authority twice"),
    (provenance_policy, "spec.authorities.0.key", None, "takes exactly one of key, keyless"),
    (provenance_policy, "spec.authorities.1.keyless.subject", "x", "one of subject, subjectReg"),
    (provenance_policy, "spec.registries.allow", [], "spec.registries.allow: Invalid value"),
    (provenance_policy, "spec.validity.require", ["later"], "spec.validity.require[0]: Unsuppor"),
    (provenance_policy, "spec.data.unverified", "Maybe", "spec.data.unverified: Unsupported"),
    (provenance_policy, "spec.drift.responses.critical", "Kill", "critical: Unsupported value"),
    (provenance_policy, "spec.drift.exceptions.0.findings", ["file.odd"], "Unsupported value"),
    (provenance_policy, "spec.drift.freeze.maxDurationSeconds", 86401, "Seconds: Invalid value"),
    (trust_root, "spec.publicGood", {}, "takes exactly one of publicGood, trustedRoot"),
    (trust_root, "spec.trustedRoot", None, "takes exactly one of publicGood, trustedRoot"),
    (sealed_run, "spec.job.digest", "sha256:beef", "spec.job.digest: Invalid value"),
    (public_root, "spec.trustedRoot", {"a": 1}, "takes exactly one of publicGood, trustedRoot"),
    (public_root, "spec.publicGood", None, "takes exactly one of publicGood, trustedRoot"),
    (sealed_run, "spec.run", 2**31, "spec.run: Invalid value"),
    (sealed_run, "spec.roles.0.replicas", 16385, "spec.roles[0].replicas: Invalid value"),
    (sealed_run, "spec.artifacts.0.artifact", "thing", "spec.artifacts[0].artifact: Unsupported"),
    (sealed_run, "spec.artifacts.0.outcome", "ok", "spec.artifacts[0].outcome: Unsupported"),
    (drift_report, "spec.pod.uid", None, "spec.pod.uid: Required value"),
    (access_record, "spec.action", "Look", "spec.action: Unsupported value"),
    (access_record, "spec.groups", ["g"] * 65, "spec.groups: Too many"),
    (access_record, "spec.truncated", ["time"], "spec.truncated[0]: Unsupported value"),
    (access_record, "spec.gracePeriodSeconds", -1, "spec.gracePeriodSeconds: Invalid value"),
    (access_record, "spec.credential", {"k" * 64: "v"}, "holds a name of more than 63 characters"),
    (hold_release, "spec.hold", "0123", "spec.hold: Invalid value"),
    (hold_release, "spec.user", None, "spec.user: Required value"),
    (hold_release, "spec.reason", "", "spec.reason: Invalid value"),
    (hold_release, "spec.reason", "r" * 1025, "spec.reason: Too long"),
    (hold_release, "spec.hold", None, "takes exactly one of hold, checkpoints, breakGlass"),
    (hold_release, "spec.breakGlass", "x", "takes exactly one of hold, checkpoints, breakGlass"),
    (break_glass, "spec.notAfter", "tomorrow", "spec.notAfter: Invalid value"),
    (break_glass, "spec.ways", [], "spec.ways: Invalid value"),
    (break_glass, "spec.ways", ["Delete"], "spec.ways[0]: Unsupported value"),
    (break_glass, "spec.approvedBy", None, "spec.approvedBy: Required value"),
    (provenance_policy, "spec.access.exec", "Never", "spec.access.exec: Unsupported value"),
    (
        provenance_policy,
        "spec.access.serviceAccounts",
        ["ci:smoke-tests"],
        "spec.access.serviceAccounts[0]: Invalid value",
    ),
]


@pytest.mark.parametrize(("sample", "path", "value", "words"), OTHER_FAULTS)
def test_a_faulty_object_is_refused_by_its_field(
    sample: Callable[[], Object], path: str, value: object, words: str, api_server: ApiServer
) -> None:
    obj = sample()
    _set(path, value)(obj)
    with api_server.refuses(words):
        api_server.create(obj, dry_run=True)


# --- immutability ---------------------------------------------------------------------------


def _template(obj: Object) -> Any:
    return obj["spec"]["roles"][1]["template"]["spec"]["containers"][0]


def _rename_unknown(obj: Object) -> None:
    container = _template(obj)
    container["aFieldOfYesterday"] = container.pop("aFieldOfTomorrow")


def _swap_roles(obj: Object) -> None:
    obj["spec"]["roles"].reverse()


def _rename_parameter(obj: Object) -> None:
    parameters = obj["spec"]["config"]["parameters"]
    parameters["batchsize"] = parameters.pop("batch_size")


LAUNCH_CHANGES: list[tuple[str, Change]] = [
    ("templateRef", _set("spec.templateRef.name", "other")),
    ("templateRef", _set("spec.templateRef.digest", "sha256:" + "f" * 64)),
    ("parameters", _set("spec.parameters", {"optim.lr": 0.3})),
    ("parameters", _set("spec.parameters", None)),
    ("replicas", _set("spec.replicas.worker", 5)),
    ("codeReferences", _set("spec.codeReferences.0.reference", "registry.example/other")),
    ("resumeFrom", _set("spec.resumeFrom.run", "somebody-elses")),
]
TEMPLATE_CHANGES: list[tuple[str, Change]] = [
    ("parameters", _set("spec.parameters.tag.maxLength", 64)),
    ("parameters", _set("spec.parameters.seed.enum", [1, 2, 3, 4])),
    ("replicas", _set("spec.replicas.worker.max", 9)),
    ("code", _set("spec.code.trainer.authority", "alice")),
    ("launch", _set("spec.launch.maxConcurrent", 41)),
    ("launch", _set("spec.launch.requesters", [{"user": "mallory"}])),
    ("job", _set("spec.job.config.parameters.steps", 1)),
    ("job", _set("spec.job.roles.1.template.spec.restartPolicy", None)),
]


SIGNED_CHANGES: list[tuple[str, Change]] = [
    ("code", _set("spec.code.0.oci.reference", "registry.example/other")),
    ("code", _set("spec.code", None)),
    ("config", _set("spec.config.parameters.learning_rate", 0.03)),
    ("config", _set("spec.config.parameters.schedule.restarts", [1, 2.5, True, "y"])),
    ("config", _rename_parameter),
    ("config", _set("spec.config.mountPath", "/etc/other")),
    ("config", _set("spec.config", None)),
    ("data", _set("spec.data.0.path", "v2/text")),
    ("checkpoints", _set("spec.checkpoints.volume.persistentVolumeClaim.claimName", "other")),
    ("scratch", _set("spec.scratch", [])),
    ("roles", _set("spec.roles.0.replicas", 2)),
    ("roles", _set("spec.roles.1.replicas.max", 9)),
    ("roles", _set("spec.roles.1.template.spec.containers.0.command", ["sh"])),
    ("roles", _set("spec.roles.1.template.spec.restartPolicy", None)),
    ("roles", _rename_unknown),
    ("roles", _swap_roles),
    ("validity", _set("spec.validity.maxRuns", 4)),
    ("validity", _set("spec.validity.notAfter", "2027-03-01T00:00:01Z")),
    ("validity", _set("spec.validity", None)),
]


@pytest.fixture(scope="module")
def standing_job(api_server: ApiServer) -> Iterator[Object]:
    """A stored job that tests try to change by dry run only."""
    obj = without_nulls(training_job("standing"))
    yield api_server.create(obj)
    api_server.delete(obj)


@pytest.mark.parametrize(("field", "change"), SIGNED_CHANGES)
def test_what_is_signed_cannot_be_changed(
    field: str, change: Change, standing_job: Object, api_server: ApiServer
) -> None:
    obj = copy.deepcopy(standing_job)
    change(obj)
    with api_server.refuses(f"spec.{field}: Forbidden: cannot be changed: it is signed"):
        api_server.replace(obj, dry_run=True)


@pytest.mark.parametrize(
    ("sample", "field", "change"),
    [
        *((launched_job, field, change) for field, change in LAUNCH_CHANGES),
        *((training_template, field, change) for field, change in TEMPLATE_CHANGES),
    ],
)
def test_nor_what_is_signed_of_a_template_and_what_a_run_of_it_asks_for(
    sample: Callable[[], Object],
    field: str,
    change: Change,
    live: Callable[[Object], Object],
    api_server: ApiServer,
) -> None:
    obj = copy.deepcopy(live(without_nulls(sample())))
    change(obj)
    with api_server.refuses(f"spec.{field}: Forbidden: cannot be changed: it is signed"):
        api_server.replace(obj, dry_run=True)


def test_a_template_is_revoked_once_and_for_good(
    live: Callable[[Object], Object], api_server: ApiServer
) -> None:
    obj = without_nulls(training_template())
    del obj["spec"]["revoked"]
    live(obj)
    api_server.patch(obj, {"spec": {"revoked": {"reason": "diverges"}}})
    for other in (None, {"reason": "it was fine"}):
        with api_server.refuses("spec.revoked: Forbidden: stays once it is there"):
            api_server.patch(obj, {"spec": {"revoked": other}}, dry_run=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [(f, training_job()["spec"].get(f)) for f in ("engine", "roles", "code", "config", "data")]
    + [(f, training_job()["spec"].get(f)) for f in ("checkpoints", "scratch", "validity")]
    + [("signatures", [])],
)
def test_nothing_of_a_whole_job_stands_beside_a_template(
    field: str, value: Any, api_server: ApiServer
) -> None:
    obj = launched_job()
    obj["spec"][field] = value
    with api_server.refuses(f"spec.{field}: Invalid value: does not stand beside templateRef"):
        api_server.create(obj)


@pytest.mark.parametrize("field", ["parameters", "replicas", "codeReferences", "resumeFrom"])
def test_nothing_is_left_open_in_a_whole_job(field: str, api_server: ApiServer) -> None:
    obj = training_job("open")
    obj["spec"][field] = launched_job()["spec"][field]
    with api_server.refuses(f"spec.{field}: Invalid value: stands beside templateRef alone"):
        api_server.create(obj)


def test_a_signed_field_cannot_be_added_later(
    live: Callable[[Object], Object], api_server: ApiServer
) -> None:
    obj = training_job("added")
    del obj["spec"]["validity"]
    live(obj)
    with api_server.refuses("spec.validity: Forbidden: cannot be changed"):
        api_server.patch(obj, {"spec": {"validity": {"maxRuns": 100}}}, dry_run=True)


UNSIGNED_CHANGES: list[Object] = [
    {"suspend": True},
    {"suspend": None},
    {"scheduling": {"queueName": "other", "tolerations": []}},
    {"scheduling": None},
    {"signatures": [{"bundle": {"a": 1}}, {"bundle": {"b": 2}}]},
]


@pytest.mark.parametrize("patch", UNSIGNED_CHANGES)
def test_what_is_not_signed_can_be_changed(
    patch: Object, standing_job: Object, api_server: ApiServer
) -> None:
    changed = api_server.patch(standing_job, {"spec": patch}, dry_run=True)
    assert job_digest(changed) == job_digest(standing_job)
    for name, value in patch.items():
        if value is None:
            assert name not in changed["spec"]
        elif isinstance(value, dict):
            assert changed["spec"][name].items() >= value.items()
        else:
            assert changed["spec"][name] == value


def test_metadata_of_a_job_can_be_changed(standing_job: Object, api_server: ApiServer) -> None:
    patch = {"metadata": {"labels": {"team": "nlp"}}}
    changed = api_server.patch(standing_job, patch, dry_run=True)
    assert changed["metadata"]["labels"] == {"team": "nlp"}


@pytest.mark.parametrize(
    ("sample", "change"),
    [
        (sealed_run, _set("spec.requester.username", "mallory")),
        (sealed_run, _set("spec.configDigest", None)),
        (sealed_run, _set("spec.roles.0.template.spec.containers.0.aFieldOfTomorrow.deep", [])),
        (drift_report, _set("spec.node", "n2")),
        (access_record, _set("spec.username", "carol")),
        (access_record, _set("spec.groups", None)),
        (hold_release, _set("spec.hold", "fedcba9876543210")),
        (hold_release, _set("spec.reason", "seen by another")),
        (break_glass, _set("spec.user", "mallory")),
        (break_glass, _set("spec.ways", None)),
    ],
)
def test_a_record_is_written_once(
    sample: Callable[[], Object],
    change: Change,
    live: Callable[[Object], Object],
    api_server: ApiServer,
) -> None:
    obj = live(sample())
    change(obj)
    with api_server.refuses("spec: Forbidden: cannot be changed: it is a record, written once"):
        api_server.replace(obj)


def test_a_policy_can_be_changed(live: Callable[[Object], Object], api_server: ApiServer) -> None:
    obj = live(provenance_policy())
    changed = api_server.patch(obj, {"spec": {"mode": "Audit"}})
    assert changed["spec"]["mode"] == "Audit"


# --- status and columns ---------------------------------------------------------------------


WITHOUT_STATUS = (
    training_template,
    access_record,
    hold_release,
    break_glass,
    evidence_item,
    stack_request,
)


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s not in WITHOUT_STATUS])
def test_a_status_is_written_apart_from_the_spec(
    sample: Callable[[], Object], live: Callable[[Object], Object], api_server: ApiServer
) -> None:
    obj = live(sample() | {"status": {}})
    assert "status" not in obj
    status = status_of(obj["kind"])
    changed = api_server.patch(obj, {"status": status}, subresource="status")
    assert changed["status"] == status
    assert changed["spec"] == obj["spec"]


@pytest.mark.parametrize(("kind", "path", "value"), STATUS_FAULTS)
def test_a_status_that_says_what_no_status_says_is_refused(
    kind: str,
    path: str,
    value: object,
    live: Callable[[Object], Object],
    api_server: ApiServer,
) -> None:
    obj = live(next(sample() for sample in SAMPLES if sample()["kind"] == kind))
    status = status_of(kind)
    put(status, path, value)
    with pytest.raises(RefusedError) as refused:
        api_server.patch(obj, {"status": status}, subresource="status")
    place = _text(("status", *(int(p) if p.isdigit() else p for p in path.split("."))))
    assert refused.value.code == 422
    assert any(field.startswith(place) for field in refused.value.causes)


def test_a_condition_type_stands_once(
    live: Callable[[Object], Object], api_server: ApiServer
) -> None:
    obj = live(provenance_policy())
    condition = status_of("ProvenancePolicy")["conditions"][0]
    with api_server.refuses("status.conditions[1]: Duplicate value"):
        api_server.patch(obj, {"status": {"conditions": [condition] * 2}}, subresource="status")


COLUMNS = [
    (
        training_job,
        "char-lm Running verified Alice, Bob carol 2/2",
        "char-lm-1 2 of 2 pods are ready",
    ),
    (
        provenance_policy,
        'research Enforce ["team-*","default"] ["alice","ci"] 2 True',
        '["registry.example/**"] read and valid',
    ),
    (trust_root, "private True InForce", "read and valid"),
    (sealed_run, "char-lm-1 char-lm 1 Bound carol", "key-1 bound to 1 object"),
    (
        drift_report,
        "char-lm-worker-0 char-lm-worker-0 n1 char-lm-1 Critical",
        "file.changed",
    ),
    (
        access_record,
        'char-lm-1-0001 mallory Exec char-lm-worker-0 ["sh","-c","true"] false',
        'trainer n1 ["system:authenticated"] char-lm-1',
    ),
    (hold_release, "char-lm-1-0001 char-lm-1 0123456789abcdef carol", "seen, harmless"),
    (break_glass, "char-lm-1-0001 char-lm-1 ann carol 2026-11-23T12:00:00Z", '["Exec"] hangs'),
    (
        evidence_item,
        "char-lm-worker-0-u-0123456789abcdef file.changed /workspace/train.py 6 char-lm-worker-0",
        "n1 char-lm-1 sha256:526a",
    ),
]


@pytest.mark.parametrize(("sample", "shown", "wide"), COLUMNS)
def test_kubectl_get_tells_the_story(
    sample: Callable[[], Object],
    shown: str,
    wide: str,
    live: Callable[[Object], Object],
    api_server: ApiServer,
) -> None:
    obj = live(sample())
    kind = next(kind for kind in KINDS if kind.name == obj["kind"])
    if kind.status is not None:
        status = status_of(kind.name)
        api_server.patch(obj, {"status": status}, subresource="status")
    narrow = api_server.kubectl("get", kind.short_name, obj["metadata"]["name"], "--no-headers")
    assert " ".join(narrow.split()).startswith(shown)
    wider = api_server.kubectl(
        "get", kind.short_name, obj["metadata"]["name"], "--no-headers", "-o", "wide"
    )
    assert wide in " ".join(wider.split())


def test_a_new_job_shows_without_a_status(
    live: Callable[[Object], Object], api_server: ApiServer
) -> None:
    live(training_job())
    header, row = api_server.kubectl("get", "tj", "char-lm").splitlines()
    assert header.split() == [
        "NAME", "PHASE", "VERIFIED", "SIGNERS", "MISSING", "REQUESTER", "READY", "DRIFT", "AGE",
    ]  # fmt: skip
    assert row.split()[0] == "char-lm"


# --- size -----------------------------------------------------------------------------------


def test_a_policy_at_every_bound_stays_within_cels_budget(
    live: Callable[[Object], Object],
) -> None:
    obj = provenance_policy("largest")
    spec = obj["spec"]
    key = spec["authorities"][0]["key"]
    spec["authorities"] = [{"name": f"a{i:062}", "key": key} for i in range(64)]
    names = [authority["name"] for authority in spec["authorities"]]
    spec["requirements"] = {
        artifact: {"authorities": names, "threshold": 16} for artifact in ("job", "image", "code")
    }
    addition = spec["pods"]["additions"][0]
    addition["env"] = [{"name": f"E{i}", "valuePrefix": "v"} for i in range(64)]
    (container,) = addition["containers"]
    container["images"] = container["images"] * 8
    container["env"] = addition["env"]
    container["mounts"] = container["mounts"] * 16
    container["hooks"] = container["hooks"] * 8
    addition["containers"] = [container] * 4
    addition["volumes"] = addition["volumes"] * 8
    addition["mounts"] = addition["mounts"] * 16
    spec["pods"]["additions"] = [addition] * 32
    assert live(obj)["spec"] == spec


def test_a_job_with_a_large_template_can_be_suspended(
    live: Callable[[Object], Object], api_server: ApiServer
) -> None:
    obj = training_job("large")
    env = [{"name": f"E{i}", "value": "x" * 1000} for i in range(100)]
    template = pod_template()
    template["spec"]["containers"][0]["env"] = env
    obj["spec"]["roles"] = [
        {"name": f"r{i}", "replicas": 1, "template": template} for i in range(8)
    ]
    live(obj)
    assert api_server.patch(obj, {"spec": {"suspend": True}})["spec"]["suspend"] is True
