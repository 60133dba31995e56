"""Programs whose operands are code, and how each is told which: tables, no more.

A program that stands in none of them may start another all the same; see ``codewords``.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Language:
    """How an interpreter is told what to run.

    ``texts``: options whose value is a program's text. ``modules``: options that name a module.
    ``values``: options whose next word is their own; of ``places`` it is code. A letter may stand
    in a cluster (``-lne``).
    """

    name: str
    texts: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()

    def letter(self, word: str) -> tuple[str, str] | None:
        """The first letter of a cluster that is a text's, a module's or takes a value; the rest."""
        if word.startswith("--"):
            return None
        for at, char in enumerate(word[1:], start=1):
            if not char.isalnum():
                return None
            if f"-{char}" in self.texts | self.modules | self.values | self.places:
                return f"-{char}", word[at + 1 :]
        return None

    def option(self, word: str) -> tuple[str, str | None]:
        """An option as the language knows it, and its value where that stands in the same word."""
        option, equals, given = word.partition("=")
        if option in self.texts | self.modules | self.values | self.places:
            return option, given if equals else None
        if letter := self.letter(word):
            return letter[0], letter[1] or None
        return option, given if equals else None


def _of(text: str) -> frozenset[str]:
    return frozenset(text.split())


SHELL = Language(
    "shell",
    texts=_of("-c"),
    values=_of("-o -O +o +O"),
    places=_of("--rcfile --init-file"),
)
PYTHON = Language(
    "python",
    texts=_of("-c"),
    modules=_of("-m"),
    values=_of("-W -X -Q --check-hash-based-pycs"),
)
_NODE = Language(
    "node",
    texts=_of("-e -p --eval --print"),
    places=_of("-r --require --import --loader --experimental-loader"),
    values=_of("-C --conditions"),
)
_R = Language("r", texts=_of("-e"), places=_of("-f --file"), values=_of("-g -d --gui --debugger"))
_LANGUAGES = (
    (_of("sh bash dash zsh ksh mksh ash rbash fish csh tcsh yash"), SHELL),
    (_of("python pythonw pypy ipython bpython jython micropython xonsh"), PYTHON),
    (_of("perl"), Language("perl", texts=_of("-e -E"), places=_of("-I -M -m"), values=_of("-F"))),
    (_of("ruby jruby"), Language("ruby", _of("-e"), places=_of("-I -r -C"), values=_of("-E"))),
    (_of("node nodejs ts-node tsx"), _NODE),
    (_of("lua luajit texlua"), Language("lua", _of("-e"), places=_of("-l"))),
    (_of("php"), Language("php", _of("-r -B -R -E"), values=_of("-z"), places=_of("-d -c -f -F"))),
    (_of("R Rscript"), _R),
    (
        _of("julia"),
        Language(
            "julia",
            texts=_of("-e -E --eval --print"),
            places=_of("-L --load -J --sysimage --project"),
            values=_of("-p -t -C --procs --threads"),
        ),
    ),
    (
        _of("java"),
        Language(
            "java", places=_of("-cp -classpath --class-path -p --module-path -jar")
        ),
    ),
    (_of("tclsh wish expect"), Language("tcl", texts=_of("-c"))),
    (_of("guile racket sbcl ocaml octave escript groovy scala dotnet mono"), Language("other")),
)  # fmt: skip
_BY_NAME = {name: language for names, language in _LANGUAGES for name in names}

#: Programs that run another program given as an operand.
RUNNERS = _of(
    """
    accelerate bun busybox bwrap catatonit cgexec chroot chrt colossalai command composer conda
    coverage deepspeed deno doas dumb-init env exec fakeroot gdb gosu hatch horovodrun
    ionice jupyter kernprof lightning ltrace mamba memray micromamba mpiexec mpirun ncu nice
    nohup npx nsenter nsys nvprof numactl papermill pdm perf pipenv pixi poetry prlimit
    prun prterun py-spy ray runuser rye scalene script setarch setpriv setsid sg srun stdbuf
    strace su su-exec sudo systemd-run taskset time timeout tini toybox torchrun torchx unshare
    uv uvx valgrind viztracer watch xargs
    """
)
#: Programs that build, install or test: what they are pointed at runs.
BUILDERS = _of(
    """
    cargo cmake easy_install gmake invoke just make ninja nox npm parallel pip pipx pytest rake
    snakemake tox
    """
)
#: Programs that handle bytes, or the shell's own: none of their operands runs.
TOOLS = _of(
    """
    [ [[ basename cat chgrp chmod chown cksum cp cut date dd df diff dirname du echo exit expr
    false file free grep egrep fgrep gunzip gzip head hostname id install kill ln ls md5sum mkdir
    mkfifo mktemp mv nproc nvidia-smi printenv printf ps pwd readlink realpath return rm rmdir
    rsync sha256sum shift sleep sort split stat sync tac tail tar tee test touch tr true truncate
    tty ulimit umask uname uniq unset unxz unzip wait wc xz zcat zip zstd
    """
)
_EXACT = RUNNERS | BUILDERS | TOOLS
#: Runners of Python scripts, which take ``-m MODULE`` as Python does.
PYTHON_RUNNERS = _of(
    "accelerate composer coverage deepspeed kernprof memray scalene torchrun torchx viztracer"
)
#: Common words that an unknown program may have as operands of its own.
COMMON_WORDS = _of("R command exec just make node parallel script time watch")

#: Modules that ``python -m`` runs and that run what they are given.
RUN_MODULES = _of(
    """
    accelerate.commands.launch cProfile coverage debugpy deepspeed.launcher.launch
    deepspeed.launcher.runner ipdb kernprof memray pdb profile runpy scalene
    torch.distributed.launch torch.distributed.run torch.utils.bottleneck trace viztracer
    """
)  # fmt: skip
MODULE_PROGRAMS = {"IPython": "ipython", "pip": "pip", "pytest": "pytest", "unittest": "pytest"}

_VERSION = "-.0123456789"
_OUTPUT = re.compile(
    r"^--?(o|log|out|output|save|tmp|temp|cache|ckpt|checkpoint|result|report|record|profile|trace"
    r"|export|dump|tensorboard|wandb)[-_a-z]*$"
)
#: Options by which a program of any kind is told what to run.
_CODE_OPTION = re.compile(
    r"^--?(script|entry-?point|exec|program|cmd|command|plugin|preload|require|import|rcfile"
    r"|classpath|startup)([-_](file|path|dir|script))?$"
)
_CODE_FILE = re.compile(
    r"\.(py[cwz]?|pyx|egg|whl|sh|bash|zsh|pl|pm|rb|[rR]|jl|lua|m?js|cjs|ts|php|tcl|awk|mk|jar|class"
    r"|ipynb|so(\.[0-9]+)*)$"
)


def name_of(program: str) -> str:
    """The name of a program without its directory and version: ``python`` of ``…/python3.11``."""
    name = posixpath.basename(program)
    if name.startswith(("ld-linux", "ld-musl", "ld.so")):
        return "ld.so"
    return name if name in _EXACT else name.rstrip(_VERSION)


def language_of(program: str) -> Language | None:
    """The language of an interpreter."""
    return _BY_NAME.get(name_of(program))


def is_runner(program: str) -> bool:
    """Whether a program runs another that its operands name."""
    return (name := name_of(program)) in RUNNERS or name == "ld.so"


def is_output(option: str) -> bool:
    """Whether an option's value is by its name a place that a program writes to."""
    return bool(_OUTPUT.match(option))


def is_code_option(option: str) -> bool:
    """Whether an option's value is by its name something to run."""
    return bool(_CODE_OPTION.match(option))


def is_code_file(path: str) -> bool:
    """Whether a path is by its ending a program's text, or a library."""
    return bool(_CODE_FILE.search(path))
