"""The signer's private key: read from its file, opened with a password where it has one."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from pathlib import Path

from trainseal.cli.failures import Failure
from trainseal.provenance.keyfiles import load_private_key
from trainseal.provenance.keys import MAX_KEY_BYTES, KeyFormatError, KeyPasswordError, PrivateKey

PASSWORD_VARIABLES = ("TRAINSEAL_KEY_PASSWORD", "COSIGN_PASSWORD")


def read_key(path: Path, environment: Mapping[str, str] = os.environ) -> PrivateKey:
    """The key in a file. Raises Failure, naming the file and never what is in it."""
    with path.open("rb") as file:
        content = file.read(MAX_KEY_BYTES + 1)
    try:
        return load_private_key(content, lambda: _password(path, environment))
    except KeyPasswordError as error:
        raise Failure(
            f"{path}: {error}",
            remedy=f"set {' or '.join(PASSWORD_VARIABLES)} to its password, or type it",
        ) from None
    except KeyFormatError as error:
        raise Failure(f"{path}: {error}") from None


def _password(path: Path, environment: Mapping[str, str]) -> bytes:
    for name in PASSWORD_VARIABLES:
        if name in environment:
            return environment[name].encode()
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise Failure(
            f"{path} is encrypted, and there is no terminal to ask for its password",
            remedy=f"set {' or '.join(PASSWORD_VARIABLES)}",
        ) from None
    return getpass.getpass(f"Password of {path}: ").encode()
