"""Which places, and which bare names, a variable has a process take code from. Pure.

A launcher sets variables for the processes it starts, so a difference from the seal alone says
little: what counts is whether it leads to something that nobody signed. Of each variable that
``loads_code`` or ``finds_code`` knows, the parts are listed; whether a place is signed is asked of
the container.

Launchers that stay silent by this: torchrun, mpirun (``OMPI_…`` ranks and sessions), DeepSpeed and
torch.compile's workers (``PYTHONPATH`` made of the import path they have themselves), the CPU
launchers that preload the image's own allocator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from trainseal.provenance.commandlines import finds_code

#: Switches: no value of theirs names code.
_SWITCH = re.compile(
    r"^(PYTHON(OPTIMIZE|UTF8|IOENCODING|NOUSERSITE|SAFEPATH|DEVMODE|MALLOC|MALLOCSTATS|"
    r"ASYNCIODEBUG|COERCECLOCALE|VERBOSE|DEBUG|TRACEMALLOC|PROFILEIMPORTTIME|WARNINGS|INSPECT|"
    r"INTMAXSTRDIGITS|NODEBUGRANGES|PERFSUPPORT|PERF_JIT_SUPPORT|CASEOK|_GIL|_BASIC_REPL|"
    r"_COLORS|_CPU_COUNT|_FROZEN_MODULES)|LD_(BIND_NOW|BIND_NOT|DEBUG|DEBUG_OUTPUT|VERBOSE|WARN|"
    r"SHOW_AUXV|TRACE_LOADED_OBJECTS|DYNAMIC_WEAK|HWCAP_MASK|PREFER_MAP_32BIT_EXEC|PROFILE|"
    r"PROFILE_OUTPUT))$"
)
#: A bare word is a library, a module or an option that loads one.
_NAMES = re.compile(
    r"^(LD_PRELOAD|LD_AUDIT|NCCL_.*PLUGIN.*|CUDA_INJECTION.*|PERL5OPT|RUBYOPT|NODE_OPTIONS|"
    r"PYTHONBREAKPOINT)$"
)
#: A relative or empty part means the working directory.
_LISTS = re.compile(
    r"^(PATH|LD_LIBRARY_PATH|PYTHONPATH|PERL5?LIB|RUBYLIB|NODE_PATH|GCONV_PATH|LOCPATH)$"
)
#: Of the many variables of MPI, those that name where plugins are.
_MPI = re.compile(r"component_path|prefix|preload", re.IGNORECASE)
#: What a process finds in a cache, its like put there; compilers name theirs to their workers.
_CACHES = re.compile(
    r"^(XDG_CACHE_HOME|TRITON_CACHE_DIR|TORCH_HOME|TORCH_EXTENSIONS_DIR|TORCHINDUCTOR_CACHE_DIR|"
    r"NUMBA_CACHE_DIR|CUDA_CACHE_PATH|JAX_COMPILATION_CACHE_DIR|HF_HOME|HF_MODULES_CACHE|"
    r"HUGGINGFACE_HUB_CACHE|TRANSFORMERS_CACHE)$"
)
_NOTHING = frozenset({"", "0", "none", "NONE", "None"})
_MOST = 256


@dataclass(frozen=True, slots=True)
class Part:
    """A place (absolute, or relative to the working directory), or a bare name."""

    kind: Literal["place", "name"]
    text: str


def names_cache(name: str) -> bool:
    """Whether the variable names but a place for what processes keep for each other."""
    return bool(_CACHES.match(name))


def parts(name: str, value: str) -> tuple[Part, ...]:
    """What a variable takes code from, in order; nothing for a switch. At most 257 parts."""
    if _SWITCH.match(name) or value in _NOTHING:
        return ()
    if name.startswith("OMPI_") and not _MPI.search(name):
        return ()
    bare = bool(_NAMES.match(name))
    pieces = re.split(r"[:\s,=]" if bare else ":", value)
    found = []
    for piece in pieces[:_MOST]:
        if "$" in piece:  # $ORIGIN, $LIB: the loader's to expand
            found.append(Part("name", piece))
        elif "/" in piece:
            found.append(Part("place", piece))
        elif _LISTS.match(name) or finds_code(name):
            found.append(Part("place", piece or "."))
        elif bare and piece and not piece.startswith("--"):
            found.append(Part("name", piece))
    if len(pieces) > _MOST:
        found.append(Part("name", f"{len(pieces) - _MOST} more parts"))
    return tuple(found)
