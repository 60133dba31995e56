"""`trainseal template diff`: what changed since the template that was signed last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import world
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.cluster import api
from trainseal.cluster.api import KubeError
from trainseal.provenance.bundles import make_bundle_blob
from trainseal.provenance.canonical import TEMPLATE_KIND, canonical_form, template_digest
from trainseal.provenance.keys import PrivateKey

Object = dict[str, Any]
STORED = "/apis/trainseal.dev/v1alpha1/namespaces/research/trainingtemplates/"


def write(path: Path, template: Object) -> Path:
    path.write_text(yaml.safe_dump(template))
    return path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write(tmp_path / "old.yaml", world.sign_template(world.template_object(), world.ALICE))


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Wider bounds, one requester more, and other code."""
    template = world.template_object()
    template["metadata"]["name"] = "pretrain-v8"
    spec = template["spec"]
    spec["parameters"]["learning_rate"]["maximum"] = 0.01
    spec["launch"]["requesters"].append({"user": "mallory\x1b[2J\u202e"})
    spec["job"]["code"][0]["oci"]["reference"] = world.CODE.replace("c" * 64, "d" * 64)
    return write(tmp_path / "new.yaml", template)


def test_the_same_in_another_layout_has_no_difference(
    trainseal: Run, old: Path, tmp_path: Path
) -> None:
    again = world.template_object()
    again["spec"] = dict(reversed(again["spec"].items()))
    (tmp_path / "again.json").write_text(json.dumps(again, indent=3))
    answer = trainseal("template", "diff", "old.yaml", "again.json")
    assert answer.code == 0
    assert "no difference" in answer.out
    assert json.loads(
        trainseal("template", "diff", "old.yaml", "again.json", "-o", "json").out
    )["changes"] == []  # fmt: skip


def test_an_approver_sees_what_changed_the_weightiest_first(
    trainseal: Run, old: Path, new: Path
) -> None:
    answer = trainseal("template", "diff", "old.yaml", "new.yaml")
    assert answer.code == 1
    titles = ["Who may start runs", "What a run may set", "Code and images", "Everything else"]
    places = [answer.out.index(title) for title in titles]
    assert places == sorted(places)
    assert "spec.parameters[learning_rate]  wider" in answer.out
    assert "Commands" not in answer.out
    assert not {"\x1b", "\u202e"} & set(answer.out)
    assert "mallory\\u001b[2J\\u202e" in answer.out


def test_programs_get_the_same(trainseal: Run, old: Path, new: Path) -> None:
    answer = trainseal("template", "diff", "old.yaml", "new.yaml", "-o", "json")
    assert answer.code == 1
    found = json.loads(answer.out)
    assert [(c["group"], c["effect"]) for c in found["changes"]] == [
        ("launch", "wider"), ("bounds", "wider"), ("references", None), ("rest", None),
    ]  # fmt: skip
    assert found["signaturesVerified"] is False
    assert found["old"]["signatures"] == [
        {"kind": "key", "who": world.ALICE.public.id, "issuer": None, "over": "this"}
    ]
    assert found["new"]["digest"] == template_digest(yaml.safe_load(new.read_text()))


def bundle(key: PrivateKey, template: Object) -> Object:
    return {"bundle": make_bundle_blob(key, canonical_form(template, TEMPLATE_KIND))}


def test_who_signed_is_told_as_the_bundles_say_and_not_claimed(
    trainseal: Run, old: Path, new: Path
) -> None:
    template = yaml.safe_load(old.read_text())
    template["spec"]["signatures"] += [
        bundle(world.BOB, template),
        bundle(world.MALLORY, world.template_object(replicas={"worker": {"min": 1, "max": 2}})),
        {"bundle": {"mediaType": "application/of.the.future"}},
    ]
    write(old, template)
    answer = trainseal("template", "diff", "old.yaml", "new.yaml")
    assert "nothing of it is verified here" in answer.out
    assert f"key {world.ALICE.public.id}\n" in answer.out
    assert f"key {world.BOB.public.id}\n" in answer.out
    assert f"key {world.MALLORY.public.id}, over another state" in answer.out
    assert "a bundle that cannot be read" in answer.out


def test_a_script_that_changed_is_shown_line_by_line(trainseal: Run, tmp_path: Path) -> None:
    for name, line in (("old", "python a.py"), ("new", "python b.py")):
        template = world.template_object()
        container = template["spec"]["job"]["roles"][0]["template"]["spec"]["containers"][0]
        container["command"] = ["sh", "-c", f"set -e\n{line}\n"]
        write(tmp_path / f"{name}.yaml", template)
    answer = trainseal("template", "diff", "old.yaml", "new.yaml")
    assert "-  python a.py" in answer.out
    assert "+  python b.py" in answer.out


def test_lines_that_a_list_is_cut_into_hide_no_change(trainseal: Run, tmp_path: Path) -> None:
    for name, command in (("old", ["a\nb"]), ("new", ["|", "  a", "  b"])):
        template = world.template_object()
        container = template["spec"]["job"]["roles"][0]["template"]["spec"]["containers"][0]
        container["command"] = command
        write(tmp_path / f"{name}.yaml", template)
    answer = trainseal("template", "diff", "old.yaml", "new.yaml")
    assert '+"  a"' in answer.out.replace(" +", "+")


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch, old: Path) -> FakeKube:
    """A cluster that has the older template."""
    found = FakeKube({f"{STORED}pretrain-v7": yaml.safe_load(old.read_text())})
    monkeypatch.setattr(api, "connect", connecting_to(found))
    return found


def test_a_file_is_compared_with_what_the_cluster_has(
    trainseal: Run, kube: FakeKube, old: Path, new: Path
) -> None:
    same = trainseal("template", "diff", "-f", "old.yaml")
    assert same.code == 0
    assert "the cluster" in same.out
    other = trainseal("template", "diff", "-f", "new.yaml", "--against", "pretrain-v7")
    assert other.code == 1
    assert "metadata.name" in other.out


def test_what_the_cluster_has_not_or_does_not_show_is_undetermined(
    trainseal: Run, kube: FakeKube, new: Path
) -> None:
    absent = trainseal("template", "diff", "-f", "new.yaml")
    assert absent.code == 2
    assert "no TrainingTemplate pretrain-v8 in namespace research" in absent.err
    kube.failures[f"{STORED}pretrain-v8"] = KubeError(403, "Forbidden", "not yours")
    denied = trainseal("template", "diff", "-f", "new.yaml")
    assert denied.code == 2
    assert "could not be read: not yours" in denied.err


def test_a_revoked_template_is_said_to_be_so(trainseal: Run, kube: FakeKube, old: Path) -> None:
    kube.objects[f"{STORED}pretrain-v7"]["spec"]["revoked"] = {"reason": "bad data"}
    answer = trainseal("template", "diff", "-f", "old.yaml")
    assert answer.code == 0
    assert "is revoked: bad data" in answer.out


@pytest.mark.parametrize(
    "arguments",
    [(), ("old.yaml",), ("old.yaml", "old.yaml", "old.yaml"), ("old.yaml", "-f", "old.yaml"),
     ("old.yaml", "old.yaml", "--against", "x")],
)  # fmt: skip
def test_two_files_or_one_and_the_cluster(
    trainseal: Run, old: Path, arguments: tuple[str, ...]
) -> None:
    assert trainseal("template", "diff", *arguments).code == 64
