"""Test-time augmentation: a picture is judged by the mean logits of several views of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from dlrun.errors import UserError
from dlrun.spec import DataSpec

TTA = Literal["none", "flip", "flip_shift"]
VIEWS: dict[TTA, int] = {"none": 1, "flip": 2, "flip_shift": 6}


def checked(tta: TTA, spec: DataSpec) -> TTA:
    """`tta` itself. Raises UserError where there can be no such views."""
    if tta != "none" and spec.modality != "image":
        raise UserError(f"trainer.tta: is for images, and the data is {spec.modality}; set it to none")
    if tta == "flip_shift" and min(spec.shape[1:]) < 2:
        raise UserError("trainer.tta: flip_shift needs pictures of two pixels or more on each side; take flip")
    return tta


def averaged(model: Callable[[Tensor], Tensor], images: Tensor, tta: TTA) -> Tensor:
    """Logits (B, K) of images (B, C, H, W).

    "flip": the picture and its mirror image, each one half. "flip_shift": that of the picture one half, that of the
    picture moved by a pixel down and right, or up and left, a quarter each (Jordan 2024, section 3.5; borders are
    reflected, so sides have two pixels or more).
    """
    if tta == "none":
        return model(images)
    if tta == "flip":
        return _mirrored(model, images)
    around = F.pad(images, (1, 1, 1, 1), "reflect")
    moved = _mirrored(model, around[..., :-2, :-2]) + _mirrored(model, around[..., 2:, 2:])
    return 0.5 * _mirrored(model, images) + 0.25 * moved


def _mirrored(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return 0.5 * (model(images).float() + model(images.flip(-1)).float())
