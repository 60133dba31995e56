"""Policies as a platform team writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.stage.people import Person

Object = dict[str, Any]


def policy(
    name: str,
    namespace: str,
    *,
    signers: Sequence[Person],
    image_signers: Sequence[Person],
    registries: Sequence[str],
    threshold: int = 1,
) -> Object:
    """Jobs and code by ``threshold`` of ``signers``, images by one of ``image_signers``."""
    people = {person.name: person for person in (*signers, *image_signers)}
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "ProvenancePolicy",
        "metadata": {"name": name},
        "spec": {
            "mode": "Enforce",
            "namespaces": {"include": [namespace]},
            "authorities": [
                {
                    # alice-laptop and alice-desktop are one person with two keys.
                    "name": person.name,
                    "person": person.name.partition("-")[0],
                    "key": {"publicKey": person.public_pem},
                }
                for person in people.values()
            ],
            "requirements": {
                "job": {"authorities": [p.name for p in signers], "threshold": threshold},
                "image": {"authorities": [p.name for p in image_signers]},
                "code": {"authorities": [p.name for p in signers]},
            },
            "registries": {"allow": [f"{registry}/**" for registry in registries]},
        },
    }
