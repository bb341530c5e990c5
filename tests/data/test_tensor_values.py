from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from uniforms import give

from dlrun.data.order import TENSOR, uniform_rows
from dlrun.data.tensor_augment import TensorAugment
from dlrun.data.tensor_values import CoarseDropout

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 12, 20, 3), dtype=np.uint8)


def both(name: str, options: dict[str, Any], images: np.ndarray = IMAGES) -> tuple[np.ndarray, np.ndarray]:
    """Our pictures and albumentations', from the same numbers."""
    ours = TensorAugment([{name: options}], 5, images.shape[1:], CPU, torch.Tensor.float)
    rows, transform = uniform_rows(5, 1, TENSOR, 7, (len(images), ours.draws)), getattr(A, name)(**options, strict=True)
    theirs = np.stack([give(transform, row)(image=image)["image"] for image, row in zip(images, rows, strict=True)])
    return ours(torch.from_numpy(images), 1, 7).numpy(), theirs


@pytest.mark.parametrize(
    "options",
    [
        {"p": 1},
        {"brightness_limit": 0.4, "contrast_limit": [0.2, 0.5], "p": 1},
        {"brightness_limit": [-0.5, -0.1], "contrast_limit": 0.9, "p": 0.5},
        {"brightness_limit": 0.4, "brightness_by_max": False, "p": 0.7},
    ],
)
def test_brightness_is_albumentations_before_it_cuts_down_to_whole_levels(options):
    ours, theirs = both("RandomBrightnessContrast", options)
    assert (theirs != IMAGES).any()
    assert (ours - theirs).min() >= -1e-3
    assert (ours - theirs).max() < 1 + 1e-3
    assert 0 <= ours.min() <= ours.max() <= 255


@pytest.mark.parametrize(
    "options",
    [
        {"p": 1},
        {"num_holes_range": [1, 4], "hole_height_range": [0.1, 0.5], "hole_width_range": [0.0, 1.0], "p": 0.6},
        {"num_holes_range": [2, 2], "hole_height_range": [2, 5], "hole_width_range": [1, 30], "fill": 200, "p": 1},
        {
            "num_holes_range": [5, 30],
            "hole_height_range": [1, 3],
            "hole_width_range": [2, 2],
            "fill": [1, 2, 3],
            "p": 1,
        },
        {"hole_height_range": [0.3, 1.0], "hole_width_range": [0.5, 1.0], "p": 1},  # 0 or 1 pixel: 1.0 counts pixels
        {"hole_height_range": [2.7, 5.2], "hole_width_range": [0.5, 7.9], "fill": 7.9, "p": 1},
    ],
)
def test_holes_are_albumentations_exactly(options):
    ours, theirs = both("CoarseDropout", options)
    assert (theirs != IMAGES).any()
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    "options",
    [
        {"num_holes_range": [1, 4], "hole_height_range": [0.1, 0.25], "hole_width_range": [0.1, 0.25]},
        {"num_holes_range": [3, 9], "hole_height_range": [2, 15], "hole_width_range": [1, 4]},
    ],
)
def test_holes_have_albumentations_means_and_variances(options):
    count, most = 6000, options["num_holes_range"][1]
    holes, there = CoarseDropout(**options).holes(np.random.default_rng(0).random((count, 1 + 4 * most)), 12, 20)
    transform = A.CoarseDropout(**options)
    transform.set_random_seed(0)
    theirs = [transform.get_params_dependent_on_data({"shape": (12, 20, 3)}, {})["holes"] for _ in range(count)]
    numbers = [there.sum(axis=1), np.array([len(of_one) for of_one in theirs])]
    _alike(numbers[0].astype(float)[:, None], numbers[1].astype(float)[:, None])
    sides = [
        np.concatenate([h, h[:, 2:] - h[:, :2]], axis=1).astype(float) for h in (holes[there], np.concatenate(theirs))
    ]
    _alike(*sides)


def _alike(one: np.ndarray, other: np.ndarray) -> None:
    for power in (1, 2):
        error = np.sqrt((one**power).var(axis=0) / len(one) + (other**power).var(axis=0) / len(other))
        assert (np.abs((one**power).mean(axis=0) - (other**power).mean(axis=0)) <= 4 * error).all()
