"""What a container would run from where others write: whatever starts it, however it is written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.provenance.podrules import check_template
from trainseal.provenance.refusals import TemplateContext

IMAGE = "registry.example/research/pytorch@sha256:" + "a" * 64
CONTEXT = TemplateContext(
    writable=("/ckpt", "/tmp"),
    kept=("/ckpt",),
    mounts=("/workspace", "/etc/training", "/ckpt", "/tmp", "/dev/shm"),
    allowed_secrets=frozenset({"wandb"}),
)
ENV: list[dict[str, Any]] = [
    {"name": "SCRIPT", "value": "/ckpt/run.sh"},
    {"name": "CKPT", "value": "/ckpt"},
    {"name": "CODE", "value": "/workspace"},
    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "key"}}},
    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
]


def reasons(command: list[str] | None = None, *env: dict[str, Any], **container: Any) -> list[str]:
    """Why a container is refused; none where it is not."""
    trainer = {"name": "trainer", "image": IMAGE, "env": [*ENV, *env], **container}
    if command is not None:
        trainer["command"] = command
    template: dict[str, Any] = {
        "metadata": {"annotations": {"example.org/flavor": "/ckpt/flavor"}},
        "spec": {"containers": [trainer]},
    }
    return [r.reason for r in check_template(template, CONTEXT, "template")]


# Kubernetes' own references ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["bash", "$(SCRIPT)"],
        ["$(SCRIPT)"],
        ["python", "$(CKPT)/train.py"],
        ["sh", "-c", "$(SCRIPT)"],
    ],
    ids=" ".join,
)
def test_a_reference_is_judged_by_what_it_stands_for(command: list[str]) -> None:
    assert reasons(command) == ["WritableCode"]


@pytest.mark.parametrize(
    "command",
    [
        ["python", "$(CODE)/train.py", "--out", "$(CKPT)"],
        ["python", "/workspace/train.py", "--key=$(KEY)"],
        ["bash", "$$(SCRIPT)"],
        ["bash", "$(NOT_DEFINED)"],
        ["torchrun", "--nnodes=2", "--master-addr=$(POD)", "/workspace/train.py", "$(CKPT)"],
    ],
    ids=" ".join,
)
def test_a_reference_in_another_place_or_to_signed_code_is_no_refusal(command: list[str]) -> None:
    assert reasons(command) == []


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("PYTHONPATH", "$(CKPT)/lib", True),
        ("PYTHONPATH", "$(CODE)/lib", False),
        ("PYTHONPATH", "$$(CKPT)/lib", False),
        ("LD_PRELOAD", "$(CKPT)/x.so", True),
        ("PYTHONPATH", "ckpt/lib", True),
        ("PYTHONPATH", "/proc/self/root/ckpt", True),
        ("LD_LIBRARY_PATH", "$ORIGIN/../../ckpt", True),
        ("LD_LIBRARY_PATH", "$ORIGIN/../lib", False),
        ("PERL5OPT", "-I/ckpt", True),
        ("NODE_OPTIONS", "--require=/ckpt/x.js", True),
        ("NODE_OPTIONS", "--max-old-space-size=4096", False),
        ("BASH_ENV", "${CKPT}/env", True),
        ("BASH_ENV", "$CODE/env", False),
        ("BASH_FUNC_python%%", "() { . /ckpt/x; }", True),
        ("BASH_FUNC_python%%", "() { . /workspace/x; }", False),
        ("HOME", "$(CKPT)", True),
        ("HOME", "/tmp", False),
        ("OUTPUT", "$(CKPT)/lib", False),
    ],
)
def test_a_variable_is_judged_by_where_it_leads(name: str, value: str, refused: bool) -> None:
    entry = {"name": name, "value": value}
    assert reasons(None, entry) == (["WritableCode"] if refused else [])


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("UnsignedCode", ["$(KEY)"]),
        ("UnsignedCode", ["bash", "-c", "wandb login $(KEY); python /workspace/train.py"]),
        ("UnsignedCode", ["python", "-c", "print('$(KEY)')"]),
        ("UnsignedCode", ["bash", "-c", 'eval "$KEY"']),
        ("UnsignedCode", ["bash", "-c", "$KEY"]),
        (None, ["bash", "-c", 'wandb login "$KEY"; python /workspace/train.py --key "$KEY"']),
        (None, ["curl", "-H", "Authorization: Bearer $(KEY)", "https://registry.example"]),
    ],
)
def test_a_secret_is_handed_on_and_never_run(reason: str | None, command: list[str]) -> None:
    assert reasons(command) == ([reason] if reason else [])


def test_a_variable_that_loads_code_is_not_made_of_a_secret() -> None:
    entry = {"name": "PYTHONPATH", "value": "/workspace:$(KEY)"}
    assert reasons(None, entry) == ["UnsignedCode"]
    assert reasons(None, {"name": "OUTPUT", "value": "/workspace:$(KEY)"}) == []


# Values from the pod ----------------------------------------------------------------------------


def from_field(path: str, name: str = "X") -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


@pytest.mark.parametrize(
    "entry",
    [
        from_field("metadata.annotations['x']"),
        from_field("metadata.labels['x']"),
        from_field("metadata.labels['example.org/flavor']"),
        from_field("status.message"),
        from_field("metadata.annotations['example.org/flavor']", "LD_PRELOAD"),
        from_field("metadata.name", "PYTHONPATH"),
        from_field(INDEX, "HF_HOME"),
        {"name": "LD_AUDIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "X", "valueFrom": {"fileKeyRef": {"path": "/ckpt/env", "key": "X"}}},
    ],
    ids=str,
)
def test_a_value_that_can_be_written_after_signing_is_refused(entry: dict[str, Any]) -> None:
    assert reasons(None, entry) == ["UnsignedEnvironment"]


@pytest.mark.parametrize(
    "entry",
    [
        from_field("metadata.name"),
        from_field("status.podIP"),
        from_field("spec.nodeName"),
        from_field(INDEX, "RANK"),
        from_field("metadata.annotations['example.org/flavor']"),
        {"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
    ],
    ids=str,
)
def test_a_value_of_the_clusters_or_of_the_template_is_not(entry: dict[str, Any]) -> None:
    assert reasons(None, entry) == []


def test_the_templates_own_annotation_is_judged_by_its_value_where_it_is_run() -> None:
    entry = from_field("metadata.annotations['example.org/flavor']")
    assert reasons(["bash", "$(X)"], entry) == ["WritableCode"]
    assert reasons(["python", "/workspace/train.py", "$(X)"], entry) == []


@pytest.mark.parametrize(
    "volume",
    [
        {"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"projected": {"sources": [{"downwardAPI": {"items": []}}]}},
    ],
)
def test_a_template_brings_no_volume_with_values_from_the_pod(volume: dict[str, Any]) -> None:
    template: dict[str, Any] = {
        "spec": {
            "containers": [{"name": "trainer", "image": IMAGE}],
            "volumes": [{"name": "x", **volume}],
        }
    }
    found = check_template(template, CONTEXT, "template")
    assert [r.reason for r in found] == ["ForbiddenField"]


# Whatever starts it -----------------------------------------------------------------------------

STARTS = [
    "busybox sh {}",
    "nsys profile python {}",
    "nsys profile -o /tmp/report --stats=true python3.11 {}",
    "horovodrun -np 4 -H localhost:4 python {}",
    "conda run -n base python {}",
    "uv run {}",
    "Rscript {}",
    "pypy3 {}",
    "ipython {}",
    "perl -w {}",
    "node {}",
    "julia --project=/workspace {}",
    "java -cp /opt/x.jar -jar {}",
    "awk -f {}",
    "timeout 10 bash {}",
    "torchrun --nproc-per-node 2 {}",
    "accelerate launch --num_processes 2 {}",
    "python -m torch.distributed.run --nproc-per-node 2 {}",
    "python -m pdb {}",
    "strace -o /tmp/trace {}",
    "a-tool-of-ours start bash {}",
    "a-tool-of-ours --script {}",
    "a-tool-of-ours --entrypoint={}",
    "a-tool-of-ours start {}.py",
    "bash --rcfile {} -i",
    "/lib64/ld-linux-x86-64.so.2 {}",
]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("path", ["/ckpt/x", "/proc/self/root/ckpt/x", "//ckpt/./x"])
def test_a_program_is_found_behind_what_starts_it(start: str, path: str) -> None:
    assert reasons(start.format(path).split()) == ["WritableCode"]


@pytest.mark.parametrize("start", STARTS)
def test_and_signed_code_behind_the_same_is_no_refusal(start: str) -> None:
    assert reasons(start.format("/workspace/x").split()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["env", "-S", "bash /ckpt/x"],
        ["env", "-Sbash /ckpt/x"],
        ["env", "-C", "/", "sh", "ckpt/x"],
        ["make", "-C", "/ckpt"],
        ["make", "--directory=/ckpt", "all"],
        ["pip", "install", "/ckpt/package"],
        ["perl", "-I/ckpt", "/workspace/x.pl"],
        ["perl", "-Mlib=/ckpt", "/workspace/x.pl"],
        ["perl", "-e", "do '/ckpt/x'"],
        ["node", "-r", "/ckpt/x.js", "/workspace/x.js"],
        ["java", "-javaagent:/ckpt/x.jar", "Main"],
        ["python", "-X", "pycache_prefix=/ckpt", "/workspace/x.py"],
        ["python", "-c", "import sys; sys.path.insert(0, '/ckpt')"],
        ["awk", 'BEGIN { system("/ckpt/x") }'],
        ["mpirun", "-np", "2", "-x", "LD_LIBRARY_PATH=/ckpt", "python", "/workspace/x.py"],
        ["su", "-c", "bash /ckpt/x", "trainer"],
        ["a-tool-of-ours", "--cmd", "bash /ckpt/x"],
        ["bash", "-ceu", "/ckpt/x"],
        ["bash", "-eo", "pipefail", "/ckpt/x"],
    ],
    ids=" ".join,
)
def test_an_option_that_names_code_counts_too(command: list[str]) -> None:
    assert reasons(command) == ["WritableCode"]


@pytest.mark.parametrize(
    "command",
    [
        ["python", "/workspace/train.py", "--checkpoint-dir=/ckpt"],
        ["python", "-u", "/workspace/train.py", "/ckpt/last.py"],
        ["a-tool-of-ours", "--checkpoint-dir=/ckpt", "--log-dir", "/tmp/x", "/ckpt/last.pt"],
        ["tensorboard", "--logdir", "/ckpt"],
        ["torchrun", "-m", "train", "--data", "/ckpt"],
        ["nsys", "profile", "-o", "/tmp/report", "python", "/workspace/train.py", "/ckpt"],
        ["uv", "run", "/workspace/train.py", "/ckpt"],
        ["timeout", "60", "rsync", "-a", "/ckpt", "/tmp"],
        ["perl", "-lne", "print", "/ckpt/log"],
        ["awk", "{ print $1 }", "/ckpt/log"],
        ["python", "-m", "train", "/ckpt"],
        ["cat", "/ckpt/latest"],
    ],
    ids=" ".join,
)
def test_what_is_only_read_or_written_is_no_refusal(command: list[str]) -> None:
    assert reasons(command) == []


@given(
    st.lists(st.text(alphabet=st.characters(min_codepoint=32), max_size=20), max_size=5),
    st.sampled_from(["/ckpt/x.py", "--script=/ckpt/x.py", "bash", "/tmp/run.sh", "$(CKPT)"]),
)
def test_what_a_signed_script_is_told_is_its_own_business(rest: list[str], path: str) -> None:
    assert reasons(["python3", "-u", "/workspace/train.py", *rest, path]) == []
    assert reasons(["bash", "/workspace/run.sh", *rest, path]) == []


# The image's own entrypoint ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["-c", ". /ckpt/run.sh"],
        ["-ec", "bash /ckpt/run.sh"],
        ["/ckpt/run.sh"],
        ["bash", "/ckpt/run.sh"],
        ["-m", "pdb", "/ckpt/x"],
        ["--script", "/ckpt/x"],
        ["--", "/ckpt/run.sh"],
    ],
    ids=" ".join,
)
def test_arguments_of_an_entrypoint_that_is_not_known_are_judged(args: list[str]) -> None:
    assert reasons(args=args) == ["WritableCode"]


@pytest.mark.parametrize(
    "args",
    [
        ["--out", "/ckpt"],
        ["--config", "/etc/training/config.yaml", "--checkpoint-dir=/ckpt"],
        ["python", "/workspace/train.py", "/ckpt"],
        ["-c", "python /workspace/train.py --out /ckpt"],
        ["-m", "train", "/ckpt"],
        ["-o", "/ckpt"],
    ],
    ids=" ".join,
)
def test_and_those_that_run_nothing_are_no_refusal(args: list[str]) -> None:
    assert reasons(args=args) == []


# As a shell reads it ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        ". $SCRIPT",
        '. "$CKPT/run.sh"',
        "X=/ckpt; python $X/a.py",
        "${NOTHING:-/ckpt/x}",
        "$NOTHING/ckpt/x",
        "cat /ckpt/x | bash",
        "dd if=/ckpt/x | bash",
        "(cat /ckpt/x) | sh -s",
        "cat /ckpt/x | (bash)",
        'eval "$(cat /ckpt/x)"',
        "eval `cat /ckpt/x`",
        "$(cat /ckpt/x)",
        'X=$(cat /ckpt/x); eval "$X"',
        "bash < /ckpt/x",
        "bash <(cat /ckpt/x)",
        ". /dev/stdin < /ckpt/x",
        'bash <<< "$(cat /ckpt/x)"',
        "bash <<EOF\n. /ckpt/x\nEOF",
        "python - <<'EOF'\nexec(open('/ckpt/x').read())\nEOF",
        "cat /ckpt/x > >(bash)",
        'while read f; do . "$f"; done < /ckpt/list',
        "read X < /ckpt/x; $X",
        "for f in /ckpt/*.sh; do . $f; done",
        "find /ckpt -name '*.sh' -exec bash {} \\;",
        "ls /ckpt/*.sh | xargs -n1 bash",
        "ls /ckpt/*.sh | xargs -I{} bash {}",
        "cd / && sh ckpt/run.sh",
        "cd /ckpt && python -m train",
        "/ck?t/run.sh",
        "/{ckpt,x}/run.sh",
        "$'\\x2fckpt/run.sh'",
        'load() { . "$1"; }\nload /ckpt/x',
        'A=(bash /ckpt/x); "${A[@]}"',
        "trap '. /ckpt/x' EXIT",
        "export LD_PRELOAD=$CKPT/x.so; python /workspace/train.py",
        "if true; then bash /ckpt/x; fi",
        "command . /ckpt/x",
        '"." /ckpt/x',
        "bash /proc/$$$$/root/ckpt/x",
        "make -C $CKPT",
    ],
)
def test_a_shells_script_is_read_as_the_shell_reads_it(script: str) -> None:
    assert reasons(["bash", "-c", script]) == ["WritableCode"]


@pytest.mark.parametrize(
    "script",
    [
        "mkdir -p /ckpt/a && cd /workspace && python train.py --out /ckpt/a 2>&1 | tee /ckpt/a/log",
        'eval "$(conda shell.bash hook)"; conda activate x; python /workspace/train.py --out /ckpt',
        "STEP=$(cat /ckpt/latest || echo 0); exec python /workspace/train.py --resume /ckpt/$STEP",
        "for f in /ckpt/*.pt; do python /workspace/eval.py $f; done",
        "find /ckpt -name '*.tmp' -delete; rm -rf /tmp/x; ls -la /ckpt; cp /ckpt/a /tmp/b",
        "[ -f /ckpt/done ] && exit 0; python /workspace/train.py < /ckpt/in > /ckpt/out",
        "cat /ckpt/latest | python /workspace/train.py",
        "python - <<EOF\nprint(open('/ckpt/x').read())\nEOF",
        'run() { echo "+ $*"; "$@"; }\nrun python /workspace/train.py --out /ckpt',
        'save() { cp "$1" "$2"; }\nsave /ckpt/a /tmp/b',
        'DIRS=(/ckpt /tmp); mkdir -p "${DIRS[@]}"; python /workspace/train.py',
        "trap 'rm -f /tmp/lock' EXIT; flock /tmp/lock python /workspace/train.py",
        'case "$1" in /ckpt) echo x;; esac',
        "python $CODE/train.py --out $CKPT & wait $!",
        "source /opt/venv/bin/activate; ulimit -l unlimited; python /workspace/train.py",
    ],
)
def test_a_script_that_only_reads_and_writes_there_is_no_refusal(script: str) -> None:
    assert reasons(["bash", "-c", script]) == []


def test_what_a_script_is_started_with_is_run_where_it_says_so() -> None:
    assert reasons(["bash", "-c", 'exec "$@"', "--", "python", "/ckpt/x.py"]) == ["WritableCode"]
    assert reasons(["bash", "-c", ". $0", "/ckpt/x"]) == ["WritableCode"]
    started = ["bash", "-c", 'exec "$@"', "--", "python", "/workspace/train.py", "/ckpt"]
    assert reasons(started) == []


@given(st.text(), st.lists(st.sampled_from(["$(", ")", "`", '"', "eval ", "$X", "X=", ";"])))
def test_every_script_is_judged_or_said_to_be_too_involved(text: str, parts: list[str]) -> None:
    found = reasons(["bash", "-c", text + "".join(parts)])
    assert set(found) <= {"WritableCode", "CommandTooInvolved"} | (
        {"UnsignedCode"} if "\0" in text else set()
    )


@pytest.mark.parametrize(
    "command",
    [
        ["bash", "-c", "true;" * 60_000],
        ["bash", "-c", "X=a;" + "X=$X$X;" * 40 + "eval $X"],
        ["bash", "-c", '"$(' * 50],
        ["nice"] * 100,
    ],
    ids=["long", "growing", "deep", "nested"],
)
def test_a_command_that_takes_too_long_to_read_is_refused_with_what_to_do(
    command: list[str],
) -> None:
    assert reasons(command) == ["CommandTooInvolved"]
    assert reasons(["bash", "-c", "true;" * 100]) == []


def test_variables_that_grow_by_one_another_are_refused() -> None:
    env = [{"name": "V0", "value": "x" * 64}]
    env += [{"name": f"V{n}", "value": f"$(V{n - 1})$(V{n - 1})"} for n in range(1, 40)]
    assert reasons(None, *env) == ["CommandTooInvolved"]


# Where it starts, and what is mounted over it ---------------------------------------------------


@pytest.mark.parametrize(
    ("directory", "refused"),
    [
        ("/ckpt", True),
        ("/ckpt/code", True),
        ("/proc/self/root/ckpt", True),
        ("/workspace/../tmp", True),
        ("/workspace", False),
        ("/", False),
    ],
)
@pytest.mark.parametrize("command", [["python", "-m", "train"], ["bash", "run.sh"]])
def test_nothing_starts_where_others_write(
    directory: str, refused: bool, command: list[str]
) -> None:
    found = reasons(command, workingDir=directory)
    assert ("WritableCode" in found) is refused
    assert refused or not found


@pytest.mark.parametrize(
    "path",
    [
        "/workspace/train.py",
        "/etc/training/config.yaml",
        "/usr/lib/python3/sitecustomize.py",
        "/proc/self/mem",
        "/dev/shm/x",
        "/dev/../workspace/train.py",
        "/dev",
        "/tmp/message",
        "workspace/train.py",
    ],
)
def test_no_file_is_mounted_over_what_was_signed(path: str) -> None:
    assert reasons(terminationMessagePath=path) == ["TerminationMessagePath"]


@pytest.mark.parametrize("path", ["/dev/termination-log", "/dev/message", None])
def test_the_default_for_the_last_message_and_what_is_like_it_pass(path: str | None) -> None:
    assert reasons(terminationMessagePath=path) == []
