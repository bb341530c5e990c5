"""albumentations, made to take given numbers for its random ones: what it does with them is its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np


class Given(random.Random):
    """Python's generator with its numbers given; `uniform` is its own way to use them."""

    def __init__(self, numbers: Sequence[float]):
        super().__init__(0)
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)

    def randint(self, a: int, b: int) -> int:
        return a + int(self.random() * (b - a + 1))


class GivenRows:
    """NumPy's generator with its numbers given, a row for each call; a call takes as many of a row as it needs."""

    def __init__(self, rows: np.ndarray):
        self.rows = list(rows)

    def uniform(self, low: float, high: float, size: int) -> np.ndarray:
        return low + (high - low) * self.rows.pop(0)[:size]

    def integers(self, low: Any, high: Any, size: int | None = None) -> Any:
        if size is None:  # the seed of a random filling
            return 0
        return (low + np.floor((high - low) * self.rows.pop(0)[:size])).astype(int)


def give(transform: Any, numbers: np.ndarray) -> Any:
    """Have `transform` draw a sample's numbers (draws,), as dlrun lays them out."""
    if type(transform).__name__ == "CoarseDropout":
        transform.random_generator = GivenRows(numbers[2:].reshape(-1, 4).T)
        numbers = numbers[:2]
    if transform.p >= 1 and type(transform).__name__ not in ("RandomCrop", "Pad"):
        numbers = numbers[1:]  # where there is no doubt, nothing is drawn
    transform.py_random = Given(numbers)
    return transform
