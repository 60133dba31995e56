"""`trainseal drift` and `thaw`: what was found on a run, by whom, and letting it go on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit import world
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.api.findings import FindingId
from trainseal.cli.terminaltext import plain
from trainseal.cluster import api
from trainseal.cluster.api import KubeError

NAMESPACE = "/apis/trainseal.dev/v1alpha1/namespaces/research"
REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
RELEASES = f"{NAMESPACE}/holdreleases"
ARGUMENTS = ("-n", "research", "--kubeconfig", "unused")


def finding(**changed: Any) -> dict[str, Any]:
    return {
        "id": "file.changed",
        "key": "0123456789abcdef",
        "severity": "Critical",
        "firstTime": "2026-11-23T12:00:05Z",
        "lastTime": "2026-11-23T12:00:09Z",
        "count": 2,
        "container": "trainer",
        "path": "/usr/lib/python3/torch/optim/adam.py",
        "message": "written while the job runs",
        "user": "mallory@example.org",
        "accessRecord": "exec-1",
        "processes": [
            {"pid": 12, "executable": "/usr/bin/sed", "command": ["sed", "-i", "s/-/+/"]},
            {"pid": 9, "executable": "/bin/sh"},
        ],
        "evidence": {"found": "sha256:1"},
        "difference": "--- signed\n+++ found\n@@ -1 +1 @@\n-lr\n+-lr\n",
    } | changed


def report(*findings: dict[str, Any], name: str = "char-lm-worker-0-aaaa") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-of-{name}"},
        "spec": {
            "reporter": "Agent",
            "node": "node-1",
            "pod": {"name": "char-lm-worker-0", "uid": "u"},
            "sealedRun": "another",
        },
        "status": {"findings": list(findings)},
    }


class Stage:
    """A sealed run and its reports."""

    def __init__(self) -> None:
        sealed = world.sealed_world()
        self.seal, self.job = sealed.seal, sealed.job
        self.name = self.seal["metadata"]["name"]
        self.job["status"] = {"phase": "Running", "sealedRun": self.name}
        self.reports: list[dict[str, Any]] = []
        self.kube = FakeKube(
            {
                f"{NAMESPACE}/trainingjobs/char-lm": self.job,
                f"{NAMESPACE}/sealedruns": {"items": [self.seal]},
                f"{NAMESPACE}/sealedruns/{self.name}": self.seal,
                f"{NAMESPACE}/driftreports": {"items": self.reports},
                REVIEWS: {"status": {"userInfo": {"username": "oncall@example.org"}}},
            }
        )

    def found(self, *reports: dict[str, Any]) -> None:
        for item in reports:
            item["spec"]["sealedRun"] = self.name
            self.reports.append(item)
        self.seal["status"]["reports"] = [item["metadata"]["uid"] for item in reports]

    def hold(self, **changed: Any) -> None:
        self.seal["status"]["hold"] = {
            "id": "00112233aabbccdd",
            "response": "Suspend",
            "since": "2026-11-23T12:00:06Z",
            "findings": ["0123456789abcdef"],
            "reason": "file.changed",
            "severity": "Critical",
            "message": "a signed file was changed",
        } | changed


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    found = Stage()
    monkeypatch.setattr(api, "connect", connecting_to(found.kube))
    monkeypatch.setattr("trainseal.cli.thawing.PAUSE", 0.1)
    return found


def test_a_run_on_which_nothing_was_found_ends_with_0(trainseal: Run, stage: Stage) -> None:
    answer = trainseal("drift", "char-lm", *ARGUMENTS)
    assert (answer.code, answer.err) == (0, "")
    assert "nothing was found" in answer.out


def test_a_finding_is_shown_with_file_process_person_and_difference(
    trainseal: Run, stage: Stage
) -> None:
    stage.found(report(finding()))
    answer = trainseal("drift", "char-lm", *ARGUMENTS)
    assert answer.code == 1
    for words in (
        "2026-11-23T12:00:05Z",
        "Critical",
        "file.changed",
        "a signed file was changed",
        "char-lm-worker-0/trainer on node-1",
        "torch/optim/adam.py",
        "mallory@example.org (exec-1)",
        "sed -i s/-/+/ [12] ← /bin/sh [9]",
        "seen 2 times",
        "+-lr",
    ):
        assert words in answer.out
    assert "does not count" not in answer.out


def test_what_was_found_by_looking_is_shown_with_when_it_was_not_so_yet(
    trainseal: Run, stage: Stage
) -> None:
    stage.found(report(finding(notBefore="2026-11-23T11:58:00.5Z")))
    assert "after 2026-11-23T11:58:00Z" in trainseal("drift", "char-lm", *ARGUMENTS).out
    stage.reports.clear()
    stage.found(report(finding(notBefore="2026-11-23T12:00:04Z")))
    assert "not so yet" not in trainseal("drift", "char-lm", *ARGUMENTS).out


def test_evidence_that_was_kept_is_named_with_how_to_read_it(trainseal: Run, stage: Stage) -> None:
    stage.found(report(finding(evidenceItem="char-lm-worker-0-u-0123456789abcdef")))
    stage.reports[0]["status"]["evidenceDropped"] = 3
    answer = trainseal("drift", "char-lm", *ARGUMENTS)
    for words in (
        "evidence char-lm-worker-0-u-0123456789abcdef",
        "`trainseal evidence show NAME -n research`",
        "3 findings have no evidence kept",
    ):
        assert words in answer.out
    found = json.loads(trainseal("drift", "char-lm", *ARGUMENTS, "-o", "json").out)
    assert found["findings"][0]["evidenceItem"] == "char-lm-worker-0-u-0123456789abcdef"
    assert found["evidenceDropped"] == 3
    stage.reports.clear()
    stage.found(report(finding()))
    assert "evidence show" not in trainseal("drift", "char-lm", *ARGUMENTS).out


def test_findings_stand_in_the_order_of_time_whatever_their_report(
    trainseal: Run, stage: Stage
) -> None:
    late = finding(firstTime="2026-11-23T12:09:00Z", id="exec.foreign")
    stage.found(report(late), report(finding(), name="char-lm-worker-1-bbbb"))
    out = trainseal("drift", "char-lm", *ARGUMENTS).out
    assert out.index("file.changed") < out.index("exec.foreign")


def test_what_is_only_information_ends_with_0(trainseal: Run, stage: Stage) -> None:
    stage.found(report(finding(severity="Info", id="process.entered")))
    assert trainseal("drift", "char-lm", *ARGUMENTS).code == 0


def test_reports_on_other_runs_are_not_shown(trainseal: Run, stage: Stage) -> None:
    stage.reports.append(report(finding()))
    assert "nothing was found" in trainseal("drift", "char-lm", *ARGUMENTS).out


def test_a_report_that_the_controller_does_not_believe_is_marked(
    trainseal: Run, stage: Stage
) -> None:
    stage.found(report(finding()))
    stage.seal["status"]["reports"] = []
    assert "does not count" in trainseal("drift", "char-lm", *ARGUMENTS).out


def test_json_holds_everything_for_a_program(trainseal: Run, stage: Stage) -> None:
    stage.found(report(finding()))
    stage.hold()
    answer = trainseal("drift", "char-lm", "-o", "json", *ARGUMENTS)
    assert answer.code == 1
    value = json.loads(answer.out)
    assert value["sealedRun"] == stage.name
    assert value["hold"]["id"] == "00112233aabbccdd"
    (item,) = value["findings"]
    assert {k: item[k] for k in finding()} == finding()
    assert (item["pod"], item["node"], item["counts"]) == ("char-lm-worker-0", "node-1", True)


def test_nothing_in_a_report_can_rewrite_the_terminal(trainseal: Run, stage: Stage) -> None:
    evil = "/tmp/\x1b[2J\x1b]0;x\x07\u202egnp.exe"
    stage.found(report(finding(path=evil, message=evil, user=evil, difference=f"+{evil}\n")))
    out = trainseal("drift", "char-lm", *ARGUMENTS).out
    assert "\x1b]" not in out
    assert "\x1b[2J" not in out
    assert "\u202e" not in out
    assert r"\x1b[2J" in out


def test_plain_text_stays_as_it_is() -> None:
    assert plain("größe /opt/a b.py") == "größe /opt/a b.py"
    assert plain("a\nb\tc", lines=True) == "a\nb\tc"
    assert plain("a\nb") == r"a\nb"


@pytest.mark.parametrize("status", [0, 403])
def test_findings_that_cannot_be_read_end_with_2(trainseal: Run, stage: Stage, status: int) -> None:
    stage.kube.failures[f"{NAMESPACE}/driftreports"] = KubeError(status, "No", "not for you")
    answer = trainseal("drift", "char-lm", *ARGUMENTS)
    assert answer.code == 2
    assert "could not be read" in answer.err


def test_a_job_that_never_ran_ends_with_2(trainseal: Run, stage: Stage) -> None:
    stage.kube.objects[f"{NAMESPACE}/sealedruns"] = {"items": []}
    answer = trainseal("drift", "char-lm", *ARGUMENTS)
    assert answer.code == 2
    assert "no run of char-lm" in answer.err


def test_a_wrong_use_ends_with_64(trainseal: Run) -> None:
    assert trainseal("drift").code == 64
    assert trainseal("drift", "char-lm", "--kinds").code == 64
    assert trainseal("thaw", "char-lm").code == 64
    assert trainseal("thaw", "char-lm", "--reason", " ").code == 64


def test_the_kinds_are_all_listed(trainseal: Run) -> None:
    answer = trainseal("drift", "--kinds")
    assert answer.code == 0
    for known in FindingId:
        assert known.value in answer.out
    assert set(json.loads(trainseal("drift", "--kinds", "-o", "json").out)) == set(FindingId)


def test_status_says_that_there_is_drift(trainseal: Run, stage: Stage) -> None:
    stage.job["status"]["drifted"] = "1 critical"
    stage.kube.objects["/api/v1/namespaces/research/pods"] = {"items": []}
    out = trainseal("status", "char-lm", *ARGUMENTS).out
    assert "drift      1 critical: `trainseal drift char-lm` shows them" in out


# thaw ---------------------------------------------------------------------------------------------


def thaw(trainseal: Run) -> Any:
    return trainseal("thaw", "char-lm", "--reason", "seen", "--wait", "1", *ARGUMENTS)


def test_a_run_that_is_not_held_needs_no_thaw(trainseal: Run, stage: Stage) -> None:
    answer = thaw(trainseal)
    assert answer.code == 0
    assert "is not held" in answer.out
    assert not any(call.startswith("POST") for call in stage.kube.calls)


def test_a_release_names_the_hold_as_it_stands_and_who_asks(
    trainseal: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.hold()
    create = stage.kube.create

    async def lifting(path: str, obj: Any, **options: Any) -> Any:
        stage.seal["status"].pop("hold")
        return await create(path, obj, **options)

    monkeypatch.setattr(stage.kube, "create", lifting)
    answer = thaw(trainseal)
    assert (answer.code, answer.err) == (0, "")
    assert "goes on" in answer.out
    ((_, made),) = [(p, o) for p, o in stage.kube.objects.items() if p.startswith(f"{RELEASES}/")]
    assert made["spec"] == {
        "sealedRun": stage.name,
        "hold": "00112233aabbccdd",
        "user": "oncall@example.org",
        "reason": "seen",
    }


def test_a_quarantined_run_is_called_so_and_can_be_let_go(trainseal: Run, stage: Stage) -> None:
    stage.hold(response="Quarantine")
    answer = trainseal("drift", "char-lm", *ARGUMENTS)
    assert "quarantined since 2026-11-23T12:00:06Z" in answer.out
    assert "`trainseal thaw char-lm` lets it go on" in answer.out


def test_who_may_not_is_told_whom_to_ask(trainseal: Run, stage: Stage) -> None:
    stage.hold()
    stage.kube.refusal = KubeError(403, "Forbidden", "cannot create holdreleases")
    answer = thaw(trainseal)
    assert answer.code == 1
    assert "trainseal-responder" in answer.err


def test_a_terminated_run_is_not_asked_for(trainseal: Run, stage: Stage) -> None:
    stage.hold(response="Terminate")
    answer = thaw(trainseal)
    assert answer.code == 1
    assert "final" in answer.err


def test_a_hold_that_stays_is_undetermined_without_a_word_and_refused_with_one(
    trainseal: Run, stage: Stage
) -> None:
    stage.hold()
    assert thaw(trainseal).code == 2
    stage.hold(waiting="verified again, the job is refuted")
    answer = thaw(trainseal)
    assert answer.code == 1
    assert "refuted" in answer.err


def test_more_found_meanwhile_is_no_yes(
    trainseal: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.hold()
    create = stage.kube.create

    async def growing(path: str, obj: Any, **options: Any) -> Any:
        stage.hold(id="ffffffffffffffff", message="another one")
        return await create(path, obj, **options)

    monkeypatch.setattr(stage.kube, "create", growing)
    answer = thaw(trainseal)
    assert answer.code == 1
    assert "more was found meanwhile" in answer.err
