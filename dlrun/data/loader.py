"""Batches of a split, in an order that depends on (seed, epoch) alone, from any position on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dlrun.data.augment import Augment
from dlrun.data.order import part
from dlrun.data.placement import Batch, arriving
from dlrun.data.prepare import Mix
from dlrun.data.source import Split, arrangement, rows
from dlrun.data.tensor_augment import TensorAugment
from dlrun.data.tuning import Tuner
from dlrun.data.worker import Key
from dlrun.data.workers import Workers


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
    device_augment: TensorAugment | None = None  # in place of `prepare`: augments on the device, too
    mix: Mix | None = None
    workers: Workers = field(default_factory=Workers)  # may be shared with other splits
    tuner: Tuner | None = None  # that sets the number of `workers` while these batches are trained on
    limit: int | None = None
    share: tuple[int, int] | None = None  # rank and number of the processes that have a part each of every batch

    def __post_init__(self) -> None:
        self.workers.add(self)
        self._known: tuple[int, Tensor] | None = None  # the order of an epoch

    def __len__(self) -> int:
        batches = -(-len(self.split) // self.batch_size)
        # Batch norm can't train on a last batch of one; the shuffle leaves out another sample each epoch.
        if self.shuffle_seed is not None and len(self.split) % self.batch_size == 1 and batches > 1:
            batches -= 1
        return batches if self.limit is None else min(batches, self.limit)

    def close(self) -> None:
        """End the loader processes; new ones begin when they are needed."""
        self.workers.close()

    def samples(self, start: int, stop: int) -> int:
        """Number of samples in batches `start` to `stop` (exclusive)."""
        return min(stop * self.batch_size, len(self.split)) - start * self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from batch number `start` on; nothing before it is read."""
        order = None if self.device_augment is None else self._order(epoch)
        for number, (inputs, targets) in enumerate(arriving(self._fetched(epoch, start), self.device), start):
            position = number * self.batch_size
            if self.device_augment is None or order is None:
                inputs = self.prepare(inputs)
            else:
                position, indices = self._own(order, number)
                inputs = self.device_augment(inputs, epoch, position, indices)
            if self.mix is not None:
                inputs, targets = self.mix(inputs, targets, epoch, position)
            yield inputs, targets

    def indices(self, epoch: int, batch: int) -> Tensor:
        """Which samples of the split batch number `batch` of `epoch` is made of: (B,) int64; reads none of them."""
        if not 0 <= batch < len(self):
            raise IndexError(f"batch {batch} of {len(self)}")
        return self._cut(self._order(epoch), batch)

    def order(self, epoch: int) -> Tensor:
        """Which samples of the split `epoch` is made of, as they come: int64."""
        return self._order(epoch)[: self.samples(0, len(self))]

    def own(self, epoch: int) -> Tensor:
        """`order`, of this process's samples."""
        if self.share is None:
            return self.order(epoch)
        order = self._order(epoch)
        return torch.cat([self._own(order, number)[1] for number in range(len(self))])

    def _order(self, epoch: int) -> Tensor:
        count = self.samples(0, len(self))
        return arrangement(self.split, self.batch_size, self.shuffle_seed, epoch, count)

    def _cut(self, order: Tensor, batch: int) -> Tensor:
        return order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _own(self, order: Tensor, batch: int) -> tuple[int, Tensor]:
        """The samples that this process has of a batch, and the position of the first."""
        start = batch * self.batch_size
        if self.share is None:
            return start, self._cut(order, batch)
        first, last = part(start, min(start + self.batch_size, len(self.split)), *self.share)
        return first, order[first:last]

    def _fetched(self, epoch: int, start: int) -> Iterator[Batch]:
        numbers = range(start, len(self))
        tuner = None if self.tuner is None or self.tuner.done else self.tuner
        if self.workers.number == 0 and tuner is None:
            order = self._order(epoch)
            if self.device.type == "cuda":
                order = order.pin_memory()  # of a set that lives on the device the indices travel, and nothing waits
            for number in numbers:  # not map: a StopIteration from a read would end it without a word
                yield self._read(epoch, number, order)
            return
        batches = self.workers.fetched(self, ((epoch, number) for number in numbers))
        with closing(batches if tuner is None else tuner.watched(batches)) as fetched:
            yield from fetched

    def fetch(self, key: Key) -> Batch:
        """Batch number `key[1]` of epoch `key[0]`, read and augmented: the part that any process may do."""
        epoch, number = key
        if self._known is None or self._known[0] != epoch:
            self._known = epoch, self._order(epoch)
        return self._read(epoch, number, self._known[1])

    def _read(self, epoch: int, number: int, order: Tensor) -> Batch:
        if self.share is None:
            position, indices = number * self.batch_size, self._cut(order, number)
        else:
            position, indices = self._own(order, number)
            if not len(indices):  # as any other batch, but without samples; a split needn't know how to do that
                return self.split.fetch(order[:1])[:0], rows(self.split.targets, indices)
        inputs = self.split.fetch(indices)
        if self.augment is not None:
            inputs = torch.from_numpy(self.augment(inputs.numpy(), epoch, position))
        return inputs, rows(self.split.targets, indices)

    def __getstate__(self) -> dict[str, Any]:
        """What goes to a loader process that isn't forked: what `fetch` needs, and nothing that can't travel."""
        here = ("prepare", "device_augment", "mix", "device", "workers", "tuner")
        return {**self.__dict__, **dict.fromkeys(here)}
