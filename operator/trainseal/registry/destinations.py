"""Where a registry may send this client: the rules for redirects, upload addresses and realms.

1. Only http and https, no user names in URLs, printable ASCII only.
2. Never from https to plain http.
3. Never to link-local, multicast or unspecified addresses, by literal or by name: cloud metadata
   services live there, and no registry does.
4. Credentials stay with the origin (scheme, host, port) they were meant for; ``transport`` drops
   the Authorization header when any of the three changes. A token realm on another host gets
   them only over https, or where that host was itself named as a plain-HTTP one.

Private addresses are not refused: most registries of companies have one. What keeps a user from
making the webhook call any inner address is the allow-list, asked before the first request.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from .errors import AccessDenied, RegistryMisbehaved, quoted

_AWS_METADATA_V6 = ipaddress.ip_address("fd00:ec2::254")


def forbidden_address(text: str) -> bool:
    """Whether ``text`` is an IP address that no registry has."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address == _AWS_METADATA_V6
    )


def check_destination(url: URL, subject: str) -> None:
    """Rules 1 and 3. Raises RegistryMisbehaved, naming ``subject``."""
    try:
        host, _ = url.host, url.port  # yarl reads a port no sooner than it is asked for
    except ValueError:
        raise _refused(subject, "it sent us to no valid URL") from None
    if url.scheme not in ("http", "https") or not host or url.user or url.password:
        raise _refused(subject, f"it sent us to {quoted(f'{url.scheme}://{host}')}")
    if forbidden_address(host):
        raise _refused(subject, f"it sent us to the address {host}")


def next_location(current: URL, location: str | None, subject: str) -> URL:
    """The URL that a Location header means, kept byte by byte (it may be signed).

    Rules 1 to 3. Raises RegistryMisbehaved.
    """
    if not location:
        raise _refused(subject, "it redirected us without a Location")
    if not all("\x21" <= char <= "\x7e" for char in location):
        raise _refused(subject, "it sent us to no valid URL")
    try:
        url = current.join(URL(location, encoded=True)).with_fragment(None)
    except ValueError:
        raise _refused(subject, "it sent us to no valid URL") from None
    check_destination(url, subject)
    if current.scheme == "https" and url.scheme != "https":
        raise _refused(subject, f"it sent us from https to plain http ({url.host})")
    return url


def realm_url(home: URL, realm: str, plain_http: Collection[str], subject: str) -> URL:
    """The token service that a registry at ``home`` names, where it may have our credentials.

    Rule 4. Raises AccessDenied or RegistryMisbehaved.
    """
    try:
        url = URL(realm)
        check_destination(url, subject)
    except ValueError:
        raise _refused(subject, f"its token realm is {quoted(realm)!r}") from None
    same_host = home.scheme == "http" and url.authority == home.authority
    named = url.host_port_subcomponent in plain_http or url.authority in plain_http
    if url.scheme != "https" and not same_host and not named:
        raise AccessDenied(
            subject,
            f"it wants credentials sent to {url.host_port_subcomponent} over plain http",
            expected="a token realm on https",
            remedy="correct the registry's token realm, or name that host as a plain-HTTP one",
        )
    return url


class GuardedResolver(AbstractResolver):
    """Rule 3 for names: addresses that no registry has are dropped after resolution."""

    def __init__(self) -> None:
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        usable = [address for address in found if not forbidden_address(address["host"])]
        if not usable:
            raise OSError(f"{host} resolves to no address that a registry may have")
        return usable

    async def close(self) -> None:
        await self._resolver.close()


def _refused(subject: str, found: str) -> RegistryMisbehaved:
    return RegistryMisbehaved(
        subject,
        found,
        expected="http or https on a reachable host, never from https to http",
        remedy="check the registry's configuration and any proxy before it",
    )
