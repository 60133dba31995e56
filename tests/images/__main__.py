"""`python -m tests.images`: build the images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tests.images import (
    ImageError,
    build_base_image,
    build_operator_image,
    build_training_image,
)
from tests.images.ocilayout import compressed_size, manifest_digest

_IMAGES: dict[str, Callable[[], str]] = {
    "base": lambda: str(build_base_image()),
    "operator": build_operator_image,
    "training": build_training_image,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0, or 1 with what is wrong on standard error."""
    parser = argparse.ArgumentParser(prog="python -m tests.images", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build images that are not in the cache")
    build.add_argument("image", nargs="*", metavar="base|operator|training")
    given = parser.parse_args(arguments)
    if unknown := set(given.image) - set(_IMAGES):
        parser.error(f"no image called {', '.join(sorted(unknown))}")
    try:
        for name in given.image or ["operator", "training"]:
            layout = Path(_IMAGES[name]())
            megabytes = compressed_size(layout) / 1e6
            print(f"{name}\t{layout}\t{manifest_digest(layout)}\t{megabytes:.0f} MB")
    except ImageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
