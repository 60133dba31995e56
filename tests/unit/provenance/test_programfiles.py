"""Which word of an interpreter's command line is its program: each beside what only looks so."""

from __future__ import annotations

import shlex

import pytest

from trainseal.provenance.programfiles import program_file

FILES = {
    "python3 /tmp/evil.py": "/tmp/evil.py",
    "python3 -u -X dev -W ignore evil.py --out /tmp/x.py": "evil.py",
    "python3 -Wignore -- /tmp/evil": "/tmp/evil",
    "python3 -bb /tmp/dir": "/tmp/dir",
    "python3 --check-hash-based-pycs never x.py": "x.py",
    "python3 -m cProfile -o /tmp/p.py /tmp/evil.py": "/tmp/evil.py",
    "python3 -mpdb /tmp/evil.py": "/tmp/evil.py",
    "python3 -m torch.distributed.run --nproc-per-node 2 /workspace/train.py": (
        "/workspace/train.py"
    ),
    "bash -x -o pipefail /tmp/evil.sh": "/tmp/evil.sh",
    "bash --rcfile /tmp/rc --norc run": "run",
    "sh -eu /scratch/run": "/scratch/run",
    "perl -w -I /tmp/lib x.pl": "x.pl",
    "node --no-warnings /tmp/a.js": "/tmp/a.js",
    "node --stack-size 99 /tmp/a.js": "/tmp/a.js",
    "python3 /dev/fd/3/evil.py": "/dev/fd/3/evil.py",
    "python3 /dev/fd/3/../evil.py": "/dev/fd/3/../evil.py",
}
NONE = (
    "python3",
    "python3 -",
    "python3 -c 'exec(1)' /tmp/x.py",
    "python3 -uc 'exec(open(\"/tmp/x.py\").read())'",
    "python3 -c 'from multiprocessing.spawn import spawn_main; spawn_main(5)' --fork",
    "python3 -c 'from multiprocessing.forkserver import main; main(3, 4, [])'",
    "python3 -m torch.distributed.run --nproc-per-node 2 -m train",
    "python3 -m torch._inductor.compile_worker --workers=2 --parent=1 /tmp/torchinductor_root/a.py",
    "python3 -m pytest /tmp/test_x.py",
    "python3 /dev/stdin",
    "bash /dev/fd/63",
    "sh -c '/tmp/evil.sh' /tmp/x",
    "bash -lc '/tmp/evil.sh'",
    "bash -s /tmp/x",
    "cat /tmp/evil.py",
    "gcc /tmp/launcher.c",
    "java -cp /tmp/x Main",
    "perl -ne print /tmp/data",
)


@pytest.mark.parametrize("line", FILES)
def test_the_operand_of_an_interpreter_is_its_program(line: str) -> None:
    argv = shlex.split(line)
    assert program_file(f"/usr/bin/{argv[0]}", argv) == FILES[line]


@pytest.mark.parametrize("line", NONE)
def test_texts_modules_inputs_and_other_programs_name_no_file(line: str) -> None:
    argv = shlex.split(line)
    assert program_file(f"/usr/bin/{argv[0]}", argv) is None


def test_what_the_kernel_runs_counts_and_not_what_it_calls_itself() -> None:
    assert program_file("/usr/bin/python3.11", ["sleep", "/tmp/evil.py"]) == "/tmp/evil.py"
    assert program_file("/bin/busybox", ["sh", "/tmp/evil.sh"]) == "/tmp/evil.sh"
    assert program_file("/usr/bin/python3.11", []) is None
