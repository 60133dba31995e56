from __future__ import annotations

import socket

import pytest
from aiohttp.abc import ResolveResult
from yarl import URL

from trainseal.registry.destinations import (
    GuardedResolver,
    forbidden_address,
    next_location,
    realm_url,
)
from trainseal.registry.errors import AccessDenied, RegistryMisbehaved

HTTPS, HTTP = URL("https://registry.example/v2/x"), URL("http://registry.example:5000/v2/x")


@pytest.mark.parametrize(
    ("current", "location", "target"),
    [
        (HTTPS, "/v2/y?a=%2F", "https://registry.example/v2/y?a=%2F"),
        (HTTPS, "https://store.example/a%2Fb?sig=x%2By", "https://store.example/a%2Fb?sig=x%2By"),
        (HTTPS, "//store.example/y", "https://store.example/y"),
        (HTTP, "http://store.example/y", "http://store.example/y"),
        (HTTP, "https://store.example/y#part", "https://store.example/y"),
        (HTTPS, "https://10.0.0.5/y", "https://10.0.0.5/y"),
    ],
)
def test_a_location_is_followed_byte_by_byte(current: URL, location: str, target: str) -> None:
    assert str(next_location(current, location, "it")) == target


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "http://registry.example/v2/x",
        "ftp://registry.example/x",
        "https://user:secret@registry.example/x",
        "https://169.254.169.254/x",
        "https://[fe80::1]/x",
        "https://224.0.0.1/x",
        "https://[fd00:ec2::254]/x",
        "https://registry.example/a b",
        "https://registry.example/\u00e4",
        "https://registry.example:99999/x",
        "https://[::1/x",
    ],
)
def test_a_location_that_no_registry_has_reason_to_name_is_refused(location: str | None) -> None:
    with pytest.raises(RegistryMisbehaved) as error:
        next_location(HTTPS, location, "it")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("home", "realm"),
    [
        (HTTPS, "https://registry.example/token"),
        (HTTPS, "https://auth.example/token"),
        (HTTP, "https://auth.example/token"),
        (HTTP, "http://registry.example:5000/token"),
        (HTTP, "http://plain.example/token"),
    ],
)
def test_a_token_realm_on_https_or_a_plain_host_named_so_may_be_asked(
    home: URL, realm: str
) -> None:
    assert str(realm_url(home, realm, {"plain.example"}, "it")) == realm


@pytest.mark.parametrize(
    ("home", "realm"),
    [
        (HTTPS, "http://registry.example/token"),
        (HTTPS, "http://auth.example/token"),
        (HTTP, "http://auth.example/token"),
        (HTTP, "http://registry.example/token"),
    ],
)
def test_a_token_realm_on_plain_http_elsewhere_may_not(home: URL, realm: str) -> None:
    with pytest.raises(AccessDenied, match="plain http"):
        realm_url(home, realm, {"plain.example"}, "it")


@pytest.mark.parametrize("realm", ["", "token", "https://[::1", "https://0.0.0.0/", "x://y/"])
def test_a_token_realm_that_is_no_address_is_refused(realm: str) -> None:
    with pytest.raises(RegistryMisbehaved):
        realm_url(HTTPS, realm, set(), "it")


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1"])
def test_private_addresses_are_registries_addresses(address: str) -> None:
    assert not forbidden_address(address)


async def test_a_name_that_resolves_to_a_metadata_service_is_not_connected_to() -> None:
    class Fixed:
        def __init__(self, *addresses: str) -> None:
            self.addresses = addresses

        async def resolve(self, host: str, port: int, _family: int) -> list[ResolveResult]:
            return [
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=socket.AF_INET,
                    proto=0,
                    flags=0,
                )
                for address in self.addresses
            ]

    resolver = GuardedResolver()
    resolver._resolver = Fixed("169.254.169.254")  # type: ignore[assignment]
    with pytest.raises(OSError, match="no address that a registry may have"):
        await resolver.resolve("registry.example")
    resolver._resolver = Fixed("169.254.169.254", "10.0.0.1")  # type: ignore[assignment]
    assert [a["host"] for a in await resolver.resolve("registry.example")] == ["10.0.0.1"]
