from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import train_test_split

from dlrun.data.source import (
    ArraySplit,
    DataOptions,
    PixelSplit,
    TokenSplit,
    check_classes,
    fingerprint,
    limited,
    pixel_statistics,
)
from dlrun.errors import UserError

COMMON = DataOptions(Path("data"), val_fraction=0.1, split_seed=0)
CLASSES = np.repeat([0, 1, 2], [120, 60, 20])[np.random.default_rng(0).permutation(200)]  # 6 : 3 : 1
SPLIT = ArraySplit(torch.arange(200), torch.from_numpy(CLASSES))


def test_carved_as_scikit_learn_does_it():
    rest, test = train_test_split(np.arange(200), test_size=0.2, stratify=CLASSES, random_state=0)
    train, val = train_test_split(rest, test_size=0.1, stratify=CLASSES[rest], random_state=0)
    carved = COMMON.carve(SPLIT, 0.2)
    for split, expected in ((carved.train, train), (carved.val, val), (carved.test, test)):
        assert split.inputs.tolist() == expected.tolist()
        assert split.targets.tolist() == CLASSES[expected].tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_carved_splits_are_disjoint_and_stratified(seed):
    options = DataOptions(Path("data"), 0.25, seed)
    carved = options.carve(SPLIT, 0.2)
    parts = [carved.train, carved.val, carved.test]
    assert sorted(torch.cat([part.inputs for part in parts]).tolist()) == list(range(200))
    assert [torch.bincount(part.targets).tolist() for part in parts] == [[72, 36, 12], [24, 12, 4], [24, 12, 4]]
    again = options.carve(SPLIT, 0.2)
    assert torch.equal(again.train.inputs, carved.train.inputs)
    assert not torch.equal(DataOptions(Path("data"), 0.25, seed + 1).carve(SPLIT, 0.2).test.inputs, carved.test.inputs)


def test_splits_that_are_there_are_kept():
    own = ArraySplit(torch.arange(5), torch.zeros(5, dtype=torch.int64))
    carved = COMMON.carve(SPLIT, None, own)
    assert carved.val is own
    assert len(carved.test) == 0
    assert carved.train.inputs.tolist() == list(range(200))
    carved = COMMON.carve(SPLIT, 0.2, own)
    assert (len(carved.train), carved.val, len(carved.test)) == (160, own, 40)


@pytest.mark.parametrize(
    "targets",
    [[0, 0, 0, 0, 1], [0, 1, 2, 3, 0, 1, 2, 3], [0]],  # a class of one, a test split smaller than its classes, …
)
def test_too_few_to_carve(targets):
    with pytest.raises(UserError, match=rf"^data: can't hold out 0\.2 of {len(targets)} samples, class by class: "):
        COMMON.carve(ArraySplit(torch.arange(len(targets)), torch.tensor(targets)), 0.2)


def test_limited():
    few = limited(SPLIT, 50, seed=0)
    chosen = few.inputs.tolist()
    assert len(chosen) == len(set(chosen)) == 50
    assert chosen == sorted(chosen) != list(range(50))
    assert few.targets.tolist() == CLASSES[chosen].tolist()
    assert limited(SPLIT, 50, seed=0).inputs.tolist() == chosen
    assert limited(SPLIT, 50, seed=1).inputs.tolist() != chosen
    for limit in (None, 200, 1000):
        assert limited(SPLIT, limit, seed=0) is SPLIT


def test_tokens_are_cut_to_the_longest_of_the_batch():
    tokens = torch.tensor([[5, 6, 7, 0, 0], [8, 0, 0, 0, 0], [0, 0, 0, 0, 0], [2, 3, 4, 5, 6]])
    split = TokenSplit(tokens, torch.arange(4), decode=lambda ids: "-".join(map(str, ids)))
    assert split.fetch(torch.tensor([1, 0])).tolist() == [[8, 0, 0], [5, 6, 7]]
    assert split.fetch(torch.tensor([1, 1])).tolist() == [[8], [8]]
    assert split.fetch(torch.tensor([3])).tolist() == [[2, 3, 4, 5, 6]]
    assert split.fetch(torch.tensor([2])).tolist() == [[0]]  # a model still gets one step
    subset = split.subset([3, 1])
    assert subset.targets.tolist() == [3, 1]
    assert subset.show(1) == "8-0-0-0-0"


def test_lengths_reach_to_the_last_word():
    tokens = torch.tensor([[5, 6, 7, 0, 0], [8, 0, 0, 0, 0], [0, 0, 0, 0, 0], [2, 0, 4, 0, 0]], dtype=torch.int32)
    split = TokenSplit(tokens, torch.arange(4))
    assert split.lengths.tolist() == [3, 1, 1, 3]
    assert split.fetch(torch.tensor([3])).tolist() == [[2, 0, 4]]
    assert split.subset([1, 0]).lengths.tolist() == [1, 3]
    many = torch.randint(0, 9, (10_000, 7), generator=torch.Generator().manual_seed(0))
    last = [max([i + 1 for i, token in enumerate(row) if token], default=1) for row in many.tolist()]
    assert TokenSplit(many, torch.zeros(10_000)).lengths.tolist() == last


@pytest.mark.parametrize("size", [(6, 9), (12, 12), (20, 7), (40, 30)])
def test_pixels_are_resized_as_torch_and_pillow_do(size):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), dtype=np.uint8))
    resized = PixelSplit(pixels, torch.arange(5), size).fetch(torch.tensor([3, 1]))
    assert resized.dtype == torch.uint8
    assert resized.shape == (2, *size, 3)
    assert resized.is_contiguous()
    for row, index in enumerate((3, 1)):
        image = pixels[index].permute(2, 0, 1)[None].double()
        exact = torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        pillow = Image.fromarray(pixels[index].numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
        assert (resized[row] - exact).abs().max() < 1.01  # rounded twice, once for each axis
        assert (resized[row].int() - torch.from_numpy(np.array(pillow)).int()).abs().max() <= 1


def test_pixels_without_a_size_are_as_they_are():
    pixels = torch.arange(5 * 12, dtype=torch.uint8).view(5, 2, 6, 1)
    split = PixelSplit(pixels, torch.arange(5))
    assert torch.equal(split.fetch(torch.tensor([4, 0])), pixels[[4, 0]])
    assert split.subset([2]).fetch(torch.tensor([0])).tolist() == pixels[2:3].tolist()


def test_pixel_statistics():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 10, 12, 3), dtype=np.uint8)
    pixels[..., 1] //= 3
    pixels[..., 2] = 51
    mean, std = pixel_statistics(torch.from_numpy(pixels))
    scaled = pixels.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], scaled.std(axis=(0, 1, 2))[:2], rtol=2e-4)
    assert mean[2] == pytest.approx(0.2)
    assert 0 < std[2] <= 0.001  # a constant channel is not divided by 0


@pytest.mark.parametrize("names", [[], ["cat"]])
def test_one_class_is_no_task(names):
    check_classes(["cat", "dog"], "data.root: train")
    with pytest.raises(UserError, match=r"^data\.root: train: needs at least two classes, found \[('cat')?\]$"):
        check_classes(names, "data.root: train")


PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5000, 3, 4, 3), dtype=np.uint8))
LABELS = torch.arange(5000) % 7


def test_a_fingerprint_is_blake2b_of_the_arrays_bytes():
    expected = hashlib.blake2b(digest_size=8)
    for array in (PIXELS.numpy(), LABELS.numpy()):
        expected.update(f"torch.{array.dtype} {array.shape}:".encode() + array.tobytes())
    assert fingerprint(PixelSplit(PIXELS, LABELS)) == expected.hexdigest()


def changed(tensor: torch.Tensor, *place: int) -> torch.Tensor:
    other = tensor.clone()
    other[place] += 1
    return other


def test_any_change_has_another_fingerprint():
    swapped = torch.arange(5000)
    swapped[[4097, 4098]] = swapped[[4098, 4097]]
    features, tokens = torch.randn(8, 6), torch.arange(48).view(8, 6)
    splits = [
        PixelSplit(PIXELS, LABELS),
        PixelSplit(changed(PIXELS, 0, 0, 0, 0), LABELS),
        PixelSplit(changed(PIXELS, 4999, 2, 3, 2), LABELS),
        PixelSplit(PIXELS, changed(LABELS, 4999)),
        PixelSplit(PIXELS, LABELS.int()),
        PixelSplit(PIXELS.view(torch.int8), LABELS),
        PixelSplit(PIXELS.view(5000, 4, 3, 3), LABELS),
        PixelSplit(PIXELS[swapped], LABELS),
        PixelSplit(PIXELS[:4999], LABELS[:4999]),
        PixelSplit(PIXELS[:0], LABELS[:0]),
        TokenSplit(tokens, LABELS[:8]),
        TokenSplit(changed(tokens, 7, 5), LABELS[:8]),
        ArraySplit(features, LABELS[:8]),
        ArraySplit(features.nextafter(torch.ones(())), LABELS[:8]),
        ArraySplit(features.bfloat16(), LABELS[:8]),
    ]
    assert len({fingerprint(split) for split in splits}) == len(splits)


def test_a_fingerprint_is_of_the_content_alone():
    expected = fingerprint(PixelSplit(PIXELS, LABELS))
    views = [
        PixelSplit(PIXELS.clone(), LABELS.clone()),
        PixelSplit(PIXELS, LABELS, size=(6, 8)),
        PixelSplit(torch.cat([PIXELS, PIXELS])[5000:], LABELS),
        PixelSplit(PIXELS.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0), LABELS),
        PixelSplit(PIXELS.repeat_interleave(2, dim=0)[::2], LABELS.repeat_interleave(3)[::3]),
        PixelSplit(torch.cat([PIXELS, PIXELS]), torch.cat([LABELS, LABELS])).subset(np.arange(5000)),
    ]
    assert [v.inputs.is_contiguous() for v in views].count(False) == 2
    assert {fingerprint(view) for view in views} == {expected}
    script = """
import numpy as np, torch
from dlrun.data.source import PixelSplit, fingerprint
torch.set_num_threads(2)
pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5000, 3, 4, 3), dtype=np.uint8))
print(fingerprint(PixelSplit(pixels, torch.arange(5000) % 7)))
"""
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == expected


def test_a_plugins_split_has_its_own_word_or_its_targets():
    class Foreign:
        def __init__(self, targets):
            self.targets = targets

        def __len__(self):
            return len(self.targets)

    class Known(Foreign):
        def fingerprint(self):
            return "version 3"

    prints = [fingerprint(Foreign(LABELS[:n])) for n in (10, 11)] + [fingerprint(Foreign(LABELS[1:11]))]
    assert len(set(prints)) == 3
    assert fingerprint(Foreign(LABELS[:10].clone())) == prints[0]
    assert fingerprint(Known(LABELS)) == "version 3"
