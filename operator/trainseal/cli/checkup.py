"""What a working TrainSeal consists of in a cluster, looked at piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator

import yaml

from trainseal.api import crd
from trainseal.api.model import API_VERSION, JsonObject, json_object, json_objects, metadata_name
from trainseal.cli import checkupcoverage, checkupsurroundings
from trainseal.cli.checkupreport import Finding, Health, unseen
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.cluster.settings import CONFIG_MAP, KEYRING_CONFIG_MAP
from trainseal.provenance import installedrules

ADMISSION = "admissionregistration.k8s.io/v1"
RELEASE = "trainseal"
#: What each configuration is called here, its kind's plural, and its name.
WEBHOOKS = (
    ("mutatingwebhook", "mutatingwebhookconfigurations", RELEASE),
    ("validatingwebhook", "validatingwebhookconfigurations", RELEASE),
    ("accesswebhook", "validatingwebhookconfigurations", "trainseal-access"),
)
#: Fail open by design: nodes are drained, and objects and broken policies deleted, also while no
#: webhook answers; a node's proxy is who repairs a cluster's; and those that look on, or make
#: notebooks fit their lane, are no gate.
FAILS_OPEN = frozenset(
    {
        "evictions.access.trainseal.dev",
        "nodes.access.trainseal.dev",
        "notebooks.trainseal.dev",
        "objects.access.trainseal.dev",
        "removals.trainseal.dev",
        "services.networks.trainseal.dev",
        "witness.trainseal.dev",
    }
)
KINDS = frozenset(kind.plural for kind in crd.KINDS)
_CHANGED = (
    "somebody changed it: upgrade the chart with --force-conflicts, and look at the audit log"
)
_OTHER_RELEASE = (
    "upgrade the chart, or use the trainseal command of the release that is installed; if neither"
    " helps, somebody changed it: upgrade with --force-conflicts, and look at the audit log"
)
#: The Job controller's identity where the controller manager uses one account a controller.
JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"
SHARED_IDENTITY = "system:kube-controller-manager"


async def examine(kube: Kube, namespace: str) -> list[Finding]:
    """Every piece. Raises KubeError where the API server does not answer at all."""
    version = await kube.get("/version")
    findings = [Finding("cluster", Health.GOOD, f"Kubernetes {version.get('gitVersion')}")]
    parts = (
        _kinds(kube),
        _webhooks(kube),
        _rules(kube, namespace),
        _deployments(kube, namespace),
        _keyring(kube, namespace),
        _policies(kube),
        _pod_creator(kube, namespace),
        *checkupcoverage.parts(kube, namespace),
        *checkupsurroundings.parts(kube, namespace),
    )
    for part in parts:
        findings += [finding async for finding in part]
    return findings


async def _kinds(kube: Kube) -> AsyncIterator[Finding]:
    install = "install the chart: helm install trainseal charts/trainseal -n trainseal-system"
    try:
        served = await kube.get(f"/apis/{API_VERSION}")
    except NotFoundError:
        yield Finding("kinds", Health.WRONG, f"the API server has no {API_VERSION}", install)
        return
    names = {str(r.get("name")) for r in json_objects(served.get("resources"))}
    if missing := sorted(KINDS - names):
        yield Finding("kinds", Health.WRONG, f"missing: {', '.join(missing)}", "upgrade the chart")
    else:
        yield Finding("kinds", Health.GOOD, f"all {len(KINDS)} are served")


async def _webhooks(kube: Kube) -> AsyncIterator[Finding]:
    for what, plural, configuration in WEBHOOKS:
        try:
            found = await kube.get(path_of(ADMISSION, plural, None, configuration))
        except NotFoundError:
            yield Finding(
                what, Health.WRONG, f"no configuration named {configuration}: nothing is enforced",
                "install or upgrade the chart",
            )  # fmt: skip
            continue
        except KubeError as error:
            yield unseen(what, error)
            continue
        hooks = json_objects(found.get("webhooks"))
        empty = [h for h in hooks if not json_object(h.get("clientConfig")).get("caBundle")]
        open_ = [
            h for h in hooks if h.get("failurePolicy") != "Fail" and h.get("name") not in FAILS_OPEN
        ]
        if empty:
            yield Finding(
                what, Health.WRONG, f"{_names(empty)}: no caBundle; every request is denied",
                "the controller fills it in: look at its log (or cert-manager's injector's)",
            )  # fmt: skip
        elif open_:
            yield Finding(
                what, Health.WRONG, f"{_names(open_)}: failurePolicy is not Fail: it fails open",
                _CHANGED,
            )  # fmt: skip
        else:
            closed = [h for h in hooks if h.get("name") not in FAILS_OPEN]
            by_design = [h for h in hooks if h.get("name") in FAILS_OPEN]
            words = f"{_names(closed)}: fail closed, with a caBundle"
            if by_design:
                words += f"; {_names(by_design)}: open by design"
            yield Finding(what, Health.GOOD, words)


async def _rules(kube: Kube, namespace: str) -> AsyncIterator[Finding]:
    """Whether webhooks, floor, roles and kinds are as the chart made them."""
    what, name = "rules", installedrules.CONFIG_MAP
    try:
        config = await kube.get(path_of("v1", "configmaps", namespace, name))
    except NotFoundError:
        yield Finding(
            what, Health.WRONG, f"no ConfigMap {name} to compare them with", "upgrade the chart"
        )
        return
    except KubeError as error:
        yield unseen(what, error)
        return
    rules = installedrules.read(str(json_object(config.get("data")).get(installedrules.KEY) or ""))
    good = True
    hidden: dict[str, Finding] = {}
    for rule in rules:
        plural = installedrules.PLURALS[rule.kind]
        path = path_of(rule.api_version, plural, rule.namespace, rule.name)
        try:
            differences = rule.differences(await kube.get(path))
        except NotFoundError:
            differences = ("it is gone",)
        except KubeError as error:
            # Who may not look at one may look at none of the kind: said once.
            hidden.setdefault(rule.kind, unseen(plural, error))
            continue
        if differences:
            good = False
            found = "; ".join(differences[:3])
            remedy = _OTHER_RELEASE if rule.kind == installedrules.CRD else _CHANGED
            yield Finding(f"{rule.kind} {rule.name}", Health.WRONG, found, remedy)
    for finding in hidden.values():
        yield finding
    if good and not hidden:
        floor = any(rule.kind == "ValidatingAdmissionPolicy" for rule in rules)
        off = "" if floor else "; there is no floor beneath the webhook (floor.enabled is false)"
        words = f"{len(rules)} objects are as the chart made them{off}"
        yield Finding(what, Health.GOOD, words)


async def _deployments(kube: Kube, namespace: str) -> AsyncIterator[Finding]:
    for name in ("trainseal-webhook", "trainseal-controller"):
        try:
            found = await kube.get(path_of("apps/v1", "deployments", namespace, name))
        except NotFoundError:
            yield Finding(
                name, Health.WRONG, f"no Deployment in namespace {namespace}",
                "install the chart, or give --release-namespace NS",
            )  # fmt: skip
            continue
        except KubeError as error:
            yield unseen(name, error)
            continue
        ready = json_object(found.get("status")).get("readyReplicas") or 0
        wanted = json_object(found.get("spec")).get("replicas") or 0
        health = Health.GOOD if ready == wanted and ready else Health.WRONG
        remedy = f"kubectl describe deployment {name} -n {namespace}"
        yield Finding(
            name, health, f"{ready} of {wanted} ready", "" if health is Health.GOOD else remedy
        )


async def _keyring(kube: Kube, namespace: str) -> AsyncIterator[Finding]:
    try:
        await kube.get(path_of("v1", "configmaps", namespace, KEYRING_CONFIG_MAP))
    except NotFoundError:
        yield Finding(
            "keyring", Health.WRONG, f"no ConfigMap {KEYRING_CONFIG_MAP}: no seal can be read",
            "the controller makes it when it first leads: look at its log",
        )  # fmt: skip
    except KubeError as error:
        yield unseen("keyring", error)
    else:
        yield Finding("keyring", Health.GOOD, "the operator's public keys are published")


async def _policies(kube: Kube) -> AsyncIterator[Finding]:
    try:
        page = await kube.get(path_of(API_VERSION, "provenancepolicies"))
    except KubeError as error:
        yield unseen("policies", error)
        return
    policies = json_objects(page.get("items"))
    if not policies:
        yield Finding(
            "policies", Health.WRONG, "there is no ProvenancePolicy: every TrainingJob is denied",
            "apply one that names your namespaces",
        )  # fmt: skip
    for policy in policies:
        name = metadata_name(policy)
        for condition in json_objects(json_object(policy.get("status")).get("conditions")):
            if condition.get("type") == "Ready" and condition.get("status") == "False":
                yield Finding(
                    f"policy {name}", Health.WRONG, str(condition.get("message")),
                    "correct it: while it is so, every TrainingJob is denied",
                )  # fmt: skip
                break
        else:
            mode = json_object(policy.get("spec")).get("mode")
            yield Finding(f"policy {name}", Health.GOOD, f"in use, {mode}")


async def _pod_creator(kube: Kube, namespace: str) -> AsyncIterator[Finding]:
    """Which identity the Job controller has differs with the controller manager's flags."""
    try:
        config = await kube.get(path_of("v1", "configmaps", namespace, CONFIG_MAP))
        found = await _has_account(kube)
    except KubeError as error:
        yield unseen("pod creators", error)
        return
    text = json_object(config.get("data")).get("config.yaml")
    settings = json_object(yaml.safe_load(str(text or "")))
    listed = settings.get("podCreators")
    names = [str(n) for n in listed] if isinstance(listed, list) else []
    identity = JOB_CONTROLLER if found else SHARED_IDENTITY
    if identity in names:
        yield Finding("pod creators", Health.GOOD, f"{identity} may create sealed pods")
    else:
        yield Finding(
            "pod creators", Health.WRONG,
            f"the controller manager seems to be {identity}, and podCreators names"
            f" {', '.join(names) or 'nobody'}: no sealed pod would be admitted",
            "set podCreators in the chart's values",
        )  # fmt: skip


async def _has_account(kube: Kube) -> bool:
    """Whether controllers have accounts of their own (--use-service-account-credentials)."""
    try:
        await kube.get(path_of("v1", "serviceaccounts", "kube-system", "job-controller"))
    except NotFoundError:
        return False
    return True


def _names(hooks: list[JsonObject]) -> str:
    return ", ".join(str(h.get("name")) for h in hooks)
