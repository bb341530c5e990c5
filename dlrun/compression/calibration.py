"""Training samples that show which ranges activations have."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dlrun.data.loader import Batches

AT_ONCE = 32


def samples(train: Batches, count: int) -> Iterator[Tensor]:
    """`count` samples of a training split as the model gets them, not augmented, in batches on the CPU.

    Always the same ones, spread evenly over the split, so that one which is sorted by class shows all of them.
    """
    indices = torch.linspace(0, len(train.split) - 1, min(count, len(train.split))).long()
    for part in indices.split(AT_ONCE):
        yield train.prepare(train.split.fetch(part)).cpu().contiguous()
