"""Which parts of a net belong together: what has to go when one channel, neuron, hidden unit or head of it goes.

A group has n units; each of its members is a dimension of a tensor, and the places that each unit has there. A
convolution's channel is a row of its weight, a number of its bias and of its batch norm, and a column of the layer
that reads it: several columns, if there is a flatten in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from dlrun.models.cnn import TextCNN
from dlrun.models.mlp import ACTIVATIONS, WordLinear
from dlrun.models.recurrent import Recurrent
from dlrun.models.speednet import SpeedNet
from dlrun.models.transformer import Transformer
from dlrun.models.whitening import Whitening


@dataclass(frozen=True)
class Member:
    """Dimension `dim` of the tensor `name`, in which unit i has the places `places[i]`, (n, k)."""

    name: str
    dim: int
    places: Tensor


@dataclass
class Group:
    """Units that can be removed, one independently of the other."""

    name: str  # of the layer that makes them
    units: int
    members: list[Member] = field(default_factory=list)

    def add(self, name: str, dim: int, *, outer: int = 1, inner: int = 1, start: int = 0) -> None:
        """A dimension in which the units stand `outer` times one after the other, each `inner` places wide."""
        grid = torch.arange(outer * self.units * inner).view(outer, self.units, inner)
        self.members.append(Member(name, dim, start + grid.transpose(0, 1).flatten(1)))


def known(model: nn.Module) -> list[Group] | None:
    """The groups of dlrun's own models, none for a perceptron; None for a model of somebody else's."""
    match model:
        case Recurrent():
            return list(_recurrent(model))
        case Transformer():
            return list(_transformer(model))
        case SpeedNet():
            return _speednet(model)
        case TextCNN() | nn.Sequential() if all(map(_chained, model.modules())):
            return _chain(list(model.named_modules()))
    return None


CHAINED = (
    *(TextCNN, WordLinear, nn.Sequential, nn.ModuleList, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding),
    *(nn.EmbeddingBag, nn.BatchNorm1d, nn.BatchNorm2d, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool2d, nn.Flatten),
    *(nn.Dropout, *ACTIVATIONS.values()),
)


def _chained(module: nn.Module) -> bool:
    return type(module) in CHAINED and getattr(module, "groups", 1) == 1


def _chain(layers: Sequence[tuple[str, nn.Module]]) -> list[Group]:
    """Of layers that follow each other in this order: each reads what the one before it makes."""
    groups: list[Group] = []
    for name, module in layers:
        if isinstance(module, _ConvNd | nn.Linear):
            if groups:
                _read(groups[-1], name, module)
            groups.append(_made(name, module))
        elif isinstance(module, _BatchNorm) and groups:
            _normalise(groups[-1], name, module)
        elif isinstance(module, nn.Embedding):
            groups.append(Group(name, module.embedding_dim))
            groups[-1].add(f"{name}.weight", 1)
        elif isinstance(module, WordLinear):
            groups.append(Group(name, len(module.bias)))
            groups[-1].add(f"{name}.words.weight", 1)
            groups[-1].add(f"{name}.bias", 0)
    return groups[:-1]  # the last ones are the outputs


def _made(name: str, module: _ConvNd | nn.Linear) -> Group:
    """The units that a layer makes."""
    group = Group(name, len(module.weight))
    group.add(f"{name}.weight", 0)
    if module.bias is not None:
        group.add(f"{name}.bias", 0)
    return group


def _read(group: Group, name: str, module: _ConvNd | nn.Linear) -> None:
    """A layer reads the units; behind a flatten each is as many columns as there were pixels."""
    group.add(f"{name}.weight", 1, inner=module.weight.shape[1] // group.units)


def _normalise(group: Group, name: str, module: nn.Module) -> None:
    for tensor in ("weight", "bias", "running_mean", "running_var"):
        if getattr(module, tensor, None) is not None:
            group.add(f"{name}.{tensor}", 0)


def _speednet(model: SpeedNet) -> list[Group]:
    """Each convolution's channels; the way around the second and third ties those of the first and the third."""
    groups = [] if isinstance(model.first, Whitening) else [_made("first", cast(nn.Conv2d, model.first))]
    last = groups[-1] if groups else None  # what the next layer reads; the whitened directions are computed, and stay
    for place, part in enumerate(cast(Any, model.groups)):
        made: list[Group] = []
        for i, (convolution, norm) in enumerate(zip(part.convolutions, part.norms, strict=True)):
            name = f"groups.{place}.convolutions.{i}"
            if last is not None:
                _read(last, name, convolution)
            last = _made(name, convolution)
            _normalise(last, f"groups.{place}.norms.{i}", norm)
            made.append(last)
        if len(made) == 3:
            made[0].members += made.pop().members
            last = made[0]
        groups += made
    _read(groups[-1] if last is None else last, "head", cast(nn.Linear, model.head))
    return groups


def _recurrent(model: Recurrent) -> Iterator[Group]:
    """What the embedding makes, and the hidden units of each layer and direction.

    As many go from each, since torch's layers have one size; which ones is for each to say.
    """
    cell: Any = model.recurrent
    name = "recurrent"
    ways = ["", "_reverse"] if cell.bidirectional else [""]
    if isinstance(model.embedding, nn.Embedding):
        embedded = Group("embedding", cell.input_size)
        embedded.add("embedding.weight", 1)
    else:
        embedded = _made("embedding", cast(nn.Linear, model.embedding))
    for way in ways:
        embedded.add(f"{name}.weight_ih_l0{way}", 1)
    yield embedded
    gates = len(cell.weight_hh_l0) // cell.hidden_size
    for layer in range(cell.num_layers):
        for place, way in enumerate(ways):
            group, start = Group(f"{name}.l{layer}{way}", cell.hidden_size), place * cell.hidden_size
            for weight in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                group.add(f"{name}.{weight}_l{layer}{way}", 0, outer=gates)
            group.add(f"{name}.weight_hh_l{layer}{way}", 1)
            if layer + 1 < cell.num_layers:
                for above in ways:
                    group.add(f"{name}.weight_ih_l{layer + 1}{above}", 1, start=start)
            else:
                group.add("head.weight", 1, start=start)
                if model.attention is not None:
                    group.add("attention.score.weight", 1, start=start)
            yield group


def _transformer(model: Transformer) -> Iterator[Group]:
    """Whole heads, and the neurons between the two layers of each feed-forward net.

    d_model stays: every layer norm divides by a deviation over all of it, so no part of it goes without a change to
    the rest. A head's width stays, too: the attention divides by its root.
    """
    for place, layer in enumerate(cast(Any, model.layers)):
        name = f"layers.{place}"
        heads = Group(f"{name}.heads", layer.num_heads)
        for tensor in ("weight", "bias"):
            heads.add(f"{name}.qkv.{tensor}", 0, outer=3, inner=layer.head_width)
        heads.add(f"{name}.out.weight", 1, inner=layer.head_width)
        yield heads
        neurons = _made(f"{name}.feed_forward.0", layer.feed_forward[0])
        _read(neurons, f"{name}.feed_forward.3", layer.feed_forward[3])
        yield neurons
