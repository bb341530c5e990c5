from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from uniforms import give

from dlrun.data.order import TENSOR, uniform_rows
from dlrun.data.prepare import preparation
from dlrun.data.tensor_augment import TensorAugment, sent
from dlrun.errors import UserError
from dlrun.spec import DataSpec

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A

CONF = Path(__file__).resolve().parent.parent.parent / "conf" / "augment"
CPU = torch.device("cpu")
SHAPE = (12, 16, 3)
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (64, *SHAPE), dtype=np.uint8))
STANDARD: Any = OmegaConf.to_container(OmegaConf.load(CONF / "standard.yaml"))["transforms"]
EVERYTHING = [
    {"VerticalFlip": {}},
    {"RandomBrightnessContrast": {"brightness_limit": 0.3, "brightness_by_max": False}},
    {"Pad": {"padding": [3, 2], "border_mode": 0, "fill": [9, 99, 199]}},
    {"HorizontalFlip": {"alternate": True}},
    {"CoarseDropout": {"num_holes_range": [7, 11], "fill": 77}},
    {"RandomCrop": {"height": 12, "width": 16}},
    {"Affine": {"scale": [0.8, 1.2], "rotate": [-30, 30], "shear": [-5, 5], "translate_px": [-2, 2], "fill": 50}},
]


def augment(
    transforms: list[Any],
    seed: int = 0,
    shape: tuple[int, int, int] = SHAPE,
    prepare: Callable[[Tensor], Tensor] = Tensor.float,
) -> TensorAugment:
    return TensorAugment(transforms, seed, shape, CPU, prepare)


def given_albumentations(transforms: list[Any], images: Tensor, epoch: int, position: int, seed: int = 0) -> np.ndarray:
    """What albumentations makes of the same random numbers, transform by transform."""
    made = [getattr(A, name)(**options, strict=True) for entry in transforms for name, options in entry.items()]
    rows = uniform_rows(seed, epoch, TENSOR, position, (len(images), augment(transforms, seed).draws))
    results = []
    for image, row in zip(images.numpy(), rows, strict=True):
        first = 0
        for transform, step in zip(made, (augment([entry]) for entry in transforms), strict=True):
            image = give(transform, row[first : first + step.draws])(image=image)["image"]
            first += step.draws
        results.append(image)
    return np.stack(results)


def test_the_standard_chain_is_albumentations_given_the_same_numbers():
    ours = augment(STANDARD)(IMAGES, 3, 500).numpy()
    theirs = given_albumentations(STANDARD, IMAGES, 3, 500)
    difference = ours - theirs  # it cuts down to a whole gray level after brightness, and rounds after the warp
    assert difference.min() >= -0.51
    assert difference.max() < 1.51
    changed = (theirs != IMAGES.numpy()).any(axis=(1, 2, 3))
    assert 40 < changed.sum() < 64  # 0.5 · 0.7³ of them stay as they are
    assert np.array_equal(ours[~changed], IMAGES.numpy()[~changed])


def test_means_and_variances_are_those_of_albumentations_own_draws():
    image, count = IMAGES[0], 3000
    ours = augment(STANDARD)(image.expand(count, *SHAPE), 0, 0).numpy()
    compose = A.Compose([getattr(A, name)(**options) for entry in STANDARD for name, options in entry.items()], seed=1)
    theirs = np.stack([compose(image=image.numpy())["image"] for _ in range(count)]).astype(np.float64)
    for statistic in (lambda pictures: pictures, np.square):
        one, other = statistic(ours), statistic(theirs)
        error = np.sqrt((one.var(axis=0) + other.var(axis=0)) / count)
        level = np.sqrt(np.abs(other).mean()) if statistic is np.square else 0.5
        # 576 pixels, so 4.5 deviations; and the mean of what rounding down takes from three in ten
        assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) < 4.5 * error + 0.5 * level).all()


@pytest.mark.parametrize("transforms", [STANDARD, EVERYTHING])
def test_same_pictures_whatever_the_batch(transforms):
    prepare = preparation(DataSpec("image", (3, 12, 16), ("a", "b"), (0.4,) * 3, (0.2,) * 3), CPU)
    made, indices = augment(transforms, seed=3, prepare=prepare), torch.randperm(1000)[:64]
    whole = made(IMAGES, 2, 40, indices)
    assert whole.shape == (64, 3, 12, 16)
    assert len({picture.numpy().tobytes() for picture in whole}) == 64
    fresh = augment(transforms, seed=3, prepare=prepare)
    for cuts in ([5, 59], [1, 30, 33], [1] * 64):
        parts = zip(IMAGES.split(cuts), indices.split(cuts), np.cumsum([40, *cuts]), strict=False)
        again = torch.cat([fresh(images, 2, int(position), numbers) for images, numbers, position in parts])
        torch.testing.assert_close(again, whole, rtol=0, atol=1e-6)


def test_every_seed_epoch_and_position_draws_anew():
    one, indices = IMAGES[:1].expand(32, *SHAPE), torch.arange(32)
    transforms = [{"Affine": {"rotate": [-90, 90], "p": 1}}]
    made, other = augment(transforms), augment(transforms, seed=1)
    batches = [made(one, 0, 0, indices), made(one, 1, 0), made(one, 0, 32), other(one, 0, 0)]
    assert len({picture.numpy().tobytes() for batch in batches for picture in batch}) == 128


@pytest.mark.parametrize("transforms", [STANDARD, EVERYTHING, [{"Affine": {"rotate": 5, "p": 1}}], []])
def test_images_are_left_alone(transforms):
    before = IMAGES.clone()
    augment(transforms)(IMAGES, 0, 0, torch.arange(64))
    assert torch.equal(IMAGES, before)


def test_alternating_flips_show_both_sides_in_any_two_epochs():
    made = augment([{"HorizontalFlip": {"alternate": True}}])
    images, mirrored = IMAGES.float(), IMAGES.float().flip(2)
    flipped = []
    for epoch in range(4):
        order = torch.randperm(64)  # it is the sample that counts, not its place
        seen = torch.empty_like(images)
        seen[order] = torch.cat([made(IMAGES[part], epoch, 0, part) for part in order.split(24)])
        assert ((seen == images).flatten(1).all(1) ^ (seen == mirrored).flatten(1).all(1)).all()
        flipped.append((seen == mirrored).flatten(1).all(1))
    assert torch.equal(flipped[0], ~flipped[1])
    assert torch.equal(flipped[0], flipped[2])
    assert torch.equal(flipped[1], flipped[3])
    assert 20 <= flipped[0].sum() <= 44
    other = augment([{"HorizontalFlip": {"alternate": True}}], seed=1)(IMAGES, 0, 0, torch.arange(64))
    assert not torch.equal((other == mirrored).flatten(1).all(1), flipped[0])


def test_what_is_not_drawn_is_not_done():
    never = [{name: {"p": 0}} for name in ("Affine", "HorizontalFlip", "CoarseDropout", "RandomBrightnessContrast")]
    assert augment(never, prepare=lambda images: images)(IMAGES, 0, 0) is IMAGES


def test_albumentations_is_not_imported():
    import subprocess
    import sys

    script = (
        "import sys, torch; from dlrun.data.tensor_augment import TensorAugment as T;"
        "T([{'Affine': {'p': 1, 'rotate': 9}}], 0, (4, 4, 1), torch.device('cpu'), torch.Tensor.float)"
        "(torch.zeros(2, 4, 4, 1, dtype=torch.uint8), 0, 0); print({'albumentations', 'cv2'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


ELSE = " with augment.backend=tensor; augment.backend=albumentations has all of albumentations"


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            {"HorizontalFlop": {}},
            "augment.transforms.1: unknown transform 'HorizontalFlop'; did you mean 'HorizontalFlip'? (choose from "
            "Affine, CoarseDropout, HorizontalFlip, Pad, RandomBrightnessContrast, RandomCrop, VerticalFlip)"
            f"{ELSE}",
        ),
        (
            {"GaussNoise": {}},
            "augment.transforms.1: unknown transform 'GaussNoise' (choose from Affine, ",
        ),
        ({"OneOf": {"transforms": []}}, "augment.transforms.1: unknown transform 'OneOf'"),
        ({1: {}}, "augment.transforms.1: unknown transform '1'"),
        (
            {"Affine": {"rotat": 3}},
            "augment.transforms.1.Affine.rotat: unknown option; did you mean 'rotate'? (choose from ",
        ),
        ({"Affine": {"fit_output": True}}, "augment.transforms.1.Affine.fit_output: unknown option"),
        ({"Affine": {"interpolation": 2}}, f"Affine.interpolation: expected one of 1, got 2{ELSE}"),
        ({"Affine": {"border_mode": 3}}, f"Affine.border_mode: expected one of 0, 1, 2, 4, got 3{ELSE}"),
        ({"Affine": {"scale": {"z": 2}}}, "Affine.scale: expected a range, or a mapping with x and y, got {'z': 2}"),
        ({"Affine": {"fill": [1, 2]}}, "Affine.fill: expected one number or one for each of 3 channels, got [1, 2]"),
        (
            {"Affine": {"translate_px": 1, "translate_percent": 0.1}},
            "Affine.translate_px: translate_percent says already",
        ),
        ({"Affine": {"translate_px": 0.5}}, "Affine.translate_px: expected a whole number or"),
        ({"Affine": {"keep_ratio": True, "scale": {"x": [1, 2]}}}, "Affine.keep_ratio: needs one range of scale"),
        ({"CoarseDropout": {"fill": "random"}}, "CoarseDropout.fill: expected a number >= 0 and <= 255 or a list"),
        (
            {"CoarseDropout": {"num_holes_range": [3, 1]}},
            "num_holes_range: expected the smaller number first, got [3, 1]",
        ),
        ({"CoarseDropout": {"num_holes_range": [0, 1]}}, "CoarseDropout.num_holes_range: expected a list"),
        (
            {"CoarseDropout": {"hole_height_range": [13, 20], "hole_width_range": [1, 2]}},
            "hole_height_range: expected holes that fit the picture's 12 pixels, got [13, 20]",
        ),
        (
            {"CoarseDropout": {"hole_width_range": [2, 4]}},
            "hole_width_range: expected shares, since hole_height_range is",
        ),
        ({"HorizontalFlip": {"p": 2}}, "HorizontalFlip.p: expected a number >= 0 and <= 1, got 2"),
        ({"HorizontalFlip": {"p": 1, "alternate": True}}, "HorizontalFlip.p: expected 0.5 with alternate"),
        ({"HorizontalFlip": 0.5}, "augment.transforms.1.HorizontalFlip: expected a mapping or null, got 0.5"),
        ("HorizontalFlip", "augment.transforms.1: expected one transform as 'Name: {options}', got 'HorizontalFlip'"),
        ({"Pad": {"padding": [1, 2, 3]}}, "Pad.padding: expected a number, [x, y] or [left, top, right, bottom]"),
        ({"Pad": {"padding": 1, "p": 0.5}}, "Pad.p: expected 1, since all pictures of a batch have one size, got 0.5"),
        ({"RandomCrop": {"height": 13, "width": 4}}, "RandomCrop.height: expected at most the picture's 12, got 13"),
        ({"RandomCrop": {"height": 4}}, "RandomCrop.width: is missing; expected a whole number >= 1"),
        (
            {"RandomCrop": {"height": 4, "width": 8}},
            "augment: the transforms turn a (12, 16, 3) image into (4, 8, 3); ",
        ),
        ({"Pad": {"padding": 2}}, "augment: the transforms turn a (12, 16, 3) image into (16, 20, 3); they must keep"),
    ],
)
def test_what_it_cant_honour_is_refused(transform, message):
    with pytest.raises(UserError) as caught:
        augment([{"VerticalFlip": None}, transform])
    assert message in str(caught.value)


def test_the_recipe_is_the_standard_one():
    recipe: Any = OmegaConf.to_container(OmegaConf.load(CONF / "tensor.yaml"))
    assert recipe == {"defaults": ["standard"], "backend": "tensor"}
    standard: Any = OmegaConf.to_container(OmegaConf.load(CONF / "standard.yaml"))
    assert standard["transforms"] == STANDARD


def test_alternating_needs_to_know_the_samples():
    with pytest.raises(ValueError, match="indices"):
        augment([{"HorizontalFlip": {"alternate": True}}])(IMAGES, 0, 0)


def test_arrays_that_travel_together_arrive_as_they_were():
    random = np.random.default_rng(0)
    shapes = [(3, 5), (7,), (2, 3, 5), (0, 4), (1,)]
    kinds = [np.uint8, np.int64, np.float32, np.float32, np.uint8]
    arrays = [random.integers(0, 256, shape).astype(kind) for shape, kind in zip(shapes, kinds, strict=True)]
    for at_once in (True, False):
        for tensor, array in zip(sent(arrays, CPU, at_once), arrays, strict=True):
            assert tensor.shape == array.shape
            assert tensor.numpy().dtype == array.dtype
            assert np.array_equal(tensor.numpy(), array)
    assert sent([], CPU, at_once=True) == []
