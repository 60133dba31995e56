"""What a page's reader has when they begin: a cluster with TrainSeal, a team, keys, a shell."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.lab import TEAM, Lab, Object
from tests.guides.pages import ROOT
from tests.guides.walk import Walk
from tests.stage.jobs import SHORT_CODE, short_job
from tests.stage.people import Person, signing_environment, with_cosign_key, with_openssl_key
from tests.stage.policies import policy
from tests.stage.release import NAMESPACE
from tests.stage.signing import OFFLINE, sign_image, signed
from tests.stage.waiting import eventually

ADMIN = "admin"
_PROBES = itertools.count()
#: Replicas of the webhook are asked in turns, more or less.
_ASKED = 4
#: Whoever types in a page has the edit role, and may read what the platform team gives away.
TYPISTS = ("ada", "grace", "alan", "alice", "bob", "ann", "mallory")
#: What it takes to verify seals, where a platform team lets everybody: the operator's public keys,
#: and the cluster's identity.
_READERS = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: seal-verifiers, namespace: {namespace}}}
rules:
- {{apiGroups: [""], resources: [configmaps], resourceNames: [trainseal-keyring], verbs: [get]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: seal-verifiers, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: seal-verifiers}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:authenticated"}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: seal-verifiers}}
rules:
- {{apiGroups: [""], resources: [namespaces], resourceNames: [kube-system], verbs: [get]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: seal-verifiers}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: seal-verifiers}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:authenticated"}}]
"""
_COSIGN = """\
#!/bin/sh
# There is no transparency log within reach, and the cluster's registry has no TLS.
verb=$1
shift
case $verb in
sign) exec {cosign} sign --allow-http-registry {offline} "$@" ;;
sign-blob) exec {cosign} sign-blob {offline} "$@" ;;
*) exec {cosign} "$verb" "$@" ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """The team's namespace is the pages' `research`. ``keys`` are of whoever may have to sign."""

    lab: Lab
    folder: Path
    keys: Mapping[str, Person]

    def walk(
        self,
        page: str,
        person: str = "ada",
        users: Mapping[str, str] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> Walk:
        """A walk through the page by ``person``, in an empty folder with everybody's keys.

        ``users`` are people's names in the cluster, where they are not as `name@example.org`.
        """
        folder = Path(tempfile.mkdtemp(prefix=f"{Path(page).stem}-", dir=self.folder))
        for name, key in self.keys.items():
            shutil.copy(key.key_file, folder / f"{name}.key")
            (folder / f"{name}.pub").write_text(key.public_pem)
        shutil.copytree(
            ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__")
        )
        with (folder / "examples" / "char-lm" / "train.py").open("a") as train:
            train.write(f"# {uuid.uuid4()}\n")  # a tree that nobody has signed before
        named = {name: (users or {}).get(name, f"{name}@example.org") for name in TYPISTS}
        people = {
            name: self._environment(folder, user, (groups or {}).get(name, ()))
            for name, user in named.items()
        }
        people[ADMIN] = self._environment(folder, None)
        return Walk(page, folder, self.lab.target.registry, people, person)

    def _environment(
        self, folder: Path, user: str | None, groups: Sequence[str] = ()
    ) -> Mapping[str, str]:
        """An administrator's, or a user's with the edit role."""
        target = self.lab.target
        kubeconfig = folder / f".{user or ADMIN}.kubeconfig"
        source = target.user_kubeconfig(user, groups) if user else target.kubeconfig
        found = yaml.safe_load(source.read_text())
        for entry in found["contexts"]:
            entry["context"]["namespace"] = TEAM
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(yaml.safe_dump(found))
        scripts = Path(sys.executable).parent
        path = target.environment()["PATH"]
        return {
            **signing_environment(),
            "KUBECONFIG": str(kubeconfig),
            "PATH": f"{self.folder / 'bin'}:{scripts}:{path}",
            "HOME": str(folder),
            "COLUMNS": "200",
            # Both outputs in the order in which a terminal shows them.
            "PYTHONUNBUFFERED": "1",
            "TRAINSEAL_PLAIN_HTTP": target.registry,
        }

    def bind(self, user: str, role: str) -> None:
        """Gives the user a cluster role in the team's namespace."""
        name = "guide-" + "".join(c if c.isalnum() else "-" for c in f"{user}-{role}")
        self.lab.admin(
            "apply", "-f", "-",
            stdin={
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": name, "namespace": TEAM},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role,
                },
                "subjects": [
                    {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
                ],
            },
        )  # fmt: skip

    # What is signed, and by whom ----------------------------------------------------------------

    def rules(
        self,
        *signers: str,
        persons: Mapping[str, str] | None = None,
        threshold: int = 1,
        **spec: Any,
    ) -> Object:
        """A policy for the team: jobs by ``threshold`` of the signers, code and images by any.

        ``persons`` are their names, where these are not the keys'; ``spec`` is more of the policy.
        """
        keys = [self.keys[name] for name in signers]
        made = policy(
            TEAM, TEAM,
            signers=keys, image_signers=keys, registries=self.lab.registries, threshold=threshold,
        )  # fmt: skip
        for authority in made["spec"]["authorities"]:
            authority["person"] = (persons or {}).get(authority["name"], authority["name"])
        made["spec"] |= spec
        return made

    def put(self, made: Object) -> None:
        """The policy takes the place of one of its name; returns once the webhook knows it.

        All of its replicas: each is asked by whoever the Service sends there.
        """
        spec = made["spec"]
        probe = f"probe-{next(_PROBES)}.example"
        allow = {"allow": [*spec["registries"]["allow"], f"{probe}/**"]}
        self.apply({**made, "spec": {**spec, "registries": allow}})
        asked = short_job("probe", TEAM, f"{probe}/x@sha256:{'0' * 64}", self.lab.code)

        def known() -> bool:
            said = [self.lab.answer(asked) for _ in range(_ASKED)]
            return not any("is outside the allowed" in answer for answer in said)

        eventually(known, "the webhook knows the policy")

    def without_policy(self) -> None:
        """The team has none, for a page on which it is made."""
        self.lab.admin("delete", "provenancepolicy", TEAM, "--ignore-not-found")

    def apply(self, obj: Object) -> None:
        """As the administrator; what stood there of it and is not in it goes."""
        text = json.dumps(obj)
        if self.lab.admin("get", obj["kind"], obj["metadata"]["name"], "--ignore-not-found"):
            self.lab.target.kubectl("replace", "-f", "-", input=text)
        else:
            self.lab.target.kubectl("create", "-f", "-", input=text)

    def job(self, code: str, script: str = "wait.py", name: str = "char-lm") -> Object:
        """A job of the team's, unsigned."""
        return short_job(name, TEAM, self.lab.image, code, script)

    def code(self, signer: str, files: Mapping[str, str] = SHORT_CODE) -> str:
        """Code that is signed, and that nobody has signed before."""
        tree = {**files, "of.txt": f"{uuid.uuid4()}\n"}
        return self.lab.push_tree("char-lm-code", tree, self.keys[signer])

    def tag(self, reference: str, name: str) -> None:
        """Gives what is in the registry a tag."""
        crane = str(self.lab.target.tools["crane"])
        self.lab.target.run([crane, "tag", "--insecure", self.lab.on_host(reference), name])

    def runs(self, walk: Walk, job: Object, *signers: str) -> None:
        """Signs it and has it run: created by the page's reader."""
        walk.file(
            "job.yaml",
            yaml.safe_dump(signed(job, *(self.keys[s] for s in signers)), sort_keys=False),
        )

        def created() -> bool:
            status, said = walk.run("kubectl apply -f job.yaml", walk.person)
            assert status == 0 or "policy" in said or "not found" in said, said
            return status == 0

        eventually(created, "the job is let in")
        self.lab.wait_for_phase(job, "Running")


def prepared(lab: Lab, folder: Path) -> Ground:
    """Keys for everybody, with which the team's image is signed; a `cosign` for this cluster."""
    keys = {name: with_cosign_key(lab.target, folder, name) for name in ("ada", "grace", "alice")}
    keys |= {name: with_openssl_key(folder, name) for name in ("alan", "bob")}
    programs = folder / "bin"
    programs.mkdir()
    cosign = programs / "cosign"
    words = {"cosign": shlex.quote(str(lab.target.tools["cosign"])), "offline": " ".join(OFFLINE)}
    cosign.write_text(_COSIGN.format(**words))
    cosign.chmod(0o755)
    ground = Ground(lab, folder, keys)
    for typist in TYPISTS:
        ground.bind(f"{typist}@example.org", "edit")
    ground.bind("ada", "edit")
    lab.target.kubectl("apply", "-f", "-", input=_READERS.format(namespace=NAMESPACE))
    for name in ("ada", "alice"):
        sign_image(lab.target, lab.on_host(lab.image), keys[name])
    return ground
