from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.model_selection import train_test_split

from dlrun.data.source import DataOptions
from dlrun.errors import UserError
from dlrun.registry import datasets

COMMON = DataOptions(Path("data"), val_fraction=0.1, split_seed=0)


def by_hand(targets, test_size=0.2):
    """Positions of the train, val and test samples."""
    rest, test = train_test_split(np.arange(len(targets)), test_size=test_size, stratify=targets, random_state=0)
    train, val = train_test_split(rest, test_size=0.1, stratify=targets[rest], random_state=0)
    return train, val, test


def parts(source):
    splits = source.load()
    return splits.train, splits.val, splits.test


def test_digits():
    bunch = load_digits()
    source = datasets.build("digits", {}, COMMON)
    assert sum(len(part) for part in parts(source)) == 1797
    for part, chosen in zip(parts(source), by_hand(bunch.target), strict=True):
        pixels = part.fetch(torch.arange(len(part)))
        assert pixels.dtype == torch.uint8
        assert np.array_equal(pixels.squeeze(-1).numpy(), bunch.images[chosen] * 15)
        assert part.targets.tolist() == bunch.target[chosen].tolist()
    train = bunch.images[by_hand(bunch.target)[0]] * 15 / 255
    assert source.spec.mean == pytest.approx((train.mean(),))
    assert source.spec.std == pytest.approx((train.std(),), rel=1e-4)
    assert source.spec.shape == (1, 8, 8)
    assert source.spec.class_names == tuple("0123456789")


def test_digits_of_another_size():
    source = datasets.build("digits", {"image_size": [16, 12], "test_fraction": 0.5}, COMMON)
    train, _, test = parts(source)
    assert source.spec.shape == (1, 16, 12)
    assert train.fetch(torch.tensor([0, 1])).shape == (2, 16, 12, 1)
    assert len(test) == 899


BLOBS = {"size": 300, "features": 6, "informative": 3, "num_classes": 3, "class_sep": 2.0, "data_seed": 5}
SAME = {"n_samples": 300, "n_features": 6, "n_informative": 3, "n_classes": 3, "class_sep": 2.0, "random_state": 5}


@pytest.mark.parametrize(
    ("name", "options", "raw"),
    [
        ("breast_cancer", {}, lambda: load_breast_cancer(return_X_y=True)),
        ("blobs", BLOBS, lambda: make_classification(n_redundant=0, **SAME)),
    ],
)
def test_tables_are_standardised_with_the_train_split_alone(name, options, raw):
    inputs, targets = raw()
    source = datasets.build(name, options, COMMON)
    places = by_hand(targets)
    mean, std = inputs[places[0]].mean(axis=0), inputs[places[0]].std(axis=0)
    for part, chosen in zip(parts(source), places, strict=True):
        rows = part.fetch(torch.arange(len(part)))
        assert rows.dtype == torch.float32
        np.testing.assert_allclose(rows.numpy(), (inputs[chosen] - mean) / std, rtol=1e-5, atol=1e-6)
        assert part.targets.tolist() == targets[chosen].tolist()
    np.testing.assert_allclose(source.spec.mean, mean)
    np.testing.assert_allclose(source.spec.std, std)
    assert source.spec.shape == (inputs.shape[1],)
    assert source.spec.num_outputs == len(set(targets))


def test_tumours_have_their_names_the_right_way_round():
    source = datasets.build("breast_cancer", {}, COMMON)
    assert source.spec.class_names == ("malignant", "benign")
    assert sum(torch.bincount(part.targets) for part in parts(source)).tolist() == [212, 357]  # as published


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"image_size": [16]}, r"^data\.image_size: expected a list, .*, got \[16\]$"),
        ("digits", {"test_fraction": 1}, r"^data\.test_fraction: expected a number > 0 and < 1, got 1$"),
        ("digits", {"imagesize": 5}, r"^data\.imagesize: unknown option; did you mean 'image_size'\?"),
        ("blobs", {"informative": 30}, r"^data\.informative: expected at most data\.features=20, got 30$"),
        (
            "blobs",
            {"num_classes": 5, "informative": 3},
            r"^data\.num_classes: expected at most 4 with data\.informative",
        ),
        ("blobs", {"num_classes": 1}, r"^data\.num_classes: expected a whole number >= 2, got 1$"),
        ("blobs", {"size": 8}, r"^data: can't hold out 0\.2 of 8 samples, class by class: "),
        ("blobs", {"size": 1}, r"^data"),
        ("blobs", {"data_seed": 2**32}, r"^data\.data_seed: "),
    ],
)
def test_mistakes(name, options, message):
    with pytest.raises(UserError, match=message):
        datasets.build(name, options, COMMON)


def test_a_trained_runs_statistics_hold_for_other_samples():
    trained = datasets.build("breast_cancer", {}, DataOptions(Path(), 0.1, 0))
    other = datasets.build("breast_cancer", {}, DataOptions(Path(), 0.5, 1, known=trained.spec))
    assert other.spec == trained.spec
    found = other.load().test
    table = load_breast_cancer()
    raw = found.inputs.double() * torch.tensor(trained.spec.std) + torch.tensor(trained.spec.mean)
    assert all(np.isclose(table.data, row, rtol=1e-4, atol=1e-5).all(axis=1).any() for row in raw[:20].numpy())
    digits = datasets.build("digits", {}, DataOptions(Path(), 0.1, 0)).spec
    assert datasets.build("digits", {}, DataOptions(Path(), 0.5, 1, known=digits)).spec == digits


def test_nothing_is_held_out_of_data_that_is_all_test():
    spec = datasets.build("breast_cancer", {}, DataOptions(Path(), 0.1, 0)).spec
    splits = datasets.build("breast_cancer", {}, DataOptions(Path(), 0.1, 0, known=spec, whole=True)).load()
    assert (len(splits.train), len(splits.val), len(splits.test)) == (0, 0, 569)
    assert splits.test.targets.tolist() == load_breast_cancer().target.tolist()
