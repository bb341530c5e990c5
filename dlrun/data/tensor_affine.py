"""Shift, scale, rotation and shear of a whole batch, each picture with its own matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from dlrun.data.tensor_transform import (
    Gray,
    Lot,
    Pair,
    Shape,
    Transform,
    Whole,
    between,
    check_fill,
    filling,
    limits_of,
    limits_of_axes,
    put_back,
    selected,
    whole_between,
)
from dlrun.errors import OptionError
from dlrun.registry import Ratio

BORDERS = {0: "zeros", 1: "border", 2: "reflection", 4: "reflection"}  # cv2's numbers, torch's names

Range = float | Pair


@dataclass(frozen=True, kw_only=True)
class Affine(Transform):
    """Albumentations' Affine: scale, then rotate, shear and translate around the middle; rounded to no gray level.

    Translations are whole pixels, those in per cent cut off toward 0. Given the same numbers, a pixel differs from
    OpenCV's by its rounding, half a gray level (older ones than 4.11 place pixels to 1/32, and differ by more).
    """

    scale: Range | dict[str, Range] = 1.0
    translate_percent: Range | dict[str, Range] | None = None
    translate_px: int | Whole | dict[str, int | Whole] | None = None
    rotate: Range = 0.0
    shear: Range | dict[str, Range] = 0.0
    keep_ratio: bool = False
    balanced_scale: bool = False
    interpolation: Literal[1] = 1
    border_mode: Literal[0, 1, 2, 4] = 0
    fill: Gray | list[Gray] = 0.0
    p: Ratio = 0.5

    @property
    def draws(self) -> int:
        return 8

    def check(self, shape: Shape) -> Shape:
        if self.translate_percent is not None and self.translate_px is not None:
            raise OptionError("translate_px", "translate_percent says already how far; set one")
        x, y = limits_of_axes("scale", self.scale, 1.0)
        if self.keep_ratio and x != y:
            raise OptionError("keep_ratio", f"needs one range of scale for both axes, got {self.scale}")
        for option in ("translate_percent", "translate_px", "shear"):
            limits_of_axes(option, getattr(self, option), 0.0)
        check_fill(self.fill, shape)
        return shape

    def draw(self, lot: Lot, shape: Shape) -> list[np.ndarray] | None:
        """The chosen samples, and where in the picture each of their rows and columns lies, as `grid_sample` counts."""
        chosen = np.flatnonzero(lot.uniforms[:, 0] < self.p)
        if len(chosen) == 0:
            return None
        height, width, _ = shape
        inverse = inverted(self.matrices(lot.uniforms[chosen, 1:], height, width))
        # What lies at row r, column c came from (x, y) = inverse @ (c, r, 1): one part is the row's, one the column's.
        by_column, by_row, start = inverse.transpose(2, 1, 0)[..., None]  # (2, b, 1) each, x and y apart
        columns = by_column * np.arange(width)  # (2, b, W)
        rows = by_row * np.arange(height) + start  # (2, b, H)
        # From pixels to [-1, 1]: from edge to edge, or between the centres of the outer pixels if they are mirrored at.
        size = np.array([width, height], dtype=np.float64)[:, None, None]
        extent, first = (np.maximum(size - 1, 1), 0.0) if self.border_mode == 4 else (size, 0.5)
        drawn = [(rows + first) * 2 / extent - 1, columns * 2 / extent]
        return [chosen, *(part.astype(np.float32) for part in drawn), *filling(self._fill(), shape)]

    def apply(self, images: Tensor, *drawn: Tensor) -> Tensor:
        chosen, rows, columns, *fill = drawn
        images = images.float()
        part = selected(images, chosen)
        part = part - fill[0] if fill else part  # what is outside is 0
        warped = F.grid_sample(
            part.permute(0, 3, 1, 2),
            (rows[..., None] + columns[:, :, None]).permute(1, 2, 3, 0),  # (b, H, W, 2)
            padding_mode=BORDERS[self.border_mode],
            align_corners=self.border_mode == 4,
        ).permute(0, 2, 3, 1)
        return put_back(images, chosen, (warped + fill[0] if fill else warped).contiguous())

    def matrices(self, uniforms: np.ndarray, height: int, width: int) -> np.ndarray:
        """From places (x, y, 1) in the picture to places in the result: (b, 2, 3), from uniforms (b, 7)."""
        shift = np.stack(self._shifts(uniforms[:, :2], height, width), axis=1)
        # A missing axis is sheared by 1 degree there: its default is that of scale.
        shear_x, shear_y = (
            np.tan(np.deg2rad(-between(limits, uniforms[:, 2 + axis])))
            for axis, limits in enumerate(limits_of_axes("shear", self.shear, 1.0))
        )
        scale = self._scales(uniforms[:, 4:6])
        angle = np.deg2rad(between(limits_of(self.rotate), uniforms[:, 6]))
        cos, sin = np.cos(angle), np.sin(angle)
        # [[1, shear_x], [shear_y, 1]] @ [[cos, sin], [-sin, cos]], and each column scaled
        linear = np.array([[cos - shear_x * sin, sin + shear_x * cos], [shear_y * cos - sin, shear_y * sin + cos]])
        linear = linear.transpose(2, 0, 1) * scale[:, None]
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        return np.concatenate([linear, (middle + shift - linear @ middle)[:, :, None]], axis=2)

    def _shifts(self, uniforms: np.ndarray, height: int, width: int) -> list[np.ndarray]:
        if self.translate_px is not None:
            limits = limits_of_axes("translate_px", self.translate_px, 0)
            return [whole_between(int(low), int(high), uniforms[:, axis]) for axis, (low, high) in enumerate(limits)]
        ranges = limits_of_axes("translate_percent", self.translate_percent or 0.0, 0.0)
        return [np.trunc(between(ranges[axis], uniforms[:, axis]) * size) for axis, size in enumerate((width, height))]

    def _scales(self, uniforms: np.ndarray) -> np.ndarray:
        """(b, 2), for x and y."""
        ranges = limits_of_axes("scale", self.scale, 1.0)
        draw = _balanced if self.balanced_scale else between
        x, y = (draw(limits, uniforms[:, axis]) for axis, limits in enumerate(ranges))
        return np.stack([x, x if self.keep_ratio else y], axis=1)

    def _fill(self) -> float | list[float]:
        return self.fill if self.border_mode == 0 else 0.0


def inverted(matrices: np.ndarray) -> np.ndarray:
    """The inverses of affine maps (b, 2, 3); of one that has none, zeros, as in OpenCV."""
    (a, b, _), (c, d, _) = matrices.transpose(1, 2, 0)
    determinant = a * d - b * c
    factor = np.divide(1, determinant, out=np.zeros_like(determinant), where=determinant != 0)
    linear = np.array([[d, -b], [-c, a]]).transpose(2, 0, 1) * factor[:, None, None]
    return np.concatenate([linear, -linear @ matrices[:, :, 2:]], axis=2)


def _balanced(limits: tuple[float, float], uniforms: np.ndarray) -> np.ndarray:
    """Smaller as often as larger: first which, then how much. The two halves of a uniform are uniform again."""
    low, high = limits
    if low >= 1 or high <= 1:  # one side, or none
        sides = (min(low, 1.0), 1.0) if low < 1 else (1.0, max(high, 1.0))
        return between(sides, uniforms)
    smaller = uniforms < 0.5
    return np.where(smaller, between((low, 1.0), uniforms * 2), between((1.0, high), uniforms * 2 - 1))
