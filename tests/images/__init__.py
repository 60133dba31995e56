"""Container images for demo and tests, built without Docker and without a container registry.

`build_operator_image()` and `build_training_image()` give the folder of an OCI image layout, from
the cache if nothing that goes into it has changed. `python -m tests.images build` does the same
from a shell, and `python -m tests.cluster load-image` pushes such a folder to a cluster's registry.
"""

from __future__ import annotations

from tests.images.base import build_base_image
from tests.images.errors import ImageError
from tests.images.operator_image import build_operator_image
from tests.images.training_image import TEXT_PATH, build_training_image

__all__ = [
    "TEXT_PATH",
    "ImageError",
    "build_base_image",
    "build_operator_image",
    "build_training_image",
]
