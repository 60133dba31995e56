"""Debian's PostgreSQL, with one empty database that ends with its container.

It takes what the field's own image of it takes: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB.
"""

from __future__ import annotations

from pathlib import Path

from tests.images import debian, ocilayout
from tests.images.base import LOCALE, base_inputs, build_with
from tests.images.cache import product

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
    inputs = base_inputs(release).code(Path(__file__))
    return str(product("postgres", inputs, lambda work: _build(release, work)) / "image")


def _build(release: str, work: Path) -> None:
    config = ocilayout.ImageConfig("trainseal-postgres", LOCALE, ("sh", "-c", _RUN))
    build_with(release, work, PACKAGES, config)
