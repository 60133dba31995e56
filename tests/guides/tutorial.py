"""The tutorial's reader: what stands around its commands."""

from __future__ import annotations

import re

from tests.guides.ground import ADMIN, Ground
from tests.guides.walk import Walk

PAGE = "tutorial.md"
#: The first command that shows a sealed run.
SEALED = "kubectl get tj,seal"
_BODY = re.compile(r"-----BEGIN PUBLIC KEY-----\n(.*)\n-----END", re.DOTALL)
#: Where a printed policy has the lines of a key.
_PLACE = re.compile(r"^( *)(?:…|\(the lines of .*\))$", re.MULTILINE)


def tutorial(ground: Ground) -> Walk:
    """Ada's walk through it; the policy is applied by an administrator."""
    walk = ground.walk(PAGE, users={"ada": "ada"})
    ground.without_policy()
    ground.tag(ground.lab.image, "1")
    walk.known["sha256:1b88…"] = ground.lab.image.partition("@")[2]
    # So many steps that somebody who looks sees it train.
    example = walk.folder / "examples" / "char-lm"
    job = example / "job.yaml"
    job.write_text(job.read_text().replace("steps: 80", "steps: 160"))

    def policy() -> None:
        walk.person = ADMIN
        walk.file("policy.yaml", with_keys(walk, walk.printed(0), "research"))

    def newer() -> None:
        train = example / "train.py"
        train.write_text(train.read_text() + "# newer\n")

    walk.before("kubectl apply -f policy.yaml", policy)
    walk.before("kubectl run gpu", walk.become("ada"))
    walk.before("trainseal submit", newer)
    return walk


def with_keys(walk: Walk, printed: str, *names: str) -> str:
    """A printed policy with the public keys of these names in their places, in their order."""
    for name in names:
        body = _BODY.search((walk.folder / f"{name}.pub").read_text())
        place = _PLACE.search(printed)
        assert body is not None
        assert place is not None, f"no place for the key {name}"
        lines = "\n".join(place[1] + line for line in body[1].splitlines())
        printed = printed[: place.start()] + lines + printed[place.end() :]
    return printed
