"""What a quantiser has to know of a net: which layers run, and what comes before and after each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ENDS = (*CONVOLUTIONS, *NORMS, nn.Identity)  # timm's batch norms have one between the norm and what it is followed by
# Functions of torch, under all of their names. Those that pass on a grid of numbers take none away and add none.
LAYERS = {"linear", "conv1d", "conv2d", "conv3d", "embedding", "embedding_bag"}
RELU = {"relu", "relu_"}
PASSES_ON = {"max_pool1d", "max_pool2d", "max_pool3d", "flatten", "reshape", "view", "dropout"}


@dataclass
class Layer:
    """A linear layer, convolution or embedding, as it takes part in the net."""

    module: nn.Module
    flat: bool  # its input is (B, features): a linear layer that batch norm may follow
    given: bool  # its input is what another convolution gave, pooled or reshaped at most
    norm: nn.Module | None = None  # the batch norm that takes its output, and nothing else does
    relu: bool = False  # a ReLU comes right after that, and again nothing else
    end: nn.Module | None = None  # of a convolution: what gives its output, batch norm included


@dataclass
class _Call:
    name: str
    inputs: list[int]  # tensors are numbered as they are made
    tensors: list[Tensor]
    output: int

    def owner(self, owners: dict[int, nn.Module]) -> nn.Module | None:
        return next((owners[id(tensor)] for tensor in self.tensors if id(tensor) in owners), None)


@dataclass
class _Watch(TorchFunctionMode):
    """Notes what is called on what. A tensor that is changed in place counts as a new one."""

    calls: list[_Call] = field(default_factory=list)
    number: dict[int, int] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)  # so that no address is used twice

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        inputs = [self.number.setdefault(id(tensor), -id(tensor)) for tensor in tensors]
        result = function(*args, **(kwargs or {}))
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if outputs:
            self.kept += [*tensors, *outputs]
            name = getattr(function, "__name__", "")
            if name != "dropout":  # in evaluation it is nothing, and gives back what it got
                self.calls.append(_Call(name, inputs, tensors, len(self.calls)))
                self.number |= {id(output): len(self.calls) - 1 for output in outputs}
            else:
                self.number |= {id(output): inputs[0] for output in outputs}
        return result


def layers(model: nn.Module, sample: Tensor) -> list[Layer]:
    """The linear layers, convolutions and embeddings of `model` that run when it is given `sample`, in that order.

    Only those whose own `forward` does it: what reads a layer's weight from elsewhere, as torch's attention does,
    goes around it.
    """
    watch, training = _Watch(), model.training
    ends: dict[int, nn.Module] = {}

    def note(module: nn.Module, args: Any, output: Any) -> None:
        ends.setdefault(watch.number.get(id(output), 0), module)

    hooks = [module.register_forward_hook(note) for module in model.modules() if type(module) in ENDS]
    try:
        with torch.no_grad(), watch:
            model.eval()(sample)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    owners = _owners(model)
    readers: dict[int, list[_Call]] = defaultdict(list)
    for call in watch.calls:
        for number in set(call.inputs):
            readers[number].append(call)
    found: list[Layer] = []
    on_grid: set[int] = set()  # what convolutions give, and what is the same numbers elsewhere
    for call in watch.calls:
        if call.name in PASSES_ON and call.inputs[0] in on_grid:
            on_grid.add(call.output)
        module = call.owner(owners) if call.name in LAYERS else None
        if module is None or any(layer.module is module for layer in found):  # one that runs twice has one range
            continue
        convolves, last = isinstance(module, CONVOLUTIONS), call
        layer = Layer(module, flat=call.tensors[0].ndim == 2, given=call.inputs[0] in on_grid)
        if (convolves or layer.flat) and (after := _only(readers[last.output], {"batch_norm"})) is not None:
            layer.norm, last = after.owner(owners), after
            if layer.norm is None:  # its statistics aren't kept, or nobody knows where
                continue
        if convolves:
            layer.end = ends.get(last.output)
            if layer.end is None:  # in the middle of a module that does more than batch norm
                continue
            if (after := _only(readers[last.output], RELU)) is not None:
                layer.relu, last = True, after
            on_grid.add(last.output)
        found.append(layer)
    return found


def _owners(model: nn.Module) -> dict[int, nn.Module]:
    """A layer's weight, or a batch norm's mean → the module that it belongs to."""
    owners: dict[int, nn.Module] = {}
    for module in model.modules():
        if type(module) in (nn.Linear, *CONVOLUTIONS, *EMBEDDINGS):
            owners[id(module.weight)] = module
        elif isinstance(module, NORMS) and module.running_mean is not None:
            owners[id(module.running_mean)] = module
    return owners


def _only(readers: list[_Call], names: set[str]) -> _Call | None:
    return readers[0] if len(readers) == 1 and readers[0].name in names else None
