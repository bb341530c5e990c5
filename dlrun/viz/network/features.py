"""Feature maps: what each convolution makes of a sample, and its strongest channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from dlrun.models.cnn import TextCNN
from dlrun.viz.network.convolutions import Stage, record


@dataclass(frozen=True)
class Features:
    """Of one layer with `count` channels, the maps of the strongest, `shown`: (n, H, W), or (n, L) of a text."""

    layer: str
    title: str
    count: int
    shown: list[int]
    maps: np.ndarray
    signed: bool
    words_per_step: float = 1.0


def features(network: nn.Module, inputs: Tensor, layers: int, channels: int) -> tuple[list[Features], int]:
    """Maps of `inputs` (1, …), at most `channels` of at most `layers` layers, evenly chosen; and how many there are.

    A channel is the stronger the larger the mean of its absolute values is.
    """
    stages = record(network, inputs)[1]
    chosen = sorted({round(place) for place in np.linspace(0, len(stages) - 1, min(layers, len(stages)))})
    return [_strongest(stages[place], channels, _words(network, inputs, stages, place)) for place in chosen], len(
        stages
    )


def _strongest(stage: Stage, channels: int, words_per_step: float) -> Features:
    maps = stage.output[0].float()
    strength = maps.flatten(1).abs().mean(dim=1)
    shown = strength.argsort(descending=True, stable=True)[:channels].tolist()
    picked = maps[shown].cpu().numpy()
    return Features(stage.name, stage.title, len(maps), shown, picked, bool((maps < 0).any()), words_per_step)


def _words(network: nn.Module, inputs: Tensor, stages: Sequence[Stage], place: int) -> float:
    """How many words a step of the layer stands for: 2 ** (halvings before it)."""
    return words_per_step(network, inputs, stages[place].name, stages[place].output) if inputs.ndim == 2 else 1.0


def words_per_step(network: nn.Module, inputs: Tensor, layer: str, output: Tensor) -> float:
    """Of a layer's output (1, C, steps) for a text (1, L): dlrun's CNN halves, rounding up, after each block."""
    if isinstance(network, TextCNN) and layer.startswith("blocks."):
        return float(2 ** int(layer.split(".")[1]))
    return inputs.shape[1] / output.shape[-1]
