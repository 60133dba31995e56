"""The command line with real registries, a real API server, and other people's tools."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from tests import local_registry
from tests.cluster.ports import free_port
from tests.integration.conftest import ApiServer
from tests.integration.registry.conftest import tool
from tests.local_registry import Registry
from tests.small_image import push_image
from tests.unit.cli.conftest import Answer, key_file
from trainseal.api.crd import KINDS
from trainseal.cli.failures import run
from trainseal.cli.main import app
from trainseal.provenance.keys import private_key_of
from trainseal.provenance.yamlreader import read_documents
from trainseal.registry.client import RegistryClient
from trainseal.registry.code import CodeEvidence, code_evidence
from trainseal.registry.references import Reference
from trainseal.registry.transport import Options

PASSWORD = "correct horse"
JOB = """\
# reviewed on Mondays
apiVersion: trainseal.dev/v1alpha1
kind: TrainingJob
metadata:
  name: char-lm
  namespace: default
spec:
  engine: Job
  code:
  - {{name: trainer, mountPath: /workspace, oci: {{reference: {code}}}}}
  config:
    mountPath: /etc/training
    parameters: {{learning_rate: 3e-4, note: "yes"}}   # tuned
  scratch:
  - mountPath: /tmp
  roles:
  - name: worker
    replicas: 2
    template:
      spec:
        containers:
        - name: trainer
          image: {image}  # by its tag
          command: [python3, /workspace/train.py]
"""


@dataclass(frozen=True)
class Desk:
    """A person's folder: keys, a tree, a policy; and the commands they type there."""

    folder: Path
    registry: Registry
    capture: pytest.CaptureFixture[str]
    cosign: Path
    cluster: tuple[str, ...] = ()

    def trainseal(self, *arguments: str) -> Answer:
        self.capture.readouterr()
        code = run(app, arguments)
        captured = self.capture.readouterr()
        return Answer(code, captured.out, captured.err)

    def does(self, *arguments: str) -> str:
        """What the command prints on stdout; it must succeed."""
        answer = self.trainseal(*arguments)
        assert answer.code == 0, answer.err + answer.out
        return answer.out

    def run_cosign(self, *arguments: str) -> None:
        environment = os.environ | {"COSIGN_PASSWORD": PASSWORD, "HOME": str(self.folder)}
        subprocess.run(
            [str(self.cosign), *arguments], cwd=self.folder, env=environment, check=True,
            capture_output=True,
        )  # fmt: skip

    def push_image(self) -> str:
        """An image of this desk's own; its reference by a tag."""
        where = self.registry.repository("image")

        async def push() -> None:
            options = Options(plain_http=frozenset({self.registry.address}))
            async with RegistryClient(options) as client:
                await push_image(client, where)

        asyncio.run(push())
        return f"{where}:amd64"

    def sign_code(self, push: str | Reference, key: str = "alice.key") -> Reference:
        return Reference.parse(
            self.does("sign", "code", "tree", "--key", key, "--push", str(push)).strip()
        )

    def evidence(self, reference: Reference) -> CodeEvidence:
        async def read() -> CodeEvidence:
            options = Options(plain_http=frozenset({self.registry.address}))
            async with RegistryClient(options) as client:
                return await code_evidence(client, reference)

        return asyncio.run(read())

    def write_job(self, image: str, code: str | Reference) -> Path:
        path = self.folder / "job.yaml"
        path.write_text(JOB.format(image=image, code=code))
        return path

    def image_in_job(self) -> str:
        found = re.search(r"image: (\S+)", (self.folder / "job.yaml").read_text())
        assert found is not None
        return found[1]

    def verify(self) -> Any:
        """The verdicts, after the exit code was held to the outcome."""
        answer = self.trainseal("verify", "-f", "job.yaml", "--policy", "policy.yaml", "-o", "json")
        found = json.loads(answer.out)
        assert answer.code == {"verified": 0, "refuted": 1, "undetermined": 2}[found["outcome"]]
        return found


@pytest.fixture(scope="module", params=["referrers-api", "tag-fallback"])
def registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    if request.param == "referrers-api":
        program, start = "registry", local_registry.registry_with_referrers
    else:
        program, start = "distribution", local_registry.registry_without_referrers
    with start(tool(program), folder) as found:
        yield found


@pytest.fixture
def desk(
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Desk:
    """Alice has a PEM key, the platform team one of cosign's; the policy names both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINSEAL_PLAIN_HTTP", registry.address)
    monkeypatch.setenv("COSIGN_PASSWORD", PASSWORD)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    found = Desk(tmp_path, registry, capsys, tool("cosign"))
    found.run_cosign("generate-key-pair", "--output-key-prefix", "platform")
    alice = private_key_of(ec.generate_private_key(ec.SECP256R1()))
    key_file(tmp_path / "alice.key", alice)
    key_file(tmp_path / "mallory.key", private_key_of(ec.generate_private_key(ec.SECP256R1())))
    (tmp_path / "alice.pub").write_text(alice.public.pem)
    (tmp_path / "tree" / "package").mkdir(parents=True)
    (tmp_path / "tree" / "train.py").write_text("import package\n")
    (tmp_path / "tree" / "package" / "__init__.py").write_text("")
    policy = {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "ProvenancePolicy",
        "metadata": {"name": "ours"},
        "spec": {
            "mode": "Enforce",
            "authorities": [
                {"name": name, "key": {"publicKey": (tmp_path / f"{name}.pub").read_text()}}
                for name in ("alice", "platform")
            ],
            "requirements": {
                "job": {"authorities": ["alice", "platform"]},
                "code": {"authorities": ["alice"]},
                "image": {"authorities": ["platform"]},
            },
            "registries": {"allow": [f"{registry.address}/**"]},
        },
    }
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    return found


# Code -------------------------------------------------------------------------------------------


def test_model_signing_verifies_the_tree_with_the_bundle_that_was_attached(desk: Desk) -> None:
    verifying = pytest.importorskip("model_signing.verifying")
    pushed = desk.evidence(desk.sign_code(desk.registry.repository()))
    ((_, bundle),) = pushed.bundles
    signature = desk.folder / "tree.sig"
    signature.write_bytes(bundle)

    def verify() -> None:
        config = verifying.Config().use_elliptic_key_verifier(public_key=desk.folder / "alice.pub")
        config.verify(desk.folder / "tree", signature)

    verify()
    (desk.folder / "tree" / "train.py").write_text("import evil\n")
    with pytest.raises(ValueError, match="mismatch"):
        verify()


def test_an_unchanged_tree_and_key_add_nothing_a_second_key_adds_a_bundle(desk: Desk) -> None:
    where = desk.registry.repository()
    first = desk.sign_code(where)
    assert desk.sign_code(where) == first
    assert len(desk.evidence(first).bundles) == 1
    assert desk.sign_code(where, "platform.key") == first
    assert len(desk.evidence(first).bundles) == 2
    (desk.folder / "tree" / "train.py").write_text("import package, sys\n")
    assert desk.sign_code(where) != first


def test_standard_output_is_the_reference_by_digest_and_nothing_else(desk: Desk) -> None:
    where = desk.registry.repository().tagged("main")
    out = desk.does("sign", "code", "tree", "--key", "alice.key", "--push", str(where))
    assert re.fullmatch(rf"{where.repository_name}@sha256:[0-9a-f]{{64}}\n", out)


def test_a_tree_with_a_link_is_refused_by_name(desk: Desk) -> None:
    (desk.folder / "tree" / "data").symlink_to("/etc")
    answer = desk.trainseal(
        "sign", "code", "tree", "--key", "alice.key", "--push", str(desk.registry.repository())
    )
    assert answer.code == 64
    assert "data: found a symbolic link" in answer.err


# Jobs and images --------------------------------------------------------------------------------


@pytest.fixture
def signed(desk: Desk) -> Desk:
    """A job by tags, signed by Alice; its image not signed yet."""
    desk.write_job(desk.push_image(), desk.sign_code(desk.registry.repository()))
    desk.does("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    return desk


def sign_image(desk: Desk, key: str, *flags: str) -> None:
    desk.run_cosign(
        "sign", f"--key={key}", "--use-signing-config=false", "--tlog-upload=false", "-y",
        "--allow-http-registry", *flags, desk.image_in_job(),
    )  # fmt: skip


@pytest.mark.parametrize("form", ["bundle", "older"])
def test_a_signed_job_with_an_image_signed_by_cosign_is_verified(signed: Desk, form: str) -> None:
    """With a referrers API and without, the three places where cosign puts a signature."""
    unsigned = signed.verify()
    assert {v["artifact"]: v["outcome"] for v in unsigned["verdicts"]} == {
        "job": "verified",
        "image": "refuted",
        "code": "verified",
    }
    flags = ["--new-bundle-format=false"] if form == "older" else []
    sign_image(signed, "platform.key", *flags)
    assert signed.verify()["outcome"] == "verified"


def test_an_image_signed_by_somebody_else_is_refuted(signed: Desk) -> None:
    signed.run_cosign("generate-key-pair", "--output-key-prefix", "other")
    sign_image(signed, "other.key")
    assert signed.verify()["outcome"] == "refuted"


def test_a_key_of_cosigns_signs_a_job(signed: Desk) -> None:
    sign_image(signed, "platform.key")
    signed.does("sign", "job", "-f", "job.yaml", "--key", "platform.key")
    (job,) = [v for v in signed.verify()["verdicts"] if v["artifact"] == "job"]
    assert [s["person"] for s in job["signers"]] == ["alice", "platform"]


def test_a_bundle_of_plain_cosign_over_the_canonical_bytes_is_accepted(desk: Desk) -> None:
    desk.write_job(desk.push_image(), desk.sign_code(desk.registry.repository()))
    desk.does("sign", "job", "-f", "job.yaml", "--key", "mallory.key")  # puts the digests in
    sign_image(desk, "platform.key")
    assert desk.verify()["outcome"] == "refuted"
    (desk.folder / "canonical").write_text(desk.does("canonical", "-f", "job.yaml"))
    desk.run_cosign(
        "sign-blob", "--key=platform.key", "--bundle=bundle.json", "--use-signing-config=false",
        "--tlog-upload=false", "-y", "canonical",
    )  # fmt: skip
    bundle = json.loads((desk.folder / "bundle.json").read_text())
    with (desk.folder / "job.yaml").open("a") as file:
        file.write(f"  - bundle: {json.dumps(bundle)}\n")
    assert desk.verify()["outcome"] == "verified"
    job = desk.folder / "job.yaml"
    job.write_text(job.read_text().replace("3e-4", "3e-3"))
    assert desk.verify()["outcome"] == "refuted"


def test_a_registry_that_is_down_is_undetermined_and_not_an_unsigned_artifact(
    signed: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = signed.folder / "job.yaml"
    dead = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("TRAINSEAL_PLAIN_HTTP", dead)
    for name in ("job.yaml", "policy.yaml"):
        path = signed.folder / name
        path.write_text(path.read_text().replace(signed.registry.address, dead))
    signed.does("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    found = signed.verify()
    assert found["outcome"] == "undetermined"
    assert {v["artifact"] for v in found["verdicts"] if v["outcome"] == "undetermined"} == {
        "image",
        "code",
    }
    assert job.exists()


def test_a_tag_that_is_not_there_is_said_and_nothing_is_signed(desk: Desk) -> None:
    where = desk.registry.repository()
    job = desk.write_job(f"{where}:absent", desk.sign_code(desk.registry.repository()))
    before = job.read_text()
    answer = desk.trainseal("sign", "job", "-f", "job.yaml", "--key", "alice.key")
    assert answer.code == 1
    assert f"{where}:absent" in answer.err
    assert job.read_text() == before


# The cluster ------------------------------------------------------------------------------------


one_registry = pytest.mark.parametrize("registry", ["referrers-api"], indirect=True)


@pytest.fixture
def at_cluster(signed: Desk, api_server: ApiServer) -> Iterator[Desk]:
    """The desk with a cluster: an API server that stores jobs, and nobody who runs them."""
    yield replace(signed, cluster=("--kubeconfig", str(api_server.kubeconfig)))
    api_server.delete(live_job())


def live_job() -> dict[str, Any]:
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "char-lm", "namespace": "default"},
    }


def submit(desk: Desk, *arguments: str) -> Answer:
    return desk.trainseal(
        "submit",
        "-f",
        "job.yaml",
        "--key",
        "alice.key",
        "--code",
        "tree",
        *arguments,
        *desk.cluster,
    )


@one_registry
def test_kubectl_reads_the_signed_file_as_it_was_signed(
    at_cluster: Desk, api_server: ApiServer
) -> None:
    text = (at_cluster.folder / "job.yaml").read_text()
    assert text.startswith("# reviewed on Mondays\n")
    assert "# tuned" in text
    assert re.search(r"image: \S+:amd64@sha256:[0-9a-f]{64}  # by its tag", text)
    read = api_server.kubectl("create", "--dry-run=client", "-o", "json", "-f", "-", stdin=text)
    (at_cluster.folder / "stored.json").write_text(read)
    digest = at_cluster.does("digest", "-f", "job.yaml")
    assert at_cluster.does("digest", "-f", "stored.json") == digest


@one_registry
def test_what_is_submitted_is_stored_with_the_digest_that_was_signed(
    at_cluster: Desk, api_server: ApiServer
) -> None:
    (at_cluster.folder / "tree" / "train.py").write_text("import package, sys\n")
    assert submit(at_cluster, "--wait", "none").code == 0
    stored = api_server.get(live_job())
    (at_cluster.folder / "stored.json").write_text(json.dumps(stored))
    digest = at_cluster.does("digest", "-f", "job.yaml")
    assert at_cluster.does("digest", "-f", "stored.json") == digest
    assert len(stored["spec"]["signatures"]) == 1  # the one over the tree before is gone
    (written,) = read_documents((at_cluster.folder / "job.yaml").read_bytes(), "job.yaml")
    assert written.value["spec"] == stored["spec"]


@one_registry
def test_a_finished_job_is_replaced_only_where_that_is_asked_for(
    at_cluster: Desk, api_server: ApiServer
) -> None:
    assert submit(at_cluster, "--wait", "none").code == 0
    first = api_server.get(live_job())["metadata"]["uid"]
    status = {"status": {"phase": "Succeeded", "message": "all workers completed"}}
    api_server.patch(live_job(), status, subresource="status")
    refused = submit(at_cluster, "--wait", "none")
    assert refused.code == 1
    assert "--replace" in refused.err
    assert submit(at_cluster, "--wait", "none", "--replace").code == 0
    assert api_server.get(live_job())["metadata"]["uid"] != first


@one_registry
def test_the_status_of_a_submitted_job_is_shown(at_cluster: Desk, api_server: ApiServer) -> None:
    assert submit(at_cluster, "--wait", "none").code == 0
    assert "default/char-lm Pending" in at_cluster.does("status", "char-lm", *at_cluster.cluster)
    status = {"status": {"phase": "Running", "message": "2/2 workers ready", "requester": "bob"}}
    api_server.patch(live_job(), status, subresource="status")
    found = json.loads(at_cluster.does("status", "char-lm", "-o", "json", *at_cluster.cluster))
    assert (found["phase"], found["requester"]) == ("Running", "bob")


@one_registry
def test_a_job_that_runs_ends_the_wait_and_one_that_fails_ends_it_with_1(
    at_cluster: Desk, api_server: ApiServer
) -> None:
    assert submit(at_cluster, "--wait", "none").code == 0
    status = {"status": {"phase": "Running", "message": "2/2 workers ready"}}
    api_server.patch(live_job(), status, subresource="status")
    assert "Running: 2/2 workers ready" in submit(at_cluster).err
    status = {"status": {"phase": "Failed", "message": "gate of pod x: train.py: changed"}}
    with following(at_cluster) as watching:
        api_server.patch(live_job(), status, subresource="status")
        assert watching.wait(60) == 1
        assert watching.stderr is not None
        assert "train.py: changed" in watching.stderr.read()


@one_registry
def test_interrupted_it_ends_at_once_with_130_and_without_a_traceback(at_cluster: Desk) -> None:
    with following(at_cluster) as watching:
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 130
        assert watching.stderr is not None
        rest = watching.stderr.read()
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "interrupted"


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class following:  # noqa: N801 - a context manager
    """A submit that has said where the job is, and waits for its end."""

    def __init__(self, desk: Desk) -> None:
        command = [
            sys.executable, "-m", "trainseal.cli.main", "submit", "-f", "job.yaml",
            "--key", "alice.key", "--wait", "end", *desk.cluster,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command,
            cwd=desk.folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            # As from a terminal: what a script starts in the background inherits that the
            # interrupt is ignored.
            preexec_fn=_interruptible,
        )

    def __enter__(self) -> subprocess.Popen[str]:
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if line.startswith(("Pending", "Running")):
                return self.process
        raise AssertionError(f"it ended before it followed anything: {said}")

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@one_registry
def test_the_doctor_says_what_a_cluster_without_the_chart_lacks(at_cluster: Desk) -> None:
    answer = at_cluster.trainseal("doctor", *at_cluster.cluster)
    assert answer.code == 1
    assert f"all {len(KINDS)} are served" in answer.out
    assert "nothing is enforced" in answer.out
    assert "no Deployment in namespace trainseal-system" in answer.out
