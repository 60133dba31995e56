"""What an editor submits: tried by a server-side dry run, which asks the API server and the webhook
and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.attacks.case import Attack, Case, Refused, Twin
from tests.attacks.scene import Scene
from tests.e2e.lab import Lab, Object

#: Makes what is submitted.
Making = Callable[[Lab], Object]


def submit(lab: Lab, obj: Object) -> None:
    """As the editor; CommandError where it is refused."""
    words = ("create", "--dry-run=server", "-f", "-")
    lab.kubectl(*words, stdin=obj, namespace=obj["metadata"]["namespace"])


def submits(make: Making) -> Attack:
    """Submits what is made."""

    def do(scene: Scene) -> None:
        submit(scene.lab, make(scene.lab))

    return do


def refused(
    group: str, name: str, field: str, says: str, bad: Making, good: Making, good_name: str
) -> Case:
    """What is made is refused with these words; its twin is let in."""
    twin: Twin = submits(good)
    return Case(group, name, field, Refused(says), submits(bad), twin, good_name)
