"""Splitting class by class, as scikit-learn's `train_test_split` does it: to the very indices, without its import."""

from __future__ import annotations

import math

import numpy as np


def stratified(classes: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rest and of the held-out `fraction`, rounded up, each class in its share; both shuffled.

    What `train_test_split(range(N), test_size=fraction, stratify=classes, random_state=seed)` returns (its
    StratifiedShuffleSplit). NumPy guarantees RandomState's numbers for ever. Raises ValueError for too
    few samples.

    classes: (N,)
    """
    names, labels, counts = np.unique(classes, return_inverse=True, return_counts=True)
    held = math.ceil(fraction * len(classes))
    rest = len(classes) - held
    if (alone := names[counts < 2].tolist()) or not len(names):
        raise ValueError(f"each class needs 2 samples or more; there is 1 of {alone}" if alone else "there are none")
    if min(rest, held) < len(names):
        raise ValueError(f"{len(names)} classes, each to be on both sides, and only {min(rest, held)} samples on one")
    random = np.random.RandomState(seed)
    rest_counts = _shares(counts, rest, random)
    held_counts = _shares(counts - rest_counts, held, random)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    chosen: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for positions, first, second in zip(members, rest_counts, held_counts, strict=True):
        shuffled = positions[random.permutation(len(positions))]
        chosen[0].append(shuffled[:first])
        chosen[1].append(shuffled[first : first + second])
    return random.permutation(np.concatenate(chosen[0])), random.permutation(np.concatenate(chosen[1]))


def _shares(counts: np.ndarray, draws: int, random: np.random.RandomState) -> np.ndarray:
    """How many of `draws` fall to each class, by its count; what rounding leaves goes to the largest remainders."""
    exact = counts / counts.sum() * draws
    shares = np.floor(exact)
    missing, remainders = int(draws - shares.sum()), exact - shares
    for remainder in np.unique(remainders)[::-1]:
        if missing == 0:
            break
        equal = np.flatnonzero(remainders == remainder)
        taken = random.choice(equal, size=min(len(equal), missing), replace=False)  # ties are broken by lot
        shares[taken] += 1
        missing -= len(taken)
    return shares.astype(int)
