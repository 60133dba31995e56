"""What a policy says of the ways into a sealed pod that runs, made ready for judging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from trainseal.api.policy import AccessRules, Answer

#: The ways in, by the actions of AccessRecords; deletions and evictions are none.
Way = Literal["Exec", "Attach", "PortForward", "Proxy", "EphemeralContainer"]
WAYS: tuple[Way, ...] = get_args(Way)
_FIELDS: Mapping[Way, str] = {
    "Exec": "exec",
    "Attach": "attach",
    "PortForward": "portForward",
    "Proxy": "proxy",
    "EphemeralContainer": "ephemeralContainers",
}
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class CompiledAccess:
    """The answer for each way in, and the service accounts that it holds for."""

    answers: Mapping[Way, Answer]
    service_accounts: frozenset[str]

    def refusal(self, way: Way, username: str, excluded_namespaces: frozenset[str]) -> str | None:
        """Why it is denied: the rule, as a policy's reader finds it; None where it is not.

        ``username`` is who asks, as the API server saw them. A service account of an excluded
        namespace is the platform's: who could borrow it is an administrator already.
        """
        if self.answers[way] == "Deny":
            return f"access.{_FIELDS[way]} is Deny"
        namespace = workload_namespace(username)
        if namespace is None or namespace in excluded_namespaces:
            return None
        if username in self.service_accounts:
            return None
        return "access.serviceAccounts does not name this service account"


def workload_namespace(username: str) -> str | None:
    """The namespace of a service account; None for anybody else.

    Kubernetes, "Authenticating": ``system:serviceaccount:NAMESPACE:NAME``. No authenticator but the
    API server's own should give such a name; one that does is taken for what it says.
    """
    if not username.startswith(_SERVICE_ACCOUNT):
        return None
    return username.removeprefix(_SERVICE_ACCOUNT).partition(":")[0]


def compile_access(rules: AccessRules | None) -> CompiledAccess:
    """The answers with what holds where a policy is silent. Every way but a debug container is on
    record then: an upgrade locks nobody out of the run they look after."""
    given = rules or AccessRules()
    return CompiledAccess(
        {
            "Exec": given.exec or "Record",
            "Attach": given.attach or "Record",
            "PortForward": given.port_forward or "Record",
            "Proxy": given.proxy or "Record",
            "EphemeralContainer": given.ephemeral_containers or "Deny",
        },
        frozenset(given.service_accounts or ()),
    )


#: What holds where no policy names a namespace (any more).
UNNAMED = compile_access(None)
