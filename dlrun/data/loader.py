"""Batches of a split, in an order that depends on (seed, epoch) alone, from any position on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dlrun.data.augment import Augment
from dlrun.data.order import shuffled
from dlrun.data.prepare import Mix
from dlrun.data.source import Split
from dlrun.errors import UserError

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
    shuffle_seed: int | None = None  # None keeps the split's own order
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

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of `epoch` from batch number `start` on; nothing before it is read."""
        for (_, position, _), (inputs, targets) in self._fetched(self._keys(epoch, start)):
            inputs, targets = self.prepare(inputs), targets.to(self.device, non_blocking=True)
            if self.mix is not None:
                inputs, targets = self.mix(inputs, targets, epoch, position)
            yield inputs, targets

    def indices(self, epoch: int, batch: int) -> Tensor:
        return self._keys(epoch, batch)[0][2]

    def _keys(self, epoch: int, start: int) -> list[Key]:
        if self.shuffle_seed is None:
            order = torch.arange(len(self.split))
        else:
            order = shuffled(len(self.split), self.shuffle_seed, epoch)
        size = self.batch_size
        return [(epoch, b * size, order[b * size : (b + 1) * size]) for b in range(start, len(self))]

    def _fetched(self, keys: list[Key]) -> Iterator[tuple[Key, tuple[Tensor, Tensor]]]:
        fetch = _Fetch(self.split, self.augment)
        if self.num_workers == 0:
            return ((key, _or_raise(fetch[key])) for key in keys)
        loader: DataLoader[Any] = DataLoader(
            fetch,
            batch_size=None,  # a key is a whole batch already
            sampler=keys,
            num_workers=min(self.num_workers, len(keys)),
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # or it draws a number from the global one, and dropout sees others
        )
        return zip(keys, map(_or_raise, loader), strict=True)


def _or_raise(fetched: Any) -> tuple[Tensor, Tensor]:
    if isinstance(fetched, UserError):
        raise fetched
    return fetched  # type: ignore[no-any-return]


class _Fetch(Dataset[Any]):
    """Reads and augments one batch; knows nothing but its key, so any worker may do it."""

    def __init__(self, split: Split, augment: Augment | None):
        self.split, self.augment = split, augment

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor] | UserError:
        epoch, position, indices = key
        try:
            inputs = self.split.fetch(indices)
        except UserError as error:
            return error  # raised in a worker it would arrive wrapped in a traceback
        if self.augment is not None:
            inputs = torch.from_numpy(self.augment(inputs.numpy(), epoch, position))
        return inputs, self.split.targets[indices]
