"""Where randomness in the data comes from: (seed, epoch, position) and nothing else.

So the order of samples and their augmentation don't depend on the number of workers, and resuming is a jump to a
position instead of a replay. Philox is made for it: a counter-based generator (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3") whose state at any position is written down, not stepped to.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHUFFLE, AUGMENT, MIX, BUCKET, TENSOR, OWN = 0, 1, 2, 3, 4, 5  # streams that never share a number
MOST_BATCHES, FEWEST_CHUNKS = 50, 4  # per chunk that is sorted, and chunks per epoch, as far as there are batches


def shuffled(n: int, seed: int, epoch: int) -> Tensor:
    """The order of `n` samples in `epoch`: (n,) int64."""
    return torch.from_numpy(philox(seed, epoch, SHUFFLE).permutation(n))


def bucketed(lengths: Tensor, batch_size: int, seed: int, epoch: int) -> Tensor:
    """`shuffled`, with samples of similar length in the same batch: (n,) int64, to be cut every `batch_size`.

    The shuffled samples are sorted by length, a chunk of many batches at a time, and cut into batches, which are then
    shuffled. A short batch is the last; it lies anywhere in the sorted order, so that a batch of one that is dropped
    costs each sample as often as any other. (Length grouping as in Hugging Face's `LengthGroupedSampler`.)
    """
    n, order, generator = len(lengths), shuffled(len(lengths), seed, epoch).numpy(), philox(seed, epoch, BUCKET)
    full, rest = divmod(n, batch_size)
    chunk = np.arange(n) // (batch_size * max(1, min(MOST_BATCHES, full // FEWEST_CHUNKS)))
    keys = lengths.numpy()[order].astype(np.int64)
    # Up in one chunk and down in the next: a batch that begins in the one and ends in the other is of one length too.
    order = order[np.lexsort((np.where(chunk % 2, -keys, keys), chunk))]
    start = generator.integers(n - rest + 1)
    before, short, after = np.split(order, [start, start + rest])
    batches = np.concatenate([before, after]).reshape(full, batch_size)[generator.permutation(full)]
    return torch.from_numpy(np.concatenate([batches.ravel(), short]))


def longest_first(lengths: Tensor) -> Tensor:
    """The order in which a split is evaluated fastest, (n,) int64: what doesn't fit into memory fails at once."""
    return lengths.argsort(descending=True, stable=True)


def part(start: int, stop: int, rank: int, size: int) -> tuple[int, int]:
    """The positions of a batch, of `start` to `stop` (exclusive), that are for `rank` of `size`.

    As equal as can be, but two samples or none: batch norm can't train on one. So the last ranks may have none of a
    small batch; rank 0 always has some.
    """
    count = stop - start
    sharing = min(size, max(1, count // 2))
    if rank >= sharing:
        return stop, stop
    return start + count * rank // sharing, start + count * (rank + 1) // sharing


def generator_at(seed: int, epoch: int, position: int, stream: int) -> np.random.Generator:
    """A generator that starts at `position` of `epoch`."""
    generator = philox(seed, epoch, stream)
    Jumper(generator).to(position)
    return generator


def uniform_rows(seed: int, epoch: int, stream: int, position: int, size: tuple[int, int]) -> np.ndarray:
    """`size` (rows, columns) of uniforms in [0, 1): one row for each of `position`, `position` + 1, …

    A row is the same whichever others are drawn with it: the generator makes four numbers at each count, and a row
    begins at a count of its own.
    """
    rows, columns = size
    counts = -(-columns // 4)
    generator = philox(seed, epoch, stream)
    generator.bit_generator.advance(position * counts)  # type: ignore[attr-defined]
    return generator.random((rows, 4 * counts))[:, :columns]


class Jumper:
    """Sets one generator to the start of any position: 5 µs, where a new generator costs 20."""

    def __init__(self, generator: np.random.Generator):
        self.bits = generator.bit_generator
        self.state: Any = self.bits.state

    def to(self, position: int, companion: random.Random | None = None) -> None:
        """Jump to `position`, and seed `companion` (Python's own generator) to match."""
        # The position takes the counter's second word, so that 2^64 numbers lie before the next one's.
        self.state["state"]["counter"][:] = (0, position, 0, 0)
        self.state["buffer_pos"], self.state["has_uint32"] = 4, 0  # nothing left over from the position before
        self.bits.state = self.state
        if companion is not None:
            companion.seed(int(self.bits.random_raw()))


def philox(seed: int, epoch: int, stream: int) -> np.random.Generator:
    """The generator of one epoch and stream, at position 0."""
    key = np.random.SeedSequence([seed, epoch, stream]).generate_state(2, np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
