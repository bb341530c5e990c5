"""A network's first layer: its filters as pictures, or the words that each of them answers to most.

N filters, C channels of the input, h×w places of a filter; B texts of L words, E numbers of a word's vector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.cnn import TextCNN
from dlrun.models.recurrent import Recurrent
from dlrun.models.transformer import Patches
from dlrun.models.whitening import Whitening
from dlrun.spec import PAD, DataSpec

AT_ONCE = 256  # texts
CANDIDATES = 64  # places of each filter and batch of texts among which n-grams are looked for


@dataclass(frozen=True)
class Filters:
    """`weights` (n, C, h, w) are those of the filters `shown`, in their order, of `count`."""

    layer: str
    kind: str
    count: int
    shown: list[int]
    weights: np.ndarray


@dataclass(frozen=True)
class NGrams:
    """Of each filter `shown`, of `count`: the n-grams that it answered to most, with its activation."""

    layer: str
    width: int
    texts: int
    count: int
    shown: list[int]
    found: list[list[tuple[str, float]]]


def first_filters(network: nn.Module, spec: DataSpec, model: str, most: int) -> Filters:
    """The first layer's weights, laid over the picture; of more than `most` those with the largest norm.

    A convolution's kernels, a transformer's map of a patch, an LSTM's of a row of pixels, an MLP's of all of them.
    Raises UserError where there is none of them.
    """
    layer, kind, weights = _first(network, spec, model)
    norms = weights.flatten(1).norm(dim=1)
    shown = sorted(norms.argsort(descending=True, stable=True)[:most].tolist())
    return Filters(layer, kind, len(weights), shown, weights[shown].cpu().numpy())


def _first(network: nn.Module, spec: DataSpec, model: str) -> tuple[str, str, Tensor]:
    channels, height, width = spec.shape
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | Whitening):
            weight = module.weight.detach().float()
            if weight.shape[1] == channels:
                return name, "each place's neighbours", weight
        elif isinstance(module, Patches):
            weight = module.projection.weight.detach().float()
            return f"{name}.projection", "a patch", weight.view(-1, channels, module.height, module.width)
        elif isinstance(module, Recurrent):
            weight = module.embedding.weight.detach().float()  # type: ignore[operator,union-attr]
            return "embedding", "a row of pixels", weight.view(-1, channels, 1, width)
        elif isinstance(module, nn.Linear) and module.in_features == math.prod(spec.shape):
            return name, "all pixels", module.weight.detach().float().view(-1, channels, height, width)
    raise UserError(f"plot filters: the first layer of the model '{model}' doesn't look at pixels by filters")


def text_convolution(network: nn.Module, model: str) -> TextCNN:
    """The network, if its first layer is a convolution over words. Raises UserError."""
    if not isinstance(network, TextCNN):
        raise UserError(
            f"plot filters: the model '{model}' has no convolution over the words; train model=cnn"
            + (", or see dlrun plot attention" if hasattr(network, "attention_weights") else "")
        )
    return network


@torch.no_grad()
def most_activating(
    network: TextCNN, tokens: Sequence[Tensor], words: Sequence[str], most: int, each: int = 5
) -> NGrams:
    """The n-grams of `tokens`, batches (B, L), that the first layer's filters answer to most, after norm and ReLU.

    `words` are those of the vocabulary, by id. Of more than `most` filters those with the largest activation.
    """
    width = network.blocks[0][0].kernel_size[0]  # type: ignore[index,union-attr]
    best: dict[int, dict[tuple[int, ...], float]] = {}
    texts = 0
    for batch in tokens:
        texts += len(batch)
        for part in batch.split(AT_ONCE):
            _collect(network, part, width, best)
    tops = {
        number: sorted(grams.items(), key=lambda item: (-item[1], item[0]))[:each] for number, grams in best.items()
    }
    shown = sorted(sorted(tops, key=lambda number: (-tops[number][0][1], number))[:most])
    found = [[(_written(gram, words), value) for gram, value in tops[number]] for number in shown]
    return NGrams("blocks.0", width, texts, len(tops), shown, found)


def _collect(network: TextCNN, tokens: Tensor, width: int, best: dict[int, dict[tuple[int, ...], float]]) -> None:
    valid = (tokens != PAD).unsqueeze(1)  # (B, 1, L)
    answers = network.blocks[0](network.embedding(tokens).transpose(1, 2))  # (B, N, L)
    answers = answers.masked_fill(~valid, -1.0).transpose(0, 1).flatten(1)  # (N, B · L)
    half = width // 2
    windows = nn.functional.pad(tokens, (half, half), value=PAD).unfold(1, width, 1).flatten(0, 1)  # (B · L, width)
    values, places = answers.topk(min(CANDIDATES, answers.shape[1]), dim=1)
    for number, (row, where) in enumerate(zip(values.tolist(), windows[places.cpu()].tolist(), strict=True)):
        mine = best.setdefault(number, {})
        for value, gram in zip(row, map(tuple, where), strict=True):
            if value >= 0 and value > mine.get(gram, -1.0):
                mine[gram] = value
        if not mine:
            mine[(PAD,) * width] = 0.0


def _written(gram: Sequence[int], words: Sequence[str]) -> str:
    return " ".join("·" if number == PAD else words[number] for number in gram)
