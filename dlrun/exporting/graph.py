"""What goes into a file: the net, and by option the normalisation before it, in single or half precision."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dlrun.errors import OptionError
from dlrun.spec import DataSpec


class Graph(nn.Module):
    """A copy of `network` as it is exported: inputs → logits (B, K) in float32, whatever happens between.

    With `preprocess` the inputs are raw: uint8 pixels (B, H, W, C), or table rows (B, F) as they were measured. With
    `half` weights and arithmetic are float16. `channels_last` is the order in which convolutions get their pixels.
    Raises OptionError for what the data doesn't have.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        spec: DataSpec,
        *,
        preprocess: bool = False,
        half: bool = False,
        channels_last: bool = False,
    ):
        super().__init__()
        network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.network: nn.Module = network.half() if half else network
        self.text, self.image = spec.modality == "text", spec.modality == "image"
        self.preprocess, self.half_precision, self.channels_last = preprocess, half, channels_last
        if channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if preprocess:
            mean, scale = _normalisation(spec)
            self.register_buffer("mean", mean)
            self.register_buffer("scale", scale)
            self.to(next((p.device for p in network.parameters()), torch.device("cpu")))
        self.eval()

    def channels_first(self) -> Graph:
        """The same, with the pixels in the order that they come in."""
        other = copy.deepcopy(self)
        other.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        other.channels_last = False
        return other

    def forward(self, x: Tensor) -> Tensor:
        if self.preprocess:
            x = x.permute(0, 3, 1, 2).to(torch.float32) if self.image else x  # (B, C, H, W)
            x = (x - self.mean) * self.scale  # the difference first: a feature that never changes is 0 then
        if self.half_precision and not self.text:
            x = x.to(torch.float16)
        if self.channels_last:
            x = x.clone(memory_format=torch.channels_last)
        elif self.preprocess and self.image:
            x = x.clone(memory_format=torch.contiguous_format)
        return self.network(x).to(torch.float32)


def _normalisation(spec: DataSpec) -> tuple[Tensor, Tensor]:
    """What is subtracted, and the factor then: of pixels from 0 to 255, or of features."""
    if spec.modality == "text":
        raise OptionError(
            "preprocess", "a graph takes token ids, and the tokenizer is in the file's metadata; leave preprocess out"
        )
    if not spec.std:
        raise OptionError("preprocess", "this data isn't normalised: there is nothing to put into the graph")
    mean, std = torch.tensor(spec.mean, dtype=torch.float64), torch.tensor(spec.std, dtype=torch.float64)
    whole = 255 if spec.modality == "image" else 1
    shape = (-1, 1, 1) if spec.modality == "image" else (-1,)
    return (mean * whole).float().view(shape), (1 / (std * whole)).float().view(shape)
