"""Which words of a command line, or of a variable, name code.

An approximation on the careful side, used to refuse commands that resolve into a writable mount
before they run: a script that computes its command is not understood, but what it computes is
signed text. What runs from a writable place all the same is seen by the watch.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Sequence

#: Programs whose first operand is code.
_INTERPRETER = re.compile(
    r"^(ba|da|z|k|a)?sh$|^python[0-9.]*$|^perl[0-9.]*$|^ruby[0-9.]*$|^node(js)?$|^lua[0-9.]*$"
)
#: Programs that run another program given as an operand.
_RUNNERS = frozenset(
    {
        "accelerate", "catatonit", "chroot", "deepspeed", "dumb-init", "env", "exec", "mpiexec",
        "mpirun", "nice", "nohup", "numactl", "setsid", "srun", "stdbuf", "sudo", "taskset",
        "timeout", "tini", "torchrun", "xargs",
    }
)  # fmt: skip
#: Options of runners whose value is a place they write to.
_OUTPUT_OPTION = re.compile(r"^--?(log|out|output|save|tmp|cache|ckpt|checkpoint)[-_a-z]*$")
#: Variables that name places or pieces of code.
_CODE_VARIABLE = re.compile(
    r"^(PATH|LD_.*|PYTHON.*|BASH_ENV|ENV|NCCL_.*PLUGIN.*|NCCL_CONF_FILE|CUDA_INJECTION.*|"
    r"CUDA_.*LIB.*|PERL5?LIB|PERL5OPT|NODE_OPTIONS|NODE_PATH|RUBYOPT|RUBYLIB|TRITON_.*|"
    r"VIRTUAL_ENV|IPYTHONDIR|GCONV_PATH|LOCPATH|OMPI_.*|UCX_.*DIR|FI_PROVIDER_PATH|"
    r"GIO_MODULE_DIR|OPENSSL_CONF|OPENSSL_(MODULES|ENGINES))$"
)
#: Of those, places for caches that a program writes itself, and plain switches.
_HARMLESS_VARIABLE = re.compile(
    r"^(TRITON_CACHE_DIR|PYTHONUNBUFFERED|PYTHONHASHSEED|PYTHONDONTWRITEBYTECODE|"
    r"PYTHONFAULTHANDLER)$"
)
#: Variables that name a directory below which programs find code by themselves: the user's
#: site-packages and start-up files below HOME, compiled kernels and extensions, downloaded modules.
_CODE_HOME = re.compile(
    r"^(HOME|XDG_[A-Z]+_HOME|TRITON_[A-Z_]*DIR|TORCH_HOME|TORCH_EXTENSIONS_DIR|"
    r"TORCHINDUCTOR_CACHE_DIR|NUMBA_CACHE_DIR|CUDA_CACHE_PATH|JAX_COMPILATION_CACHE_DIR|"
    r"HF_HOME|HF_MODULES_CACHE|HUGGINGFACE_HUB_CACHE|TRANSFORMERS_CACHE|CONDA_PREFIX|R_LIBS.*)$"
)
_RUNS_FILES = re.compile(
    r"exec|eval|runpy|import_module|importlib|__import__|sys\.path|subprocess|os\.(system|spawn|popen)"
    r"|CDLL|dlopen|load_library|pickle|torch\.load|require|\bdo\b|system"
)
_SEPARATOR = re.compile(r"[();|&\n]+")


def loads_code(variable: str) -> bool:
    """Whether a variable of this name can decide which code a process loads."""
    return bool(_CODE_VARIABLE.match(variable)) and not _HARMLESS_VARIABLE.match(variable)


def finds_code(variable: str) -> bool:
    """Whether programs look for code of their own below the directory that it names."""
    return bool(_CODE_HOME.match(variable))


def may_become_another(argv: Sequence[str]) -> bool:
    """Whether a process that begins with this command may run on as another program: ``exec``."""
    program = posixpath.basename(argv[0]) if argv else ""
    return bool(
        _INTERPRETER.match(program)
        or program in _RUNNERS
        or re.search(r"\.(sh|py|pl|rb)$", program)
        or program.startswith("ld-linux")
    )


def code_words(argv: Sequence[str]) -> Iterator[str]:
    """The words of a command line that would be executed, interpreted, sourced or imported."""
    if not argv:
        return
    program = posixpath.basename(argv[0])
    if "/" in argv[0]:  # without one it is looked up on PATH, which is judged as a variable
        yield argv[0]
    if _INTERPRETER.match(program):
        yield from _interpreted(argv, shell=program.endswith("sh"))
    elif program in _RUNNERS or program.startswith("ld-linux"):
        yield from _run(argv)


def _run(argv: Sequence[str]) -> Iterator[str]:
    """The operands of a runner, up to and with the program that it runs.

    Which operand is the program depends on each runner's options; so each operand before the
    first that looks like one counts too, less the values of options that name outputs.
    """
    for index, word in enumerate(argv[1:], start=1):
        after_option = argv[index - 1].startswith("-") and "=" not in argv[index - 1]
        if word.startswith("-"):
            option, _, value = word.partition("=")
            if value and not _OUTPUT_OPTION.match(option):
                yield value
            continue
        if "=" in word and not word.startswith("/"):
            name, _, value = word.partition("=")
            if loads_code(name):
                yield from value.split(":")
            continue
        if after_option and _OUTPUT_OPTION.match(argv[index - 1]):
            continue
        name = posixpath.basename(word)
        if _INTERPRETER.match(name) or name in _RUNNERS:
            yield from code_words(argv[index:])
            return
        yield word
        if word.endswith((".py", ".sh")) or ("/" in word and not after_option):
            return


def _interpreted(argv: Sequence[str], *, shell: bool) -> Iterator[str]:
    for index, word in enumerate(argv[1:], start=1):
        if re.fullmatch(r"-[A-Za-z]*c", word):
            script = argv[index + 1] if index + 1 < len(argv) else ""
            yield from _script_words(script) if shell else _paths(script)
            return
        if not shell and re.fullmatch(r"-[A-Za-z]*m", word):
            return  # a module, found on the import path
        if word.startswith("-") and len(word) > 1:
            continue
        yield word
        # Options with a value (-W ignore, -o pipefail) look like operands: go on until one
        # looks like a file.
        if "/" in word or "." in word:
            return


def _script_words(script: str) -> Iterator[str]:
    """The words of a shell script that stand where a command, or a file to source, stands."""
    try:
        lexer = shlex.shlex(script, posix=True, punctuation_chars="();<>|&\n")
        lexer.whitespace = " \t\r"
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:
        words = script.split()
    start, sourcing = True, False
    for index, word in enumerate(words):
        if _SEPARATOR.fullmatch(word) or word in ("then", "do", "else", "!", "{", "exec"):
            start, sourcing = True, False
        elif sourcing:
            yield word.partition("=")[2] if "=" in word else word
            sourcing = False
        elif start and re.match(r"^[A-Za-z_][A-Za-z0-9_]*=", word):
            name, _, value = word.partition("=")
            if loads_code(name):
                yield from value.split(":")
        elif start:
            start = False
            sourcing = word in (".", "source", "cd", "pushd", "export")
            if not sourcing:
                rest = words[index:]
                end = next((i for i, w in enumerate(rest) if _SEPARATOR.fullmatch(w)), len(rest))
                yield from code_words(rest[:end])


def _paths(script: str) -> Iterator[str]:
    """Absolute paths in a program text that runs, imports or unpickles something."""
    if _RUNS_FILES.search(script):
        yield from re.findall(r"/[^\s'\"`,;()]+", script)
