from __future__ import annotations

import random
from pathlib import Path

import by_hand
import numpy as np
import pytest
from omegaconf import OmegaConf

from dlrun.data.augment import Augment
from dlrun.errors import UserError

CONF = Path(__file__).resolve().parent.parent.parent / "conf"
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 12, 3), dtype=np.uint8)
TRANSFORMS = [
    {"HorizontalFlip": {"p": 0.5}},
    {"Affine": {"rotate": [-30, 30], "scale": [0.8, 1.2], "p": 0.8}},
    {
        "OneOf": {
            "transforms": [
                {"GaussNoise": {"std_range": [0.1, 0.2], "p": 1.0}},
                {"SomeOf": {"transforms": [{"VerticalFlip": {"p": 1.0}}, {"RandomGamma": {"p": 1.0}}], "n": 1}},
            ],
            "p": 0.9,
        }
    },
    {"CoarseDropout": {"num_holes_range": [1, 3], "fill": 0, "p": 0.7}},
]


@pytest.fixture(scope="module")
def augment():
    return Augment(TRANSFORMS, seed=3)


def test_same_pictures_whatever_the_batch(augment):
    whole = augment(IMAGES, 2, 40)
    assert whole.shape == IMAGES.shape
    assert whole.dtype == np.uint8
    assert (whole != IMAGES).any(axis=(1, 2, 3)).sum() >= 6
    halves = [augment(IMAGES[4:], 2, 44), augment(IMAGES[:4], 2, 40)]  # in another order, too
    assert np.array_equal(np.concatenate(halves[::-1]), whole)
    random.seed(9), np.random.seed(9)
    fresh = Augment(TRANSFORMS, seed=3)
    assert np.array_equal(np.concatenate([fresh(IMAGES[i : i + 1], 2, 40 + i) for i in range(8)]), whole)


def test_every_seed_epoch_and_position_draws_anew(augment):
    one = np.repeat(IMAGES[:1], 32, axis=0)
    places = [(augment, 0, 0), (augment, 1, 0), (augment, 0, 100), (Augment(TRANSFORMS, seed=4), 0, 0)]
    pictures = [a(one, epoch, position) for a, epoch, position in places]
    different = {picture.tobytes() for batch in pictures for picture in batch}
    assert len(different) > 120  # of 128; a few come through unchanged, or mirrored and no more


def test_the_same_as_albumentations_run_by_hand(augment):
    expected = by_hand.draw(by_hand.compose(TRANSFORMS), IMAGES, seed=3, epoch=2, position=40)
    assert np.array_equal(augment(IMAGES, 2, 40), np.stack(expected))


def test_images_are_left_alone(augment):
    before = IMAGES.copy()
    augment(IMAGES, 0, 0)
    assert np.array_equal(IMAGES, before)


SIZE = r"augment: the transforms turn a \(16, 12, 3\) uint8 image into \({}\) {}; they must keep size and type"


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            {"HorizontalFlop": {}},
            r"augment\.transforms\.1: unknown transform 'HorizontalFlop'; did you mean 'HorizontalFlip'\?",
        ),
        (
            {"OneOf": {"transforms": [{"VerticalFlip": {}}, {"GausNoise": {}}]}},
            r"augment\.transforms\.1\.OneOf\.transforms\.1: unknown transform 'GausNoise'; did you mean 'GaussNoise'\?",
        ),
        # names of albumentations 1, which version 2 would ignore
        ({"CoarseDropout": {"max_holes": 4}}, r"augment\.transforms\.1\.CoarseDropout: .*'max_holes'"),
        ({"GaussNoise": {"var_limit": [10, 50]}}, r"augment\.transforms\.1\.GaussNoise: .*'var_limit'"),
        ({"MedianBlur": {"ksize": 3}}, r"augment\.transforms\.1\.MedianBlur: .*'ksize'"),  # has no schema of its own
        ({"Affine": {"cval": 0}}, r"augment\.transforms\.1\.Affine: .*'cval'"),
        ({"RandomResizedCrop": {"height": 16, "width": 12}}, r"augment\.transforms\.1\.RandomResizedCrop: .*size"),
        (
            {"OneOf": {"transforms": [{"CoarseDropout": {"max_holes": 4}}]}},
            r"augment\.transforms\.1\.OneOf\.transforms\.0\.CoarseDropout: .*'max_holes'",
        ),
        ({"OneOf": {"transforms": [{"VerticalFlip": {}}], "prob": 1}}, r"augment\.transforms\.1\.OneOf: .*'prob'"),
        ({"OneOf": {}}, r"augment\.transforms\.1\.OneOf: .*'transforms'"),
        ({"HorizontalFlip": {"p": 2}}, r"augment\.transforms\.1\.HorizontalFlip: .*p; .*less than or equal to 1"),
        ({"HorizontalFlip": {"p": "often"}}, r"augment\.transforms\.1\.HorizontalFlip: .*p; .*valid number"),
        (
            "HorizontalFlip",
            r"augment\.transforms\.1: expected one transform as 'Name: {options}', got 'HorizontalFlip'",
        ),
        ({"HorizontalFlip": {}, "VerticalFlip": {}}, r"augment\.transforms\.1: expected one transform as"),
        # not the shape that options have
        ({"HorizontalFlip": 0.5}, r"augment\.transforms\.1\.HorizontalFlip: "),
        ({"HorizontalFlip": "p"}, r"augment\.transforms\.1\.HorizontalFlip: "),
        ({"HorizontalFlip": [0.5]}, r"augment\.transforms\.1\.HorizontalFlip: "),
        ({"OneOf": {"transforms": None}}, r"augment\.transforms\.1\.OneOf"),
        ({1: {}}, r"augment\.transforms\.1: "),
        # what a picture must not become
        ({"CenterCrop": {"height": 8, "width": 8, "p": 1}}, SIZE.format("8, 8, 3", "uint8")),
        ({"Transpose": {"p": 1}}, SIZE.format("12, 16, 3", "uint8")),
        ({"Normalize": {"p": 1}}, SIZE.format("16, 12, 3", "float32")),
        ({"RandomCrop": {"height": 64, "width": 64}}, r"augment: CropSizeError on a \(16, 12, 3\) image: .*64"),
        # … and not once in twenty times either
        ({"CenterCrop": {"height": 8, "width": 8, "p": 0.05}}, SIZE.format("8, 8, 3", "uint8")),
        ({"OneOf": {"transforms": [{"VerticalFlip": {}}, {"Transpose": {"p": 0.1}}], "p": 0.5}}, "augment: "),
    ],
)
def test_mistakes_are_told_before_training(transform, message):
    with pytest.raises(UserError, match=message) as caught:
        Augment([{"VerticalFlip": {}}, transform], seed=0).check_shape((16, 12, 3))
    assert "\n" not in str(caught.value)


def test_options_may_be_left_out():
    Augment([{"HorizontalFlip": None}, {"VerticalFlip": {}}], seed=0).check_shape((16, 12, 3))


@pytest.mark.filterwarnings("ignore:HueSaturationValue")
def test_every_recipe_runs_on_every_bundled_shape():
    recipes = sorted((CONF / "augment").glob("*.yaml"))
    assert [path.stem for path in recipes] == ["affine", "light", "none", "standard", "strong", "tensor"]
    for path in recipes:
        recipe = OmegaConf.to_container(OmegaConf.load(path))
        if path.stem == "tensor":
            assert recipe == {"defaults": ["standard"], "backend": "tensor"}
            continue
        assert recipe.keys() == {"transforms", "backend", "mixup", "cutmix"}
        augment = Augment(recipe["transforms"], seed=0)
        for shape in ((32, 32, 3), (28, 28, 1), (8, 8, 1)):
            augment.check_shape(shape)
            images = np.random.default_rng(0).integers(0, 256, (24, *shape), dtype=np.uint8)
            changed = (augment(images, 0, 0) != images).any(axis=(1, 2, 3)).mean()
            assert (changed == 0) if path.stem == "none" else (changed > 0.3), path.stem
