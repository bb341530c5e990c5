"""Transformer encoder (Vaswani et al. 2017), on words or on an image's patches (Dosovitskiy et al. 2021).

B batch, T tokens, D model width, h heads, d = D / h.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import OptionError
from dlrun.models.embedding import word_embedding
from dlrun.models.refusal import refuse
from dlrun.registry import Count, Depth, Fraction, Size, models
from dlrun.spec import PAD, DataSpec


@models.register("transformer")
def transformer(
    spec: DataSpec,
    *,
    d_model: Count = 128,
    num_heads: Count = 4,
    d_ff: Count = 256,
    num_layers: Depth = 2,
    dropout: Fraction = 0.1,
    norm_first: bool = True,
    positions: Literal["learned", "sinusoidal"] = "learned",
    pooling: Literal["cls", "mean"] = "mean",
    patch_size: Count | Size | None = None,
) -> nn.Module:
    """Encoder with multi-head attention, pre- or post-norm, on words or patches; class-token or mean pooling.

    Takes texts (B, L), or images (B, C, H, W) as patches of `patch_size` (a side, or [height, width]; null takes the
    largest divisor of the image's size up to an eighth of it, at least 2); gives logits (B, outputs).
    """
    if spec.modality == "tabular":
        raise refuse(spec, "transformer", "tokens (text, or an image's patches)", "perceptron or mlp")
    if d_model % num_heads:
        raise OptionError("num_heads", f"expected a divisor of model.d_model={d_model}, got {num_heads}")
    if positions == "sinusoidal" and d_model % 2:
        raise OptionError("d_model", f"expected an even number with sinusoidal positions, got {d_model}")
    embedding: nn.Module
    if spec.modality == "text":
        if patch_size is not None:
            raise OptionError(
                "patch_size", f"only images are cut into patches; expected null on text, got {patch_size}"
            )
        embedding = word_embedding(spec.vocab_size, d_model)
        length = spec.shape[0]
    else:
        embedding = Patches(spec.shape[0], *_patch(patch_size, spec.shape[1:]), d_model)
        length = math.prod(spec.shape[1:]) // (embedding.height * embedding.width)
    layers = [EncoderLayer(d_model, num_heads, d_ff, dropout, norm_first) for _ in range(num_layers)]
    return Transformer(embedding, layers, d_model, length, positions, pooling, dropout, norm_first, spec.num_outputs)


def _patch(patch_size: int | list[int] | None, image: tuple[int, ...]) -> tuple[int, int]:
    if patch_size is None:
        return tuple(max([d for d in range(1, max(side // 8, 2) + 1) if side % d == 0]) for side in image)  # type: ignore[return-value]
    height, width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    if image[0] % height or image[1] % width:
        raise OptionError("patch_size", f"expected divisors of the image's {image[0]}×{image[1]}, got {patch_size}")
    return height, width


class Transformer(nn.Module):
    def __init__(
        self,
        embedding: nn.Module,
        layers: list[EncoderLayer],
        d_model: int,
        length: int,
        positions: str,
        pooling: str,
        dropout: float,
        norm_first: bool,
        outputs: int,
    ):
        super().__init__()
        self.embedding = embedding
        self.class_token = nn.Parameter(torch.randn(d_model) * 0.02) if pooling == "cls" else None
        self.positions: Tensor
        if positions == "learned":
            self.positions = nn.Parameter(torch.randn(length, d_model) * 0.02)
        else:
            self.register_buffer("positions", sinusoidal(length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(layers)
        # Pre-norm layers leave the sum of all of them un-normalised at the end.
        self.norm = nn.LayerNorm(d_model) if norm_first else nn.Identity()
        self.head = nn.Linear(d_model, outputs)

    def forward(self, x: Tensor) -> Tensor:  # (B, L) or (B, C, H, W) → (B, outputs)
        tokens, valid = self.tokens(x)
        for layer in self.layers:
            tokens = layer(tokens, valid)
        tokens = self.norm(tokens)
        if self.class_token is not None:
            pooled = tokens[:, 0]
        elif valid is None:
            pooled = tokens.mean(dim=1)
        else:
            weights = valid.unsqueeze(-1).to(tokens.dtype)  # (B, T, 1)
            pooled = (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
        return self.head(pooled)

    def attention_weights(self, x: Tensor) -> list[Tensor]:
        """Each layer's attention: (B, h, T, T), rows sum to 1."""
        tokens, valid = self.tokens(x)
        weights = []
        for layer in self.layers:
            weights.append(layer.attention_weights(tokens, valid))  # type: ignore[operator]
            tokens = layer(tokens, valid)
        return weights

    def tokens(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embedded tokens (B, T, D), class token first if there is one, and which are valid (B, T), None for all."""
        embedded = self.embedding(x)  # (B, T, D)
        embedded = embedded + self.positions[: embedded.shape[1]]
        valid = x != PAD if x.ndim == 2 else None
        if self.class_token is not None:
            embedded = torch.cat([self.class_token.expand(x.shape[0], 1, -1), embedded], dim=1)
            valid = None if valid is None else F.pad(valid, (1, 0), value=True)
        return self.dropout(embedded), valid


class Patches(nn.Module):
    """Cuts an image into patches and maps each to d_model numbers."""

    def __init__(self, channels: int, height: int, width: int, d_model: int):
        super().__init__()
        self.height, self.width = height, width
        self.projection = nn.Linear(channels * height * width, d_model)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) → (B, T, D)
        patches = images.unfold(2, self.height, self.height).unfold(
            3, self.width, self.width
        )  # (B, C, rows, cols, h, w)
        return self.projection(patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2))


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward net, each with a residual: what `torch.nn.TransformerEncoderLayer` computes."""

    def __init__(self, d_model: int, num_heads: int, d_ff: int, dropout: float, norm_first: bool):
        super().__init__()
        self.head_width, self.norm_first, self.attention_dropout = d_model // num_heads, norm_first, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.feed_forward = nn.Sequential(
            nn.Linear(d_model, d_ff), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_ff, d_model)
        )
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    @property
    def num_heads(self) -> int:
        """As many as there are outputs for: pruning removes whole heads."""
        return self.out.in_features // self.head_width

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:  # (B, T, D), (B, T) → (B, T, D)
        if self.norm_first:
            x = x + self.dropout(self.attend(self.norm1(x), valid))
            return x + self.dropout(self.feed_forward(self.norm2(x)))
        x = self.norm1(x + self.dropout(self.attend(x, valid)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))

    def attend(self, x: Tensor, valid: Tensor | None) -> Tensor:
        q, k, v = self._heads(x)
        mask = None if valid is None else valid[:, None, None, :]  # (B, 1, 1, T): nobody looks at padding
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)  # (B, h, T, d)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def attention_weights(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, h, T, T): row i says where token i looks. Without dropout."""
        q, k, _ = self._heads(self.norm1(x) if self.norm_first else x)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, None, :], float("-inf"))
        return scores.softmax(dim=-1)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        split = self.qkv(x).unflatten(-1, (3, -1, self.head_width))  # (B, T, 3, h, d)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # each (B, h, T, d)
        return q, k, v


def sinusoidal(length: int, d_model: int) -> Tensor:
    """Sine and cosine positions, (length, d_model) (Vaswani et al. 2017, section 3.5)."""
    frequencies = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10_000.0) / d_model))
    angles = torch.arange(length).unsqueeze(1) * frequencies  # (length, d_model / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
