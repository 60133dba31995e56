"""What happens in the demo, in its order. Each act checks what it shows."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

from tests.demo.actors import Actor, DemoError
from tests.demo.world import ROOT, TEAM, World
from tests.images import build_operator_image, build_training_image
from tests.stage.jobs import EXAMPLE
from tests.stage.people import PASSWORD, Person
from tests.stage.policies import policy
from tests.stage.release import CHART, install_command
from tests.stage.release import NAMESPACE as RELEASE
from tests.stage.signing import OFFLINE
from trainseal.provenance.keyfiles import load_private_key

_LOSS = re.compile(r"step (\d+) loss ([0-9.]+)")
_FIRST_WORKER = "trainseal.dev/job=char-lm,batch.kubernetes.io/job-completion-index=0"
_WORKERS = 2
#: As the example has it, and what alice wants later.
_STEPS, _MORE_STEPS = 80, 400
_OPTIMIZER = "/usr/lib/python3/dist-packages/torch/optim/adam.py"

_CLAIM = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: checkpoints}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
"""

_GPU_POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: just-a-pod}}
spec:
  containers:
  - name: shell
    image: {image}
    command: [sleep, infinity]
    resources: {{limits: {{nvidia.com/gpu: 1}}}}
"""


@dataclass(frozen=True, slots=True)
class Cast:
    """The team. ``platform`` signs images; ``alice`` code and jobs; nobody asked ``mallory``."""

    admin: Actor
    platform: Actor
    alice: Actor
    mallory: Actor


class Play:
    """All acts; one object, because each act builds on what the former ones made."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._show = world.show
        self._cast: Cast | None = None
        self._operator = ""
        self._image = ""
        self._code = ""

    def everything(self) -> None:
        """From nothing to the last refusal; DemoError where something is not as promised."""
        step = self._show.step
        with step(_cluster_title(self._world)):
            self._cluster()
        with step("Images are built and pushed to its registry"):
            self._images()
        with step("TrainSeal is installed"):
            self._install()
        with step("People make keys, the administrator makes a policy"):
            self._policy()
        with step("The platform team signs the image"):
            self._sign_image()
        with step("Alice signs her code and her job"):
            self._sign_job()
        with step("kubectl apply is accepted, and two workers train"):
            self._train()
        with step("What is known of the run afterwards"):
            self._look_back()
        with step("Refused: code that nobody signed"):
            self._unsigned_code()
        with step("Refused: a learning rate changed after signing"):
            self._changed_parameter()
        with step("Refused: a signature by somebody the policy does not name"):
            self._wrong_signer()
        with step("Refused: a bare pod that asks for a GPU"):
            self._bare_pod()
        with step("Mallory edits the installed PyTorch while a job trains"):
            self._edit_the_optimizer()
        with step("What is known of it, and what remains when all is deleted"):
            self._who_did_it()

    # Setting up ---------------------------------------------------------------------------------

    def _cluster(self) -> None:
        self._world.open()
        team = ("platform", "alice", "mallory")
        member = {name: self._world.member(name) for name in team}
        self._cast = Cast(self._world.administrator(), **member)
        self._cast.admin.run(
            "kubectl get nodes -o custom-columns=\\\n"
            "'NODE:.metadata.name,KUBERNETES:.status.nodeInfo.kubeletVersion,"
            r"GPUS:.status.allocatable.nvidia\.com/gpu'"
        )

    def _images(self) -> None:
        target = self._world.target
        if self._world.installs:
            self._operator = self._pushed(build_operator_image(), f"{TEAM}/trainseal")
        self._image = self._pushed(build_training_image(), f"{TEAM}/pytorch")
        target = self._world.target
        self._show.note("TrainSeal itself, and PyTorch on Debian for the trainer.")
        self._team.admin.export(REGISTRY=target.registry_from_host, IMAGE=self._image)

    def _pushed(self, layout: str, repository: str) -> str:
        with self._show.working(f"pushing {repository} …"):
            return self._world.target.push_image(layout, repository)

    def _install(self) -> None:
        admin = self._team.admin
        if self._world.installs:
            arguments = install_command(self._operator, [self._world.target.registry])
            chart = str(CHART.relative_to(ROOT))
            words = shlex.join(a.replace(str(CHART), chart) for a in arguments)
            admin.run(
                _broken(f"helm {words}", "--namespace", "--set", "--wait"), said=False, seconds=300
            )
        else:
            self._show.note("It is installed here already, and used as it is.")
        admin.run(f"kubectl get deployments -n {RELEASE} -l app.kubernetes.io/name=trainseal")

    def _policy(self) -> None:
        world, team = self._world, self._team
        self._show.note("COSIGN_PASSWORD is set; without it cosign and trainseal ask for it.")
        for actor in (team.platform, team.alice, team.mallory):
            actor.run(f"cosign generate-key-pair --output-key-prefix {actor.name}", said=False)
        platform, alice = _person(team.platform), _person(team.alice)
        made = policy(
            TEAM,
            TEAM,
            signers=[alice],
            image_signers=[platform],
            registries=[world.target.registry],
        )
        # What is found while a job runs is told by default; here it also stops the job.
        made["spec"]["drift"] = {"responses": {"critical": "Freeze"}}
        _write(world.folder / "team.yaml", *world.namespace(["platform", "alice", "mallory"]))
        _write(world.folder / "policy.yaml", made)
        self._show.note(
            f"The policy: in namespace {TEAM}, images signed by platform, code and jobs by alice, "
            f"all of it from {world.target.registry}. Mallory may edit the namespace, like the "
            "others; the policy does not name her. What differs from what was signed while a job "
            "runs freezes it."
        )
        admin = world.administrator(world.folder)
        admin.run("kubectl apply -f team.yaml -f policy.yaml")
        admin.run(f"kubectl wait provpol/{TEAM} --for=condition=Ready --timeout=30s", said=False)
        admin.run(f"kubectl get provpol {TEAM}")

    # The signed run -----------------------------------------------------------------------------

    def _sign_image(self) -> None:
        self._team.platform.run(
            f"cosign sign --key platform.key {' '.join(OFFLINE)} \\\n"
            f"--allow-http-registry {self._on_host('IMAGE', self._image)}",
            said=False,
        )
        self._show.note("cosign, as everybody uses it; there is no transparency log within reach.")

    def _sign_job(self) -> None:
        world, alice = self._world, self._team.alice
        shutil.copytree(
            EXAMPLE, alice.folder / "char-lm", ignore=shutil.ignore_patterns("__pycache__")
        )
        printed = alice.run(
            "trainseal sign code char-lm --key alice.key --plain-http $REGISTRY \\\n"
            f"--push $REGISTRY/{TEAM}/char-lm-code"
        )
        self._code = world.in_cluster(printed.split()[-1])
        alice.export(CODE=self._code)
        if world.no_claims:
            self._show.note(f"Checkpoints go with their pods here: {world.no_claims}.")
        else:
            (alice.folder / "claim.yaml").write_text(_CLAIM)
            alice.run("kubectl apply -f claim.yaml")
        alice.run(self._fill("CODE", "job.yaml"))
        alice.run("trainseal sign job -f job.yaml --key alice.key")
        alice.run("trainseal verify -f job.yaml --policy ../policy.yaml --plain-http $REGISTRY")

    def _train(self) -> None:
        alice = self._team.alice
        alice.run("kubectl apply -f job.yaml")
        alice.run("kubectl wait tj/char-lm --for=jsonpath='{.status.phase}'=Running --timeout=90s")
        self._wait_for_trainer()
        alice.run("kubectl get tj,pods")
        alice.run(f"kubectl logs -l {_FIRST_WORKER} -c trainseal-gate")
        logs = alice.follow(
            f"kubectl logs -l {_FIRST_WORKER} -c trainer --tail=-1 --follow", seconds=240
        )
        lines = list(logs)
        losses = [float(found[2]) for line in lines if (found := _LOSS.search(line))]
        if len(losses) < 2 or losses[-1] >= losses[0] or not any("finished" in x for x in lines):
            raise DemoError(
                f"the training's losses: {losses or 'none'}", expected="losses that go down"
            )
        alice.run(
            "kubectl wait tj/char-lm --for=jsonpath='{.status.phase}'=Succeeded --timeout=60s"
        )
        self._show.note(
            f"The loss went from {losses[0]:.2f} to {losses[-1]:.2f} on {_WORKERS} workers."
        )

    def _wait_for_trainer(self, seconds: float = 90) -> None:
        """Until the first worker's gate is through: its log can be followed from then on."""
        query = (
            f"kubectl get pods -l {_FIRST_WORKER} "
            "-o jsonpath='{.items[*].status.containerStatuses[0].state}'"
        )
        deadline = time.monotonic() + seconds
        with self._show.working("the first worker starts …"):
            while not any(
                w in (state := self._team.alice.look(query)) for w in ("running", "term")
            ):
                if time.monotonic() > deadline:
                    raise DemoError(
                        f"the first worker has not started after {seconds:.0f} s: {state}",
                        expected="a trainer that runs",
                    )
                time.sleep(0.3)

    def _look_back(self) -> None:
        alice = self._team.alice
        alice.run("kubectl get tj,seal")
        status = alice.run("trainseal status char-lm")
        if "alice" not in status or "Succeeded" not in status:
            raise DemoError(
                "`trainseal status` does not tell who signed, or how it ended",
                expected="alice, Succeeded",
            )
        alice.run("kubectl delete tj char-lm")
        seals = alice.run("kubectl get seal")
        if "char-lm" not in seals:
            raise DemoError("the seal is gone with its job", expected="a record that stays")
        self._show.note("The job is gone, the record of it stays.")

    # What is refused ----------------------------------------------------------------------------

    def _unsigned_code(self) -> None:
        world, alice = self._world, self._team.alice
        self._show.note("The code is copied to another repository; its signature stays behind.")
        source = self._on_host("CODE", self._code)
        alice.run(f"crane copy --insecure {source} $REGISTRY/{TEAM}/released-code", said=False)
        _, _, digest = self._code.partition("@")
        alice.export(COPY=f"{world.target.registry}/{TEAM}/released-code@{digest}")
        alice.run(self._fill("COPY", "copied.yaml"))
        alice.run("trainseal sign job -f copied.yaml --key alice.key")
        alice.refused("kubectl apply -f copied.yaml", "code trainer: refuted: no signature found")

    def _fill(self, code: str, output: str, *more: str) -> str:
        """Makes a job of the example's: image, code, namespace, and where checkpoints stay."""
        changes = [f"s|namespace: research|namespace: {TEAM}|", *more]
        if not self._world.no_claims:
            claim = "{claimName: checkpoints}"
            changes.append(f"s|emptyDir: {{}}|persistentVolumeClaim: {claim}|")
        words = "".join(f"-e '{change}' \\\n" for change in changes)
        sed = f'sed -e "s|IMAGE|$IMAGE|" -e "s|CODE|${code}|" \\\n{words}'
        return f"{sed}char-lm/job.yaml > {output}"

    def _on_host(self, variable: str, reference: str) -> str:
        """The variable, where this machine calls the registry as the cluster does."""
        on_host = self._world.on_host(reference)
        return f"${variable}" if on_host == reference else on_host

    def _changed_parameter(self) -> None:
        mallory = self._team.mallory
        mallory.run(
            "sed 's/learning_rate: 0.003/learning_rate: 0.03/' ../alice/job.yaml > changed.yaml"
        )
        mallory.run("diff ../alice/job.yaml changed.yaml", status=1)
        mallory.refused(
            "kubectl apply -f changed.yaml",
            "job trainseal-demo/char-lm: refuted",
            "it was changed after signing",
        )
        self._show.note("As alice signed it, it is accepted, whoever asks:")
        mallory.run("kubectl apply --dry-run=server -f ../alice/job.yaml")

    def _wrong_signer(self) -> None:
        mallory = self._team.mallory
        mallory.run("trainseal sign job -f changed.yaml --key mallory.key")
        mallory.refused(
            "kubectl apply -f changed.yaml",
            "job trainseal-demo/char-lm: refuted",
            "none that counts",
            "wants a signature by alice",
        )

    def _bare_pod(self) -> None:
        mallory = self._team.mallory
        (mallory.folder / "pod.yaml").write_text(_GPU_POD.format(image=self._image))
        mallory.run("tail -n +4 pod.yaml")
        mallory.refused(
            "kubectl apply -f pod.yaml", "asks for nvidia.com/gpu", "not part of a sealed run"
        )
        left = mallory.look("kubectl get tj,pods -o name")
        if left.strip() and "No resources" not in left:
            raise DemoError(f"after the refusals there is {left}", expected="nothing")

    # While it trains ----------------------------------------------------------------------------

    def _edit_the_optimizer(self) -> None:
        alice, mallory = self._team.alice, self._team.mallory
        self._show.note(
            f"Alice wants {_MORE_STEPS} steps. That changes what is signed, so she signs again."
        )
        alice.run(self._fill("CODE", "longer.yaml", f"s|steps: {_STEPS}|steps: {_MORE_STEPS}|"))
        alice.run("trainseal sign job -f longer.yaml --key alice.key", said=False)
        alice.run("kubectl apply -f longer.yaml")
        alice.run(
            "kubectl wait tj/char-lm --for=jsonpath='{.status.phase}'=Running --timeout=90s",
            said=False,
        )
        self._wait_for_trainer()
        ask = f"kubectl get pods -l {_FIRST_WORKER} -o "
        pod, uid = alice.look(
            ask + "jsonpath='{.items[0].metadata.name} {.items[0].metadata.uid}'"
        ).split()
        alice.run(
            f"kubectl wait drift/{pod}-{uid[:8]} --for=condition=Watching --timeout=30s", said=False
        )
        if not self._world.no_claims:
            self._goes_on_from_its_checkpoint()
        self._show.note("Mallory lets herself in.")
        mallory.export(WORKER=pod)
        mallory.run(
            "kubectl exec $WORKER -c trainer -- \\\n"
            f"sed -i 's/step_size = lr/step_size = -lr/' {_OPTIMIZER}"
        )
        self._show.note("Every update would now go the wrong way; nothing else would show it.")
        alice.run("kubectl wait tj/char-lm --for=condition=Drifted --timeout=30s", said=False)

    def _goes_on_from_its_checkpoint(self, seconds: float = 60) -> None:
        """The volume outlived the job of before: the trainer says so once it has read it."""
        said = f"kubectl logs -l {_FIRST_WORKER} -c trainer --tail=-1 | grep resumed"
        deadline = time.monotonic() + seconds
        with self._show.working("the trainer reads its checkpoint …"):
            while "resumed" not in self._team.alice.look(said):
                if time.monotonic() > deadline:
                    raise DemoError(
                        f"the trainer did not resume within {seconds:.0f} s",
                        expected=f"to go on after step {_STEPS}, from the claim's volume",
                    )
                time.sleep(0.3)
        if f"after step {_STEPS}" not in (found := self._team.alice.run(said)):
            raise DemoError(f"the trainer {found}", expected=f"resumed after step {_STEPS}")

    def _who_did_it(self) -> None:
        alice, admin = self._team.alice, self._team.admin
        alice.run("kubectl get tj char-lm")
        found = alice.run("trainseal drift char-lm", status=1)
        plain = " ".join(found.split())
        wanted = ("mallory@example.org", "adam.py", "-lr", "frozen")
        if missing := [word for word in wanted if word not in plain]:
            raise DemoError(
                f"`trainseal drift` does not tell {', '.join(missing)}",
                expected="the file, the difference, the person, and that the job is frozen",
                detail=found,
            )
        self._show.note(
            f"It was found {self._how_soon():.2f} s after Mallory asked to be let in, and the job "
            "stands still. Alice stops it for good; what was seen remains:"
        )
        alice.run("kubectl delete tj char-lm")
        alice.run("kubectl get drift,access")
        if self._world.installs:
            verified = admin.run(
                f"kubectl exec -n {RELEASE} deploy/trainseal-archive -- \\\n"
                "trainseal evidence verify /var/lib/trainseal/archive"
            )
            if "whole" not in verified:
                raise DemoError("the archive is not whole", expected="whole")

    def _how_soon(self) -> float:
        """Seconds from the access record of who did it to the finding."""
        alice = self._team.alice
        reports = json.loads(alice.look("kubectl get drift -o json"))["items"]
        (found, *_) = sorted(
            (
                f
                for report in reports
                for f in report.get("status", {}).get("findings") or ()
                if f["id"] == "file.changed" and "accessRecord" in f
            ),
            key=lambda f: str(f["firstTime"]),
        )
        record = json.loads(alice.look(f"kubectl get access {found['accessRecord']} -o json"))
        asked, seen = record["spec"]["time"], found["firstTime"]
        took = datetime.fromisoformat(seen) - datetime.fromisoformat(asked)
        return took.total_seconds()

    @property
    def cast(self) -> Cast | None:
        """The people, once the cluster is up."""
        return self._cast

    @property
    def _team(self) -> Cast:
        assert self._cast is not None, "the cluster is up before anybody does anything"
        return self._cast


def _cluster_title(world: World) -> str:
    if world.foreign:
        return "Your cluster is reached"
    return f"The cluster {world.name} {'comes up' if world.ours else 'is up already'}"


def _person(actor: Actor) -> Person:
    key_file = actor.folder / f"{actor.name}.key"
    key = load_private_key(key_file.read_bytes(), PASSWORD.encode)
    return Person(actor.name, key_file, key_file.with_suffix(".pub").read_text(), key)


def _broken(command: str, *before: str) -> str:
    """The command over several lines, one begun by each of these words."""
    for word in before:
        command = command.replace(f" {word}", f" \\\n{word}")
    return command


def _write(path: Path, *objects: object) -> None:
    path.write_text(yaml.safe_dump_all(objects, sort_keys=False))
