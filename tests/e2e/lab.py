"""A cluster with TrainSeal, signed artifacts, a team: the world that each test breaks in part."""

from __future__ import annotations

import copy
import functools
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import CommandError, Target
from tests.images import build_operator_image, build_training_image
from tests.local_registry import PrivateRegistry
from tests.stage.alertmanager import Alertmanager
from tests.stage.jobs import SHORT_CODE, short_job
from tests.stage.people import Person, with_cosign_key, with_openssl_key
from tests.stage.policies import policy
from tests.stage.reading import Reader
from tests.stage.release import install, uninstall
from tests.stage.signing import push_tree, sign_image, signed, write_tree
from tests.stage.waiting import PATIENCE, eventually

Object = dict[str, Any]

#: Where one signature on a job is enough, and where two persons must sign.
TEAM = "research"
PAIR = "research-pair"
EDITOR = "mallory@example.org"


@dataclass(frozen=True, slots=True)
class Lab:
    """Everything that is signed and in order, and the ways to use it.

    The team's namespace takes jobs and code signed by alice or bob; images signed by platform.
    In the pair's, two persons among alice (who has two keys) and bob must sign a job. mallory has
    a key that no policy names, and like everybody here the namespaces' edit role.
    """

    target: Target
    editor: Path
    registries: tuple[str, ...]
    image: str
    code: str
    alice: Person
    alice_again: Person
    bob: Person
    platform: Person
    mallory: Person
    folder: Path
    private: PrivateRegistry | None
    alertmanager: Alertmanager | None
    reader: Reader

    # Jobs ---------------------------------------------------------------------------------------

    def job(self, name: str, script: str = "wait.py", namespace: str = TEAM) -> Object:
        """A short job, not signed yet."""
        return short_job(name, namespace, self.image, self.code, script)

    def signed_job(self, name: str, script: str = "wait.py") -> Object:
        """A short job signed by alice."""
        return signed(self.job(name, script), self.alice)

    # As the editor ------------------------------------------------------------------------------

    def kubectl(self, *args: str, stdin: Object | None = None, namespace: str = TEAM) -> str:
        """kubectl as somebody with the edit role; CommandError where it is refused."""
        text = None if stdin is None else json.dumps(stdin)
        return self.target.kubectl("-n", namespace, *args, input=text, kubeconfig=self.editor)

    def apply(self, obj: Object) -> None:
        """`kubectl apply`, which must be accepted."""
        self.kubectl("apply", "-f", "-", stdin=obj, namespace=obj["metadata"]["namespace"])

    def create(self, obj: Object) -> Object:
        """`kubectl create`, which must be accepted; as the API server has it."""
        namespace, said = obj["metadata"]["namespace"], ("create", "-f", "-", "-o", "json")
        found: Object = json.loads(self.kubectl(*said, stdin=obj, namespace=namespace))
        return found

    def refusal(self, obj: Object) -> str:
        """What is said where the object is refused; fails where it is accepted. Nothing stays."""
        said = self.answer(obj)
        name = obj["metadata"].get("name") or obj["metadata"]["generateName"]
        assert said, f"{obj['kind']} {name} was accepted"
        return said

    def accepts(self, obj: Object) -> bool:
        """Whether the object would be accepted: a server-side dry run, which asks the webhook."""
        said = self.answer(obj)
        assert not said, said
        return True

    def answer(self, obj: Object) -> str:
        """The refusal, or nothing."""
        namespace = obj["metadata"]["namespace"]
        try:
            self.kubectl("create", "--dry-run=server", "-f", "-", stdin=obj, namespace=namespace)
        except CommandError as error:
            return error.stderr
        return ""

    # As the administrator -----------------------------------------------------------------------

    def admin(self, *args: str, stdin: Object | None = None, seconds: float = 300) -> str:
        """kubectl as the cluster's administrator."""
        text = None if stdin is None else json.dumps(stdin)
        return self.target.kubectl(*args, input=text, timeout=seconds)

    def get(self, resource: str, name: str, namespace: str = TEAM) -> Object:
        """A live object."""
        found = self.reader.get(resource, name, namespace)
        if found is None:  # kubectl says why
            found = json.loads(self.admin("get", resource, name, "-n", namespace, "-o", "json"))
        return found

    def listed(
        self, resource: str, namespace: str = TEAM, *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """Live objects that the selectors choose."""
        found = self.reader.listed(resource, namespace, labels=labels, fields=fields)
        if found is None:
            selectors = (f"--selector={labels}", f"--field-selector={fields}")
            words = ("get", resource, "-n", namespace, "-o", "json", *selectors)
            found = json.loads(self.admin(*words))["items"]
        return found

    def status(self, job: Object) -> Object:
        """A TrainingJob's status."""
        metadata = job["metadata"]
        live = self.get("trainingjob", metadata["name"], metadata["namespace"])
        found: Object = live.get("status", {})
        return found

    def wait_for_phase(self, job: Object, phase: str, seconds: float = PATIENCE) -> Object:
        """Waits until the job's status says so, and returns the status."""
        metadata = job["metadata"]
        try:
            self.admin(
                "wait", f"trainingjob/{metadata['name']}", "-n", metadata["namespace"],
                f"--for=jsonpath={{.status.phase}}={phase}", f"--timeout={seconds:.0f}s",
                seconds=seconds + 30,
            )  # fmt: skip
        except CommandError:
            raise AssertionError(
                f"not {phase} within {seconds:.0f} s: {self.status(job)}"
            ) from None
        return self.status(job)

    def delete(self, obj: Object) -> None:
        """Deletes an object if it is there, and does not wait."""
        metadata = obj["metadata"]
        place = ("-n", metadata["namespace"]) if "namespace" in metadata else ()
        self.admin(
            "delete", obj["kind"], metadata["name"], *place, "--ignore-not-found", "--wait=false"
        )

    def pods(self, job: Object) -> list[Object]:
        """The pods that bear the job's label."""
        metadata = job["metadata"]
        labels = f"trainseal.dev/job={metadata['name']}"
        return self.listed("pods", metadata["namespace"], labels=labels)

    def engine(self, job: Object, role: str = "worker") -> Object:
        """The Job that runs a role."""
        metadata = job["metadata"]
        return self.get("job", f"{metadata['name']}-{role}", metadata["namespace"])

    def told(self, job: Object) -> list[str]:
        """Reasons of the controller's Events on the job, in the order in which they were made."""
        metadata = job["metadata"]
        fields = f"involvedObject.name={metadata['name']}"
        ours = [
            e
            for e in self.listed("events", metadata["namespace"], fields=fields)
            if e.get("source", {}).get("component") == "trainseal-controller"
        ]
        made = sorted(ours, key=lambda e: int(e["metadata"]["resourceVersion"]))
        return [event["reason"] for event in made]

    # Artifacts ----------------------------------------------------------------------------------

    def push_tree(
        self,
        repository: str,
        files: dict[str, str],
        signer: Person | None,
        manifest_of: dict[str, str] | None = None,
    ) -> str:
        """A code artifact as pods name it; see `signing.push_tree`."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            tree = write_tree(Path(folder, "tree"), files)
            other = write_tree(Path(folder, "other"), manifest_of) if manifest_of else None
            pushed = push_tree(
                self.target.registry_from_host, tree, f"{TEAM}/{repository}", signer, other
            )
        return self.in_cluster(pushed)

    def push_tree_privately(self, files: dict[str, str], signer: Person) -> str:
        """A code artifact in the private registry."""
        assert self.private is not None
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            tree = write_tree(Path(folder, "tree"), files)
            client = self.private.client()
            return push_tree(self.private.address, tree, f"{TEAM}/code", signer, client=client)

    def variant_of_image(self, name: str) -> str:
        """The training image under another digest, unsigned."""
        target = self.target
        source = self.on_host(self.image)
        tagged = f"{target.registry_from_host}/{TEAM}/pytorch:{name}"
        found = target.run(
            [
                *(str(target.tools["crane"]), "mutate", "--insecure", source),
                *("--label", f"variant={name}", "--tag", tagged),
            ]
        )
        return self.in_cluster(found.strip())

    def in_cluster(self, reference: str) -> str:
        """A reference as nodes and pods call it."""
        return reference.replace(self.target.registry_from_host, self.target.registry, 1)

    def on_host(self, reference: str) -> str:
        """A reference as this machine calls it."""
        return reference.replace(self.target.registry, self.target.registry_from_host, 1)


def open_lab(
    target: Target,
    folder: Path,
    reader: Reader,
    private: PrivateRegistry | None = None,
    alertmanager: Alertmanager | None = None,
    values: Sequence[str] = (),
) -> Lab:
    """Installs TrainSeal, by these values of the chart too, and makes people, policies, artifacts
    and namespaces.
    """
    operator = target.push_image(build_operator_image(), "trainseal")
    image = target.push_image(build_training_image(), f"{TEAM}/pytorch")
    registries = [target.registry]
    if plain := getattr(target, "registry_plain", ""):
        registries.append(plain)
    install(target, operator, registries, private, alertmanager.url if alertmanager else "", values)
    if private is not None:
        registries.append(private.address)
    lab = Lab(
        target=target,
        editor=target.user_kubeconfig(EDITOR),
        registries=tuple(registries),
        image=image,
        code="",
        alice=with_cosign_key(target, folder, "alice"),
        alice_again=with_openssl_key(folder, "alice-again"),
        bob=with_openssl_key(folder, "bob"),
        platform=with_cosign_key(target, folder, "platform"),
        mallory=with_cosign_key(target, folder, "mallory"),
        folder=folder,
        private=private,
        alertmanager=alertmanager,
        reader=reader,
    )
    for namespace in (TEAM, PAIR):
        make_namespace(lab, namespace)
    for namespace, signers, threshold in (
        (TEAM, [lab.alice, lab.bob], 1),
        (PAIR, [lab.alice, lab.alice_again, lab.bob], 2),
    ):
        made = policy(
            namespace,
            namespace,
            signers=signers,
            image_signers=[lab.platform],
            registries=registries,
            threshold=threshold,
        )
        # After a reinstall the webhook answers a moment before the API server trusts it again.
        eventually(functools.partial(_applied, lab, made), f"policy {namespace} can be made")
    sign_image(target, lab.on_host(image), lab.platform)
    code = lab.push_tree("code", SHORT_CODE, lab.alice)
    lab = replace_code(lab, code)
    # Policies reach the webhook by watch.
    eventually(
        lambda: all(
            not lab.answer(signed(lab.job("first", namespace=n), lab.alice, lab.bob))
            for n in (TEAM, PAIR)
        ),
        "the webhook knows the policies",
    )
    return lab


def _applied(lab: Lab, obj: Object) -> bool:
    try:
        lab.admin("apply", "-f", "-", stdin=obj)
    except CommandError as error:
        if "failed calling webhook" in error.stderr:
            return False
        raise
    return True


def replace_code(lab: Lab, code: str) -> Lab:
    """The same lab with other code."""
    fields = {name: getattr(lab, name) for name in Lab.__slots__}
    return Lab(**{**fields, "code": code})


def close_lab(lab: Lab) -> None:
    """Takes away from a cluster of the user's what `open_lab` put there."""
    for namespace in (TEAM, PAIR):
        lab.admin("delete", "provenancepolicy", namespace, "--ignore-not-found")
        lab.admin("delete", "namespace", namespace, "--ignore-not-found", "--timeout=240s")
    uninstall(lab.target)


def make_namespace(lab: Lab, name: str) -> None:
    """A namespace in which the editor has the role edit."""
    for obj in (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "editor", "namespace": name},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "edit",
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": EDITOR}],
        },
    ):
        lab.admin("apply", "-f", "-", stdin=obj)


def changed(job: Object, change: Callable[[Object], None]) -> Object:
    """A copy of the job with one thing changed, signatures as they were."""
    found = copy.deepcopy(job)
    change(found)
    return found
