"""Augmentation of whole batches with tensor operations, on the device that trains: `augment.backend=tensor`.

The transforms of the standard chain, under albumentations' names, with its options and its distributions, and without
importing it. What a sample gets depends on (seed, epoch, position) alone. Pictures stay floats between transforms,
where albumentations goes back to 256 levels after each.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dlrun.data.order import OWN, TENSOR, philox, uniform_rows
from dlrun.data.rearrangement import HorizontalFlip, Move, Pad, RandomCrop, Rearrangement, VerticalFlip
from dlrun.data.tensor_affine import Affine
from dlrun.data.tensor_transform import Lot, Shape, Step, Transform
from dlrun.data.tensor_values import CoarseDropout, RandomBrightnessContrast
from dlrun.errors import OptionError, UserError, choices
from dlrun.registry import check_options, check_value

KNOWN: dict[str, type[Transform]] = {
    kind.__name__: kind
    for kind in (HorizontalFlip, VerticalFlip, Affine, RandomBrightnessContrast, CoarseDropout, Pad, RandomCrop)
}
ELSE = " with augment.backend=tensor; augment.backend=albumentations has all of albumentations"


class TensorAugment:
    """Augments uint8 pictures (B, H, W, C) on `device` and makes them what a model takes, by `prepare`.

    `shape` is (H, W, C). Raises UserError for a transform or an option that there is none of here, and for a chain that
    changes the pictures' size.
    """

    def __init__(
        self,
        transforms: Sequence[Mapping[str, Any]],
        seed: int,
        shape: Shape,
        device: torch.device,
        prepare: Callable[[Tensor], Tensor],
    ):
        self.seed, self.device, self.prepare = seed, device, prepare
        self.steps: list[tuple[Step, Shape]] = []
        self.own, self.remembers = np.empty(0), False
        before = shape
        check_value(transforms, list[Any], "augment.transforms")
        for place, entry in enumerate(transforms):
            before = self._add(entry, before, f"augment.transforms.{place}")
        if before != shape:
            raise UserError(
                f"augment: the transforms turn a {shape} image into {before}; they must keep its size "
                "(data.image_size sets the size; RandomCrop after Pad keeps it)"
            )
        self.draws = sum(step.draws for step, _ in self.steps)

    def _add(self, entry: Mapping[str, Any], shape: Shape, key: str) -> Shape:
        transform, key = _build(entry, key)
        try:
            after = transform.check(shape)
        except OptionError as error:
            raise UserError(f"{key}.{error}") from None
        self.remembers |= isinstance(transform, HorizontalFlip) and transform.alternate
        if not isinstance(transform, Move):
            self.steps.append((cast(Step, transform), shape))
        elif self.steps and isinstance(last := self.steps[-1][0], Rearrangement) and last.fits(transform):
            joined: Step = Rearrangement([*last.moves, transform])
            self.steps[-1] = (joined, self.steps[-1][1])
        else:
            self.steps.append((Rearrangement([transform]), shape))
        return after

    def __call__(self, pixels: Tensor, epoch: int, position: int, indices: Tensor | None = None) -> Tensor:
        """The model's input out of the pictures that stand at `position`, `position` + 1, … of the epoch's order.

        `indices` (B,) are theirs in the split. On a GPU everything is queued, and nothing waited for.
        """
        drawn = self._draw(len(pixels), epoch, position, indices)
        images = pixels.to(self.device, non_blocking=True)
        tensors = iter(sent([array for _, arrays in drawn for array in arrays], self.device))
        for step, arrays in drawn:
            images = step.apply(images, *(next(tensors) for _ in arrays))
        return self.prepare(images)

    def _draw(
        self, count: int, epoch: int, position: int, indices: Tensor | None
    ) -> list[tuple[Step, list[np.ndarray]]]:
        """The transforms that some sample of this batch gets, and with what."""
        uniforms = uniform_rows(self.seed, epoch, TENSOR, position, (count, self.draws))
        own = self._own_numbers(indices) if self.remembers else np.empty(0)
        drawn, first = [], 0
        for step, shape in self.steps:
            arrays = step.draw(Lot(uniforms[:, first : first + step.draws], epoch, own), shape)
            first += step.draws
            if arrays is not None:
                drawn.append((step, arrays))
        return drawn

    def _own_numbers(self, indices: Tensor | None) -> np.ndarray:
        if indices is None:
            raise ValueError("HorizontalFlip.alternate needs the samples' indices")
        wanted = indices.cpu().numpy()
        highest = int(wanted.max(initial=0))
        if len(self.own) <= highest:  # a longer sequence begins as the shorter one did
            self.own = philox(self.seed, 0, OWN).random(2 << highest.bit_length())
        return self.own[wanted]


def _build(entry: Mapping[str, Any], key: str) -> tuple[Transform, str]:
    """One `{Name: {option: value}}`, and its key with the name."""
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise UserError(f"{key}: expected one transform as 'Name: {{options}}', got {entry!r}")
    ((name, options),) = entry.items()
    if name not in KNOWN:
        raise UserError(f"{key}: unknown transform '{name}'{choices(str(name), KNOWN)}{ELSE}")
    key = f"{key}.{name}"
    check_value(options, dict[str, Any] | None, key)
    options, known = dict(options or {}), inspect.signature(KNOWN[name]).parameters
    for option in options:
        if option not in known:
            raise UserError(f"{key}.{option}: unknown option{choices(str(option), known)}{ELSE}")
    try:
        check_options(KNOWN[name], options, key)
    except UserError as error:
        raise UserError(f"{error}{ELSE}") from None
    return KNOWN[name](**options), key


def sent(arrays: Sequence[np.ndarray], device: torch.device, at_once: bool | None = None) -> list[Tensor]:
    """The arrays on the device; on a GPU all in one copy, from memory that it can read while the CPU goes on."""
    tensors, cuda = [torch.from_numpy(array) for array in arrays], device.type == "cuda"
    if not tensors or not (cuda if at_once is None else at_once):
        return [tensor.to(device) for tensor in tensors]
    starts = np.cumsum([0, *(-(-tensor.nbytes // 16) * 16 for tensor in tensors)]).tolist()  # aligned for any type
    staged = torch.empty(starts.pop(), dtype=torch.uint8, pin_memory=cuda)

    def part(whole: Tensor, start: int, tensor: Tensor) -> Tensor:
        return whole[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)

    for tensor, start in zip(tensors, starts, strict=True):
        part(staged, start, tensor).copy_(tensor)
    there = staged.to(device, non_blocking=True)
    return [part(there, start, tensor) for tensor, start in zip(tensors, starts, strict=True)]
