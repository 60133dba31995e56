"""Reads what a run's pods name and others keep: for the seal, and to have ``reads`` compare it.

Of Secrets only metadata is asked for, and only of those that the chart's ``followedSecrets`` names.
One that may not be read is left out, of the seal as of the comparison: no run waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Sequence, Set

from trainseal.api.model import JsonObject
from trainseal.api.sealedrun import (
    MAX_CLAIM_TEMPLATES,
    MAX_SECRETS,
    SealedReferences,
    SealedRun,
    SealedSecret,
)
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.controller import reads
from trainseal.controller.objects import found
from trainseal.controller.ownreport import Seen
from trainseal.controller.world import World
from trainseal.provenance.livepods import account_of, claim_templates_of, secrets_of

_log = logging.getLogger(__name__)
_DEVICES = "resource.k8s.io/v1"
_FORBIDDEN = 403


async def references_of(
    world: World, namespace: str, templates: Sequence[JsonObject]
) -> SealedReferences | None:
    """What these templates of pods name, as it is now. Raises KubeError."""
    accounts = [
        reads.account_of(obj)
        for name in dict.fromkeys(map(account_of, templates))
        if (obj := await _account(world.kube, namespace, name)) is not None
    ]
    claims = [
        reads.claim_template_of(obj)
        for name in _each(map(claim_templates_of, templates))[:MAX_CLAIM_TEMPLATES]
        if (obj := await _claim_template(world.kube, namespace, name)) is not None
    ]
    followed = [
        name
        for name in _each(map(secrets_of, templates))
        if world.settings.follows_secret(namespace, name)
    ]
    secrets = [
        secret
        for name in followed[:MAX_SECRETS]
        if (secret := (await _secret(world.kube, namespace, name))[0]) is not None
    ]
    if not (accounts or claims or secrets):
        return None
    return SealedReferences(
        service_accounts=accounts or None,
        claim_templates=claims or None,
        secrets=secrets or None,
    )


async def read_findings(world: World, run: SealedRun) -> AsyncIterator[Seen]:
    """What is not as it was when the run was sealed. Raises KubeError."""
    sealed, namespace = run.spec.references, run.metadata.namespace
    if sealed is None:
        return
    for account in sealed.service_accounts or ():
        obj = await _account(world.kube, namespace, account.name)
        for item in reads.account_changes(account, reads.account_of(obj) if obj else None):
            yield item
    for claim in sealed.claim_templates or ():
        obj = await _claim_template(world.kube, namespace, claim.name)
        for item in reads.claim_template_changes(
            claim, reads.claim_template_of(obj) if obj else None
        ):
            yield item
    for secret in sealed.secrets or ():
        live, known = await _secret(world.kube, namespace, secret.name)
        if known:
            for item in reads.secret_changes(secret, live, _rotators(world, run, secret.name)):
                yield item


def _rotators(world: World, run: SealedRun, secret: str) -> Set[str] | None:
    """Who alone could change the Secret since the run was sealed; None: that cannot be told.

    It can where the floor is installed and the policies are those of the seal.
    """
    if not world.settings.floor:
        return None
    then = {p.name: p.digest for p in run.spec.policies}
    policies = [p for p in world.policies(run.metadata.namespace) if p.name in then]
    if {p.name: p.digest for p in policies} != then:
        return None
    named = [
        p.secret_rotators
        for p in policies
        if p.mode == "Enforce" and secret in p.allowed_secrets and p.secret_rotators is not None
    ]
    return frozenset.intersection(*named) if named else None


def _each(names: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(name for several in names for name in several))


async def _account(kube: Kube, namespace: str, name: str) -> JsonObject | None:
    return await found(kube, path_of("v1", "serviceaccounts", namespace, name))


async def _claim_template(kube: Kube, namespace: str, name: str) -> JsonObject | None:
    """None also where the cluster has no such kind."""
    return await found(kube, path_of(_DEVICES, "resourceclaimtemplates", namespace, name))


async def _secret(kube: Kube, namespace: str, name: str) -> tuple[SealedSecret | None, bool]:
    """The Secret, or None where there is none; and whether that could be told."""
    path = path_of("v1", "secrets", namespace, name)
    try:
        return reads.secret_of(await kube.get_metadata(path)), True
    except NotFoundError:
        return None, True
    except KubeError as error:
        if error.status != _FORBIDDEN:
            raise
        _log.warning(
            "Secret %s/%s is named by followedSecrets, and its metadata may not be read: %s; "
            "upgrade the chart with this value once the namespace exists",
            *(namespace, name, error.message),
        )
        return None, False
