from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from uniforms import give

from dlrun.data.order import TENSOR, uniform_rows
from dlrun.data.tensor_affine import Affine, inverted
from dlrun.data.tensor_augment import TensorAugment

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A

CPU = torch.device("cpu")
# OpenCV 4 places pixels to 1/32; between neighbours as different as noise has them that is up to 255 · 2 / 64.
ROUNDING = 0.51 if int(cv2.__version__.split(".")[0]) >= 5 else 8.5
OPTIONS: list[dict[str, Any]] = [
    {"rotate": [-180, 180]},
    {"rotate": 30},
    {"rotate": [20, 400], "scale": 0.7},
    {"scale": [1.3, 0.6]},
    {"scale": [0.5, 2], "keep_ratio": True},
    {"scale": {"x": [0.5, 2]}},
    {"scale": -1.0},
    {"translate_percent": [-0.4, 0.4]},
    {"translate_percent": {"y": [0.1, 0.4]}},
    {"translate_px": [-5, 5]},
    {"translate_px": {"x": 3, "y": [-1, 2]}},
    {"shear": [-30, 30]},
    {"shear": {"x": 10}},
    {"shear": {"y": [-40, -10]}},
    {"scale": [0.6, 1.4], "rotate": [-40, 40], "shear": [-10, 10], "translate_percent": [-0.2, 0.2]},
    {"scale": [0.6, 1.4], "rotate": [-40, 40], "fill": 200, "p": 0.5},
    {"scale": [0.6, 1.4], "rotate": [-40, 40], "fill": [0, 255, 30.0]},
    {"scale": [0.6, 1.4], "rotate": [-40, 40], "border_mode": 1},
    {"scale": [0.6, 1.4], "rotate": [-40, 40], "border_mode": 2},
    {"scale": [0.2, 1.4], "rotate": [-40, 40], "border_mode": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", [(10, 17), (8, 8)])
def test_pictures_are_albumentations_given_the_same_numbers(options, size):
    options = {"p": 1, **options}
    images = np.random.default_rng(0).integers(0, 256, (40, *size, 3), dtype=np.uint8)
    ours = TensorAugment([{"Affine": options}], 5, images.shape[1:], CPU, torch.Tensor.float)
    pictures = ours(torch.from_numpy(images), 1, 7).numpy()
    transform = A.Affine(**options, strict=True)
    rows = uniform_rows(5, 1, TENSOR, 7, (40, 8))
    theirs = np.stack([give(transform, row)(image=image)["image"] for image, row in zip(images, rows, strict=True)])
    assert (theirs != images).any()
    assert np.abs(pictures - theirs).max() <= ROUNDING
    assert np.abs(pictures - theirs).mean() <= ROUNDING / 2


@pytest.mark.parametrize("balanced", [False, True])
def test_parameters_have_albumentations_means_and_variances(balanced):
    options: dict[str, Any] = {
        "scale": [0.5, 2],
        "rotate": [-20, 50],
        "shear": [-10, 20],
        "translate_percent": [-0.3, 0.3],
        "balanced_scale": balanced,
    }
    count = 20000
    ours = Affine(**options).matrices(np.random.default_rng(0).random((count, 7)), 24, 32).reshape(count, 6)
    transform = A.Affine(**options)
    transform.set_random_seed(0)
    shape = {"shape": (24, 32, 3)}
    theirs = np.stack([transform.get_params_dependent_on_data(shape, {})["matrix"][:2].ravel() for _ in range(count)])
    for statistic in (lambda x: x, lambda x: (x - theirs.mean(axis=0)) ** 2):
        one, other = statistic(ours), statistic(theirs)
        error = np.sqrt((one.var(axis=0) + other.var(axis=0)) / count)
        assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) < 4 * error).all()
        assert (error > 0).all()


@pytest.mark.parametrize(
    ("limits", "expected"),
    [([0.5, 2], (0.5, 2)), ([0.5, 0.8], (0.5, 1)), ([1.5, 2], (1, 2)), ([1, 1], (1, 1)), ([0.5, 1], (0.5, 1))],
)
def test_balanced_scale_is_smaller_as_often_as_larger(limits, expected):
    uniforms = np.random.default_rng(0).random((4000, 7))
    scale = Affine(scale=limits, balanced_scale=True, keep_ratio=True).matrices(uniforms, 8, 8)[:, [0, 1], [0, 1]]
    assert np.array_equal(scale[:, 0], scale[:, 1])
    assert expected[0] <= scale.min()
    assert scale.max() <= expected[1]
    if expected == (0.5, 2):
        assert abs((scale[:, 0] < 1).mean() - 0.5) < 0.03
        assert abs(scale[scale < 1].mean() - 0.75) < 0.02
        assert abs(scale[scale > 1].mean() - 1.5) < 0.03


def test_inverses_are_numpys_and_of_what_has_none_zero():
    matrices = np.random.default_rng(0).normal(size=(20, 2, 3))
    whole = np.concatenate([matrices, np.tile([[[0.0, 0, 1]]], (20, 1, 1))], axis=1)
    np.testing.assert_allclose(inverted(matrices), np.linalg.inv(whole)[:, :2], rtol=1e-9, atol=1e-9)
    assert (inverted(np.array([[[1.0, 2, 3], [2, 4, 5]]])) == 0).all()


def test_a_scale_of_nothing_does_what_opencv_does():
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 1), dtype=np.uint8)
    ours = TensorAugment([{"Affine": {"scale": 0.0, "p": 1}}], 0, (6, 6, 1), CPU, torch.Tensor.float)
    theirs = A.Affine(scale=0.0, p=1)(image=image[0])["image"]
    assert np.array_equal(ours(torch.from_numpy(image), 0, 0)[0].numpy(), theirs)
