"""One neuron per output (Rosenblatt 1958): the baseline that every other model is held against."""

from __future__ import annotations

from torch import nn

from dlrun.models.mlp import first_layer
from dlrun.registry import models
from dlrun.spec import DataSpec


@models.register("perceptron")
def perceptron(spec: DataSpec) -> nn.Module:
    """One neuron per output: softmax on a linear map (two outputs: the sigmoid of their difference).

    Takes images (B, C, H, W) and table rows (B, F) flattened, and texts (B, L) as the average of their words; gives
    logits (B, outputs).
    """
    return nn.Sequential(*first_layer(spec, spec.num_outputs))
