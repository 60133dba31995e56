"""A lineage for people, as a tree, and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydantic import JsonValue
from rich.console import Console
from rich.text import Text

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.cli.failures import DONE, REFUTED, UNDETERMINED
from trainseal.cli.lineagewalk import Earlier, Lineage, Proof, RunNode
from trainseal.cli.terminaltext import plain
from trainseal.cli.wording import counted

_STYLES = {"verified": "green", "refuted": "bold red", "undetermined": "yellow"}
#: Outputs that are named for people; JSON has all.
_SHOWN = 8


@dataclass(slots=True)
class Branch:
    """A line, and those below it. Never cut to a terminal's width: digests are to be copied."""

    label: Text
    below: list[Branch] = field(default_factory=list)

    def add(self, label: Text) -> Branch:
        """A line below."""
        branch = Branch(label)
        self.below.append(branch)
        return branch


def exit_code(found: Lineage) -> int:
    """0 all verified; 1 refuted, or tainted where it was asked for; 2 undetermined."""
    if found.verdict == "refuted" or (found.checkpoint and found.checkpoint.tainted):
        return REFUTED
    return DONE if found.verdict == "verified" else UNDETERMINED


def print_text(found: Lineage) -> None:
    """For people, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    nodes = {run.key: run for run in found.runs}
    first = found.runs[0]
    if found.checkpoint is not None:
        root = Branch(_checkpoint(found.checkpoint))
        _add(root, first, nodes, {first.key})
    else:
        root = Branch(_title(first))
        _fill(root, first, nodes, {first.key})
    for line in _drawn(root):
        console.print(line)
    console.print(Text(_summary(found), _STYLES[found.verdict]))


def _drawn(root: Branch) -> Iterator[Text]:
    yield root.label
    waiting = [(branch, "", branch is root.below[-1]) for branch in reversed(root.below)]
    while waiting:
        branch, indent, last = waiting.pop()
        line = Text(f"{indent}{'└── ' if last else '├── '}", "dim")
        yield line.append_text(branch.label)
        deeper = indent + ("    " if last else "│   ")
        waiting += [(b, deeper, b is branch.below[-1]) for b in reversed(branch.below)]


def _summary(found: Lineage) -> str:
    runs = counted(len(found.runs), "run")
    if found.verdict == "verified":
        return f"all verified, over {runs}"
    said = {
        "refuted": "not what it claims to be",
        "undetermined": "could not be read, or is not there",
    }
    count = sum(proof.verdict == found.verdict for proof in found.proofs())
    if count == 0:
        return f"{found.verdict}: there are more runs than were looked at (--depth)"
    return f"{found.verdict}: {count} of what was looked at, over {runs}, {said[found.verdict]}"


def _add(
    tree: Branch, run: RunNode, nodes: dict[tuple[str, str], RunNode], seen: set[object]
) -> None:
    _fill(tree.add(_title(run)), run, nodes, seen)


def _fill(
    tree: Branch, run: RunNode, nodes: dict[tuple[str, str], RunNode], seen: set[object]
) -> None:
    for line in _facts(run):
        tree.add(line)
    for earlier in run.earlier:
        below = tree.add(_earlier(earlier))
        node = nodes.get(earlier.key)
        if node is None:
            below.add(Text("not looked at: farther back than --depth", "yellow"))
        elif node.key in seen:
            below.add(Text(f"run {'/'.join(node.key)}: see above", "dim"))
        else:
            seen.add(node.key)
            _add(below, node, nodes, seen)


def _checkpoint(proof: Proof) -> Text:
    metadata, spec = json_object(proof.obj.get("metadata")), json_object(proof.obj.get("spec"))
    text = Text(f"checkpoint {metadata.get('namespace')}/{metadata.get('name')} ", "bold")
    text.append_text(_verdict(proof))
    if proof.tainted:
        text.append(f" tainted by {plain(proof.tainted)}", "bold red")
    text.append(f"  {counted(len(json_objects(spec.get('files'))), 'file')}", "dim")
    return text


def _title(run: RunNode) -> Text:
    text = Text(f"run {'/'.join(run.key)} ", "bold")
    text.append_text(_verdict(run.seal))
    return text


def _earlier(earlier: Earlier) -> Text:
    verb = "goes on from" if earlier.resumed else "could go on from"
    count = counted(earlier.checkpoints, "checkpoint")
    text = Text(f"{verb} {count} of {earlier.key[1]}, the newest ")
    text.append(f"{earlier.name} ")
    text.append_text(_verdict(earlier.proof))
    if earlier.proof.tainted:
        text.append(f" tainted by {plain(earlier.proof.tainted)}", "bold red")
    return text


def _verdict(proof: Proof) -> Text:
    text = Text(proof.verdict, _STYLES[proof.verdict])
    if proof.words:
        text.append(f" ({plain(proof.words)})")
    if proof.origin == "archive":
        text.append(" from the archive", "dim")
    return text


def _facts(run: RunNode) -> Iterator[Text]:
    spec = run.spec
    if spec:
        job, requester = json_object(spec.get("job")), json_object(spec.get("requester"))
        yield Text(f"job {job.get('name')} {job.get('digest')}, run {spec.get('run')}")
        yield Text(f"asked for by {plain(str(requester.get('username')))}, {requester.get('time')}")
        if launch := json_object(spec.get("launch")):
            yield Text(f"template {launch.get('template')} {launch.get('digest')}")
        for image in json_objects(spec.get("images")):
            yield Text(f"image {plain(str(image.get('reference')))}")
        for code in json_objects(spec.get("code")):
            yield Text(f"code {code.get('name')} {code.get('treeDigest')}")
        if spec.get("configDigest"):
            yield Text(f"config {spec.get('configDigest')}")
        for line in dict.fromkeys(_signers(spec)):
            yield Text(f"signed by {plain(line)}")
    yield from _statement(run)


def _signers(spec: JsonObject) -> Iterator[str]:
    for artifact in json_objects(spec.get("artifacts")):
        for signer in json_objects(artifact.get("signers")):
            yield f"{signer.get('person')} ({artifact.get('artifact')} {artifact.get('name')})"


def _statement(run: RunNode) -> Iterator[Text]:
    text = Text("statement ")
    text.append_text(_verdict(run.stated))
    yield text
    if run.statement is None:
        return
    said: JsonObject = json_object(_json(run.statement.predicate))
    watch, outputs = json_object(said.get("watch")), json_object(said.get("outputs"))
    yield Text(f"{said.get('outcome')}, {said.get('began')} to {said.get('ended')}")
    if not watch.get("agents"):
        yield Text("not watched: no agents are installed", "yellow")
    findings = json_objects(watch.get("findings"))
    for found in findings:
        unproved = "" if found.get("proved") else ", unproved"
        words = (
            f"finding {found.get('id')} ({found.get('severity')}): {found.get('things')}{unproved}"
        )
        yield Text(words, "dim" if found.get("severity") == "Info" else "red")
    if watch.get("agents") and not findings:
        yield Text("nothing was found")
    names = [s.name for s in run.statement.subjects] if outputs.get("files") else []
    for name in names[:_SHOWN]:
        yield Text(f"output {plain(name)}")
    if len(names) > _SHOWN:
        yield Text(f"and {len(names) - _SHOWN} more outputs", "dim")
    if not names:
        yield Text("no output that is signed and not tainted", "yellow")
    for part, words in (
        ("tainted", "tainted files, which are no outputs"),
        ("filesUnlisted", "files that had no room, or were not read"),
        ("unsigned", "manifests that are not signed"),
    ):
        value = outputs.get(part)
        count = len(value) if isinstance(value, list) else value
        if isinstance(count, int) and count:
            yield Text(f"{count} {words}", "yellow")


def print_json(found: Lineage) -> None:
    """For programs, on stdout."""
    value: JsonObject = {
        "verdict": found.verdict,
        "checkpoint": _proof(found.checkpoint) if found.checkpoint else None,
        "runs": [_run(run) for run in found.runs],
    }
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def _proof(proof: Proof) -> JsonObject:
    metadata = json_object(proof.obj.get("metadata"))
    found: JsonObject = {"verdict": proof.verdict, "message": proof.words, "from": proof.origin}
    if metadata:
        found |= {"namespace": metadata.get("namespace"), "name": metadata.get("name")}
    return found | ({"tainted": proof.tainted} if proof.tainted else {})


def _run(run: RunNode) -> JsonObject:
    spec = run.spec
    shown = ("job", "run", "requester", "policies", "artifacts", "images", "code", "configDigest")
    return {
        "namespace": run.key[0],
        "name": run.key[1],
        "depth": run.depth,
        "seal": _proof(run.seal),
        "inputs": {field: spec[field] for field in (*shown, "sealedAt") if field in spec},
        "statement": _proof(run.stated)
        | ({"predicate": _json(run.statement.predicate)} if run.statement else {}),
        "earlier": [
            {
                "namespace": e.key[0],
                "sealedRun": e.key[1],
                "checkpoints": e.checkpoints,
                "resumed": e.resumed,
                "newest": {"name": e.name, **_proof(e.proof)},
            }
            for e in run.earlier
        ],
        "cut": run.cut,
    }


def _json(value: object) -> JsonValue:
    """What was read as JSON, as JSON."""
    found: JsonValue = json.loads(json.dumps(value))
    return found
