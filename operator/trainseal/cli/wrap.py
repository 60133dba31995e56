"""``trainseal wrap``: an existing manifest as a TrainingJob, and what it does not take over."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from trainseal.cli.options import ContextOption, KubeconfigOption, NamespaceOption


class Form(enum.StrEnum):
    """How the TrainingJob is printed."""

    YAML = "yaml"
    JSON = "json"


def wrap(
    file: Annotated[
        str,
        typer.Option(
            "-f", "--file", metavar="FILE", help="The workload's manifest; - is standard input."
        ),
    ],
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            metavar="FILE",
            help="The runtime that a TrainJob names. Absent: in the same file, else the cluster's.",
        ),
    ] = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option(
            "--policy",
            metavar="FILE",
            help="ProvenancePolicies, and TrustRoots, by which to judge the result. Absent: what"
            " a policy may allow is refused.",
        ),
    ] = None,
    keep_engine: Annotated[
        bool,
        typer.Option(
            "--keep-engine",
            help="JobSets, PyTorchJobs and TrainJobs stay what they are: spec.engine says so. Your"
            " cluster must have the engine switched on. Absent: all run by the engine Job, which"
            " every cluster has.",
        ),
    ] = False,
    output: Annotated[
        Form, typer.Option("-o", "--output", help="YAML with comments, or JSON.")
    ] = Form.YAML,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Where to; absent: standard output."),
    ] = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Turn a Job, JobSet, PyTorchJob or TrainJob into a TrainingJob, and say what is not the same.

    The TrainingJob is printed, unsigned. On stderr stands what became of each field that is not as
    it was: `changed` (it stands elsewhere, or TrainSeal does it), `guessed` (look whether it is
    right), `left` (not taken over, or to be done by hand), `refused` (it would not be let in so).
    Whatever is not known here is left, and said. ConfigMaps and Secrets in the same file are looked
    up there. Of a file with several workloads each is wrapped.

    Exit codes: 0 everything is taken over; 1 something is guessed, left or refused; 2 a runtime
    could not be read; 64 wrong use, or a manifest that cannot be read.

        trainseal wrap -f pytorchjob.yaml > job.yaml
        trainseal wrap -f pytorchjob.yaml --keep-engine > job.yaml
        trainseal wrap -f trainjob.yaml --runtime runtime.yaml --policy policy.yaml --to job.yaml
        kubectl get pytorchjob mnist -o yaml | trainseal wrap -f - -o json | jq .spec
    """
    import asyncio
    import sys
    from datetime import UTC, datetime

    from trainseal.cli.failures import DONE, REFUTED
    from trainseal.cli.jobfiles import STDIN, read_text
    from trainseal.cli.verification import read_policies
    from trainseal.cli.wrapping import report, runtimes
    from trainseal.cli.wrapping import wrap as wrapping
    from trainseal.cli.wrapping.fields import Field
    from trainseal.cli.wrapping.trainjob import runtime_of
    from trainseal.provenance.yamlreader import read_documents

    def objects(name: str) -> wrapping.Manifest:
        source = "standard input" if name == STDIN else name
        return wrapping.objects_of(read_documents(read_text(name), source))

    manifest = objects(file)
    wrapping.check(manifest, file)
    others = objects(runtime) if runtime else manifest
    policies = read_policies(policy) if policy else None

    def runtime_for(workload: Field) -> Field | None:
        if workload.text("kind") != wrapping.TRAIN_JOB:
            return None
        place = workload.text("metadata", "namespace") or namespace or "default"
        found = others.runtime(*runtime_of(workload), place)
        if found is None and runtime is None:
            work = runtimes.from_cluster(workload, place, kubeconfig, context)
            found = asyncio.run(work)
        return found

    now = datetime.now(UTC)
    jobs = [
        wrapping.wrap(
            manifest,
            w,
            namespace,
            runtime_for(w),
            policies.compiled if policies else (),
            now,
            keep_engine=keep_engine,
        )
        for w in manifest.workloads
    ]
    text = report.manifest_yaml(jobs) if output is Form.YAML else report.manifest_json(jobs)
    for job in jobs:
        for line in (*report.lines(job.notes), report.summary(job)):
            print(line, file=sys.stderr)  # noqa: T201
    beside = wrapping.beside(manifest, jobs)
    for line in report.lines(beside):
        print(line, file=sys.stderr)  # noqa: T201
    if to is None:
        sys.stdout.write(text)
    else:
        to.write_text(text)
    whole = all(j.whole for j in jobs) and wrapping.whole(beside)
    raise typer.Exit(DONE if whole else REFUTED)
