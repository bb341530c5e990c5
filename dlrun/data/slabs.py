"""The way of a batch from one process to another: through a few slabs of shared memory, used again and again.

Fresh shared memory for each batch costs more than the copy: every page of it is found, cleared and mapped twice.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SMALL = 2**16  # bytes that travel in the message itself; the labels of an epoch, kept, then keep no slab


@dataclass(slots=True)
class Part:
    """A tensor on its way."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    where: bytes | int  # its bytes, or the number of the slab that they are at the beginning of
    slab: Tensor | None = None  # the slab itself, if it is a new one


class Sender:
    """The slabs of a process that sends. Raises RuntimeError if there is no shared memory for another."""

    def __init__(self) -> None:
        self.slabs: dict[int, Tensor] = {}  # each (bytes,) uint8
        self.free: list[int] = []

    def put(self, tensor: Tensor) -> Part:
        flat, shape = tensor.contiguous().flatten().view(torch.uint8), tuple(tensor.shape)
        if len(flat) <= SMALL:
            return Part(tensor.dtype, shape, flat.numpy().tobytes())
        number = next((number for number in self.free if len(self.slabs[number]) >= len(flat)), None)
        if number is not None:
            self.free.remove(number)
            self.slabs[number][: len(flat)] = flat
            return Part(tensor.dtype, shape, number)
        # Instead of one that is too small, if there is one, so that there are no more of them than are in use at once.
        number = self.free.pop() if self.free else len(self.slabs)
        self.slabs[number] = flat.clone().share_memory_()
        return Part(tensor.dtype, shape, number, self.slabs[number])

    def take_back(self, numbers: Iterable[int]) -> None:
        """The receiver has no more use for what is in these."""
        self.free.extend(numbers)


class Receiver:
    """The other end: tensors in the sender's slabs. `free` fills as the last of those in a slab dies."""

    def __init__(self) -> None:
        self.slabs: dict[int, np.ndarray] = {}
        self.free: list[int] = []

    def take(self, part: Part) -> Tensor:
        if isinstance(part.where, bytes):
            flat = torch.frombuffer(bytearray(part.where), dtype=torch.uint8) if part.where else torch.empty(0).byte()
        else:
            if part.slab is not None:
                self.slabs[part.where] = part.slab.numpy()
            array = self.slabs[part.where][: math.prod(part.shape) * part.dtype.itemsize]
            flat = torch.from_numpy(array)  # holds on to `array` as long as any tensor looks into it
            weakref.finalize(array, self.free.append, part.where).atexit = False
            del array
        return flat.view(part.dtype).view(part.shape)

    def refuse(self, parts: Iterable[Part]) -> None:
        """Nobody wants them."""
        for part in parts:
            self.take(part)

    def to_give_back(self) -> list[int]:
        """The slabs that the sender may use again; told once."""
        numbers = self.free[:]
        del self.free[: len(numbers)]  # another thread may have added to it
        return numbers
