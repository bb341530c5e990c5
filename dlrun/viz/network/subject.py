"""The sample that a network is looked at with, as people see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Subject:
    """One sample and the network's answer to it: `pixels` (H, W, C) uint8 as the network gets them, or `words`."""

    name: str
    guess: str
    probability: float
    truth: str | None = None
    pixels: np.ndarray | None = None
    words: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)  # what has to be said of how it was read

    @property
    def picture(self) -> np.ndarray:
        """(H, W, 3), or (H, W) of one channel and of numbers of channels that aren't colours: their mean."""
        assert self.pixels is not None
        return self.pixels if self.pixels.shape[2] == 3 else self.pixels.mean(axis=2)

    def content(self) -> dict[str, Any]:
        """As plain values."""
        words = {"words": list(self.words)} if self.words else {}
        answer = {"prediction": self.guess, "probability": self.probability}
        return {"sample": self.name, "truth": self.truth, **answer, **words, "notes": self.notes}
