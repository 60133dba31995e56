"""TrainingTemplates as people write them, unsigned, and jobs that name one."""

from __future__ import annotations

import copy
from typing import Any

from trainseal.provenance.canonical import template_digest

Object = dict[str, Any]


def template_of(job: Object, name: str, user: str, **launch: Any) -> Object:
    """A job as a template: learning rate, size and code are left open to this user."""
    (mount,) = job["spec"]["code"]
    repository = mount["oci"]["reference"].partition("@")[0]
    return {
        "apiVersion": job["apiVersion"],
        "kind": "TrainingTemplate",
        "metadata": {"name": name, "namespace": job["metadata"]["namespace"]},
        "spec": {
            "parameters": {
                "learning_rate": {"type": "number", "minimum": 0.0001, "maximum": 0.01},
                "steps": {"type": "integer", "minimum": 1, "maximum": 1000},
            },
            "replicas": {"worker": {"min": 1, "max": 2}},
            "code": {mount["name"]: {"repository": repository, "authority": "bob"}},
            "launch": {"requesters": [{"user": user}], **launch},
            "job": copy.deepcopy(job["spec"]),
        },
    }


def job_from(template: Object, **spec: Any) -> Object:
    """A job that names the template; the API server gives it its name."""
    metadata = template["metadata"]
    return {
        "apiVersion": template["apiVersion"],
        "kind": "TrainingJob",
        "metadata": {
            "generateName": f"{metadata['name']}-",
            "namespace": metadata["namespace"],
        },
        "spec": {
            "templateRef": {"name": metadata["name"], "digest": template_digest(template)},
            **spec,
        },
    }
