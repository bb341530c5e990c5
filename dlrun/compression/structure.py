"""The same net with other widths: a freshly built model takes the shapes of one that was pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from dlrun.errors import UserError

Shapes = dict[str, list[int]]


def shapes_of(before: nn.Module, after: nn.Module) -> Shapes:
    """Name → shape in `after` of each tensor whose shape in `before` is another one."""
    there = {name: tensor.shape for name, tensor in before.state_dict().items()}
    here = {name: tensor.shape for name, tensor in after.state_dict().items()}
    assert there.keys() == here.keys(), there.keys() ^ here.keys()
    return {name: list(shape) for name, shape in here.items() if shape != there[name]}


@torch.no_grad()
def reshape(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> nn.Module:
    """Cut the tensors of `model` down to `shapes`, in place, and let its layers know their new sizes.

    What is kept is each tensor's beginning: values to begin with, until the pruned ones are loaded. Raises UserError
    for a name that the model doesn't have, and for a size that isn't smaller.
    """
    tensors, changed = model.state_dict(), set[str]()
    for name, shape in shapes.items():
        if name not in tensors:
            raise UserError(f"compression.shapes: this model has no '{name}'; was it pruned with another `model`?")
        now = tensors[name].shape
        if len(now) != len(shape) or any(not 0 < new <= old for new, old in zip(shape, now, strict=True)):
            given = "×".join(map(str, shape))
            raise UserError(f"compression.shapes.{name}: expected at most {'×'.join(map(str, now))}, got {given}")
    for name, shape in shapes.items():
        owner, _, attribute = name.rpartition(".")
        module = model.get_submodule(owner)
        old: Tensor = getattr(module, attribute)
        new = old.detach()[tuple(slice(size) for size in shape)].clone()
        if isinstance(old, nn.Parameter):
            module.register_parameter(attribute, nn.Parameter(new, requires_grad=old.requires_grad))
        else:
            setattr(module, attribute, new)
        changed.add(owner)
    for owner in changed:
        _derive(model.get_submodule(owner), owner)
    return model


def _derive(module: nn.Module, name: str) -> None:
    """Set what a layer notes of its own sizes, from its tensors. A layer of another kind is taken to note none."""
    match module:
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case _ConvTransposeNd():
            module.in_channels, module.out_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
        case _ConvNd():
            if module.groups > 1 and module.groups == module.in_channels:  # depthwise: a group is a channel
                module.groups = len(module.weight) * module.groups // module.out_channels
            module.out_channels, module.in_channels = len(module.weight), module.weight.shape[1] * module.groups
        case _NormBase():
            module.num_features = len(module.weight if module.running_mean is None else module.running_mean)
        case nn.LayerNorm() | nn.RMSNorm():
            module.normalized_shape = tuple(module.weight.shape)
        case nn.GroupNorm():
            module.num_channels = len(module.weight)
        case nn.Embedding() | nn.EmbeddingBag():
            module.num_embeddings, module.embedding_dim = module.weight.shape
        case nn.RNNBase():
            if module.proj_size:
                raise UserError(f"{name}: a recurrent layer with a projection can't take other sizes")
            module.input_size = module.get_parameter("weight_ih_l0").shape[1]
            module.hidden_size = module.get_parameter("weight_hh_l0").shape[1]
            # What the layer calls is a list of its own, which still has the old ones.
            module._flat_weights = [getattr(module, weight) for weight in module._flat_weights_names]
            module.flatten_parameters()
        case nn.MultiheadAttention():
            raise UserError(f"{name}: torch's attention has one width inside and outside, and can't be cut down")
