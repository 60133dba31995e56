"""The config files that a trainer reads, as bytes that follow from the signed parameters alone.

Both files say the same to every reader: strings are always quoted and floats always carry a
point, because YAML 1.1 and 1.2 readers take plain ``1e-5``, ``yes`` or ``0o17`` differently.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping

import yaml
from pydantic import JsonValue

from trainseal.provenance.canonical import digest

FILES = ("config.json", "config.yaml")
#: Bytes of config.json; config.yaml is about as long, and a ConfigMap holds 1 MiB.
MAX_CONFIG_BYTES = 256 * 1024


class _Dumper(yaml.SafeDumper):
    """YAML that every reader takes alike."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


_Dumper.add_representer(str, _quoted)


def config_files(parameters: Mapping[str, JsonValue]) -> dict[str, str]:
    """``config.json`` and ``config.yaml`` with the parameters, keys in sorted order."""
    text = _json(dict(parameters))
    return {"config.json": text, "config.yaml": _yaml(text)}


@functools.lru_cache(maxsize=16)
def _yaml(text: str) -> str:
    """The same as YAML. Writing it takes longest of all that a look at a run does, and each look
    wants it several times.
    """
    value = json.loads(text)
    return yaml.dump(value, Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=2**31)


def config_bytes(parameters: Mapping[str, JsonValue]) -> int:
    """Bytes of config.json alone: cheap, where writing long YAML takes a second."""
    return len(_json(dict(parameters)).encode())


def _json(value: dict[str, JsonValue]) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def file_digests(files: Mapping[str, str]) -> dict[str, str]:
    """``sha256:…`` of each file's UTF-8 bytes."""
    return {
        name: "sha256:" + hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()
    }


def config_digest(files: Mapping[str, str]) -> str:
    """One digest for all files, for the seal."""
    return digest(file_digests(files))
