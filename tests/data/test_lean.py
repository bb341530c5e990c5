"""Every transform of albumentations without its wrapping, against albumentations' own Compose: the same to the bit."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
from omegaconf import OmegaConf

from dlrun.data.augment import Augment
from dlrun.data.lean import is_plain
from dlrun.errors import UserError

A = by_hand.A
CONF = Path(__file__).resolve().parent.parent.parent / "conf" / "augment"
pytestmark = pytest.mark.filterwarnings("ignore")  # the library's, on options that it finds odd
HEIGHT, WIDTH = 20, 27
# What can't do without options, or wouldn't keep the size with the library's own.
OPTIONS: dict[str, dict[str, Any]] = {
    "CenterCrop": {"height": HEIGHT, "width": WIDTH},
    "Crop": {"x_max": WIDTH, "y_max": HEIGHT},
    "CropAndPad": {"percent": (-0.2, 0.2)},
    "FrequencyMasking": {"freq_mask_param": 8},
    "GridElasticDeform": {"num_grid_xy": (3, 3), "magnitude": 4},
    "LongestMaxSize": {"max_size": WIDTH},
    "PadIfNeeded": {"min_height": HEIGHT, "min_width": WIDTH},
    "RandomCrop": {"height": HEIGHT, "width": WIDTH},
    "RandomResizedCrop": {"size": (HEIGHT, WIDTH)},
    "RandomScale": {"scale_limit": (0.0, 0.0)},
    "RandomSizedCrop": {"min_max_height": (10, 20), "size": (HEIGHT, WIDTH)},
    "Resize": {"height": HEIGHT, "width": WIDTH},
    "SmallestMaxSize": {"max_size": HEIGHT},
    "TimeMasking": {"time_mask_param": 8},
    "XYMasking": {"num_masks_x": (1, 3), "mask_x_length": (2, 5), "num_masks_y": 1, "mask_y_length": 4},
}
TURNING = {"D4", "RandomRotate90", "SquareSymmetry", "Transpose"}  # on its side: keep the size of squares only
COLOURS_ONLY = {
    *("ChannelDropout", "ChromaticAberration", "HEStain", "ISONoise", "PlanckianJitter", "RandomFog", "RandomGravel"),
    *("RandomRain", "RandomSnow", "RandomSunFlare", "Spatter", "ToRGB"),
}
NESTING = ["OneOf", "OneOrOther", "RandomOrder", "SelectiveChannelTransform", "Sequential", "SomeOf"]
NO_PICTURE = {"BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"}  # abstract
# Not from a picture alone (boxes, masks, volumes, other pictures, a function, a font), or not to bytes of the size.
OTHERS = {
    *("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop", "CenterCrop3D", "CoarseDropout3D", "CropNonEmptyMaskIfExists"),
    *("CubicSymmetry", "FDA", "FromFloat", "HistogramMatching", "Lambda", "MaskDropout", "Mosaic", "Normalize"),
    *("OverlayElements", "Pad3D", "PadIfNeeded3D", "PixelDistributionAdaptation", "RandomCrop3D"),
    *("RandomCropFromBorders", "RandomCropNearBBox", "RandomSizedBBoxSafeCrop", "TextImage", "ToFloat", "ToTensor3D"),
    "ToTensorV2",
}
ALL = {n for n, t in vars(A).items() if isinstance(t, type) and issubclass(t, A.BasicTransform)}
KEEPING = sorted(ALL - NO_PICTURE - OTHERS)


def pictures(channels: int, height: int = HEIGHT, width: int = WIDTH, number: int = 6) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 256, (number, height, width, channels), dtype=np.uint8)


def assert_same(transforms: list[dict[str, Any]], images: np.ndarray, position: int) -> None:
    """The same pictures, and the generators at the same place after them."""
    composed, augment = by_hand.compose(transforms), Augment(transforms, seed=5)
    expected = by_hand.draw(composed, images, 5, 1, position)
    before = images.copy()
    augmented = augment(images, 1, position)
    for ours, theirs in zip(augmented, expected, strict=True):
        assert np.array_equal(ours, theirs), transforms
    assert np.array_equal(images, before)
    assert augment.compose.py_random.getstate() == composed.py_random.getstate()
    theirs, ours = (a.random_generator.bit_generator.random_raw(3).tolist() for a in (composed, augment.compose))
    assert ours == theirs


def test_the_list_is_whole():
    assert len(ALL) == 122
    assert len(KEEPING) == 93
    plain = [name for name in KEEPING if is_plain(getattr(A, name)(**OPTIONS.get(name, {})))]
    assert plain == KEEPING


@pytest.mark.parametrize("name", KEEPING)
def test_every_transform_is_the_same_to_the_bit(name):
    height = WIDTH if name in TURNING else HEIGHT
    for channels in (3,) if name in COLOURS_ONLY else (3, 1):
        for p in (1.0, 0.5):
            assert_same([{name: {**OPTIONS.get(name, {}), "p": p}}], pictures(channels, height), position=90)


def chain(random: random.Random, names: list[str], nesting: list[str]) -> list[dict[str, Any]]:
    """Up to five transforms in a row, some of them nested."""
    made: list[dict[str, Any]] = []
    for _ in range(random.randint(1, 5)):
        name, p = random.choice(names), random.choice([0, 0.3, 0.7, 1])
        made.append({name: {**OPTIONS.get(name, {}), "p": p}})
        if nesting and random.random() < 0.4:
            nest = random.choice(nesting)
            inner = [{name: {**options, "p": 0.8}} for t in chain(random, names, []) for name, options in t.items()]
            made.append({nest: {"transforms": (inner * 2)[:2] if nest == "OneOrOther" else inner, "p": 0.8}})
    return made


@pytest.mark.parametrize("number", range(40))
def test_chains_are_the_same_to_the_bit(number):
    channels = 1 + 2 * (number % 2)
    names = [n for n in KEEPING if n not in TURNING and (channels == 3 or n not in COLOURS_ONLY)]
    nesting = NESTING if channels == 3 else [name for name in NESTING if name != "SelectiveChannelTransform"]
    transforms = chain(random.Random(number), names, nesting)
    assert_same(transforms, pictures(channels), position=7 * number)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("recipe", ["affine", "light", "standard", "strong"])
def test_recipes_are_the_same_to_the_bit(recipe, channels):
    transforms = OmegaConf.to_container(OmegaConf.load(CONF / f"{recipe}.yaml"))["transforms"]
    assert_same(transforms, pictures(channels, number=200), position=0)
    assert_same(transforms, pictures(channels, 32, 32, number=200), position=2**40)


def test_pictures_may_be_numbers_in_between():
    between = [{name: {"p": 1.0}} for name in ("HorizontalFlip", "Affine", "CoarseDropout", "RandomBrightnessContrast")]
    assert_same([{"ToFloat": {"p": 1.0}}, *between, {"FromFloat": {"dtype": "uint8", "p": 1.0}}], pictures(3), 0)


class Loud(A.HorizontalFlip):
    """A user's own, which does something around what it inherits."""

    def __call__(self, *args: Any, force_apply: bool = False, **data: Any) -> Any:
        data["image"] = 255 - data["image"]
        return super().__call__(*args, force_apply=force_apply, **data)


class Unsure(A.VerticalFlip):
    def should_apply(self, force_apply: bool = False) -> bool:
        return self.py_random.random() < self.p**2


class Marked(A.HorizontalFlip):
    """Does something else to the pixels, and in the picture that it was given."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        img[:2] = params["mark"]
        return img

    def get_params(self) -> dict[str, Any]:
        return {"mark": self.py_random.randint(0, 255)}


@pytest.mark.parametrize(("kind", "plain"), [(Loud, False), (Unsure, False), (Marked, True)])
def test_own_transforms_keep_their_ways(kind, plain, monkeypatch):
    for name in ("Own", "HorizontalFlip"):  # under a name of its own, and instead of the library's
        monkeypatch.setattr(A, name, type(name, (kind,), {"__module__": __name__}), raising=False)
        assert is_plain(kind(p=0.7)) is plain
        assert_same([{name: {"p": 0.7}}, {"Affine": {"rotate": (-9, 9)}}], pictures(3, number=30), position=3)


def test_a_size_that_is_lost_rarely_is_told_when_it_is():
    augment = Augment([{"Transpose": {"p": 0.05}}], seed=0)
    with pytest.raises(UserError, match=r"turn a \(20, 27, 3\) uint8 image into \(27, 20, 3\) uint8"):
        augment(pictures(3, number=200), 0, 0)


def test_nothing_is_nothing():
    images = pictures(3)
    result = Augment([], seed=0)(images, 0, 0)
    assert np.array_equal(result, images)
    assert not np.shares_memory(result, images)


def test_it_travels_to_processes_that_are_not_forked():
    augment = Augment([{"Affine": {"rotate": (-30, 30)}}, {"OneOf": {"transforms": [{"GaussNoise": {}}]}}], seed=2)
    there = pickle.loads(pickle.dumps(augment))
    assert np.array_equal(there(pictures(3), 4, 5), augment(pictures(3), 4, 5))
