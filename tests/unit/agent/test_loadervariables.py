"""Which parts of a variable a process takes code from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.agent.loadervariables import names_cache, parts
from trainseal.provenance.commandlines import finds_code, loads_code


def _texts(name: str, value: str) -> list[str]:
    assert loads_code(name) or finds_code(name)
    return [p.text for p in parts(name, value)]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LD_PRELOAD", "/a.so:/b.so /c.so", ["/a.so", "/b.so", "/c.so"]),
        ("LD_PRELOAD", "evil.so", ["evil.so"]),
        ("LD_AUDIT", "./audit.so", ["./audit.so"]),
        ("LD_LIBRARY_PATH", "/x::/y", ["/x", ".", "/y"]),
        ("PYTHONPATH", "src:", ["src", "."]),
        ("PYTHONSTARTUP", "/scratch/rc.py", ["/scratch/rc.py"]),
        ("PYTHONHOME", "/scratch", ["/scratch"]),
        ("NCCL_NET_PLUGIN", "evil", ["evil"]),
        ("NCCL_TUNER_PLUGIN", "/scratch/t.so", ["/scratch/t.so"]),
        ("CUDA_INJECTION64_PATH", "/scratch/i.so", ["/scratch/i.so"]),
        ("OMPI_MCA_mca_base_component_path", "/scratch/mca", ["/scratch/mca"]),
        ("PERL5OPT", "-Mevil", ["-Mevil"]),
        ("NODE_OPTIONS", "--require=/scratch/x.js", ["/scratch/x.js"]),
        ("PATH", "/usr/bin:bin", ["/usr/bin", "bin"]),
        ("LD_LIBRARY_PATH", "$ORIGIN/../lib", ["$ORIGIN/../lib"]),
        ("HOME", "/scratch/h", ["/scratch/h"]),
        ("HOME", ".", ["."]),
        ("R_LIBS_USER", "/scratch/r:lib", ["/scratch/r", "lib"]),
    ],
)
def test_what_leads_to_code_is_listed(name: str, value: str, expected: list[str]) -> None:
    assert _texts(name, value) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTHONOPTIMIZE", "2"),
        ("PYTHONWARNINGS", "ignore"),
        ("PYTHONPATH", ""),
        ("NCCL_NET_PLUGIN", "none"),
        ("LD_BIND_NOW", "1"),
        ("ENV", "production"),
        ("OMPI_COMM_WORLD_RANK", "3"),
        ("OMPI_FILE_LOCATION", "/tmp/ompi.host.0/pid.7"),
        ("TRITON_PTXAS_ARCH", "sm_90"),
    ],
)
def test_what_a_launcher_sets_for_its_children_leads_to_none(name: str, value: str) -> None:
    assert _texts(name, value) == []


def test_a_home_is_more_than_a_cache() -> None:
    homes = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "CONDA_PREFIX", "R_LIBS")
    caches = ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "HF_HOME")
    assert not [name for name in homes if names_cache(name)]
    assert not [name for name in caches if not (finds_code(name) and names_cache(name))]


@given(st.integers(1, 400))
def test_parts_beyond_the_bound_are_not_passed_over(count: int) -> None:
    found = parts("PYTHONPATH", ":".join(["/a"] * count))
    assert len(found) == min(count, 257)
    assert (found[-1].kind == "name") == (count > 256)
