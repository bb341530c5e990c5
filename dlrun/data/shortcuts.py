"""The commonest of albumentations' transforms once more, cheaper on small pictures and the same to the bit.

Each draws what the original draws, in its order and with its methods, and leaves out what doesn't reach the pixels:
the matrix for boxes, a generator for random fills, products with zeros and ones, layers of decorators. That can only
be said of code that is known, hence of one version; with any other there are no shortcuts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

VERSION = "2.0.8"
RAMP = np.arange(256, dtype=np.float32)

Pixels = Callable[[np.ndarray], np.ndarray]  # uint8 (H, W, C) with C ≤ 4 → the same shape; leaves its input alone


def shortcut(transform: Any) -> Pixels | None:
    """What `transform` does when it is applied, or None where there is no shorter way."""
    import albumentations

    kind = type(transform)
    known = albumentations.__version__ == VERSION and kind.__module__.startswith("albumentations.")
    return MAKERS[kind.__name__](transform) if known and kind.__name__ in MAKERS else None


def _flip(code: int) -> Pixels:
    import cv2

    return lambda image: cv2.flip(image, code).reshape(image.shape)  # OpenCV drops an only channel


def _brightness_contrast(transform: Any) -> Pixels | None:
    """A table of 256 values: pixel · alpha + beta, clipped."""
    import cv2

    if not transform.brightness_by_max or transform.ensure_safe_range:
        return None

    def apply(image: np.ndarray) -> np.ndarray:
        uniform = transform.py_random.uniform
        table = RAMP * (1.0 + uniform(*transform.contrast_limit))
        table += uniform(*transform.brightness_limit) * 255
        return cv2.LUT(image, table.clip(0, 255).astype(np.uint8)).reshape(image.shape)

    return apply


def _affine(transform: Any) -> Pixels | None:
    import cv2
    from albumentations.augmentations.geometric.functional import create_affine_transformation_matrix, extend_value

    if transform.fit_output:
        return None

    def apply(image: np.ndarray) -> np.ndarray:
        height, width, channels = image.shape
        translate = transform._get_translate_params((height, width))
        shear = transform._get_shear_params()
        scale = transform._get_scale(
            transform.scale, transform.keep_ratio, transform.balanced_scale, transform.py_random
        )
        rotate = transform.py_random.uniform(*transform.rotate)
        middle = (width / 2 - 0.5, height / 2 - 0.5)
        if shear["x"] or shear["y"]:
            matrix = create_affine_transformation_matrix(translate, shear, scale, rotate, middle)[:2]
        else:
            matrix = _matrix(translate, scale, rotate, middle)[:2]
        if _is_identity(matrix):
            return image
        warped = cv2.warpAffine(
            image,
            matrix,
            (width, height),
            flags=transform.interpolation,
            borderMode=transform.border_mode,
            borderValue=extend_value(transform.fill, channels),
        )
        return warped.reshape(image.shape)

    return apply


def _matrix(
    translate: dict[str, int], scale: dict[str, float], rotate: float, middle: tuple[float, float]
) -> np.ndarray:
    """albumentations' `create_affine_transformation_matrix` without shear, about `middle` (x, y): (3, 3).

    All its products but the last are with zeros, ones and one number, so that nothing is rounded there that isn't
    here. The last is a sum of three, and left to the same matrix product for the same rounding.
    """
    angle = np.deg2rad(rotate % 360)
    cos, sin, across, down = np.cos(angle), np.sin(angle), scale["x"], scale["y"]
    linear = [
        [cos * across, sin * down, middle[0] + translate["x"]],
        [-sin * across, cos * down, middle[1] + translate["y"]],
        [0.0, 0.0, 1.0],
    ]
    return np.array(linear) @ _to_origin(middle)


@lru_cache
def _to_origin(middle: tuple[float, float]) -> np.ndarray:
    return np.array([[1, 0, -middle[0]], [0, 1, -middle[1]], [0, 0, 1]])


def _is_identity(matrix: np.ndarray) -> bool:
    """`np.allclose(matrix, identity)` for the two rows that vary."""
    (a, b, x), (c, d, y) = matrix.tolist()
    near = 1e-8 + 1e-5  # absolute and relative tolerance at 1; at 0 the absolute one alone
    return abs(a - 1) <= near and abs(d - 1) <= near and max(abs(b), abs(c), abs(x), abs(y)) <= 1e-8


def _coarse_dropout(transform: Any) -> Pixels | None:
    if not isinstance(transform.fill, (int, float)):
        return None

    def apply(image: np.ndarray) -> np.ndarray:
        height, width, _ = image.shape
        holes = transform.py_random.randint(*transform.num_holes_range)
        generator = transform.random_generator
        heights, widths = transform.calculate_hole_dimensions(
            (height, width), transform.hole_height_range, transform.hole_width_range, size=holes
        )
        top = generator.integers(0, height - heights + 1, size=holes)
        left = generator.integers(0, width - widths + 1, size=holes)
        generator.integers(0, 2**32 - 1)  # the seed of a random fill; drawn, or all that comes after would differ
        image, fill = image.copy(), np.array(transform.fill, dtype=np.uint8)
        for y, x, h, w in zip(top.tolist(), left.tolist(), heights.tolist(), widths.tolist(), strict=True):
            image[y : y + h, x : x + w] = fill
        return image

    return apply


MAKERS: dict[str, Callable[[Any], Pixels | None]] = {
    "Affine": _affine,
    "CoarseDropout": _coarse_dropout,
    "HorizontalFlip": lambda _: _flip(1),
    "RandomBrightnessContrast": _brightness_contrast,
    "VerticalFlip": lambda _: _flip(0),
}
