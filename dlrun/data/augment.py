"""Albumentations, chosen by name in YAML: any transform of the library, with its own options."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlrun.data.lean import step
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
        self.steps = [step(transform) for transform in self.compose]
        self.transforms, self.seed = transforms, seed

    def __reduce__(self) -> tuple[Any, ...]:
        return Augment, (self.transforms, self.seed)  # to loader processes that aren't forked

    def __call__(self, images: np.ndarray, epoch: int, position: int) -> np.ndarray:
        """Augment the images that stand at `position`, `position` + 1, … of the epoch's order.

        Gives what `self.compose` gives, image by image, and raises UserError if a shape or type isn't kept.
        """
        generator, companion = philox(self.seed, epoch, AUGMENT), random.Random(0)
        self.compose.set_random_state(generator, companion)
        jumper, slab = Jumper(generator), images.copy()
        for offset, image in enumerate(slab):
            jumper.to(position + offset, companion)
            companion.random()  # Compose's own draw, whether to do anything: it always does
            augmented = image
            for apply in self.steps:
                augmented = apply(augmented)
            if augmented is not image:
                _check_kept(image, augmented)
                image[...] = augmented
        return slab

    def check_shape(self, shape: tuple[int, int, int]) -> None:
        """Try the transforms on one (H, W, C) image: they may fail on its size, and must not change it."""
        often = Augment([_evened(entry) for entry in self.transforms], self.seed)  # what is rare must come up too
        for position in range(64):
            try:
                often(np.zeros((1, *shape), np.uint8), epoch=0, position=position)
            except UserError:
                raise
            except Exception as error:
                raise UserError(f"augment: {type(error).__name__} on a {shape} image: {_one_line(error)}") from error


def _check_kept(before: np.ndarray, after: np.ndarray) -> None:
    if after.shape != before.shape or after.dtype != before.dtype:
        raise UserError(
            f"augment: the transforms turn a {before.shape} {before.dtype} image into {after.shape} {after.dtype}; "
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
    elif _is_lax(known[name]):
        options["strict"] = True
    try:
        return known[name](**options)
    except (ValueError, TypeError) as error:
        raise UserError(f"{key}.{name}: {_one_line(error)}") from None


def _is_lax(transform: type) -> bool:
    """Whether unknown options are ignored with a warning, unless `strict` forbids it.

    The library does so where `__init__` stands beside a schema; any other is Python's own, and knows no `strict`.
    """
    owner = next(kind for kind in transform.__mro__ if "__init__" in vars(kind))
    return "InitSchema" in vars(owner)


def _nearest_only(name: str, known: Mapping[str, Any]) -> str:
    return choices(name, known).partition(" (choose")[0] + f" (any of albumentations' {len(known)} transforms)"


def _one_line(error: Exception) -> str:
    """The library's message without pydantic's links and line breaks."""
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line.partition(" [type=")[0] for line in lines if not line.startswith("For further")) or repr(
        error
    )
