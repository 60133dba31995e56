"""Tells the floor what the policies say: where all of them only audit, it lets pass. And by which
further names pods ask for devices: those of DeviceClasses (KEP-5004, on by default from 1.36). And
which lanes they open, from which repositories.

The floor is the chart's ValidatingAdmissionPolicies. The API server evaluates one for each of its
parameters and denies when any evaluation does, so it cannot ask for "some policy, and all of them
audit" over ProvenancePolicies themselves: one ConfigMap says it for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from trainseal.api.model import JsonObject, json_object
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.cluster.informer import Event, Informer
from trainseal.provenance.policies import CompiledPolicy
from trainseal.registry.allowlist import InvalidPattern, Pattern
from trainseal.verifier.policystore import BrokenPolicy, PolicyStore

_log = logging.getLogger(__name__)
CONFIG_MAP = "trainseal-floor"
#: Seconds after which it is looked at again, whoever changed it.
_AGAIN = 60.0
_AFTER_AN_ERROR = 5.0
_DEVICES_API = "resource.k8s.io/v1"
#: No policy has this name. The first three lines are an entry that means no namespace.
_DEVICES = "_devices"
_NOWHERE = "Device\n^()$\n^()$"
#: The same for who changes the Secrets that runs read: a line a policy, whose fields tabs part.
_SECRETS = "_secrets"
_SECRETS_NOWHERE = "Secrets\n^()$\n^()$"
_ANYBODY = "!"
#: Seconds until a cluster without DeviceClasses is asked again whether it has them by now.
_NO_DEVICES_AGAIN = 600.0


def entries(
    policies: Sequence[CompiledPolicy],
    broken: Sequence[BrokenPolicy],
    devices: Iterable[str] = (),
) -> dict[str, str]:
    """The ConfigMap's data: one entry a policy, three lines each; one of device names; and one of
    Secrets (``secret_lines``).

    Its mode, a regular expression (RE2) of the namespaces that it includes, and one of those that
    it excludes. A policy that cannot be used may be one that enforces anywhere. Of a policy with
    lanes a line each follows, ``Lane NAME NAMESPACES``, and one of images, ``Images REFERENCES``.
    """
    found = {p.name: "\n".join(_lines(p)) for p in policies}
    found |= {b.name: f"Enforce\n{_any_of(['*'])}\n{_any_of([])}" for b in broken}
    if names := sorted(set(devices)):
        found[_DEVICES] = "\n".join([_NOWHERE, *names])
    if lines := secret_lines(policies):
        found[_SECRETS] = "\n".join([_SECRETS_NOWHERE, *lines])
    return found


def secret_lines(policies: Sequence[CompiledPolicy]) -> list[str]:
    """Who writes which Secrets that runs may read, a line a policy: expressions of its namespaces,
    as ``entries`` has them; names of Secrets, parted by spaces; users, behind ``=``, or ``!`` where
    the policy holds nobody to it, and it only goes on record who did.

    Fields are parted by tabs, which no name of a user has (api.policy). No other field begins with
    ``=`` or ``!``, so that no name of a Secret is taken for a user's.
    """
    return [
        "\t".join(
            [
                _any_of(policy.include),
                _any_of(policy.exclude),
                " ".join(sorted(policy.allowed_secrets)),
                *_writers(policy),
            ]
        )
        for policy in policies
        if policy.allowed_secrets
    ]


def _lines(policy: CompiledPolicy) -> Iterator[str]:
    yield from (policy.mode, _any_of(policy.include), _any_of(policy.exclude))
    for lane in policy.lanes:
        yield f"Lane {lane.name} {_any_of(lane.namespaces)}"
    if policy.lanes:
        yield f"Images {_images(policy.registries)}"


def _images(patterns: Sequence[str]) -> str:
    """References by digest in repositories of the patterns; one that is none allows nothing."""
    try:
        repositories = [_repositories(Pattern.parse(text)) for text in patterns]
    except InvalidPattern:
        repositories = []
    return f"^({'|'.join(repositories)})@sha256:[0-9a-f]{{64}}$"


def _repositories(pattern: Pattern) -> str:
    parts = [re.escape(part).replace(r"\*", "[^/@:]*") for part in pattern.parts]
    parts += ["[^/@:]+(/[^/@:]+)*"] if pattern.deep else []
    return "/".join([re.escape(pattern.registry), *parts])


def _writers(policy: CompiledPolicy) -> list[str]:
    if policy.mode == "Audit" or policy.secret_rotators is None:
        return [_ANYBODY]
    return [f"={user}" for user in sorted(policy.secret_rotators)]


class Floor:
    """Keeps the ConfigMap as policies and DeviceClasses are.

    ``is_gpu`` says of a resource's name whether the chart's expressions know it without being told.
    """

    def __init__(
        self, kube: Kube, namespace: str, store: PolicyStore, is_gpu: Callable[[str], bool]
    ) -> None:
        self._kube = kube
        self._is_gpu = is_gpu
        self._devices: dict[str, str] = {}
        self._path = path_of("v1", "configmaps", namespace, CONFIG_MAP)
        self._store = store
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """To be called when a policy or a trust root changed."""
        self._changed.set()

    def on_device_class(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        """Listener for DeviceClasses."""
        name = json_object(obj.get("spec")).get("extendedResourceName")
        self._devices.pop(key[1], None)
        if event != "DELETED" and isinstance(name, str) and not self._is_gpu(name):
            self._devices[key[1]] = name
            _log.info("pods ask for devices of DeviceClass %s by %s", key[1], name)
        self.changed()

    async def follow_devices(self) -> None:
        """Watches DeviceClasses for ever, where the cluster has them."""
        while True:
            with contextlib.suppress(KubeError):
                try:
                    await self._kube.get(f"/apis/{_DEVICES_API}")
                    break
                except NotFoundError:
                    await asyncio.sleep(_NO_DEVICES_AGAIN)
                    continue
            await asyncio.sleep(_AFTER_AN_ERROR)
        path = path_of(_DEVICES_API, "deviceclasses")
        await Informer(self._kube, path, listener=self.on_device_class).run()

    async def run(self) -> None:
        """Writes for ever; what fails is tried again."""
        while True:
            pause = _AGAIN
            self._changed.clear()
            try:
                await self.write()
            except KubeError as error:
                pause = _AFTER_AN_ERROR
                _log.warning("ConfigMap %s, which the floor reads: %s", CONFIG_MAP, error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), pause)

    async def write(self) -> None:
        """Writes where something differs. Raises KubeError: also where the object is gone."""
        live = await self._kube.get(self._path)
        wanted: JsonObject = dict(
            entries(self._store.policies, self._store.broken, self._devices.values())
        )
        if (live.get("data") or {}) != wanted:
            await self._kube.replace(self._path, {**live, "data": wanted})


def _any_of(patterns: Sequence[str]) -> str:
    """An anchored expression; a namespace's pattern knows only the star (api.policy)."""
    return f"^({'|'.join(p.replace('*', '.*') for p in patterns)})$"
