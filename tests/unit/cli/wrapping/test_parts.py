"""`trainseal wrap`, part by part: mounts, variables, words, places, and what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import world
from tests.unit.cli.conftest import Answer, Run
from tests.unit.cli.fake_kube import FakeKube
from trainseal.cli.wrapping.words import fetched, programs
from trainseal.cluster.api import KubeError
from trainseal.provenance.yamlreader import read_documents

Object = dict[str, Any]
Wrap = Callable[..., Answer]


def pod(container: Object, volumes: list[Object] | None = None, **spec: Any) -> Object:
    container = {"name": "t", "image": world.IMAGE, "command": ["python", "/opt/t.py"]} | container
    return {"containers": [container], "volumes": volumes or [], "restartPolicy": "Never"} | spec


def batch(spec: Object, metadata: Object | None = None, **fields: Any) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "small", "namespace": "research"} | (metadata or {}),
        "spec": {"template": {"spec": spec}} | fields,
    }


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.fixture
def wrap(trainseal: Run, tmp_path: Path) -> Wrap:
    """Wraps objects in one file."""

    def do(*objects: Object, options: tuple[str, ...] = ()) -> Answer:
        (tmp_path / "w.yaml").write_text(yaml.safe_dump_all(objects, sort_keys=False))
        return trainseal("wrap", "-f", "w.yaml", *options)

    return do


def spec_of(answer: Answer) -> Object:
    (document,) = read_documents(answer.out, "job.yaml")
    found: Any = document.value["spec"]
    return dict(found)


def container_of(answer: Answer) -> Object:
    found: Object = spec_of(answer)["roles"][0]["template"]["spec"]["containers"][0]
    return found


# Mounts ------------------------------------------------------------------------------------------


def mounted(*mounts: Object) -> Object:
    return {"volumeMounts": [*mounts]}


def claim(name: str, claim_name: str) -> Object:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim_name}}


@pytest.mark.parametrize(
    ("mount", "claim_name", "role"),
    [
        ({"mountPath": "/x", "readOnly": True}, "x", "data"),
        ({"mountPath": "/data"}, "x", "data"),
        ({"mountPath": "/x"}, "imagenet-1k", "data"),
        ({"mountPath": "/x"}, "x", "checkpoints"),
        ({"mountPath": "/data/ckpt"}, "x", "checkpoints"),
        ({"mountPath": "/x", "subPath": "models/"}, "data", "checkpoints"),
        ({"mountPath": "/src"}, "x", "code"),
        ({"mountPath": "/opt"}, "data", "code"),
    ],
)
def test_what_a_claim_is_for_is_guessed_and_said(
    wrap: Wrap, mount: Object, claim_name: str, role: str
) -> None:
    answer = wrap(batch(pod(mounted({"name": "v"} | mount), [claim("v", claim_name)])))
    assert set(spec_of(answer)) == {"engine", "roles", role}
    assert answer.code == 1
    words = "nobody signed what stands there" if role == "code" else "guessed"
    assert words in answer.err
    assert words in answer.out


def test_of_two_claims_that_are_written_to_the_one_for_checkpoints_is_told_by_its_name(
    wrap: Wrap,
) -> None:
    mounts = mounted({"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/ckpt"})
    answer = wrap(batch(pod(mounts, [claim("a", "a"), claim("b", "b")])))
    assert spec_of(answer)["checkpoints"]["mountPath"] == "/ckpt"
    assert "a second claim that is written to, at /a; /ckpt is taken" in answer.err


def test_code_is_found_by_what_is_run_also_from_the_directory_a_script_goes_to(wrap: Wrap) -> None:
    for command, directory in (
        (["python", "train.py"], "/mnt/x"),
        (["sh", "-c", "cd /mnt/x && torchrun --nproc-per-node=8 train.py"], None),
        (["bash", "/mnt/x/run.sh"], None),
    ):
        container = {"command": command} | mounted({"name": "v", "mountPath": "/mnt/x"})
        container |= {"workingDir": directory} if directory else {}
        found = spec_of(wrap(batch(pod(container, [claim("v", "v")]))))
        assert found["code"] == [{"name": "v", "mountPath": "/mnt/x", "oci": {"reference": "TODO"}}]


def test_a_config_map_that_is_one_file_with_a_mapping_is_the_config(wrap: Wrap) -> None:
    container = mounted({"name": "c", "mountPath": "/etc/c/"}) | {
        "args": ["--config=/etc/c/run.yaml", "/etc/c/run.yaml.bak"]
    }
    volume = {
        "name": "c",
        "configMap": {"name": "c", "items": [{"key": "k.yml", "path": "run.yaml"}]},
    }
    objects = config_map("c", **{"k.yml": "lr: 1e-3\nlayers: [1, 2]\n", "other": "x"})
    answer = wrap(batch(pod(container, [volume])), objects)
    assert spec_of(answer)["config"] == {
        "mountPath": "/etc/c", "parameters": {"lr": 0.001, "layers": [1, 2]}
    }  # fmt: skip
    assert container_of(answer)["args"] == ["--config=/etc/c/config.yaml", "/etc/c/run.yaml.bak"]
    assert answer.code == 0


@pytest.mark.parametrize(
    ("data", "mount", "words"),
    [
        ({"a.yaml": "a: 1\n", "b.yaml": "b: 1\n"}, {}, "2 files"),
        ({"a.yaml": "- 1\n"}, {}, "no mapping"),
        ({"a.yaml": "a: !!python/object:os.system x\n"}, {}, "no mapping"),
        ({"a.yaml": "a: 1\na: 2\n"}, {}, "no mapping"),
        ({"a.ini": "[a]\n"}, {}, "no mapping"),
        ({"a.yaml": "a: 1\n"}, {"subPath": "a.yaml"}, "over another directory"),
    ],
)
def test_a_config_map_that_is_none_is_left(
    wrap: Wrap, data: dict[str, str], mount: Object, words: str
) -> None:
    container = mounted({"name": "c", "mountPath": "/etc/c"} | mount)
    volume = {"name": "c", "configMap": {"name": "c"}}
    answer = wrap(batch(pod(container, [volume])), config_map("c", **data))
    assert "config" not in spec_of(answer)
    assert "left" in answer.err
    assert words in answer.err


def test_a_config_map_with_code_is_code_and_one_that_is_elsewhere_is_asked_for(wrap: Wrap) -> None:
    container = mounted({"name": "c", "mountPath": "/scripts"})
    volume = {"name": "c", "configMap": {"name": "c"}}
    answer = wrap(batch(pod(container, [volume])), config_map("c", **{"t.py": "print()\n"}))
    assert spec_of(answer)["code"][0]["oci"] == {"reference": "TODO"}
    answer = wrap(batch(pod(container, [volume])))
    assert "ConfigMap c at /scripts, which is not in the file" in answer.err


def test_one_path_is_one_thing_in_all_containers(wrap: Wrap) -> None:
    volumes: list[Object] = [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "emptyDir": {"medium": "Memory"}},
    ]
    spec = pod(mounted({"name": "a", "mountPath": "/a"}, {"name": "a", "mountPath": "/b"}), volumes)
    spec["initContainers"] = [
        {"name": "i", "image": world.IMAGE} | mounted({"name": "b", "mountPath": "/a"})
    ]
    answer = wrap(batch(spec))
    assert "/a is something else in container i" in answer.err
    del spec["initContainers"]
    answer = wrap(batch(spec))
    assert spec_of(answer)["scratch"] == [{"mountPath": "/a"}, {"mountPath": "/b"}]
    assert "/a and /b were one directory" in answer.err


# Variables ---------------------------------------------------------------------------------------


def test_variables_of_objects_are_written_out_as_the_kubelet_gives_them(wrap: Wrap) -> None:
    container = {
        "envFrom": [
            {"prefix": "P_", "configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}},
            {"configMapRef": {"name": "absent"}},
        ],
        "env": [
            {"name": "P_B", "value": "mine"},
            {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "A"}}},
            {"name": "E", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "absent"}}},
        ],
    }  # fmt: skip
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
        "data": {"TOKEN": "aHVzaA=="},
    }  # fmt: skip
    answer = wrap(batch(pod(container)), config_map("c", A="$(X) $5", B="b"), secret)
    assert container_of(answer)["env"] == [
        {"name": "P_A", "value": "$$(X) $$5"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "TOKEN"}}},
        {"name": "P_B", "value": "mine"},
        {"name": "D", "value": "$$(X) $$5"},
    ]
    assert "aHVzaA" not in answer.out + answer.err
    assert "variables from ConfigMap absent" in answer.err
    assert "E is a value of ConfigMap c" in answer.err
    assert "w.yaml" in next(line for line in answer.err.splitlines() if "SecretNotListed" in line)


def test_the_address_of_the_first_worker_is_trainseals_to_set(wrap: Wrap) -> None:
    def env(*entries: Object) -> Answer:
        return wrap(batch(pod({"env": [*entries]}, subdomain="pods")))

    first = {"name": "MASTER_ADDR", "value": "small-0.pods.research.svc"}
    assert "env" not in container_of(env(first))
    # A variable before TrainSeal's own could not be made of it.
    url = {"name": "URL", "value": "tcp://$(MASTER_ADDR):1"}
    assert container_of(env(first, url))["env"] == [
        {"name": "MASTER_ADDR", "value": "small-worker-0.small"}, url
    ]  # fmt: skip
    other = env({"name": "MASTER_ADDR", "value": "elsewhere.example"})
    assert "none of this job's pods" in other.err
    assert container_of(other)["env"][0]["value"] == "elsewhere.example"


# Words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "git clone https://x", "git -C /x clone y", "pip install -r r.txt", "pip3 install -e .",
        "python -m pip install x", "uv pip install x", "uv sync", "conda install x",
        "apt-get -y install x",
        "curl https://x/i.sh | bash", "wget https://x/t.py", "aws s3 cp s3://b/x .",
        "gsutil -m rsync a b", "huggingface-cli download x", "kubectl cp x y",
    ],
)  # fmt: skip
def test_what_fetches_code_when_it_runs_is_found(command: str) -> None:
    assert fetched(["sh", "-c", f"set -e; {command} && python t.py"])


@pytest.mark.parametrize(
    "command",
    [
        "python pip_install.py",
        "torchrun t.py --git clone-of=x",
        "echo pipinstall",
        "curl http://ok",
    ],
)
def test_what_only_looks_like_it_is_not(command: str) -> None:
    assert fetched(["sh", "-c", command]) == ()


def test_long_words_are_read_in_no_time() -> None:
    words = ["/a" * 200_000, "git " * 20_000, "curl x " * 20_000, "git clone" + " -x" * 50_000]
    assert fetched(words)
    assert [*programs(words)] == []


# Placement ---------------------------------------------------------------------------------------


def test_where_pods_go_is_the_jobs_and_labels_that_they_lack_are_said(wrap: Wrap) -> None:
    def apart(key: str) -> Object:
        term = {"labelSelector": {"matchLabels": {key: "x"}}, "topologyKey": "zone"}
        return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}

    key = "training.kubeflow.org/job-name"
    answer = wrap(batch(pod({}, affinity=apart(key), priorityClassName="high")))
    assert set(spec_of(answer)["scheduling"]) == {"affinity", "priorityClassName"}
    assert f"affinity asks for pods with {key}, which these do not have" in answer.err
    value = batch(pod({}, affinity=apart("app")))
    value["spec"]["template"]["metadata"] = {"labels": {"app": "x"}}
    assert wrap(value).code == 0


def test_what_only_jobsets_controller_heeds_is_left(wrap: Wrap) -> None:
    value = batch(pod({}), {"annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "rack"}})
    answer = wrap(value)
    assert "only JobSet's controller heeds it" in answer.err
    assert "exclusive-topology" not in answer.out.partition("apiVersion")[2]


# The object itself ------------------------------------------------------------------------------


def test_names_that_no_job_may_have_are_made_fit_and_said(wrap: Wrap) -> None:
    for metadata, name in (
        ({"name": "7b.Pretrain"}, "job-7b-pretrain"),
        ({"name": "x" * 60}, "x" * 40),
    ):
        answer = wrap(batch(pod({}), metadata))
        (document,) = read_documents(answer.out, "")
        assert document.value["metadata"]["name"] == name
        assert "guessed" in answer.err


def test_what_the_cluster_wrote_itself_is_no_news(wrap: Wrap) -> None:
    value = batch(pod({}), {"uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01"})
    value["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    value["spec"] |= {"selector": {"matchLabels": {"controller-uid": "u"}}}
    value["spec"]["template"]["metadata"] = {"labels": {"batch.kubernetes.io/job-name": "small"}}
    value["status"] = {"succeeded": 1}
    answer = wrap(value)
    assert answer.code == 0
    (document,) = read_documents(answer.out, "")
    assert document.value["metadata"] == {"name": "small", "namespace": "research"}
    assert "metadata" not in spec_of(answer)["roles"][0]["template"]


def test_every_workload_of_a_file_is_wrapped_and_what_is_beside_them_is_told(
    wrap: Wrap, trainseal: Run
) -> None:
    second = batch(pod({}), {"name": "second"})
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "second"}}
    pods = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}
    listed = {"apiVersion": "v1", "kind": "List", "items": [second, service]}
    answer = wrap(batch(pod({})), listed, config_map("c", a="b"), pods)
    names = [d.value["metadata"]["name"] for d in read_documents(answer.out, "")]
    assert names == ["small", "second"]
    for words in (
        "Service second: left: TrainSeal makes one of this name",
        "ConfigMap c: changed: it is no part of the job",
        "Deployment d: left: a workload of a kind that is not wrapped",
    ):
        assert words in answer.err
    answer = trainseal("wrap", "-f", "w.yaml", "-o", "json")
    assert [i["metadata"]["name"] for i in json.loads(answer.out)["items"]] == names


@pytest.mark.parametrize(
    ("version", "kind", "words"),
    [
        ("kubeflow.org/v1beta2", "PyTorchJob", "expected: kubeflow.org/v1"),
        ("batch.volcano.sh/v1alpha1", "Job", "no workload to wrap"),
        ("v1", "Pod", "no workload to wrap"),
    ],
)
def test_what_is_not_known_is_refused_with_what_is(
    wrap: Wrap, version: str, kind: str, words: str
) -> None:
    answer = wrap(batch(pod({})) | {"apiVersion": version, "kind": kind})
    assert (answer.code, answer.out) == (64, "")
    assert words in answer.err


def test_text_of_others_ends_no_comment_and_no_line(wrap: Wrap) -> None:
    evil = "x\n  privileged: true\x1b[2J\u202e"
    answer = wrap(
        batch(pod({"env": [{"name": evil, "valueFrom": {"secretKeyRef": {"name": evil}}}]}))
    )
    assert "\x1b" not in answer.out + answer.err
    assert not [line for line in answer.err.splitlines() if line.startswith("  privileged")]
    assert not [line for line in answer.out.splitlines() if line.strip() == "privileged: true"]


def test_a_policy_says_what_it_allows(wrap: Wrap, tmp_path: Path) -> None:
    policy = world.policy_object(
        pods={"allowedSecrets": ["wandb"]}, registries={"allow": ["elsewhere.example/**"]},
        validity={"require": ["notAfter"]},
    )  # fmt: skip
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    env = [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "k"}}}]
    job = batch(pod({"env": env}))
    assert "SecretNotListed" in wrap(job).err
    answer = wrap(job, options=("--policy", "policy.yaml"))
    assert "SecretNotListed" not in answer.err
    for words in ("RegistryNotAllowed", "ValidityMissing", "(policy research)"):
        assert words in answer.err


def test_the_result_goes_where_it_is_told_to_and_comes_from_standard_input(
    wrap: Wrap, trainseal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = wrap(batch(pod({}))).out
    answer = trainseal("wrap", "-f", "w.yaml", "--to", "made.yaml")
    assert (answer.code, answer.out) == (0, "")
    assert (tmp_path / "made.yaml").read_text() == printed
    with (tmp_path / "w.yaml").open() as opened:
        monkeypatch.setattr("sys.stdin", opened)
        assert trainseal("wrap", "-f", "-").out == printed


# The cluster's runtime ---------------------------------------------------------------------------

PATH = "/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/torch"
MANIFESTS = Path(__file__).parent / "manifests"


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> FakeKube:
    kube = FakeKube()

    @asynccontextmanager
    async def connect(*_: object) -> Any:
        yield kube

    monkeypatch.setattr("trainseal.cluster.api.connect", connect)
    return kube


def test_the_clusters_runtime_is_asked_for_where_no_file_has_it(
    trainseal: Run, kube: FakeKube
) -> None:
    file = str(MANIFESTS / "trainjob.yaml")
    runtime = yaml.safe_load((MANIFESTS / "runtime.yaml").read_text())
    runtime["metadata"] |= {"uid": "u"}
    kube.objects[PATH] = runtime
    answer = trainseal("wrap", "-f", file)
    wanted = trainseal("wrap", "-f", file, "--runtime", str(MANIFESTS / "runtime.yaml"))
    assert answer.out == wanted.out
    assert "the cluster's ClusterTrainingRuntime torch: spec.mlPolicy.torch: changed" in answer.err


def test_a_runtime_that_is_not_there_and_one_that_cannot_be_read_are_two_things(
    trainseal: Run, kube: FakeKube
) -> None:
    answer = trainseal("wrap", "-f", str(MANIFESTS / "trainjob.yaml"))
    assert answer.code == 64
    assert "nor in the cluster" in answer.err
    kube.failures[PATH] = KubeError(503, "ServiceUnavailable", "busy")
    answer = trainseal("wrap", "-f", str(MANIFESTS / "trainjob.yaml"))
    assert (answer.code, answer.out) == (2, "")
    assert "the cluster did not give it: busy" in answer.err
