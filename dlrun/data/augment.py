"""Albumentations, chosen by name in YAML: any transform of the library, with its own options."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlrun.data.order import AUGMENT, Jumper, philox
from dlrun.errors import UserError, choices
from dlrun.registry import check_value


class Augment:
    """Augments uint8 images (B, H, W, C); what is drawn depends on (seed, epoch, position) of each image alone."""

    def __init__(self, transforms: Sequence[Mapping[str, Any]], seed: int):
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # its import asks the package index for news otherwise
        import albumentations
        import cv2

        cv2.setNumThreads(0)  # a thread pool costs more than it gives on one small picture
        self.compose = albumentations.Compose(_build_all(transforms, "augment.transforms"), strict=True)
        self.transforms, self.seed = transforms, seed

    def __call__(self, images: np.ndarray, epoch: int, position: int) -> np.ndarray:
        """Augment the images that stand at `position`, `position` + 1, … of the epoch's order."""
        generator, companion = philox(self.seed, epoch, AUGMENT), random.Random(0)
        self.compose.set_random_state(generator, companion)
        jumper, augmented = Jumper(generator), []
        for offset, image in enumerate(images):
            jumper.to(position + offset, companion)
            augmented.append(self.compose(image=image)["image"])
        return np.stack(augmented)

    def check_shape(self, shape: tuple[int, int, int]) -> None:
        """Try the transforms on one (H, W, C) image: they may fail on its size, and must not change it."""
        often = Augment([_evened(entry) for entry in self.transforms], self.seed)  # what is rare must come up too
        for position in range(64):
            try:
                result = often(np.zeros((1, *shape), np.uint8), epoch=0, position=position)[0]
            except Exception as error:
                raise UserError(f"augment: {type(error).__name__} on a {shape} image: {_one_line(error)}") from error
            if result.shape != shape or result.dtype != np.uint8:
                raise UserError(
                    f"augment: the transforms turn a {shape} uint8 image into {result.shape} {result.dtype}; "
                    "they must keep size and type (data.image_size sets the size, normalisation is dlrun's own)"
                )


def _evened(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The same transform, applied half the time unless it is always or never."""
    ((name, options),) = entry.items()
    options = dict(options or {})
    if 0 < options.get("p", 0.5) < 1:
        options["p"] = 0.5
    if "transforms" in options:
        options["transforms"] = [_evened(nested) for nested in options["transforms"]]
    return {name: options}


def _build_all(transforms: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    check_value(transforms, list[Any], key)
    return [_build(entry, f"{key}.{place}") for place, entry in enumerate(transforms)]


def _build(entry: Mapping[str, Any], key: str) -> Any:
    """One `{Name: {option: value}}`; nested lists (OneOf, SomeOf, Sequential) are built the same way."""
    import albumentations

    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise UserError(f"{key}: expected one transform as 'Name: {{options}}', got {entry!r}")
    ((name, options),) = entry.items()
    check_value(options, dict[str, Any] | None, f"{key}.{name}")
    base = (albumentations.BasicTransform, albumentations.BaseCompose)
    known = {n: t for n, t in vars(albumentations).items() if isinstance(t, type) and issubclass(t, base)}
    if name not in known:
        raise UserError(f"{key}: unknown transform '{name}'{_nearest_only(str(name), known)}")
    options = dict(options or {})
    if "transforms" in options:
        options["transforms"] = _build_all(options["transforms"], f"{key}.{name}.transforms")
    elif not issubclass(known[name], albumentations.BaseCompose):
        options["strict"] = True  # without it an unknown option is ignored with a warning
    try:
        return known[name](**options)
    except (ValueError, TypeError) as error:
        raise UserError(f"{key}.{name}: {_one_line(error)}") from None


def _nearest_only(name: str, known: Mapping[str, Any]) -> str:
    return choices(name, known).partition(" (choose")[0] + f" (any of albumentations' {len(known)} transforms)"


def _one_line(error: Exception) -> str:
    """The library's message without pydantic's links and line breaks."""
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line.partition(" [type=")[0] for line in lines if not line.startswith("For further")) or repr(
        error
    )
