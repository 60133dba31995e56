"""Compares what guards the cluster with what the chart made of it, each minute.

A weakened rule concerns the whole cluster and no run more than another, so it is told once: by the
metric ``trainseal_rules_changed``, by an Event in our namespace, in the log and by an alert, until
the rule is as it was. The API server's audit log has the person; no admission sees such a change.

Of a policy that was weakened the webhook's record says who did it and how: that is alerted, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from prometheus_client import Gauge
from yaml import YAMLError

from trainseal.api.accessrecord import LABEL_WEAKENS, PLURAL, AccessRecord, ObjectIdentity
from trainseal.api.model import (
    API_VERSION,
    InvalidObjectError,
    JsonObject,
    json_object,
)
from trainseal.cluster.api import ConflictError, Kube, KubeError, NotFoundError, path_of
from trainseal.cluster.listing import listed
from trainseal.controller.alerts import FIRING, Alert, enforcement_alert
from trainseal.provenance.installedrules import CONFIG_MAP, KEY, PLURALS, Rules, read
from trainseal.provenance.keyrings import rfc3339

_log = logging.getLogger(__name__)
EVERY_SECONDS = 60.0
#: What is changed is told of again each minute; once it is as it was, the alert ends by itself.
_FIRING = timedelta(minutes=5)
_PAGE = 500
_REMEDY = (
    "Upgrade the chart with --force-conflicts, which makes it as it was, and look who did it in "
    "the audit log."
)
_CHANGED = Gauge(
    "trainseal_rules_changed",
    "1 where a webhook configuration, policy, role or kind is not as the chart made it.",
    ["kind", "name"],
)


class RulesWatch:
    """``namespace`` is ours."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        clock: Callable[[], datetime],
        tell: Callable[[Alert], None],
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._clock = clock
        self._tell = tell
        #: Records that were told of, among those that still are news.
        self._told: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Looks for ever; what fails is said and tried again."""
        while True:
            try:
                await self.look()
                await self.look_at_records()
            except (KubeError, YAMLError) as error:
                _log.warning("comparing the rules with the chart's: %s", error)
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Differences by kind and name, none for a rule that is as it was. Raises KubeError."""
        path = path_of("v1", "configmaps", self._namespace, CONFIG_MAP)
        config = await self._kube.get(path)
        found = {}
        text = str(json_object(config.get("data")).get(KEY) or "")
        for rule in await asyncio.to_thread(read, text):
            try:
                differences = await self._differences(rule)
            except KubeError as error:
                if error.status == 0:
                    raise
                # Nor may that be seen: the controller's own role is among what is compared.
                differences = (f"it cannot be looked at: {error.message:.200}",)
            found[rule.kind, rule.name] = differences
            _CHANGED.labels(rule.kind, rule.name).set(1 if differences else 0)
            if differences:
                words = "; ".join(differences[:5])
                message = f"{rule.kind} {rule.name} is not as the chart made it: {words}"
                _log.error("%s", message)
                await self._event(config, message)
                now = self._clock()
                self._tell(
                    enforcement_alert(
                        rule.kind, rule.name, message, f"{words}. {_REMEDY}",
                        record="", since=now, until=now + _FIRING,
                    )
                )  # fmt: skip
        return found

    async def look_at_records(self) -> None:
        """Tells of who weakened a policy or trust root within a day. Raises KubeError."""
        now = self._clock()
        news = set()
        path = path_of(API_VERSION, PLURAL, self._namespace)
        query = {"labelSelector": f"{LABEL_WEAKENS}=true"}
        async for item in listed(self._kube, path, query, most=_PAGE):
            try:
                record = AccessRecord.parse(item)
            except InvalidObjectError as error:
                _log.error("AccessRecord: %s", error)
                continue
            thing, name = record.spec.object, record.metadata.name
            if thing is None or record.spec.time <= now - FIRING:
                continue
            news.add(name)
            if name not in self._told:
                self._tell(_weakened(thing, record))
        self._told = frozenset(news)

    async def _differences(self, rule: Rules) -> tuple[str, ...]:
        path = path_of(rule.api_version, PLURALS[rule.kind], rule.namespace, rule.name)
        try:
            return rule.differences(await self._kube.get(path))
        except NotFoundError:
            return ("it is gone",)

    async def _event(self, config: JsonObject, message: str) -> None:
        """Told once: the name follows from what is told."""
        mark = hashlib.sha256(message.encode()).hexdigest()[:16]
        now = rfc3339(self._clock())
        body: JsonObject = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{CONFIG_MAP}.{mark}", "namespace": self._namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "name": CONFIG_MAP,
                "namespace": self._namespace,
                "uid": json_object(config.get("metadata")).get("uid"),
            },
            "reason": "RuleChanged",
            "message": message[:1024],
            "type": "Warning",
            "source": {"component": "trainseal-controller"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._kube.create(path_of("v1", "events", self._namespace), body)
        except ConflictError:
            return


def _weakened(thing: ObjectIdentity, record: AccessRecord) -> Alert:
    spec = record.spec
    return enforcement_alert(
        thing.kind,
        thing.name,
        f"{thing.kind} {thing.name} was weakened by {spec.username}",
        f"{spec.action}: {spec.message}. Ask them; the AccessRecord {record.metadata.name} is in "
        f"namespace {record.metadata.namespace}.",
        record=record.metadata.name,
        since=spec.time,
        until=spec.time + FIRING,
    )
