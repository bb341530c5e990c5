from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dlrun.data.source import DataOptions
from dlrun.errors import UserError
from dlrun.registry import datasets

COMMON = DataOptions(Path("data"), val_fraction=0.1, split_seed=0)


def everything(split):
    return split.fetch(torch.arange(len(split)))


@pytest.mark.parametrize(
    ("options", "shape", "raw", "dtype"),
    [
        ({}, (1, 28, 28), (28, 28, 1), torch.uint8),
        ({"shape": [3, 5, 7]}, (3, 5, 7), (5, 7, 3), torch.uint8),
        ({"modality": "tabular"}, (20,), (20,), torch.float32),
        ({"modality": "tabular", "shape": [6]}, (6,), (6,), torch.float32),
        ({"modality": "text"}, (128,), (128,), torch.int32),
        ({"modality": "text", "vocab_size": 3, "sequence_length": 9}, (9,), (9,), torch.int32),
    ],
)
def test_shapes_and_sizes(options, shape, raw, dtype):
    source = datasets.build("fake", {"size": 200, "num_classes": 4, **options}, COMMON)
    splits = source.load()
    assert source.spec.shape == shape
    assert source.spec.num_outputs == 4
    for split, size in ((splits.train, 180), (splits.val, 20), (splits.test, 40)):
        assert everything(split).shape == (size, *raw)
        assert everything(split).dtype == dtype
        assert torch.bincount(split.targets).tolist() == [size // 4] * 4


def test_noise_is_what_the_spec_says():
    source = datasets.build("fake", {"shape": [2, 16, 16]}, COMMON)
    pixels = everything(source.load().train).double() / 255  # uniform on 0, 1/255, …, 1: its moments are known
    assert source.spec.mean == pytest.approx((0.5, 0.5), abs=0.005)
    assert source.spec.std == pytest.approx((((256**2 - 1) / 12) ** 0.5 / 255,) * 2, abs=0.005)
    assert pixels.mean().item() == pytest.approx(0.5, abs=0.005)
    assert pixels.std().item() == pytest.approx(source.spec.std[0], abs=0.005)


def test_words_are_never_padding_or_unknown():
    source = datasets.build("fake", {"modality": "text", "vocab_size": 12, "sequence_length": 30}, COMMON)
    assert source.spec.vocab_size == 12
    assert set(everything(source.load().train).flatten().tolist()) == set(range(2, 12))


def test_the_same_every_time_and_no_sample_twice():
    source = datasets.build("fake", {"modality": "tabular", "size": 100}, COMMON)
    first = source.load()
    torch.manual_seed(7)
    again = source.load()
    for name in ("train", "val", "test"):
        assert torch.equal(everything(getattr(first, name)), everything(getattr(again, name)))
        assert torch.equal(getattr(first, name).targets, getattr(again, name).targets)
    rows = torch.cat([everything(split) for split in (first.train, first.val, first.test)])
    assert len(rows.unique(dim=0)) == 120


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"shape": [28, 28]},
            r"data\.shape: expected \[channels, height, width\] for data\.modality=image, got \[28, 28\]",
        ),
        ({"modality": "tabular", "shape": [3, 4]}, r"data\.shape: expected \[features\] for data\.modality=tabular"),
        ({"modality": "text", "shape": [3]}, r"data\.shape: a text has none; set data\.sequence_length"),
        ({"vocab_size": 100}, r"data\.vocab_size: only a text has it, and data\.modality is image"),
        ({"modality": "tabular", "sequence_length": 5}, r"data\.sequence_length: only a text has it"),
        ({"modality": "text", "vocab_size": 2}, r"data\.vocab_size: expected a whole number >= 3 or null, got 2"),
        ({"modality": "audio"}, r"data\.modality: expected one of 'image', 'text', 'tabular', got 'audio'"),
        ({"num_classes": 1}, r"data\.num_classes: expected a whole number >= 2, got 1"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(UserError, match=f"^{message}"):
        datasets.build("fake", options, COMMON)


def test_too_few_for_a_validation_split():
    with pytest.raises(UserError, match=r"^data: can't hold out 0\.1 of 10 samples"):
        datasets.build("fake", {"size": 10}, COMMON).load()
