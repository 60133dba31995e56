"""`python -m tests.images`: build the images, and push them."""

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
    push,
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
    pushing = commands.add_parser("push", help="build an image if need be and push it")
    pushing.add_argument("image", choices=sorted(_IMAGES))
    pushing.add_argument("reference", help="HOST/REPOSITORY:TAG")
    pushing.add_argument("--tls", action="store_true", help="the registry speaks TLS")
    given = parser.parse_args(arguments)
    try:
        if given.command == "push":
            layout = _IMAGES[given.image]()
            print(push(layout, given.reference, plain_http=not given.tls))
        else:
            if unknown := set(given.image) - set(_IMAGES):
                parser.error(f"no image called {', '.join(sorted(unknown))}")
            for name in given.image or ["operator", "training"]:
                layout = _IMAGES[name]()
                megabytes = compressed_size(Path(layout)) / 1e6
                print(f"{name}\t{layout}\t{manifest_digest(Path(layout))}\t{megabytes:.0f} MB")
    except ImageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
