"""What a run's pods name and others keep: is it still what it was when the run was sealed. Pure.

The rules, in order:

1. The service account is the one of that UID: another of its name is somebody else's.
2. A ResourceClaimTemplate says what it said; one that was made anew and says the same is the same.
3. A Secret is at its resource version. What it says is not known here, and is nobody's of ours to
   know; so a note on it counts as a change. Where policies name who alone changes it, and the floor
   holds everybody else to that, it was one of them: a rotation. One that is gone need not be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Set

from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject, json_object, metadata_name
from trainseal.api.sealedrun import SealedAccount, SealedClaimTemplate, SealedSecret
from trainseal.controller.objects import uid_of
from trainseal.controller.ownreport import Seen
from trainseal.controller.references import changed, deleted


def account_of(obj: JsonObject) -> SealedAccount:
    """A ServiceAccount, or its metadata, as a seal has it."""
    return SealedAccount(name=metadata_name(obj), uid=uid_of(obj))


def claim_template_of(obj: JsonObject) -> SealedClaimTemplate:
    """A ResourceClaimTemplate as a seal has it."""
    text = json.dumps(obj.get("spec"), sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return SealedClaimTemplate(name=metadata_name(obj), digest=f"sha256:{digest}")


def secret_of(metadata: JsonObject) -> SealedSecret:
    """A Secret's metadata as a seal has it."""
    version = json_object(metadata.get("metadata")).get("resourceVersion")
    return SealedSecret(
        name=metadata_name(metadata), uid=uid_of(metadata), resource_version=str(version)
    )


def account_changes(sealed: SealedAccount, live: SealedAccount | None) -> Iterator[Seen]:
    """Findings on a service account."""
    if live == sealed:
        return
    uid = live.uid if live else ""
    words = "somebody made another of its name" if live else "it is gone"
    facts = {"uid": uid, "sealed": sealed.uid}
    yield deleted(f"ServiceAccount {sealed.name}", words, uid or "gone", facts)


def claim_template_changes(
    sealed: SealedClaimTemplate, live: SealedClaimTemplate | None
) -> Iterator[Seen]:
    """Findings on a ResourceClaimTemplate."""
    name = f"ResourceClaimTemplate {sealed.name}"
    if live is None:
        yield deleted(name, "it is gone", "gone", {"sealed": sealed.digest})
    elif live != sealed:
        words = (f"spec: found {live.digest}, sealed {sealed.digest}",)
        yield changed(name, words, {"found": live.digest, "sealed": sealed.digest})


def secret_changes(
    sealed: SealedSecret, live: SealedSecret | None, rotators: Set[str] | None
) -> Iterator[Seen]:
    """Findings on a Secret; ``rotators`` alone change what it says, None: nobody is known to."""
    if live == sealed:
        return
    name = f"Secret {sealed.name}"
    if live is None:
        what = "it is gone"
    elif live.uid != sealed.uid:
        what = "somebody made another of its name"
    else:
        what = f"found resource version {live.resource_version}, sealed {sealed.resource_version}"
    rotated = live is not None and rotators is not None
    who = ", ".join(sorted(rotators or ())) or "nobody"
    yield Seen(
        id=FindingId.SECRET_ROTATED if rotated else FindingId.SECRET_CHANGED,
        subject=name,
        message=f"{name} is not as it was when the run was sealed: {what}"
        + (f"; policies let nobody change what it says but {who}" if rotated else ""),
        occasion=f"{live.uid} {live.resource_version}" if live else "gone",
        evidence={
            "object": name,
            "uid": live.uid if live else "",
            "resourceVersion": live.resource_version if live else "",
            "sealed": f"{sealed.uid} {sealed.resource_version}",
            **({"rotators": who} if rotated else {}),
        },
    )
