"""What a policy says of the ways into a sealed pod that runs, and of its resize, made ready for
judging."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

from trainseal.api.accessrecord import Way
from trainseal.api.breakglass import BreakGlass
from trainseal.api.policy import AccessRules, Answer, BreakGlassRules, SelfApproval

WAYS: tuple[Way, ...] = get_args(Way)
#: How long a BreakGlass may be valid where a policy does not say.
HOUR = timedelta(hours=1)
#: The policy's field of each.
FIELDS: Mapping[Way, str] = {
    "Exec": "exec",
    "Attach": "attach",
    "PortForward": "portForward",
    "Proxy": "proxy",
    "EphemeralContainer": "ephemeralContainers",
    "Resize": "resize",
}
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Permit:
    """A BreakGlass, as far as it decides. ``ways`` is empty where it opens all of them."""

    name: str
    user: str
    approved_by: str
    ways: frozenset[Way]
    created: datetime
    not_after: datetime

    @classmethod
    def of(cls, glass: BreakGlass) -> Permit:
        """Of one that the API server stores; ValueError where it does not say when it was made."""
        created = glass.metadata.creation_timestamp
        if created is None:
            raise ValueError("it has no creationTimestamp")
        spec = glass.spec
        return cls(
            glass.metadata.name,
            spec.user,
            spec.approved_by,
            frozenset(spec.ways or ()),
            created,
            spec.not_after,
        )

    def opens(self, way: Way, now: datetime) -> bool:
        """Whether it is for this way, and valid still."""
        return now < self.not_after and (not self.ways or way in self.ways)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why it is denied, as a policy's reader finds it. ``glass``: a BreakGlass opens it."""

    why: str
    glass: bool = False


@dataclass(frozen=True, slots=True)
class CompiledAccess:
    """The answer for each way in, the service accounts that it holds for, and what a BreakGlass
    needs."""

    answers: Mapping[Way, Answer]
    service_accounts: frozenset[str]
    longest: timedelta
    self_users: frozenset[str]
    self_groups: frozenset[str]
    #: Who may delete; None: anybody.
    deleters: tuple[frozenset[str], frozenset[str]] | None

    def refusal(
        self, way: Way, username: str, excluded_namespaces: frozenset[str]
    ) -> Refusal | None:
        """Why somebody is denied; None where they are not.

        ``username`` is who asks, as the API server saw them. A service account of an excluded
        namespace is the platform's: who could borrow it is an administrator already.
        """
        if self.answers[way] == "Deny":
            return Refusal(f"access.{FIELDS[way]} is Deny")
        namespace = workload_namespace(username)
        if (
            namespace is not None
            and namespace not in excluded_namespaces
            and username not in self.service_accounts
        ):
            return Refusal("access.serviceAccounts does not name this service account")
        if self.answers[way] == "BreakGlass":
            return Refusal(f"access.{FIELDS[way]} is BreakGlass", glass=True)
        return None

    def may_delete(self, username: str, groups: Collection[str]) -> bool:
        """Whether somebody may delete pods of sealed runs, and what these are made of."""
        if self.deleters is None:
            return True
        users, named = self.deleters
        return username in users or bool(named.intersection(groups))

    def obstacle(self, permit: Permit, groups: Collection[str]) -> str | None:
        """Why this BreakGlass does not count here; None where it does. ``groups`` are its user's,
        as they are when it is used."""
        lasts = permit.not_after - permit.created
        if lasts > self.longest:
            return (
                f"BreakGlass {permit.name} lasts {_minutes(lasts)}, expected at most "
                f"{_minutes(self.longest)} (access.breakGlass.maxDurationSeconds)"
            )
        if permit.approved_by != permit.user:
            return None
        if permit.user in self.self_users or self.self_groups.intersection(groups):
            return None
        return (
            f"BreakGlass {permit.name} was approved by who uses it, expected another person: "
            "access.breakGlass.selfApproval does not name them"
        )


def _minutes(span: timedelta) -> str:
    return f"{span.total_seconds() / 60:.0f} min"


def workload_namespace(username: str) -> str | None:
    """The namespace of a service account; None for anybody else.

    Kubernetes, "Authenticating": ``system:serviceaccount:NAMESPACE:NAME``. No authenticator but the
    API server's own should give such a name; one that does is taken for what it says.
    """
    if not username.startswith(_SERVICE_ACCOUNT):
        return None
    return username.removeprefix(_SERVICE_ACCOUNT).partition(":")[0]


def compile_access(rules: AccessRules | None) -> CompiledAccess:
    """The answers with what holds where a policy is silent. Every way but a debug container and a
    resize is on record then: an upgrade locks nobody out of the run they look after."""
    given = rules or AccessRules()
    glass = given.break_glass or BreakGlassRules()
    oneself = glass.self_approval or SelfApproval()
    seconds = glass.max_duration_seconds
    return CompiledAccess(
        {
            "Exec": given.exec or "Record",
            "Attach": given.attach or "Record",
            "PortForward": given.port_forward or "Record",
            "Proxy": given.proxy or "Record",
            "EphemeralContainer": given.ephemeral_containers or "Deny",
            "Resize": given.resize or "Deny",
        },
        frozenset(given.service_accounts or ()),
        timedelta(seconds=seconds) if seconds else HOUR,
        frozenset(oneself.users or ()),
        frozenset(oneself.groups or ()),
        (frozenset(given.deletion.users or ()), frozenset(given.deletion.groups or ()))
        if given.deletion
        else None,
    )


#: What holds where no policy names a namespace (any more).
UNNAMED = compile_access(None)
