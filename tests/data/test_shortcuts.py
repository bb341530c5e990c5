"""The transforms that have a shorter way, with every option that they have: the same as albumentations, to the bit."""

from __future__ import annotations

import by_hand
import numpy as np
import pytest

from dlrun.data import shortcuts
from dlrun.data.augment import Augment

A = by_hand.A
pytestmark = pytest.mark.filterwarnings("ignore")
MOVES = {"translate_percent": (-0.2, 0.2), "scale": (0.7, 1.3), "rotate": (-40, 40)}
SHORT = [
    ("HorizontalFlip", {}),
    ("VerticalFlip", {}),
    ("RandomBrightnessContrast", {}),
    ("RandomBrightnessContrast", {"brightness_limit": 1.0, "contrast_limit": 1.0}),
    ("RandomBrightnessContrast", {"brightness_limit": (0.2, 0.2), "contrast_limit": (-0.5, -0.1)}),
    ("Affine", {}),
    ("Affine", {"rotate": (0, 1e-7)}),  # nearly the identity
    ("Affine", {"scale": (1, 1 + 2e-5), "rotate": (0, 1e-6)}),
    ("Affine", {"rotate": (-180, 180)}),
    ("Affine", {"rotate": 90}),
    ("Affine", {"scale": (0.5, 2.0), "keep_ratio": True}),
    ("Affine", {"scale": (0.5, 2.0), "balanced_scale": True}),
    ("Affine", {"scale": {"x": (0.5, 1.0), "y": 1.2}}),
    ("Affine", {"translate_px": (-3, 3)}),
    ("Affine", {"translate_px": {"x": (-3, 5), "y": 2}}),
    ("Affine", {"translate_percent": {"x": (-0.1, 0.4)}}),
    ("Affine", {"shear": (-20, 20)}),
    ("Affine", {"shear": {"x": (-20, 20)}, **MOVES}),
    ("Affine", {**MOVES, "fill": 77}),
    ("Affine", {**MOVES, "fill": (10, 20, 30)}),
    *[("Affine", {**MOVES, "interpolation": code}) for code in (0, 1, 2, 3, 4)],
    *[("Affine", {**MOVES, "border_mode": code}) for code in (0, 1, 2, 3, 4)],
    ("CoarseDropout", {}),
    ("CoarseDropout", {"num_holes_range": (1, 9), "hole_height_range": (0.05, 0.6), "hole_width_range": (0, 0.9)}),
    ("CoarseDropout", {"num_holes_range": (2, 5), "hole_height_range": (1, 6), "hole_width_range": (3, 30)}),
    ("CoarseDropout", {"fill": 200}),
    ("CoarseDropout", {"fill": 12.7}),
]
LONG = [  # what they leave to the library
    ("RandomBrightnessContrast", {"brightness_by_max": False}),
    ("RandomBrightnessContrast", {"ensure_safe_range": True}),
    ("CoarseDropout", {"fill": "random"}),
    ("CoarseDropout", {"fill": "random_uniform"}),
    ("CoarseDropout", {"fill": "inpaint_telea"}),
    ("CoarseDropout", {"fill": (1, 2, 3)}),
]


def test_the_version_is_the_one_they_know():
    assert A.__version__ == shortcuts.VERSION


@pytest.mark.parametrize(("name", "options", "short"), [*[(*s, True) for s in SHORT], *[(*s, False) for s in LONG]])
def test_every_option_is_the_same_to_the_bit(name, options, short):
    assert (shortcuts.shortcut(getattr(A, name)(**options)) is not None) is short
    for shape in ((40, 20, 27, 3), (40, 32, 32, 3), (40, 28, 28, 1), (20, 33, 16, 4), (20, 8, 8, 5)):
        if isinstance(options.get("fill"), tuple | str) and shape[-1] != 3:
            continue
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        # what comes after shows whether as much was drawn
        transforms = [{name: {**options, "p": 0.9}}, {"GaussNoise": {"p": 0.5}}, {"HorizontalFlip": {"p": 0.5}}]
        expected = by_hand.draw(by_hand.compose(transforms), images, 1, 2, 3)
        assert np.array_equal(Augment(transforms, seed=1)(images, 2, 3), np.stack(expected))


def test_a_picture_that_grows_is_left_to_the_library():
    assert shortcuts.shortcut(A.Affine(rotate=45, fit_output=True)) is None


def test_another_version_has_no_shortcuts(monkeypatch):
    monkeypatch.setattr(A, "__version__", "2.0.9")
    assert all(shortcuts.shortcut(getattr(A, name)(**options)) is None for name, options in SHORT)


@pytest.mark.parametrize("size", [(32, 32), (20, 27), (224, 181)])
def test_matrices_have_the_same_bits(size):
    from albumentations.augmentations.geometric import functional

    random = np.random.default_rng(0)
    for _ in range(2000):
        translate = {"x": int(random.integers(-9, 9)), "y": int(random.integers(-9, 9))}
        scale = {"x": random.uniform(0.5, 2), "y": random.uniform(0.5, 2)}
        rotate, middle, no_shear = random.uniform(-180, 180), functional.center(size), {"x": -0.0, "y": -0.0}
        theirs = functional.create_affine_transformation_matrix(translate, no_shear, scale, rotate, middle)
        ours = shortcuts._matrix(translate, scale, rotate, middle)
        assert np.array_equal(ours, theirs)
        assert shortcuts._is_identity(ours[:2]) == functional.is_identity_matrix(theirs)


def test_the_identity_is_told_as_the_library_tells_it():
    from albumentations.augmentations.geometric import functional

    told = set()
    for place in range(6):
        for offset in (0, 0.9e-8, 1e-8, 1.1e-8, 1e-5, 1e-5 + 0.9e-8, 1.01e-5, -1e-5, -1.01e-5):
            matrix = np.eye(3)
            matrix[place // 3, place % 3] += offset
            theirs = functional.is_identity_matrix(matrix)
            assert shortcuts._is_identity(matrix[:2]) == theirs
            told.add(bool(theirs))
    assert told == {True, False}
