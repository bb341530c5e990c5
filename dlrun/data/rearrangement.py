"""Flips, padding and crops: whole pixels that change their places, any number of such transforms as one gather.

Each of them maps rows and columns separately: row y of the result is row `rows[y]` of the picture, column x is column
`columns[x]`. So a chain of them is a chain of small index arrays, worked out before a pixel is touched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Le, MaxLen, MinLen
from torch import Tensor

from dlrun.data.tensor_transform import Gray, Lot, Shape, Transform, check_fill, filling, kept_or_filled, whole_between
from dlrun.errors import OptionError
from dlrun.registry import Count, Ratio

OUTSIDE = -1  # the index of what comes from nowhere and is filled
BORDERS = {0: "constant", 1: "edge", 2: "symmetric", 3: "wrap", 4: "reflect"}  # cv2's numbers, NumPy's names

Maps = tuple[np.ndarray, np.ndarray]  # rows (1 or B, H) and columns (1 or B, W)
Padding = Annotated[int, Ge(0), Le(4096)]
Sides = Annotated[list[Padding], MinLen(2), MaxLen(4)]


@dataclass(frozen=True, kw_only=True)
class Move(Transform, ABC):
    """A transform that only moves pixels; `Rearrangement` does it."""

    @abstractmethod
    def moved(self, maps: Maps, lot: Lot) -> Maps:
        """Where rows and columns come from when this is done to what `maps` gives."""


@dataclass(frozen=True, kw_only=True)
class HorizontalFlip(Move):
    """Mirrors left and right.

    With `alternate` a coin is tossed for a sample once, and from then on it is mirrored in every other epoch: any two
    epochs in a row show both sides of all samples (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.6).
    """

    alternate: bool = False
    p: Ratio = 0.5

    def check(self, shape: Shape) -> Shape:
        if self.alternate and self.p != 0.5:
            raise OptionError("p", f"expected 0.5 with alternate, which flips half of the samples, got {self.p}")
        return shape

    def moved(self, maps: Maps, lot: Lot) -> Maps:
        rows, columns = maps
        on = (lot.own < 0.5) ^ bool(lot.epoch % 2) if self.alternate else lot.uniforms[:, 0] < self.p
        return rows, np.where(on[:, None], columns[:, ::-1], columns)


@dataclass(frozen=True, kw_only=True)
class VerticalFlip(Move):
    """Mirrors top and bottom."""

    p: Ratio = 0.5

    def moved(self, maps: Maps, lot: Lot) -> Maps:
        rows, columns = maps
        return np.where((lot.uniforms[:, 0] < self.p)[:, None], rows[:, ::-1], rows), columns


@dataclass(frozen=True, kw_only=True)
class Pad(Move):
    """Adds `padding` pixels to each side: a number, [x, y], or [left, top, right, bottom]."""

    padding: Padding | Sides = 0
    border_mode: Literal[0, 1, 2, 3, 4] = 0
    fill: Gray | list[Gray] = 0.0
    p: Ratio = 1.0

    def check(self, shape: Shape) -> Shape:
        _check_always(self.p)
        if isinstance(self.padding, list) and len(self.padding) == 3:
            raise OptionError("padding", f"expected a number, [x, y] or [left, top, right, bottom], got {self.padding}")
        check_fill(self.fill, shape)
        left, top, right, bottom = self.sides()
        return shape[0] + top + bottom, shape[1] + left + right, shape[2]

    def sides(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom."""
        given = self.padding if isinstance(self.padding, list) else [self.padding]
        left, top, right, bottom = given if len(given) == 4 else (given * 2)[:2] * 2
        return left, top, right, bottom

    def moved(self, maps: Maps, lot: Lot) -> Maps:
        rows, columns = maps
        left, top, right, bottom = self.sides()
        return self.padded(rows, top, bottom), self.padded(columns, left, right)

    def padded(self, indices: np.ndarray, before: int, after: int) -> np.ndarray:
        options = {"constant_values": OUTSIDE} if self.border_mode == 0 else {}
        return np.pad(indices, ((0, 0), (before, after)), mode=BORDERS[self.border_mode], **options)  # type: ignore[call-overload]


@dataclass(frozen=True, kw_only=True)
class RandomCrop(Move):
    """Cuts out `height` × `width` pixels, from anywhere."""

    height: Count
    width: Count
    p: Ratio = 1.0

    @property
    def draws(self) -> int:
        return 2

    def check(self, shape: Shape) -> Shape:
        _check_always(self.p)
        for option, there in (("height", shape[0]), ("width", shape[1])):
            if getattr(self, option) > there:
                raise OptionError(option, f"expected at most the picture's {there}, got {getattr(self, option)}")
        return self.height, self.width, shape[2]

    def moved(self, maps: Maps, lot: Lot) -> Maps:
        rows, columns = maps
        return _cut(rows, self.height, lot.uniforms[:, 0]), _cut(columns, self.width, lot.uniforms[:, 1])


def _check_always(p: float) -> None:
    if p != 1:
        raise OptionError("p", f"expected 1, since all pictures of a batch have one size, got {p}")


def _cut(indices: np.ndarray, length: int, uniforms: np.ndarray) -> np.ndarray:
    first = whole_between(0, indices.shape[1] - length, uniforms)
    indices = np.broadcast_to(indices, (len(first), indices.shape[1]))
    return np.take_along_axis(indices, first[:, None] + np.arange(length), axis=1)


class Rearrangement:
    """Some moves in a row."""

    def __init__(self, moves: Sequence[Move]):
        self.moves = moves
        self.draws = sum(move.draws for move in moves)
        self.fill = next((move.fill for move in moves if isinstance(move, Pad) and move.border_mode == 0), 0.0)

    def fits(self, move: Move) -> bool:
        """Whether another move can join; there is room for one value to fill with."""
        filled = any(isinstance(own, Pad) and own.border_mode == 0 for own in self.moves)
        return not (filled and isinstance(move, Pad) and move.border_mode == 0 and move.fill != self.fill)

    def draw(self, lot: Lot, shape: Shape) -> list[np.ndarray] | None:
        """For each sample that changes, where its rows and columns begin in the batch, as one long list of pixels."""
        height, width, channels = shape
        rows, columns, first = np.arange(height)[None], np.arange(width)[None], 0
        for move in self.moves:
            part = Lot(lot.uniforms[:, first : first + move.draws], lot.epoch, lot.own)
            (rows, columns), first = move.moved((rows, columns), part), first + move.draws
        chosen = _changed(rows, height) | _changed(columns, width)
        if not chosen.any():
            return None
        count = len(lot.uniforms)
        changed = np.flatnonzero(chosen) if len(chosen) == count else np.arange(count)
        rows, columns = (part if len(part) == 1 else part[changed] for part in (rows, columns))
        order = np.arange(count)
        order[changed] = np.arange(count, count + len(changed))
        mirrored = columns.shape[1] == width and (columns == np.arange(width)[::-1]).all()
        if mirrored and not _changed(rows, height).any():
            return [order, changed]  # mirrored and nothing else: there is a faster way
        drawn = [order, changed[:, None] * (height * width) + np.maximum(rows, 0) * width, np.maximum(columns, 0)]
        if (rows == OUTSIDE).any() or (columns == OUTSIDE).any():
            inside = [(rows != OUTSIDE).astype(np.uint8), (columns != OUTSIDE).astype(np.uint8)]
            drawn += [inside[0], np.repeat(inside[1], channels, axis=1), *filling(self.fill, shape, columns.shape[1])]
        return drawn

    def apply(self, images: Tensor, *drawn: Tensor) -> Tensor:
        order, *places = drawn
        moved = images.index_select(0, places[0]).flip(2) if len(places) == 1 else self._gathered(images, *places)
        return moved if len(moved) == len(images) else torch.cat([images, moved]).index_select(0, order)

    @staticmethod
    def _gathered(images: Tensor, rows: Tensor, columns: Tensor, *outside: Tensor) -> Tensor:
        """rows (b, H') and columns (b, W'); and which of them aren't outside, and what to fill with, if some are."""
        channels = images.shape[3]
        index = rows[:, :, None] + columns[:, None, :]  # (b, H', W')
        moved = images.reshape(-1, channels).index_select(0, index.flatten()).view(*index.shape, channels)
        if outside:
            inside = outside[0][:, :, None] & outside[1][:, None, :]
            moved = kept_or_filled(moved.flatten(2), inside, *outside[2:]).view(moved.shape)
        return moved


def _changed(indices: np.ndarray, length: int) -> np.ndarray:
    """Which samples (1 or B,) have another order or number of rows or columns than the picture."""
    if indices.shape[1] != length:
        return np.ones(len(indices), bool)
    return (indices != np.arange(length)).any(axis=1)
