"""Linux capabilities that containers of sealed pods may add."""

from __future__ import annotations

#: Capabilities a container may add: the runtimes' default set, and memory locking for RDMA.
CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "IPC_LOCK", "KILL",
        "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "SYS_NICE",
    }
)  # fmt: skip
