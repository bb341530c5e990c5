"""Batches of a split, in an order that depends on (seed, epoch) alone, from any position on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dlrun.data.augment import Augment
from dlrun.data.placement import Batch, arriving
from dlrun.data.prepare import Mix
from dlrun.data.source import Split, arrangement, rows
from dlrun.data.workers import Workers

Key = tuple[int, int, Tensor]  # epoch, position of the batch's first sample, indices into the split


@dataclass
class Batches:
    """The batches of one split, ready for the model: inputs and targets on the device.

    The last batch of an epoch may be smaller, and counts as what it is. `limit` cuts an epoch to that many batches.
    """

    split: Split
    batch_size: int
    prepare: Callable[[Tensor], Tensor]
    device: torch.device
    shuffle_seed: int | None = None  # None takes the split's first samples, in an order of its choice
    augment: Augment | None = None
    mix: Mix | None = None
    num_workers: int = 0
    limit: int | None = None

    def __len__(self) -> int:
        batches = -(-len(self.split) // self.batch_size)
        # Batch norm can't train on a last batch of one; the shuffle leaves out another sample each epoch.
        if self.shuffle_seed is not None and len(self.split) % self.batch_size == 1 and batches > 1:
            batches -= 1
        return batches if self.limit is None else min(batches, self.limit)

    def samples(self, start: int, stop: int) -> int:
        """Number of samples in batches `start` to `stop` (exclusive)."""
        return min(stop * self.batch_size, len(self.split)) - start * self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from batch number `start` on; nothing before it is read."""
        for number, (inputs, targets) in enumerate(arriving(self._fetched(epoch, start), self.device), start):
            inputs = self.prepare(inputs)
            if self.mix is not None:
                inputs, targets = self.mix(inputs, targets, epoch, number * self.batch_size)
            yield inputs, targets

    def indices(self, epoch: int, batch: int) -> Tensor:
        """Which samples of the split batch number `batch` of `epoch` is made of: (B,) int64; reads none of them."""
        if not 0 <= batch < len(self):
            raise IndexError(f"batch {batch} of {len(self)}")
        return self._cut(self._order(epoch), batch)

    def order(self, epoch: int) -> Tensor:
        """Which samples of the split `epoch` is made of, as they come: int64."""
        return self._order(epoch)[: self.samples(0, len(self))]

    def _order(self, epoch: int) -> Tensor:
        count = self.samples(0, len(self))
        return arrangement(self.split, self.batch_size, self.shuffle_seed, epoch, count)

    def _cut(self, order: Tensor, batch: int) -> Tensor:
        return order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _fetched(self, epoch: int, start: int) -> Iterator[Batch]:
        order, numbers = self._order(epoch), range(start, len(self))
        fetch, workers = _Fetch(self.split, self.augment), min(self.num_workers, len(numbers))
        if workers == 0 and self.device.type == "cuda":
            order = order.pin_memory()  # of a set that lives on the device the indices travel, and nothing waits
        keys: Iterator[Key] = ((epoch, b * self.batch_size, self._cut(order, b)) for b in numbers)
        if workers == 0:
            for key in keys:  # not map: a StopIteration from a fetch would end it without a word
                yield fetch[key]
            return
        with closing(Workers(fetch, list(keys), workers, pin_memory=self.device.type == "cuda")) as running:
            yield from running


class _Fetch(Dataset[Batch]):
    """Reads and augments one batch; knows nothing but its key, so any worker may do it."""

    def __init__(self, split: Split, augment: Augment | None):
        self.split, self.augment = split, augment

    def __getitem__(self, key: Key) -> Batch:
        epoch, position, indices = key
        inputs = self.split.fetch(indices)
        if self.augment is not None:
            inputs = torch.from_numpy(self.augment(inputs.numpy(), epoch, position))
        return inputs, rows(self.split.targets, indices)
