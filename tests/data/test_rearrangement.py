from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from uniforms import give

from dlrun.data.order import TENSOR, uniform_rows
from dlrun.data.tensor_augment import TensorAugment

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (60, 9, 13, 3), dtype=np.uint8)
BACK = {"RandomCrop": {"height": 9, "width": 13}}


@pytest.mark.parametrize("border_mode", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("padding", [2, [1, 3], [4, 0, 2, 1], 20])
@pytest.mark.parametrize("fill", [0, 200, [1, 2, 3]])
def test_padding_and_cropping_are_albumentations_exactly(border_mode, padding, fill):
    exactly([{"Pad": {"padding": padding, "border_mode": border_mode, "fill": fill}}, BACK])


@pytest.mark.parametrize(
    "chain",
    [
        [{"HorizontalFlip": {}}],
        [{"HorizontalFlip": {"p": 1}}],
        [{"VerticalFlip": {}}],
        [{"HorizontalFlip": {"p": 0.9}}, {"VerticalFlip": {"p": 0.9}}],
        [{"HorizontalFlip": {}}, {"Pad": {"padding": [0, 2, 3, 1], "border_mode": 4}}, {"VerticalFlip": {}}, BACK],
        [{"RandomCrop": {"height": 5, "width": 6}}, {"Pad": {"padding": [3, 2, 4, 2], "border_mode": 2}}],
        # the second value to fill with doesn't fit into the gather of the first
        [{"Pad": {"padding": 2, "fill": 9}}, BACK, {"Pad": {"padding": 3, "fill": 99}}, {"HorizontalFlip": {}}, BACK],
        [{"Pad": {"padding": 2}}, {"Pad": {"padding": 3, "border_mode": 2}}, BACK],
    ],
)
def test_chains_are_albumentations_exactly(chain):
    exactly(chain)
    exactly(chain, IMAGES[..., :1])


def exactly(chain, images=IMAGES):
    ours = TensorAugment(chain, 5, images.shape[1:], CPU, torch.Tensor.float)
    entries = [(name, options) for entry in chain for name, options in entry.items()]
    made = [getattr(A, name)(**options, strict=True) for name, options in entries]
    draws = [2 if name == "RandomCrop" else 1 for name, _ in entries]
    rows = uniform_rows(5, 1, TENSOR, 7, (len(images), sum(draws)))
    for image, row, picture in zip(images, rows, ours(torch.from_numpy(images), 1, 7).numpy(), strict=True):
        for transform, numbers in zip(made, np.split(row, np.cumsum(draws)[:-1]), strict=True):
            image = give(transform, numbers)(image=image)["image"]
        assert np.array_equal(picture, image)


@pytest.mark.parametrize("axis", [1, 2])
def test_one_side_changes_alone(axis):
    """With something in between that isn't a rearrangement, so that there are pictures of another size for a while."""
    padding = [0, 3] if axis == 1 else [3, 0]
    ours = TensorAugment([{"Pad": {"padding": padding}}, {"CoarseDropout": {"p": 0}}, BACK], 5, (9, 13, 3), CPU, keep)
    padded = np.pad(IMAGES, [(0, 0), *((3, 3) if side == axis else (0, 0) for side in (1, 2)), (0, 0)])
    begins = set()
    for whole, picture in zip(padded, ours(torch.from_numpy(IMAGES), 0, 0).numpy(), strict=True):
        windows = [np.take(whole, range(first, first + IMAGES.shape[axis]), axis=axis - 1) for first in range(7)]
        (begin,) = (first for first, window in enumerate(windows) if np.array_equal(window, picture))
        begins.add(begin)
    assert begins == set(range(7))


def keep(images: torch.Tensor) -> torch.Tensor:
    return images.float()


def test_crops_begin_everywhere_alike():
    chain = [{"Pad": {"padding": 2}}, BACK]
    ours = TensorAugment(chain, 0, (9, 13, 1), CPU, torch.Tensor.float)
    dot = torch.zeros(5000, 9, 13, 1, dtype=torch.uint8)
    dot[:, 4, 6] = 255
    places = ours(dot, 0, 0).flatten(1).argmax(dim=1)
    rows, columns = (torch.bincount(part) for part in (places // 13 - 2, places % 13 - 4))
    for counts in (rows, columns):
        assert len(counts) == 5
        assert ((counts - 1000).abs() < 4 * 800**0.5).all()
