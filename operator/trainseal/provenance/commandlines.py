"""Which variables name code, and which programs may become another.

An approximation on the careful side, used to refuse what resolves into a writable mount before it
runs (``codewords`` reads the commands themselves). What runs from a writable place all the same is
seen by the watch.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from trainseal.provenance import programs

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


def loads_code(variable: str) -> bool:
    """Whether a variable of this name can decide which code a process loads."""
    return bool(_CODE_VARIABLE.match(variable)) and not _HARMLESS_VARIABLE.match(variable)


def finds_code(variable: str) -> bool:
    """Whether programs look for code of their own below the directory that it names."""
    return bool(_CODE_HOME.match(variable))


def may_become_another(argv: Sequence[str]) -> bool:
    """Whether a process that begins with this command may run on as another program: ``exec``."""
    if not argv:
        return False
    return (
        programs.language_of(argv[0]) is not None
        or programs.is_runner(argv[0])
        or bool(re.search(r"\.(sh|py|pl|rb)$", posixpath.basename(argv[0])))
    )
