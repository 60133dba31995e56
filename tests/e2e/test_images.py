"""Container images: signed by whom, in which of cosign's forms, and by digest."""

from __future__ import annotations

import pytest

from tests.cluster import Cluster
from tests.e2e.lab import TEAM, Lab, Object
from tests.stage.jobs import trainer
from tests.stage.signing import sign_image, signed


def with_image(lab: Lab, name: str, image: str) -> Object:
    """A job that alice signed, image and all."""
    job = lab.job(name)
    trainer(job)["image"] = image
    return signed(job, lab.alice)


def test_an_unsigned_image_is_refused_and_accepted_once_it_is_signed(lab: Lab) -> None:
    image = lab.variant_of_image("unsigned")
    said = lab.refusal(with_image(lab, "image-unsigned", image))
    assert "image roles[worker].containers[trainer]: refuted: no signature found" in said
    assert "wants a signature by platform" in said
    # A refusal is remembered for the image, so that the twin is an image of its own.
    twin = lab.variant_of_image("unsigned-twin")
    sign_image(lab.target, lab.on_host(twin), lab.platform)
    assert lab.accepts(with_image(lab, "image-signed", twin))


def test_an_image_signed_by_another_key_is_refused(lab: Lab) -> None:
    image = lab.variant_of_image("by-mallory")
    sign_image(lab.target, lab.on_host(image), lab.mallory)
    said = lab.refusal(with_image(lab, "image-by-mallory", image))
    assert "none that counts" in said
    assert "wants a signature by platform" in said


def test_an_image_signed_by_a_stranger_and_by_the_platform_is_accepted(lab: Lab) -> None:
    image = lab.variant_of_image("by-both")
    sign_image(lab.target, lab.on_host(image), lab.mallory)
    sign_image(lab.target, lab.on_host(image), lab.platform)
    assert lab.accepts(with_image(lab, "image-by-both", image))


def test_a_tag_is_refused_where_its_digest_is_accepted(lab: Lab) -> None:
    tag = f"{lab.target.registry}/{TEAM}/pytorch:latest"
    crane = str(lab.target.tools["crane"])
    lab.target.run([crane, "tag", "--insecure", lab.on_host(lab.image), "latest"])
    said = lab.refusal(with_image(lab, "by-tag", tag))
    assert f"{tag} has no digest" in said
    assert lab.accepts(with_image(lab, "by-digest", lab.image))


def index_of(lab: Lab, image: str, name: str) -> str:
    """An index that holds this one image, unsigned."""
    tagged = f"{lab.target.registry_from_host}/{TEAM}/pytorch:{name}"
    found = lab.target.run(
        [
            *(str(lab.target.tools["crane"]), "index", "append", "--insecure"),
            *("--manifest", lab.on_host(image), "--tag", tagged),
        ]
    )
    return lab.in_cluster(found.strip())


def test_a_signature_on_an_index_is_none_on_a_platforms_image(lab: Lab) -> None:
    image = lab.variant_of_image("of-a-signed-index")
    index = index_of(lab, image, "signed-index")
    sign_image(lab.target, lab.on_host(index), lab.platform)
    assert "no signature found" in lab.refusal(with_image(lab, "by-platform", image))
    assert lab.accepts(with_image(lab, "by-index", index))


def test_nor_is_one_on_a_platforms_image_one_on_its_index(lab: Lab) -> None:
    image = lab.variant_of_image("of-an-unsigned-index")
    sign_image(lab.target, lab.on_host(image), lab.platform)
    index = index_of(lab, image, "unsigned-index")
    assert "no signature found" in lab.refusal(with_image(lab, "by-index", index))
    assert lab.accepts(with_image(lab, "by-platform", image))


def test_an_init_containers_image_is_held_to_the_same(lab: Lab) -> None:
    unsigned = lab.variant_of_image("init")

    def job(image: str) -> Object:
        found = lab.job("init")
        spec = found["spec"]["roles"][0]["template"]["spec"]
        spec["initContainers"] = [
            {"name": "prepare", "image": image, "command": ["python3", "--version"]}
        ]
        return signed(found, lab.alice)

    assert "initContainers[prepare]" in lab.refusal(job(unsigned))
    assert lab.accepts(job(lab.image))


def test_cosigns_older_signature_tag_counts(lab: Lab) -> None:
    image = lab.variant_of_image("older")
    sign_image(lab.target, lab.on_host(image), lab.platform, "--new-bundle-format=false")
    assert lab.accepts(with_image(lab, "image-older", image))


@pytest.mark.parametrize("signer", ["platform", "mallory"])
def test_a_registry_without_referrers_has_signatures_under_a_tag(
    lab: Lab, cluster: Cluster, signer: str
) -> None:
    name = f"plain-{signer}"
    tagged = f"{cluster.registry_plain}/{TEAM}/pytorch:{name}"
    crane = str(cluster.tools["crane"])
    source = lab.variant_of_image(name)
    cluster.run([crane, "copy", "--insecure", source, tagged])
    image = f"{cluster.registry_plain}/{TEAM}/pytorch@{source.rpartition('@')[2]}"
    sign_image(cluster, image, getattr(lab, signer))
    job = with_image(lab, f"image-{name}", image)
    if signer == "platform":
        assert lab.accepts(job)
    else:
        assert "none that counts" in lab.refusal(job)
