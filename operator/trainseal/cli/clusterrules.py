"""What a cluster is judged by: the chart's configuration, and its policies with their roots."""

from __future__ import annotations

import yaml

from trainseal.api.model import API_VERSION, json_object, metadata_name
from trainseal.cluster.api import Kube, NotFoundError, path_of
from trainseal.cluster.listing import listed
from trainseal.cluster.settings import CONFIG_MAP, Settings
from trainseal.verifier.policystore import PolicyStore


async def settings_of(kube: Kube, release: str) -> Settings:
    """The chart's; its defaults where it is not installed in that namespace. Raises KubeError."""
    try:
        found = await kube.get(path_of("v1", "configmaps", release, CONFIG_MAP))
    except NotFoundError:
        return Settings()
    text = json_object(found.get("data")).get("config.yaml")
    return Settings.model_validate(yaml.safe_load(str(text or "")) or {})


async def policies_of(kube: Kube) -> PolicyStore:
    """The cluster's policies, and those that cannot be used. Raises KubeError."""
    store = PolicyStore()
    for plural, listen in (
        ("trustroots", store.on_trust_root),
        ("provenancepolicies", store.on_policy),
    ):
        async for item in listed(kube, path_of(API_VERSION, plural)):
            listen("ADDED", ("", metadata_name(item)), item)
    return store
