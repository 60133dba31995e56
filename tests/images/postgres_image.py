"""Debian's PostgreSQL, with one empty database that ends with its container.

It takes what the field's own image of it takes: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.images import debian, machine, ocilayout
from tests.images.base import UNUSED, clear_traces
from tests.images.cache import Inputs, product
from tests.images.progress import step

PACKAGES = ("postgresql",)
#: The user nobody: initdb wants one that has a name, and that is not root.
USER = 65534

_RUN = """
set -eu
export PATH="$PATH:$(echo /usr/lib/postgresql/*/bin)" PGDATA=/tmp/data
umask 077
printf %s "$POSTGRES_PASSWORD" > /tmp/password
initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256
echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
echo "CREATE DATABASE $POSTGRES_DB" | postgres --single postgres
exec postgres -k /tmp -c "listen_addresses=*"
"""


def build_postgres_image() -> str:
    """OCI layout (a folder) of the image; built unless it is in the cache."""
    release = debian.codename()
    inputs = Inputs().text("release", release)
    for module in ("postgres_image.py", "base.py", "debian.py", "ocilayout.py"):
        inputs = inputs.code(Path(__file__).with_name(module))
    return str(product("postgres", inputs, lambda work: _build(release, work)) / "image")


def _build(release: str, work: Path) -> None:
    machine.ensure_tools("mmdebstrap", "tar", "zstd")
    rootfs = work / "rootfs"
    with step(f"postgres: Debian {release} with PostgreSQL") as say:
        debian.bootstrap(release, PACKAGES, rootfs, say, excluded=UNUSED)
        clear_traces(rootfs)
    with step("postgres: layer"):
        config = ocilayout.ImageConfig(
            "trainseal-postgres", {"LANG": "C.UTF-8"}, ("sh", "-c", _RUN)
        )
        ocilayout.write_layout(rootfs, work / "image", config)
        shutil.rmtree(rootfs)
