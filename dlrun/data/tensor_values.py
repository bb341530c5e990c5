"""What changes the values of pixels where they are: brightness and contrast, and holes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le, MaxLen, MinLen
from torch import Tensor

from dlrun.data.tensor_transform import (
    Gray,
    Lot,
    Pair,
    Shape,
    Transform,
    between,
    check_fill,
    filling,
    kept_or_filled,
    limits_of,
    put_back,
    selected,
    whole_between,
)
from dlrun.errors import OptionError
from dlrun.registry import NonNegative, Ratio

Holes = Annotated[list[Annotated[int, Ge(1), Le(1000)]], MinLen(2), MaxLen(2)]
Sides = Annotated[list[NonNegative], MinLen(2), MaxLen(2)]


@dataclass(frozen=True, kw_only=True)
class RandomBrightnessContrast(Transform):
    """value · (1 + contrast) + brightness · 255, or · the picture's mean, cut off at 0 and 255.

    Not rounded: albumentations cuts each value down to a whole number, and is up to one gray level darker.
    """

    brightness_limit: float | Pair = 0.2
    contrast_limit: float | Pair = 0.2
    brightness_by_max: bool = True
    p: Ratio = 0.5

    @property
    def draws(self) -> int:
        return 3

    def draw(self, lot: Lot, shape: Shape) -> list[np.ndarray] | None:
        chosen = np.flatnonzero(lot.uniforms[:, 0] < self.p)
        if len(chosen) == 0:
            return None
        factor = 1 + between(_around_zero(self.contrast_limit), lot.uniforms[chosen, 1:2])
        brightness = between(_around_zero(self.brightness_limit), lot.uniforms[chosen, 2:3])
        return [chosen, factor.astype(np.float32), brightness.astype(np.float32)]

    def apply(self, images: Tensor, *drawn: Tensor) -> Tensor:
        chosen, factor, brightness = drawn
        images = images.float()
        values = selected(images, chosen).flatten(1)  # (b, H · W · C)
        term = brightness * (255.0 if self.brightness_by_max else values.mean(dim=1, keepdim=True))
        values = values.mul_(factor).add_(term).clamp_(0, 255)  # on a CPU 5 times as fast as addcmul
        return put_back(images, chosen, values.view(-1, *images.shape[1:]))


@dataclass(frozen=True, kw_only=True)
class CoarseDropout(Transform):
    """Rectangles of `fill`, anywhere; they may overlap. Sizes in pixels, or below 1 as shares of the picture's."""

    num_holes_range: Holes = (1, 2)  # type: ignore[assignment]
    hole_height_range: Sides = (0.1, 0.2)  # type: ignore[assignment]
    hole_width_range: Sides = (0.1, 0.2)  # type: ignore[assignment]
    fill: Gray | list[Gray] = 0.0
    p: Ratio = 0.5

    @property
    def draws(self) -> int:
        return 2 + 4 * self.num_holes_range[1]

    def check(self, shape: Shape) -> Shape:
        for option in ("num_holes_range", "hole_height_range", "hole_width_range"):
            low, high = getattr(self, option)
            if low > high:
                raise OptionError(option, f"expected the smaller number first, got {[low, high]}")
        for option, longest in (("hole_height_range", shape[0]), ("hole_width_range", shape[1])):
            low, high = getattr(self, option)
            if not self.in_pixels and high > 1:
                raise OptionError(option, f"expected shares, since hole_height_range is in shares, got {[low, high]}")
            if low > longest and self.in_pixels:
                raise OptionError(option, f"expected holes that fit the picture's {longest} pixels, got {[low, high]}")
        check_fill(self.fill, shape)
        return shape

    @property
    def in_pixels(self) -> bool:
        """What the two sizes are in; albumentations looks at the height alone."""
        return self.hole_height_range[1] >= 1

    def draw(self, lot: Lot, shape: Shape) -> list[np.ndarray] | None:
        """The chosen samples, and a bit for each hole that a row or a column lies in: (k, b, H) and (k, b, W · C)."""
        chosen = np.flatnonzero(lot.uniforms[:, 0] < self.p)
        if len(chosen) == 0:
            return None
        holes, there = self.holes(lot.uniforms[chosen, 1:], shape[0], shape[1])
        rows = _bits(holes[:, :, 1], holes[:, :, 3], shape[0], there)
        columns = _bits(holes[:, :, 0], holes[:, :, 2], shape[1], there)
        fill = filling(np.trunc(self.fill).tolist(), shape, shape[1])
        return [chosen, rows, np.repeat(columns, shape[2], axis=2), *fill]

    def apply(self, images: Tensor, *drawn: Tensor) -> Tensor:
        chosen, rows, columns, *fill = drawn
        images = images.float()
        part = selected(images, chosen)
        hit = rows[0][:, :, None] & columns[0][:, None, :]  # (b, H, W · C); not 0 where a hole has both
        for more_rows, more_columns in zip(rows[1:], columns[1:], strict=True):
            hit |= more_rows[:, :, None] & more_columns[:, None, :]
        kept = 1 - hit.clamp_(max=1)
        return put_back(images, chosen, kept_or_filled(part.flatten(2), kept, *fill).view(part.shape))

    def holes(self, uniforms: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Holes (b, n, 4) as x_min, y_min, x_max, y_max (the last two excluded), and which of them are there (b, n)."""
        low, most = self.num_holes_range
        there = np.arange(most) < whole_between(low, most, uniforms[:, 0])[:, None]
        each = uniforms[:, 1:].reshape(-1, most, 4)
        heights = self._lengths(self.hole_height_range, height, each[:, :, 0])
        widths = self._lengths(self.hole_width_range, width, each[:, :, 1])
        top = whole_between(0, height - heights, each[:, :, 2])
        left = whole_between(0, width - widths, each[:, :, 3])
        return np.stack([left, top, left + widths, top + heights], axis=2), there

    def _lengths(self, limits: list[float], whole: int, uniforms: np.ndarray) -> np.ndarray:
        low, high = limits
        if self.in_pixels:
            return whole_between(int(low), int(min(high, whole)), uniforms)
        return (whole * between((low, high), uniforms)).astype(np.int64)


def _around_zero(limit: float | list[float]) -> tuple[float, float]:
    return limits_of(limit) if isinstance(limit, list) else limits_of([-limit, limit])


def _bits(first: np.ndarray, after: np.ndarray, length: int, there: np.ndarray) -> np.ndarray:
    """Bit n % 8 of entry (n // 8, b, i) is set if hole n is there and first <= i < after: (k, b, length) uint8."""
    since = _since(length)
    inside = since[first] ^ since[np.where(there, after, first)]  # (b, n, length)
    inside <<= (np.arange(first.shape[1], dtype=np.uint8) % 8)[:, None]
    return np.stack([np.bitwise_or.reduce(inside[:, n : n + 8], axis=1) for n in range(0, first.shape[1], 8)])


@cache
def _since(length: int) -> np.ndarray:
    """Row i is 1 from entry i on: (length + 1, length) uint8."""
    return np.triu(np.ones((length + 1, length), np.uint8))
