"""Quantisation-aware training: layers that compute with the numbers that int8 will have, and learn to live with them.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference".
Weights are rounded per output channel, symmetrically; activations per tensor to 256 steps between a moving minimum and
maximum. Rounding is passed over by the gradient (straight through, Bengio et al. 2013), clipping isn't. Which tensors
are rounded, and how, is what `int8.py` has ONNX Runtime compute.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dlrun.compression.dataflow import EMBEDDINGS, Layer, layers
from dlrun.compression.int8 import Grid, Learned
from dlrun.errors import UserError
from dlrun.spec import DataSpec

WEIGHT_STEPS = 64  # each way: 7 bits, so that pairs of products fit into 16 on processors without VNNI
LAST_STEP = 255  # of an activation's, from 0
MOMENTUM = 0.05  # of a new batch's minimum and maximum
SMALLEST = 1e-30  # size of a weight's step
NEARLY_OFF = 1e-8  # what a channel is multiplied with that its batch norm has switched off: it can come back


def scale_and_zero(extent: Tensor) -> tuple[Tensor, Tensor]:
    """A range (minimum ≤ 0, maximum ≥ 0) → the size of a step, and the step (int32) at which 0 is."""
    width = extent[1] - extent[0]
    scale = torch.where(width > 0, width / LAST_STEP, 1.0)
    return scale, (-extent[0] / scale).round().clamp(0, LAST_STEP).to(torch.int32)


def rounded_weight(weight: Tensor) -> Tensor:
    """`weight` (outputs, …) as int8 will have it, each output with a scale of its own."""
    scale = (weight.detach().abs().flatten(1).amax(dim=1) / WEIGHT_STEPS).clamp_min(SMALLEST)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -WEIGHT_STEPS, WEIGHT_STEPS)


def rounded(x: Tensor, extent: Tensor, learns: bool, positive: bool = False) -> Tensor:
    """An activation on the grid of its range `extent` (2,), which follows the minimum and maximum if it `learns`.

    With `positive` the range begins at 0, which makes a ReLU of the rounding.
    """
    if learns:
        with torch.no_grad():
            low, high = torch.aminmax(x.detach())
            seen = torch.stack([torch.zeros_like(low) if positive else low.clamp_max(0), high.clamp_min(0)])
            fresh = extent[1] == extent[0]  # nothing was seen yet
            extent.copy_(torch.where(fresh, seen, torch.lerp(extent, seen, MOMENTUM)))
    scale, zero = scale_and_zero(extent)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, LAST_STEP)


class _Rounds(nn.Module):
    """What a layer has beside its weights. `input_range` and `output_range` are there where something is rounded."""

    input_range: Tensor | None
    output_range: Tensor | None
    positive: bool
    observes: bool  # in evaluation, too
    norm: tuple[nn.Module, ...]  # the batch norm that follows, if one does
    end: tuple[nn.Module, ...]  # of a convolution: where its output is rounded

    def round_input(self, x: Tensor) -> Tensor:
        return x if self.input_range is None else rounded(x, self.input_range, self.training or self.observes)

    def round_output(self, x: Tensor) -> Tensor:
        if self.output_range is None:
            return x
        return rounded(x, self.output_range, self.training or self.observes, self.positive)

    def factor(self) -> Tensor | None:
        """What the batch norm that follows will multiply each output with, once it is part of the weights."""
        if not self.norm:
            return None
        norm = self.norm[0]
        assert isinstance(norm.running_var, Tensor)
        factor = (norm.running_var + norm.eps).rsqrt()  # type: ignore[operator]
        if norm.weight is not None:
            factor = factor * norm.weight  # type: ignore[operator]
        return torch.where(factor.abs() < NEARLY_OFF, NEARLY_OFF, factor)

    def outputs(self, x: Tensor) -> Tensor:
        """The layer's, with rounded weights: those of the two layers in one, where batch norm follows."""
        factor = self.factor()
        if factor is None:
            return self.apply_weight(x, rounded_weight(self.weight), self.bias)  # type: ignore[arg-type]
        shape = (-1, *[1] * (self.weight.ndim - 1))  # type: ignore[union-attr,operator]
        x = self.apply_weight(x, rounded_weight(self.weight * factor.view(shape)), None)  # type: ignore[operator]
        x = x / factor.view(shape[:-1])
        return x if self.bias is None else x + self.bias.view(shape[:-1])  # type: ignore[operator]

    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.round_output(self.outputs(self.round_input(x)))


class RoundedLinear(_Rounds, nn.Linear):
    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return nn.functional.linear(x, weight, bias)


class _RoundedConvolution(_Rounds):
    def apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(x, weight, bias)  # type: ignore[operator]


class RoundedConv1d(_RoundedConvolution, nn.Conv1d): ...


class RoundedConv2d(_RoundedConvolution, nn.Conv2d): ...


class RoundedConv3d(_RoundedConvolution, nn.Conv3d): ...


class _RoundedEnd(_Rounds):
    """Batch norm after a convolution: what it gives is what is rounded."""

    def outputs(self, x: Tensor) -> Tensor:
        return super(_Rounds, self).forward(x)


class RoundedBatchNorm1d(_RoundedEnd, nn.BatchNorm1d): ...


class RoundedBatchNorm2d(_RoundedEnd, nn.BatchNorm2d): ...


class RoundedBatchNorm3d(_RoundedEnd, nn.BatchNorm3d): ...


class _RoundedTable(_Rounds):
    """Word vectors, in 8 bits over the range of all of them; what is looked up isn't multiplied as it is."""

    def table(self) -> Tensor:
        low, high = torch.aminmax(self.weight.detach())  # type: ignore[arg-type,operator]
        return rounded(self.weight, torch.stack([low.clamp_max(0), high.clamp_min(0)]), learns=False)  # type: ignore[arg-type]


class RoundedEmbedding(_RoundedTable, nn.Embedding):
    def forward(self, x: Tensor) -> Tensor:
        how = (self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse)
        return nn.functional.embedding(x, self.table(), *how)


class RoundedEmbeddingBag(_RoundedTable, nn.EmbeddingBag):
    def forward(self, x: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        how = (self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode, self.sparse, per_sample_weights)
        last = (self.include_last_offset, self.padding_idx)
        return nn.functional.embedding_bag(x, self.table(), offsets, *how, *last)


class RoundedIdentity(_RoundedEnd, nn.Identity): ...


ROUNDED: dict[type[nn.Module], type[_Rounds]] = {
    nn.Linear: RoundedLinear,
    nn.Embedding: RoundedEmbedding,
    nn.EmbeddingBag: RoundedEmbeddingBag,
    nn.Conv1d: RoundedConv1d,
    nn.Conv2d: RoundedConv2d,
    nn.Conv3d: RoundedConv3d,
    nn.BatchNorm1d: RoundedBatchNorm1d,
    nn.BatchNorm2d: RoundedBatchNorm2d,
    nn.BatchNorm3d: RoundedBatchNorm3d,
    nn.Identity: RoundedIdentity,
}


def prepare(model: nn.Module, spec: DataSpec) -> nn.Module:
    """Round what the linear layers and convolutions of `model` take, weigh with and (convolutions) give, in place.

    And the vectors of embeddings. Parameters keep their names; beside them come buffers `input_range` and
    `output_range`. Recurrent layers and attention's own products stay as they are. Raises UserError if nothing is left.
    """
    kind = torch.int64 if spec.modality == "text" else torch.float32
    found = layers(model, torch.ones(1, *spec.shape, dtype=kind))
    if not found:
        raise UserError("method=qat: this model has no linear layer, convolution or embedding that could be int8")
    for layer in found:
        looks_up = isinstance(layer.module, EMBEDDINGS)
        _become(layer.module, not layer.given and not looks_up, layer.end is layer.module, layer)
        if layer.end is not None and layer.end is not layer.module:
            _become(layer.end, False, True, layer)
    return model


def _become(module: nn.Module, takes: bool, gives: bool, layer: Layer) -> None:
    device = layer.module.get_parameter("weight").device
    module.__class__ = ROUNDED[type(module)]
    module.positive, module.observes = layer.relu, False  # type: ignore[assignment]
    # Tuples, so that these aren't its parts.
    module.norm = (layer.norm,) if module is layer.module and layer.norm is not None else ()  # type: ignore[assignment]
    module.end = (layer.end,) if module is layer.module and layer.end is not None else ()  # type: ignore[assignment]
    for name, there in (("input_range", takes), ("output_range", gives)):
        module.register_buffer(name, torch.zeros(2, device=device) if there else None)


def plain(model: nn.Module) -> nn.Module:
    """A copy of a prepared model without any rounding: the net that it was, with the weights it has."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, _Rounds):
            module.__class__ = next(kind for kind, rounds in ROUNDED.items() if rounds is type(module))  # type: ignore[assignment]
            for name in ("input_range", "output_range"):
                del module._buffers[name]
            for name in ("positive", "observes", "norm", "end"):
                del module.__dict__[name]
    return model


def observe(model: nn.Module, on: bool) -> None:
    """Whether ranges follow what a prepared model is given in evaluation, too."""
    for module in model.modules():
        if isinstance(module, _Rounds):
            module.observes = on


def learned(model: nn.Module) -> list[Learned]:
    """Of each layer of a prepared model that has weights: those, with their batch norm's in them, and its ranges."""
    found = []
    for module in model.modules():
        if isinstance(module, _Rounds) and not isinstance(module, _RoundedEnd | _RoundedTable):
            factor, weight = module.factor(), module.weight.detach()  # type: ignore[operator]
            if factor is not None:
                factor = torch.where(factor == NEARLY_OFF, 0.0, factor.detach())
                weight = weight * factor.view(-1, *[1] * (weight.ndim - 1))
            gives = next((end.output_range for end in module.end if isinstance(end, _Rounds)), None)
            found.append(Learned(weight.cpu().numpy(), _grid(module.input_range), _grid(gives)))
    return found


def _grid(extent: Tensor | None) -> Grid | None:
    if extent is None:
        return None
    scale, zero = scale_and_zero(extent)
    return scale.item(), int(zero.item())
