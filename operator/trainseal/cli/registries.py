"""Registries as the command line speaks to them: with the user's own credentials."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from trainseal.cli.failures import Failure
from trainseal.registry.client import RegistryClient
from trainseal.registry.credentials import default_config_file, from_file
from trainseal.registry.references import InvalidReference, check_host
from trainseal.registry.transport import Options


def registry_client(plain_http: Iterable[str] | None, ca_file: Path | None) -> RegistryClient:
    """A client, not yet open; ``plain_http`` as given, hosts separated by commas. Raises Failure.

    Credential helpers are run: it is the user who asks for their own.
    """
    hosts = [h for text in plain_http or () for h in text.replace(",", " ").split()]
    try:
        plain = frozenset(check_host(host) for host in hosts)
    except InvalidReference as error:
        raise Failure(f"--plain-http: {error}") from None
    if ca_file is not None and not ca_file.is_file():
        raise Failure(f"--ca-file {ca_file}: no such file")
    return RegistryClient(
        Options(plain_http=plain, ca_file=ca_file),
        from_file(default_config_file(), run_helpers=True),
    )
