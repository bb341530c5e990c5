from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from dlrun.data.stratified import stratified


def test_splits_to_the_same_indices_as_scikit_learn():
    """Of 600 random cases: sizes, classes (numbered with gaps), shares and seeds; where it refuses, so do we."""
    random, split, refused = np.random.default_rng(0), 0, 0
    for case in range(600):
        classes = random.choice(random.integers(-5, 40, size=random.integers(1, 12)), size=random.integers(2, 120))
        if case % 3 == 0:  # all classes alike: ties
            classes = np.tile(np.arange(random.integers(1, 12)), random.integers(1, 12))
        fraction, seed = float(random.uniform(0.01, 0.99)), int(random.integers(2**32))
        if case % 2:
            fraction = round(fraction, 1) or 0.1
        try:
            wanted = train_test_split(np.arange(len(classes)), test_size=fraction, stratify=classes, random_state=seed)
        except ValueError:
            refused += 1
            with pytest.raises(ValueError, match="class"):
                stratified(classes, fraction, seed)
            continue
        split += 1
        for ours, theirs in zip(stratified(classes, fraction, seed), wanted, strict=True):
            assert ours.tolist() == theirs.tolist()
    assert split > 200
    assert refused > 100


def test_a_large_split_is_scikit_learns_too():
    classes = np.random.default_rng(1).integers(100, size=50_000)
    wanted = train_test_split(np.arange(50_000), test_size=0.1, stratify=classes, random_state=3)
    for ours, theirs in zip(stratified(classes, 0.1, 3), wanted, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("classes", "fraction", "message"),
    [
        ([], 0.5, "there are none"),
        ([3, 3, 3, 7, 9], 0.4, r"each class needs 2 samples or more; there is 1 of \[7, 9\]"),
        ([0, 0, 1, 1, 2, 2], 0.2, "3 classes, each to be on both sides, and only 2 samples on one"),
        ([0, 0, 1, 1, 2, 2], 0.9, "3 classes, each to be on both sides, and only 0 samples on one"),
    ],
)
def test_too_few_samples_are_refused(classes, fraction, message):
    with pytest.raises(ValueError, match=message):
        stratified(np.array(classes), fraction, 0)
