"""What a transform of `augment.backend=tensor` is, and how ranges are drawn from.

Its options are albumentations' own, under the same names. What is random is drawn on the CPU, for a whole batch at once
and out of a fixed number of uniforms per sample, so that neither the batch's size nor the other samples matter; what is
drawn goes to the device as a few small arrays, and what is done there needs no word back.

B samples of (H, W, C) pixels with values from 0 to 255.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
from annotated_types import Ge, Le, MaxLen, MinLen
from torch import Tensor

from dlrun.errors import OptionError

Shape = tuple[int, int, int]  # H, W, C
Pair = Annotated[list[float], MinLen(2), MaxLen(2)]
Whole = Annotated[list[int], MinLen(2), MaxLen(2)]
Gray = Annotated[float, Ge(0), Le(255)]


@dataclass(frozen=True)
class Lot:
    """What the draws of one batch depend on, and nothing else."""

    uniforms: np.ndarray  # (B, draws) in [0, 1)
    epoch: int
    own: np.ndarray  # (B,) in [0, 1): each sample's own number, the same in every epoch


@dataclass(frozen=True, kw_only=True)
class Transform:
    """One transform of the chain, and its options: albumentations' own. A sample gets it with probability `p`."""

    @property
    def draws(self) -> int:
        """Uniforms that each sample takes."""
        return 1

    def check(self, shape: Shape) -> Shape:
        """The shape that pictures of `shape` have afterwards. Raises OptionError for what can't be done to them."""
        return shape


class Step(Protocol):
    """What is done to a batch at once: one transform, or several."""

    @property
    def draws(self) -> int: ...

    def draw(self, lot: Lot, shape: Shape) -> list[np.ndarray] | None:
        """What `apply` needs to know of this batch of pictures of `shape`; None if none of them is to change."""

    def apply(self, images: Tensor, *drawn: Tensor) -> Tensor:
        """images (B, H, W, C), uint8 as they came or float32 that may be changed in place → the transformed ones."""


def between(limits: tuple[float, float], uniforms: np.ndarray) -> np.ndarray:
    """Numbers of [a, b), as `random.uniform` makes them."""
    low, high = limits
    return low + (high - low) * uniforms


def whole_between(low: np.ndarray | int, high: np.ndarray | int, uniforms: np.ndarray) -> np.ndarray:
    """Whole numbers from `low` to `high`, both included, each as likely: int64."""
    return low + np.floor((high - low + 1) * uniforms).astype(np.int64)


def limits_of(value: Any) -> tuple[float, float]:
    """A range as albumentations reads it: one number is that number, two may stand in any order."""
    return (min(value), max(value)) if isinstance(value, list) else (value, value)


def limits_of_axes(option: str, value: Any, default: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ranges of x and y: one for both, though each axis draws for itself, or a mapping with one or two of them."""
    if not isinstance(value, Mapping):
        return limits_of(value), limits_of(value)
    if not value or value.keys() - {"x", "y"}:
        raise OptionError(option, f"expected a range, or a mapping with x and y, got {value!r}")
    return limits_of(value.get("x", default)), limits_of(value.get("y", default))


def filling(fill: float | list[float], shape: Shape, times: int = 1) -> list[np.ndarray]:
    """The value of a pixel that is filled, (times · C,) float32, as the last of what is drawn; [] if that is 0."""
    values = np.broadcast_to(np.asarray(fill, np.float32), shape[2:])
    return [np.tile(values, times)] if values.any() else []


def check_fill(fill: float | list[float], shape: Shape) -> None:
    if isinstance(fill, list) and len(fill) != shape[2]:
        raise OptionError("fill", f"expected one number or one for each of {shape[2]} channels, got {fill!r}")


def selected(images: Tensor, chosen: Tensor) -> Tensor:
    """The chosen ones of images; with `put_back`, most of the time is saved where a transform is rare."""
    return images if len(chosen) == len(images) else images.index_select(0, chosen)


def put_back(images: Tensor, chosen: Tensor, changed: Tensor) -> Tensor:
    """`images` with `changed` in the places of the chosen ones; `images` is used up."""
    return changed if len(chosen) == len(images) else images.index_copy_(0, chosen, changed)


def kept_or_filled(wide: Tensor, kept: Tensor, fill: Tensor | None = None) -> Tensor:
    """wide (B, H, W · C) where `kept`, uint8, is 1, and fill (W · C,) or 0 where it is 0.

    By multiplication, since a CPU takes several times as long over booleans.
    """
    if fill is None:
        return wide * kept.to(wide.dtype)
    share = kept.float()
    return wide * share + fill * (1 - share)
