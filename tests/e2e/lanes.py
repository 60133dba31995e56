"""A lane for notebooks, as the administrator opens one."""

from __future__ import annotations

from tests.e2e.lab import Lab, make_namespace
from tests.stage import notebooks
from tests.stage.waiting import eventually


def open_lane(lab: Lab, namespace: str, pods: int, image: str = "") -> None:
    """In a namespace of its own, for so many pods; ``image`` is one that its lane takes."""
    make_namespace(lab, namespace)
    made = notebooks.lane_policy(
        namespace,
        signers=[lab.alice],
        image_signer=lab.platform,
        registries=lab.registries,
        pods=pods,
    )
    lab.admin("apply", "-f", "-", stdin=made)
    probe = notebooks.pod("probe", namespace, image or lab.image)
    eventually(lambda: not lab.answer(probe), "webhook and floor know of the lane")
