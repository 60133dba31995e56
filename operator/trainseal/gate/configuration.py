"""Config files: read once, compared, and those same bytes written.

The kubelet shows a ConfigMap as links into a directory that it swaps when the ConfigMap changes;
so nothing is read twice, and what the trainer sees is the copy.
"""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path

from trainseal.api.gateplan import PlannedConfig
from trainseal.gate.outcomes import RefusedError, UndeterminedError
from trainseal.gate.unpack import new_file, open_target, write_all
from trainseal.provenance.tree_paths import shown

#: A ConfigMap has at most 1 MiB in all (Kubernetes, "ConfigMaps").
MAX_CONFIG_BYTES = 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def copy_config(plan: PlannedConfig) -> int:
    """Copies the planned files to the target; the number of bytes.

    Nothing is written unless all of them are as planned. Raises RefusedError, UndeterminedError.
    """
    checked = {name: _checked(plan, name) for name in sorted(plan.files)}
    target = open_target(Path(plan.target))
    try:
        for name, content in checked.items():
            with new_file(target, name) as descriptor:
                write_all(descriptor, content)
    finally:
        os.close(target)
    return sum(len(content) for content in checked.values())


def _checked(plan: PlannedConfig, name: str) -> bytes:
    if not _NAME.fullmatch(name):
        raise RefusedError(
            f"config {shown(name)}",
            "a name that leaves the config's directory or could",
            expected="a plain file name",
            remedy="this plan was not made by the controller: find out who made the pod",
        )
    path = Path(plan.source) / name
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        raise RefusedError(
            f"config {name}",
            f"missing from {plan.source}",
            expected=plan.files[name],
            remedy="the job's ConfigMap was made anew or emptied: find out by whom, then submit"
            " the job again",
        ) from None
    except OSError as error:
        raise UndeterminedError(f"config {name}", f"cannot be read ({error.strerror})") from None
    found = f"sha256:{sha256(content).hexdigest()}"
    if len(content) > MAX_CONFIG_BYTES or found != plan.files[name]:
        raise RefusedError(
            f"config {name}",
            f"changed: found {found}"
            if len(content) <= MAX_CONFIG_BYTES
            else f"changed: found more than {MAX_CONFIG_BYTES} bytes",
            expected=f"{plan.files[name]} as sealed",
            remedy="the job's ConfigMap was changed after the seal: find out by whom, then submit"
            " the job again",
        )
    return content
