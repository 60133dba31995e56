"""The demo, played through without a cluster: stand-ins answer for the programs of the cluster.

The shell, sed and diff are real, so that what people type there does what it should; `trainseal`'s
own command line reads what they type of it. What the cluster makes of it, only `make demo` shows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperCommand, TyperGroup

from tests.cluster import Target
from tests.cluster.toolchain import Tools
from tests.demo.actors import DemoError
from tests.demo.acts import Play
from tests.demo.show import Show
from tests.demo.world import World
from tests.stage.people import with_openssl_key
from trainseal.api.policy import ProvenancePolicy
from trainseal.api.trainingjob import TrainingJob
from trainseal.cli.main import app

DIGEST = "sha256:" + "0" * 64
PROGRAMS = ("kubectl", "helm", "cosign", "crane", "trainseal")

#: Records its words; then the first answer, one of whose keys all stand among them, is given.
STAND_IN = """\
#!{python} -ISE
import json, pathlib, shutil, sys
here = pathlib.Path(__file__).parent
words = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
with (here / "said").open("a") as file:
    print(json.dumps(words), file=file)
if words[:2] == ["cosign", "generate-key-pair"]:
    shutil.copy(here / "any.pem", words[3] + ".key")
    shutil.copy(here / "any.pub", words[3] + ".pub")
line = " ".join(words)
for found, status, out, err in json.loads((here / "answers").read_text()):
    if all(part in line for part in found.split("|")):
        print(out, end="")
        print(err, end="", file=sys.stderr)
        sys.exit(status)
"""

NODES = {"items": [{"status": {"allocatable": {"nvidia.com/gpu": "8"}}}]}
CLASSES = {
    "items": [
        {"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}
    ]
}
LOG = "step 1 loss 4.5\nstep 80 loss 2.3\nfinished, weights sha256:0\nresumed after step 80\n"
CHANGED = """job trainseal-demo/char-lm: refuted: it was changed after signing; none that counts;
wants a signature by alice"""
FOUND = {
    "id": "file.changed",
    "accessRecord": "exec-1",
    "firstTime": "2026-11-01T00:00:00.750000Z",
}
REPORTS = {"items": [{"status": {"findings": [FOUND]}}, {}]}
RECORD = {"spec": {"time": "2026-11-01T00:00:00.500000Z"}}
#: Parts of a command, its exit status, standard output and standard error.
ANSWERS: list[tuple[str, int, str, str]] = [
    ("kubectl get nodes|json", 0, json.dumps(NODES), ""),
    ("kubectl get storageclasses|json", 0, json.dumps(CLASSES), ""),
    ("kubectl get persistentvolumes|json", 0, '{"items": []}', ""),
    ("helm status", 1, "", "not found"),
    ("trainseal sign code", 0, f"registry.example/trainseal-demo/char-lm-code@{DIGEST}\n", ""),
    ("trainseal status", 0, "Succeeded, signed by alice\n", ""),
    ("kubectl get drift -o json", 0, json.dumps(REPORTS), ""),
    ("kubectl get access exec-1 -o json", 0, json.dumps(RECORD), ""),
    ("trainseal drift", 1, "frozen: adam.py by mallory@example.org\n+ -lr\n", ""),
    ("apply -f copied.yaml", 1, "", "code trainer: refuted: no signature found"),
    ("apply -f changed.yaml", 1, "", CHANGED),
    ("apply -f pod.yaml", 1, "", "asks for nvidia.com/gpu and is not part of a sealed run"),
    ("kubectl logs|-c trainer ", 0, LOG, ""),
    ("containerStatuses", 0, "running", ""),
    ("metadata.name", 0, "char-lm-worker-0-x 0123456789", ""),
    ("get seal", 0, "char-lm-1", ""),
    ("evidence verify", 0, "whole: 3 entries", ""),
]


@dataclass
class Rehearsed(Target):
    """A cluster of stand-ins."""

    folder: Path
    registry: str = "registry.example"
    registry_from_host: str = "registry.example"
    owned: bool = True

    def __post_init__(self) -> None:
        self.kubeconfig = self.folder / "kubeconfig"
        self.kubeconfig.touch()
        self.tools = Tools({name: self.folder / name for name in PROGRAMS})

    def user_kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:  # noqa: ARG002
        return self.kubeconfig

    def push_image(self, source: str | Path, repository: str) -> str:  # noqa: ARG002
        return f"{self.registry}/{repository}@{DIGEST}"

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        return super().environment(kubeconfig) | {"PATH": f"{self.folder}:/usr/bin:/bin"}

    def said(self) -> list[list[str]]:
        """Every command of a stand-in's, in words."""
        return [json.loads(line) for line in (self.folder / "said").read_text().splitlines()]


class Rehearsal:
    """The world, and the play in it; ``answers`` come before the usual ones."""

    def __init__(self, folder: Path, answers: Sequence[tuple[str, int, str, str]] = ()) -> None:
        for name in PROGRAMS:
            program = folder / name
            program.write_text(STAND_IN.format(python=sys.executable))
            program.chmod(0o755)
        anybody = with_openssl_key(folder, "any")
        (folder / "any.pub").write_text(anybody.public_pem)
        (folder / "answers").write_text(json.dumps([*answers, *ANSWERS]))
        self.target = Rehearsed(folder)
        self.world = World(Show(), "rehearsal")
        self.play = Play(self.world)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for stand-ins; nothing of a real cluster is reached, and no image is built."""
    folder = tmp_path / "stage"
    folder.mkdir()
    monkeypatch.setenv("TRAINSEAL_STATE", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("TRAINSEAL_KUBECONFIG", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("tests.demo.world.connect", lambda *_, **__: Rehearsed(folder))
    monkeypatch.setattr("tests.demo.world._scripts", lambda: folder)
    for image in ("operator", "training"):
        monkeypatch.setattr(f"tests.demo.acts.build_{image}_image", lambda: "layout")
    return folder


def job(rehearsal: Rehearsal, name: str) -> Mapping[str, object]:
    found: Mapping[str, object] = yaml.safe_load(
        (rehearsal.world.folder / "alice" / name).read_text()
    )
    return found


def test_all_acts_are_played_with_commands_that_there_are_and_jobs_that_can_be(
    stage: Path,
) -> None:
    rehearsal = Rehearsal(stage)
    rehearsal.play.everything()
    ours = [words[1:] for words in rehearsal.target.said() if words[0] == "trainseal"]
    assert {words[0] for words in ours} == {"sign", "verify", "status", "drift"}
    for words in ours:
        parse(words)
    jobs = {name: TrainingJob.parse(job(rehearsal, name)) for name in ("job.yaml", "longer.yaml")}
    for found in jobs.values():
        assert found.spec.checkpoints is not None
        volume = found.spec.checkpoints.volume.wire()
        assert volume == {"persistentVolumeClaim": {"claimName": "checkpoints"}}
    steps = [(j.spec.config.parameters if j.spec.config else {})["steps"] for j in jobs.values()]
    assert steps == [80, 400]
    made = yaml.safe_load((rehearsal.world.folder / "alice" / "claim.yaml").read_text())
    assert made["metadata"]["name"] == "checkpoints"
    rules = yaml.safe_load((rehearsal.world.folder / "policy.yaml").read_text())
    assert ProvenancePolicy.parse(rules).metadata.name == "trainseal-demo"


def parse(words: list[str]) -> None:
    """Reads them as the command line would, without doing it; fails on what it does not know."""
    command: object = typer.main.get_command(app)
    while isinstance(command, TyperGroup):
        # A group may have a command that can be left out.
        context = command.make_context("trainseal", words)
        words = [*context._protected_args, *context.args]
        command, words = command.commands[words[0]], words[1:]
    assert isinstance(command, TyperCommand)
    command.make_context("trainseal", words)


def test_where_no_claim_can_be_made_checkpoints_go_with_their_pods_and_it_is_said(
    stage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [
        ("kubectl get storageclasses", 0, '{"items": []}', ""),
        ("trainseal sign job", 3, "", "enough seen"),
    ]
    rehearsal = Rehearsal(stage, answers)
    with pytest.raises(DemoError, match="ended with 3"):
        rehearsal.play.everything()
    checkpoints = TrainingJob.parse(job(rehearsal, "job.yaml")).spec.checkpoints
    assert checkpoints is not None
    assert checkpoints.volume.wire() == {"emptyDir": {}}
    assert "the cluster has no default StorageClass" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (("apply -f copied.yaml", 0, "created", ""), "was accepted"),
        (("kubectl logs|-c trainer ", 0, LOG.replace("2.3", "4.6"), ""), "losses that go down"),
        (("kubectl get nodes|json", 0, '{"items": []}', ""), "offer 0 nvidia.com/gpu"),
    ],
    ids=["accepted", "not learning", "no GPUs"],
)
def test_what_is_not_as_promised_ends_the_play(
    stage: Path, answer: tuple[str, int, str, str], words: str
) -> None:
    with pytest.raises(DemoError, match=words):
        Rehearsal(stage, [answer]).play.everything()


def test_on_a_cluster_of_ours_a_released_volume_serves_again_empty(
    stage: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "volume"
    (folder / "runs").mkdir(parents=True)
    (folder / "step-000080.safetensors").touch()
    volume = {
        "metadata": {"name": "trainseal-test-0"},
        "spec": {"storageClassName": "trainseal-test", "local": {"path": str(folder)}},
        "status": {"phase": "Released"},
    }
    bound = {**volume, "spec": {"storageClassName": "trainseal-test"}, "status": {"phase": "Bound"}}
    volumes = json.dumps({"items": [volume, bound]})
    rehearsal = Rehearsal(stage, [("kubectl get persistentvolumes", 0, volumes, "")])
    rehearsal.world.open()
    assert list(folder.iterdir()) == []
    (patch,) = [words for words in rehearsal.target.said() if words[1] == "patch"]
    assert "/spec/claimRef" in patch[-1]
