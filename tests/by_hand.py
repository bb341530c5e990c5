"""albumentations run as its documentation says, seeded as dlrun seeds: what its pictures must be equal to."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np

from dlrun.data.order import AUGMENT

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A


def compose(transforms: list[dict[str, Any]]) -> A.Compose:
    """The transforms of a YAML list as one would write them in Python."""
    return A.Compose([_made(name, dict(options or {})) for entry in transforms for name, options in entry.items()])


def _made(name: str, options: dict[str, Any]) -> Any:
    if "transforms" in options:
        options["transforms"] = compose(options["transforms"]).transforms
    return getattr(A, name)(**options)


def draw(composed: A.Compose, images: np.ndarray, seed: int, epoch: int, position: int) -> list[np.ndarray]:
    """Each image by a `Compose` call of its own, with generators of its own."""
    key = np.random.SeedSequence([seed, epoch, AUGMENT]).generate_state(2, np.uint64)
    pictures = []
    for place, image in enumerate(images, position):
        generator = np.random.Generator(np.random.Philox(counter=[0, place, 0, 0], key=key))
        composed.set_random_state(generator, random.Random(int(generator.bit_generator.random_raw())))
        pictures.append(composed(image=image.copy())["image"])
    return pictures
