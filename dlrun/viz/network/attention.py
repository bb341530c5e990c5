"""Where a network looks: each layer's attention, what it comes to through all layers, and an LSTM's pooling.

T tokens of a sample, h heads of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.recurrent import Recurrent
from dlrun.models.transformer import Patches, Transformer


@dataclass(frozen=True)
class Attention:
    """`layers`: (h, T, T) each, row i says where token i looks, and sums to 1.

    `prefix` tokens stand before the sample's own, the class token for one; the answer is read from the class token
    (`from_class_token`), or from the mean of all others. A picture's tokens are patches, `grid` (rows, columns) of
    them; a text's, and `grid` is None, are its words.
    """

    layers: list[Tensor]
    prefix: int
    from_class_token: bool
    grid: tuple[int, int] | None

    def read(self, weights: Tensor) -> Tensor:
        """Of weights (…, T, T) what the answer is read from: how much it looks at each word or patch, (…, T - prefix).

        The class token's row, or the mean over those of the words or patches.
        """
        rows = weights[..., 0, :] if self.from_class_token else weights[..., self.prefix :, :].mean(dim=-2)
        return rows[..., self.prefix :]

    @property
    def reader(self) -> str:
        if self.from_class_token:
            return "the class token's row"
        return "the mean over the words' rows" if self.grid is None else "the mean over the patches' rows"


def rollout(layers: Sequence[Tensor]) -> Tensor:
    """What attention comes to through all layers: (T, T), rows sum to 1 (Abnar & Zuidema 2020, section 3).

    Of each layer the mean over its heads, half of it the residual that passes a token on as it is.
    """
    total = torch.eye(layers[0].shape[-1], dtype=torch.float64)
    for weights in layers:
        mixed = weights.double().cpu().mean(dim=0)
        mixed = 0.5 * mixed + 0.5 * torch.eye(len(mixed), dtype=torch.float64)
        total = mixed / mixed.sum(dim=-1, keepdim=True) @ total
    return total


@torch.no_grad()
def pooling(network: Recurrent, inputs: Tensor) -> Tensor:
    """How much each word or row of pixels of one sample counts: (L,), sums to 1. Raises UserError without attention."""
    if network.attention is None:
        raise UserError(
            "plot attention: this model's last step decides, it has no attention; train it with model.attention=true"
        )
    return network.attention_weights(inputs)[0].float().cpu()


def attention(network: nn.Module, inputs: Tensor, model: str) -> Attention:
    """Of one sample, `inputs` (1, …); of dlrun's transformer, and of torchvision's and timm's vision transformers.

    Raises UserError for a network without attention, or whose tokens are no grid of patches (windows, say).
    """
    if isinstance(network, Transformer):
        with torch.no_grad():
            layers = [weights[0].float().cpu() for weights in network.attention_weights(inputs)]
        has_class = network.class_token is not None
        patches = network.embedding if isinstance(network.embedding, Patches) else None
        sides = None if patches is None else (inputs.shape[2] // patches.height, inputs.shape[3] // patches.width)
        return Attention(layers, int(has_class), has_class, sides)
    layers = _overheard(network, inputs)
    if not layers:
        raise UserError(
            f"plot attention: the model '{model}' has no attention that can be seen; train model=transformer, or lstm "
            "(which pools by attention), or see dlrun plot gradcam"
        )
    grid, prefix, from_class = _patches(network)
    if grid is None or any(w.shape[0] != 1 or w.shape[-1] != math.prod(grid) + prefix for w in layers):
        shapes = sorted({"×".join(map(str, weights.shape)) for weights in layers})
        raise UserError(
            f"plot attention: the attention of '{model}' isn't between the patches of a picture, as a vision "
            f"transformer's is (windows, or several sizes: {', '.join(shapes)}); see dlrun plot gradcam"
        )
    return Attention([weights[0].float().cpu() for weights in layers], prefix, from_class, grid)


def _patches(network: Any) -> tuple[tuple[int, int] | None, int, bool]:
    """The grid of patches, how many tokens stand before them, and whether the class token is read."""
    if hasattr(network, "conv_proj") and hasattr(network, "class_token"):  # torchvision's VisionTransformer
        side = network.image_size // network.patch_size
        return (side, side), 1, True
    size = getattr(getattr(network, "patch_embed", None), "grid_size", None)  # timm's
    prefix = int(getattr(network, "num_prefix_tokens", 0))
    pool = getattr(network, "global_pool", "")
    return (None if size is None else (int(size[0]), int(size[1])), prefix, prefix > 0 and pool == "token")


def _overheard(network: nn.Module, inputs: Tensor) -> list[Tensor]:
    """The weights of all layers whose attention is torch's nn.MultiheadAttention or timm's: (B, h, T, T) each."""
    heard: list[Tensor] = []
    handles: list[Any] = []

    def asks(module: nn.Module, given: Any, named: dict[str, Any]) -> Any:
        return given, {**named, "need_weights": True, "average_attn_weights": False}

    def keep(weights: object) -> None:
        if isinstance(weights, Tensor) and weights.ndim == 4 and weights.shape[2] == weights.shape[3]:
            heard.append(weights.detach())

    for module in network.modules():
        if isinstance(module, nn.MultiheadAttention):
            handles.append(module.register_forward_pre_hook(asks, with_kwargs=True))
            handles.append(module.register_forward_hook(lambda _, given, output: keep(output[1])))
        elif isinstance(getattr(module, "fused_attn", None), bool):
            drop = getattr(module, "attn_drop", None)
            if isinstance(drop, nn.Module):
                handles.append(drop.register_forward_hook(lambda _, given, output: keep(output)))
    with _unfused(network), torch.no_grad():
        try:
            network(inputs)
        finally:
            for handle in handles:
                handle.remove()
    return heard


@contextmanager
def _unfused(network: nn.Module) -> Iterator[None]:
    """While this lasts, timm's layers compute their weights, where a fused kernel would never write them."""
    fused = [module for module in network.modules() if getattr(module, "fused_attn", None) is True]
    for module in fused:
        module.fused_attn = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]
