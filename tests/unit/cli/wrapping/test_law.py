"""The law of `trainseal wrap`: nothing is lost in silence; the same file gives the same bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from trainseal.cli.failures import Failure
from trainseal.cli.wrapping import report
from trainseal.cli.wrapping.ledger import Outcome
from trainseal.cli.wrapping.wrap import Wrapped, objects_of, wrap
from trainseal.provenance.document import FieldPath, ManifestError, format_path
from trainseal.provenance.podrules import CONTAINER_FIELDS, POD_FIELDS
from trainseal.provenance.yamlreader import read_documents

Object = dict[str, Any]
MANIFESTS = Path(__file__).parent / "manifests"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
#: Fields that are known to somebody, and one that nobody has heard of yet.
CONTAINER = sorted(
    CONTAINER_FIELDS - {"name", "image", "command", "args", "env", "securityContext"}
    | {"stdin", "tty", "envFrom", "volumeDevices", "resizePolicy", "brandNew"}
)  # fmt: skip
POD = sorted(
    POD_FIELDS - {"containers", "initContainers", "restartPolicy", "enableServiceLinks"}
    | {"hostNetwork", "hostAliases", "schedulingGates", "brandNew", "overhead", "subdomain"}
)  # fmt: skip
VOLUMES = ("emptyDir", "persistentVolumeClaim", "configMap", "secret", "hostPath", "nfs", "csi")
MARK = "\0"

#: Where a value of its own goes that stands nowhere else.
leaves = st.just(MARK)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=2)
        | st.dictionaries(st.sampled_from(["name", "value", "key", "odd"]), inner, min_size=1)
    ),
    max_leaves=4,
)
variables = st.fixed_dictionaries(
    {"name": leaves}, optional={"value": leaves, "valueFrom": trees}
) | st.fixed_dictionaries({"name": st.just("MASTER_ADDR"), "value": leaves})
env_from = st.fixed_dictionaries(
    {}, optional={"configMapRef": trees, "secretRef": trees, "prefix": leaves, "odd": leaves}
)
mounts = st.fixed_dictionaries(
    {"name": st.sampled_from(["v0", "v1", "v2"]), "mountPath": st.just("/mnt/" + MARK)},
    optional={"subPath": leaves, "subPathExpr": leaves, "mountPropagation": leaves, "odd": leaves},
)


@st.composite
def containers(draw: st.DrawFn) -> Object:
    found: Object = {"name": draw(leaves), "image": draw(leaves)}
    found |= draw(st.dictionaries(st.sampled_from(CONTAINER), trees, max_size=4))
    found |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "command": st.lists(leaves | st.just("git clone x"), max_size=3),
                "args": st.lists(leaves, max_size=2),
                "env": st.lists(variables, max_size=4),
                "envFrom": st.lists(env_from, max_size=2),
                "securityContext": st.just({"privileged": True, "runAsUser": MARK}),
                "volumeMounts": st.lists(mounts, max_size=3),
            },
        )
    )
    return found


@st.composite
def templates(draw: st.DrawFn) -> Object:
    kinds = [draw(st.sampled_from(VOLUMES)) for _ in range(3)]
    spec: Object = {
        "containers": draw(st.lists(containers(), min_size=1, max_size=2)),
        "initContainers": draw(st.lists(containers(), max_size=1)),
        "volumes": [{"name": f"v{i}", k: {"claimName": MARK}} for i, k in enumerate(kinds)],
    }
    spec |= draw(st.dictionaries(st.sampled_from(POD), trees, max_size=3))
    return {"metadata": draw(st.just({"labels": {"a": MARK}, "odd": MARK})), "spec": spec}


def job(pod: Object, other: Object) -> Object:
    return _object("batch/v1", "Job", {"template": pod, "brandNew": MARK, "backoffLimit": 3})


def jobset(pod: Object, other: Object) -> Object:
    jobs = [
        {"name": name, "replicas": 2, "odd": MARK, "template": {"spec": {"template": template}}}
        for name, template in (("a", pod), ("b", other))
    ]
    spec = {"replicatedJobs": jobs, "network": {"subdomain": "x"}, "odd": MARK}
    return _object("jobset.x-k8s.io/v1alpha2", "JobSet", spec)


def pytorchjob(pod: Object, other: Object) -> Object:
    replicas = {
        "Master": {"template": pod, "restartPolicy": "Always", "odd": MARK},
        "Worker": {"template": other, "replicas": 3, "odd": MARK},
    }
    spec = {
        "pytorchReplicaSpecs": replicas, "nprocPerNode": MARK, "runPolicy": {"odd": MARK},
        "elasticPolicy": {"rdzvId": MARK, "odd": MARK, "minReplicas": 1, "maxReplicas": 2},
    }  # fmt: skip
    return _object("kubeflow.org/v1", "PyTorchJob", spec)


def _object(version: str, kind: str, spec: Object) -> Object:
    metadata = {"name": "x", "namespace": "research", "annotations": {"a": MARK}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


objects = st.builds(
    lambda make, pod, other: make(pod, other),
    st.sampled_from([job, jobset, pytorchjob]),
    templates(),
    templates(),
)


def marked(value: Any, numbers: Iterator[int]) -> Any:
    """Each place with a word that stands nowhere else."""
    if isinstance(value, dict):
        return {k: marked(v, numbers) for k, v in value.items()}
    if isinstance(value, list):
        return [marked(v, numbers) for v in value]
    return value.replace(MARK, f"w{next(numbers)}w") if isinstance(value, str) else value


def words(value: Any, path: FieldPath = ()) -> Iterator[tuple[FieldPath, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from words(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from words(inner, (*path, index))
    elif isinstance(value, str) and value.endswith("w"):
        yield path, value


def wrapped(value: Object) -> Wrapped:
    manifest = objects_of(read_documents(yaml.safe_dump(value), "x.yaml"))
    return wrap(manifest, manifest.workloads[0], None, None, (), NOW)


def volumes_of_mounts_left(value: Object, found: Wrapped) -> set[str]:
    """A mount that is left says of its volume all that there is to say."""
    left = {note.path for note in found.notes if note.outcome is Outcome.LEFT}
    return {
        f"{pod}.volumes[{at}]"
        for pod, spec in pods(value)
        for at, volume in enumerate(spec["volumes"])
        for kind in ("containers", "initContainers")
        for index, container in enumerate(spec[kind])
        for place, mount in enumerate(container.get("volumeMounts", []))
        if mount["name"] == volume["name"]
        and f"{pod}.{kind}[{index}].volumeMounts[{place}]" in left
    }


def pods(value: Any, path: FieldPath = ()) -> Iterator[tuple[str, Object]]:
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from pods(inner, (*path, index))
    elif isinstance(value, dict) and "containers" in value:
        yield format_path(path), value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from pods(inner, (*path, key))


@settings(max_examples=60)
@given(objects)
def test_each_field_stands_in_the_job_or_in_what_is_said_of_it(value: Object) -> None:
    value = marked(value, count(100))
    found = wrapped(value)
    text = json.dumps(found.job)
    told = {note.path for note in found.notes} | volumes_of_mounts_left(value, found)
    lost = [
        format_path(path)
        for path, word in words(value)
        if word not in text and not any(format_path(path[:n]) in told for n in range(len(path) + 1))
    ]
    assert lost == []


@settings(max_examples=20)
@given(objects)
def test_the_same_file_gives_the_same_bytes_and_they_read_as_the_job(value: Object) -> None:
    value = marked(value, count(100))
    one, other = wrapped(value), wrapped(value)
    assert one.notes == other.notes
    text = report.manifest_yaml([one])
    assert text == report.manifest_yaml([other])
    assert [d.value for d in read_documents(text, "")] == [one.job]


JUNK: list[Any] = [
    None, True, 7, -1, "x", [], {}, ["x"], {"x": "y"}, [{"name": "x"}], [[]], "9" * 5000,
]  # fmt: skip
junk = st.sampled_from(JUNK)


# To find the least example takes minutes, and the one that was found says enough.
@settings(max_examples=100, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.sampled_from(["mnist", "jobset", "job", "trainjob"]), st.data())
def test_whatever_stands_in_a_field_there_is_an_answer(name: str, data: st.DataObject) -> None:
    values = [*yaml.safe_load_all((MANIFESTS / f"{name}.yaml").read_text())]
    values += [yaml.safe_load((MANIFESTS / "runtime.yaml").read_text())]
    for _ in range(data.draw(st.integers(1, 3))):
        places = [(o, k) for value in values for o, k in _places(value)]
        held, key = data.draw(st.sampled_from(places))
        held[key] = copy.deepcopy(data.draw(junk))
    try:
        manifest = objects_of(read_documents(yaml.safe_dump_all(values), "x.yaml"))
        for workload in manifest.workloads:
            runtime = manifest.runtime("ClusterTrainingRuntime", "torch", "research")
            found = wrap(manifest, workload, "research", runtime, (), NOW)
            assert report.manifest_yaml([found])
            assert all([*report.lines(found.notes)])
    except (Failure, ManifestError):
        pass


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in [*(value.items() if isinstance(value, dict) else enumerate(value))]:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)
