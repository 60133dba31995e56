"""What stands beside a workload in its file: ConfigMaps and Secrets that its pods read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainseal.api.model import JsonObject
from trainseal.cli.wrapping.fields import Field
from trainseal.provenance.document import ManifestError
from trainseal.provenance.yamlreader import read_mapping


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The objects of a file, found by kind and name."""

    objects: Sequence[Field]
    namespace: str = ""

    def find(self, kind: str, name: str) -> Field | None:
        """The one of this kind and name in the workload's namespace, as far as one is named."""
        for found in self.objects:
            if found.text("kind") != kind or found.text("metadata", "name") != name:
                continue
            namespace = found.text("metadata", "namespace")
            if not namespace or not self.namespace or namespace == self.namespace:
                return found
        return None

    def config_map(self, name: str) -> Mapping[str, str] | None:
        """The texts of a ConfigMap; None where the file has none of this name."""
        found = self.find("ConfigMap", name)
        data = found.get("data") if found else None
        if found is None:
            return None
        return {key: str(f.content) for key, f in data.entries()} if data else {}

    def secret_keys(self, name: str) -> tuple[str, ...] | None:
        """The keys of a Secret, never its values; None where the file has none of this name."""
        found = self.find("Secret", name)
        if found is None:
            return None
        parts = (found.get("data"), found.get("stringData"))
        return tuple(sorted({key for part in parts if part for key, _ in part.entries()}))


def parameters_of(text: str, name: str) -> JsonObject | None:
    """The mapping that a config file holds; None where it is none.

    Read as strictly as a manifest: what readers take differently is no config to sign.
    """
    if not name.endswith((".yaml", ".yml", ".json")):
        return None
    try:
        return read_mapping(text, name).value or None
    except ManifestError:
        return None
