"""What around TrainSeal its promises lean on: accounts, Pod Security Admission, GPU drivers, and
namespaces that are going.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence

from trainseal.admission.pods import LABEL_SEAL
from trainseal.api.model import JsonObject, json_object, json_objects, metadata_name
from trainseal.cli.checkupreport import Finding, Health, some, unseen
from trainseal.cli.clusterrules import policies_of, settings_of
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.cluster.listing import listed
from trainseal.cluster.settings import Settings
from trainseal.provenance.accessrules import workload_namespace
from trainseal.provenance.gpuasks import asked
from trainseal.provenance.policies import only_audited
from trainseal.verifier.policystore import PolicyStore

_POD_SECURITY = "pod-security.kubernetes.io/enforce"
#: What the namespace controller says that a deletion waits for.
_WAITS = ("NamespaceContentRemaining", "NamespaceFinalizersRemaining")


def parts(kube: Kube, namespace: str) -> tuple[AsyncIterator[Finding], ...]:
    """Each piece; ``namespace`` is the release's."""
    return (_accounts(kube, namespace), _around(kube, namespace))


async def _accounts(kube: Kube, release: str) -> AsyncIterator[Finding]:
    """Service accounts that the chart names, and that are not there: whoever makes one is it."""
    try:
        settings = await settings_of(kube, release)
        excluded = {*settings.excluded_namespaces, release}
        missing = []
        for value, names in (
            ("floor.jobParents", settings.job_parents),
            ("engines", settings.engines.controllers),
            ("access.disruptors", settings.disruptors),
        ):
            for name in names:
                namespace, account = workload_namespace(name), name.rpartition(":")[2]
                if namespace is None or namespace in excluded:
                    continue
                try:
                    await kube.get(path_of("v1", "serviceaccounts", namespace, account))
                except NotFoundError:
                    missing.append(f"{namespace}/{account} ({value})")
    except KubeError as error:
        yield unseen("accounts", error)
        return
    if missing:
        yield Finding(
            "accounts", Health.NOTED,
            f"named in the chart's values, and not there: {some(missing)}",
            "correct the name, or take it out: who may make service accounts there could make it",
        )  # fmt: skip


async def _around(kube: Kube, release: str) -> AsyncIterator[Finding]:
    try:
        settings = await settings_of(kube, release)
        store = await policies_of(kube)
        namespaces = [n async for n in listed(kube, path_of("v1", "namespaces"))]
        sealed = Counter(
            [
                str(json_object(pod.get("metadata")).get("namespace"))
                async for pod in listed(kube, path_of("v1", "pods"), {"labelSelector": LABEL_SEAL})
            ]
        )
        drivers = [d async for d in listed(kube, path_of("apps/v1", "daemonsets"))]
    except KubeError as error:
        yield unseen("surroundings", error)
        return
    excluded = {*settings.excluded_namespaces, release, settings.agent_namespace}
    for finding in (
        *_without_pod_security(namespaces, store, excluded),
        *_refused_drivers(drivers, settings, store, excluded),
        *_going(namespaces, sealed),
    ):
        yield finding


def _without_pod_security(
    namespaces: Sequence[JsonObject], store: PolicyStore, excluded: set[str]
) -> Iterable[Finding]:
    """Namespaces of teams in which pods may be privileged, or mount the node's device files."""
    loose = sorted(
        name
        for namespace in namespaces
        if (name := metadata_name(namespace)) not in excluded
        and any(p.mode == "Enforce" for p in store.for_namespace(name))
        and _labels(namespace).get(_POD_SECURITY) not in ("baseline", "restricted")
    )
    if loose:
        yield Finding(
            "pod security", Health.NOTED,
            f"privileged pods and hostPath are let in, which reach GPUs by the node: {some(loose)}",
            f"label them {_POD_SECURITY}: baseline, or have another policy refuse such pods",
        )  # fmt: skip


def _refused_drivers(
    drivers: Sequence[JsonObject], settings: Settings, store: PolicyStore, excluded: set[str]
) -> Iterable[Finding]:
    """DaemonSets, such as a GPU operator's, whose pods are refused for what they ask for."""
    found = []
    for driver in drivers:
        metadata = json_object(driver.get("metadata"))
        namespace = str(metadata.get("namespace"))
        template = json_object(json_object(driver.get("spec")).get("template"))
        policies = store.for_namespace(namespace)
        audited = only_audited(policies, broken=bool(store.broken))
        if namespace not in excluded and not audited and asked(template, settings.gpus):
            found.append(f"{namespace}/{metadata.get('name')}")
    if found:
        yield Finding(
            "drivers", Health.WRONG,
            f"DaemonSets whose pods ask for GPUs, and are refused: {some(sorted(found))}",
            "a GPU operator's namespace belongs in the chart's excludedNamespaces; anything else"
            " runs as a TrainingJob or in a lane",
        )  # fmt: skip


def _going(namespaces: Sequence[JsonObject], sealed: Counter[str]) -> Iterable[Finding]:
    """Namespaces that are being deleted while sealed pods are in them."""
    for namespace in namespaces:
        name = metadata_name(namespace)
        going = json_object(namespace.get("metadata")).get("deletionTimestamp")
        if not going or not sealed[name]:
            continue
        waits = [
            str(condition.get("message"))
            for condition in json_objects(json_object(namespace.get("status")).get("conditions"))
            if condition.get("type") in _WAITS and condition.get("status") == "True"
        ]
        pods = "1 sealed pod" if sealed[name] == 1 else f"{sealed[name]} sealed pods"
        words = f"it is being deleted since {going}, with {pods} in it"
        yield Finding(
            f"namespace {name}", Health.NOTED,
            f"{words}; it waits: {'; '.join(waits):.300}" if waits else words,
            "its pods end with it. Where it hangs, whoever's finalizer it names has to take that"
            " off; the archive keeps the evidence",
        )  # fmt: skip


def _labels(obj: JsonObject) -> JsonObject:
    return json_object(json_object(obj.get("metadata")).get("labels"))
