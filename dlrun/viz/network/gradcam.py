"""Grad-CAM (Selvaraju et al. 2017): where a layer has what speaks for a class.

A channel's weight is the mean over its places of the gradient of the class's logit; the map is the ReLU of the
channels' weighted sum.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.errors import UserError, choices
from dlrun.viz.network.convolutions import Call, Stage, only_cuts_patches, overwrite_nothing, record
from dlrun.viz.network.features import words_per_step


@dataclass(frozen=True)
class GradCam:
    """`signed` is the sum before its ReLU, at the layer's places: (H, W), or (L,) of a text's steps.

    `laid` is its ReLU at the input's places: bilinear on a picture (H, W), each word its own step's (L,).
    """

    layer: str
    target: int
    signed: np.ndarray
    laid: np.ndarray
    layers: list[tuple[str, tuple[int, ...]]]  # what `layer` may be, and the shapes of their outputs


def gradcam(network: nn.Module, inputs: Tensor, target: int | None, layer: str | None, model: str) -> GradCam:
    """Of one sample, `inputs` (1, …); without a target of the network's answer, without a layer of the last maps.

    Raises UserError for a layer that isn't there or has no maps, and where the network has none.
    """
    calls, stages, logits = record(network, inputs)
    names = [call.name for call in calls]
    layers = [
        (stage.last if names.count(stage.last) == 1 else stage.name, tuple(stage.output.shape[1:]))
        for stage in stages
        if _places(stage.output.shape) > 1
    ]
    if layer is None:
        layer = _last_maps(network, calls, stages, model)
    else:
        _check(layer, calls, [name for name, _ in layers])
    goal = int(logits[0].argmax()) if target is None else target
    signed = _attributed(network, network.get_submodule(layer), inputs, goal)  # (1, 1, …)
    if not torch.isfinite(signed).all():
        raise UserError("plot gradcam: the network's gradients aren't finite")
    laid = signed.relu()
    if inputs.ndim == 4:
        laid = nn.functional.interpolate(laid, inputs.shape[2:], mode="bilinear", align_corners=False)[0, 0]
    else:
        step = words_per_step(network, inputs, layer, signed)
        places = (torch.arange(inputs.shape[1]) / step).long().clamp_max(signed.shape[-1] - 1)
        laid = laid[0, 0][places.to(laid.device)]
    return GradCam(layer, goal, signed[0, 0].cpu().numpy(), laid.cpu().numpy(), layers)


def _attributed(network: nn.Module, layer: nn.Module, inputs: Tensor, target: int) -> Tensor:
    from captum.attr import LayerGradCam

    overwrite_nothing(network)
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's on a backward hook
        found = LayerGradCam(network, layer).attribute(inputs, target=target)
    assert isinstance(found, Tensor)
    return found.detach().float()


def _last_maps(network: nn.Module, calls: Sequence[Call], stages: Sequence[Stage], model: str) -> str:
    """The last module with maps of the last convolution's size, be it a block of many: a ResNet's `layer4`."""
    with_places = [stage for stage in stages if _places(stage.output.shape) > 1]
    if only_cuts_patches(network):
        raise UserError(
            f"plot gradcam: the one convolution of '{model}' only cuts the picture into patches; "
            "dlrun plot attention shows where it looks"
        )
    if not with_places:
        raise UserError(f"plot gradcam: no convolution of '{model}' has a map of more than one place for such a sample")
    stage = with_places[-1]
    size = tuple(stage.output.shape[2:])
    names = [call.name for call in calls]
    start = max(place for place, name in enumerate(names) if name == stage.name)
    return [
        call.name
        for call in calls[start:]
        if call.name and call.shape[2:] == size and len(call.shape) == stage.output.ndim and names.count(call.name) == 1
    ][-1]


def _check(layer: str, calls: Sequence[Call], convolutions: Sequence[str]) -> None:
    shapes = [call.shape for call in calls if call.name == layer]
    if not shapes or not layer:
        raise UserError(f"layer: unknown layer '{layer}'{choices(layer, convolutions)}")
    if len(shapes) > 1:
        raise UserError(f"layer: '{layer}' is used {len(shapes)} times{choices('', convolutions)}")
    if len(shapes[0]) not in (3, 4) or _places(shapes[0]) < 2:
        shape = "×".join(map(str, shapes[0][1:])) or "no tensor"
        raise UserError(f"layer: '{layer}' gives {shape}, which isn't maps with places{choices('', convolutions)}")


def _places(shape: Sequence[int]) -> int:
    return int(np.prod(shape[2:]))
