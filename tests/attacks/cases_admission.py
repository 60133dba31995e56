"""Group *Admission*: jobs whose evidence is missing, somebody else's, or of something else.

Each is submitted by an editor, who has a key of their own that no policy names.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.attacks.case import Case, NotTried, Refused
from tests.attacks.scene import Scene
from tests.attacks.submitting import Making, refused, submit
from tests.e2e.lab import PAIR, TEAM, Lab, Object, make_namespace
from tests.stage.jobs import SHORT_CODE, renamed, trainer
from tests.stage.people import Person
from tests.stage.policies import policy
from tests.stage.signing import sign_image, signed
from tests.stage.waiting import eventually
from trainseal.provenance.bundles import make_bundle_dsse
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.statements import STATEMENT_V1, job_subject

GROUP = "Admission"
_REVOKED = "research-withdrawn"


def _by(*names: str, name: str = "evidence", namespace: str = TEAM) -> Making:
    """A job that these people signed."""
    return lambda lab: signed(
        lab.job(name, namespace=namespace), *(getattr(lab, who) for who in names)
    )


def _unsigned(lab: Lab) -> Object:
    return lab.job("evidence")


def _with_image(variant: str, *names: str) -> Making:
    """A good job with an image of its own, which these people signed."""

    def make(lab: Lab) -> Object:
        image = lab.variant_of_image(variant)
        for name in names:
            sign_image(lab.target, lab.on_host(image), getattr(lab, name))
        return _naming(lab, image)

    return make


def _naming(lab: Lab, image: str) -> Object:
    job = lab.job("evidence")
    trainer(job)["image"] = image
    return signed(job, lab.alice)


def _with_code(repository: str, signer: str | None) -> Making:
    """A good job with code of its own, which this person signed."""

    def make(lab: Lab) -> Object:
        files = {**SHORT_CODE, "of": repository}
        code = lab.push_tree(repository, files, getattr(lab, signer) if signer else None)
        job = lab.job("evidence")
        job["spec"]["code"][0]["oci"]["reference"] = code
        return signed(job, lab.alice)

    return make


def _until(distance: timedelta) -> Making:
    """A job that may start until then."""

    def make(lab: Lab) -> Object:
        job = lab.job("evidence")
        at = (datetime.now(UTC) + distance).strftime("%Y-%m-%dT%H:%M:%SZ")
        job["spec"]["validity"] = {"notAfter": at}
        return signed(job, lab.alice)

    return make


def _lifted(lab: Lab) -> Object:
    return renamed(lab.signed_job("evidence"), "lifted")


def _moved(lab: Lab) -> Object:
    job = signed(lab.job("evidence", namespace=PAIR), lab.alice, lab.bob)
    moved = copy.deepcopy(job)
    moved["metadata"]["namespace"] = TEAM
    return moved


def _predicate(kind: str) -> Making:
    """A job with an attestation of this predicate type by somebody who may sign jobs."""

    def make(lab: Lab) -> Object:
        job = lab.job("evidence")
        digest = job_digest(job).removeprefix("sha256:")
        statement = {
            "_type": STATEMENT_V1,
            "subject": [{"name": job_subject(TEAM, "evidence"), "digest": {"sha256": digest}}],
            "predicateType": kind,
            "predicate": {},
        }
        payload = json.dumps(statement).encode()
        bundle = make_bundle_dsse(lab.alice.key, payload, IN_TOTO_PAYLOAD_TYPE)
        job["spec"]["signatures"] = [{"bundle": bundle}]
        return job

    return make


def _moved_tag(*, follows: bool) -> Making:
    """A tag that stood on a signed image stands on another now; the job takes the one or the other
    by the digest that the tag had, or has.
    """

    def make(lab: Lab) -> Object:
        name = f"tagged-{follows}".lower()
        good, other = lab.variant_of_image(name), lab.variant_of_image(f"{name}-moved")
        sign_image(lab.target, lab.on_host(good), lab.platform)
        crane = str(lab.target.tools["crane"])
        for image in (good, other):
            lab.target.run([crane, "tag", "--insecure", lab.on_host(image), name])
        return _naming(lab, other if follows else good)

    return make


def _index(*, signs: str, takes: str) -> Making:
    """Of an index and the one image in it, one is signed and one is taken."""

    def make(lab: Lab) -> Object:
        name = f"{signs}-for-{takes}"
        image = lab.variant_of_image(name)
        tagged = f"{lab.target.registry_from_host}/{TEAM}/pytorch:{name}-index"
        found = lab.target.run(
            [
                *(str(lab.target.tools["crane"]), "index", "append", "--insecure"),
                *("--manifest", lab.on_host(image), "--tag", tagged),
            ]
        )
        both = {"image": image, "index": lab.in_cluster(found.strip())}
        sign_image(lab.target, lab.on_host(both[signs]), lab.platform)
        return _naming(lab, both[takes])

    return make


def _revoked(who: Callable[[Lab], Person]) -> Callable[[Scene], None]:
    """Two people may sign; then one is taken out of the policy. Somebody submits once more."""

    def do(scene: Scene) -> None:
        lab = scene.lab
        make_namespace(lab, _REVOKED)
        job = lab.job("evidence", namespace=_REVOKED)
        code = lab.push_tree("code-by-bob", SHORT_CODE, lab.bob)
        job["spec"]["code"][0]["oci"]["reference"] = code
        by_alice = signed(job, lab.alice)
        for signers, accepted in (([lab.alice, lab.bob], True), ([lab.bob], False)):
            made = policy(
                _REVOKED,
                _REVOKED,
                signers=signers,
                image_signers=[lab.platform],
                registries=lab.registries,
            )
            lab.admin("apply", "-f", "-", stdin=made)
            eventually(lambda: bool(lab.answer(by_alice)) != accepted, "the policy counts")  # noqa: B023
        submit(lab, signed(job, who(lab)))

    return do


def _case(name: str, says: str, bad: Making, good: Making, good_name: str) -> Case:
    return refused(GROUP, name, "T1195.002", says, bad, good, good_name)


CASES = (
    _case("unsigned job", "no signature found", _unsigned, _by("alice"), "a job that alice signed"),
    _case(
        "job signed by a stranger", "none that counts", _by("mallory"), _by("mallory", "alice"),
        "a stranger's signature beside a good one",
    ),
    _case(
        "unsigned image", "no signature found", _with_image("unsigned"),
        _with_image("unsigned-twin", "platform"), "an image that the platform signed",
    ),
    _case(
        "image signed by a stranger", "none that counts", _with_image("strangers", "mallory"),
        _with_image("strangers-twin", "mallory", "platform"), "by a stranger and by the platform",
    ),
    _case(
        "unsigned code", "no signature found", _with_code("unsigned", None),
        _with_code("signed", "alice"), "code that alice signed",
    ),
    _case(
        "code signed by a stranger", "none that counts", _with_code("strangers", "mallory"),
        _with_code("by-bob", "bob"), "code that bob signed",
    ),
    _case(
        "job whose time is over", "has passed", _until(-timedelta(minutes=1)),
        _until(timedelta(hours=1)), "a job whose time is not over",
    ),
    Case(
        GROUP, "image or code signed by an expired certificate", "T1195.002",
        NotTried("a Fulcio in the cluster; keys have no time. In tests/unit"),
    ),
    _case(
        "signature of another job", "belongs to another job", _lifted, _by("alice"),
        "the job it belongs to",
    ),
    _case(
        "signature for another namespace", "belongs to another job", _moved,
        _by("alice", "bob", namespace=PAIR), "the job in the namespace that was signed",
    ),
    _case(
        "job signed by who signs images", "none that counts", _by("platform"), _by("bob"),
        "a job that bob signed",
    ),
    _case(
        "image signed by who signs jobs", "none that counts", _with_image("by-alice", "alice"),
        _with_image("by-alice-twin", "alice", "platform"), "by her and by the platform",
    ),
    _case(
        "two signatures by one person, where two persons must", "signed by alice only",
        _by("alice", "alice_again", namespace=PAIR), _by("alice", "bob", namespace=PAIR),
        "by two persons",
    ),
    _case(
        "attestation of another predicate type", "refuted",
        _predicate("https://slsa.dev/provenance/v1"), _by("alice"), "of the right one",
    ),
    _case(
        "tag moved after signing", "no signature found", _moved_tag(follows=True),
        _moved_tag(follows=False), "the digest that was signed",
    ),
    _case(
        "signature on an index, image taken by platform", "no signature found",
        _index(signs="index", takes="image"), _index(signs="index", takes="index"),
        "the index taken",
    ),
    _case(
        "signature on a platform's image, index taken", "no signature found",
        _index(signs="image", takes="index"), _index(signs="image", takes="image"),
        "the image taken",
    ),
    Case(
        GROUP, "signer revoked between two submissions", "T1195.002",
        Refused("wants a signature by bob"), _revoked(lambda lab: lab.alice),
        _revoked(lambda lab: lab.bob), "signed by who is still named",
    ),
    Case(
        GROUP, "manifest with .., absolute or duplicate paths, links out, odd Unicode", "T1195.002",
        NotTried("an artifact written by hand. In tests/unit, and at the gate"),
    ),
)  # fmt: skip
