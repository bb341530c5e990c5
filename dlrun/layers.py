"""A model's layers as a tree: what each of them makes of one sample, what it holds and what it costs.

torch's own `FlopCounterMode` has the formulas (matrix products, convolutions, attention); here is only whose they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """What is a layer's own, without those inside it; sums are of several."""

    parameters: int = 0
    trainable_parameters: int = 0
    parameter_bytes: int = 0
    flops: int = 0  # of one sample's way through; a multiply-add counts as two
    activation_bytes: int = 0  # of what comes out for one sample, where that isn't its input's memory

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, name) + getattr(other, name) for name in Cost.__dataclass_fields__))


@dataclass
class Layer:
    """A module, or a parameter that a module with others inside holds itself."""

    path: str  # as in the state dict; the model's own is empty
    kind: str
    output_shape: list[int]  # of one sample; empty where nothing is returned: of a list of layers, a parameter
    own: Cost = Cost()
    children: list[Layer] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def total(self) -> Cost:
        """With all that is inside."""
        return sum((child.total for child in self.children), start=self.own)

    def walk(self) -> Iterator[Layer]:
        """This one and all inside, from the top, in the order in which the model names them."""
        yield self
        for child in self.children:
            yield from child.walk()


@torch.no_grad()
def count(model: nn.Module, sample: Tensor) -> Layer:
    """Send `sample` (a batch of one, on the CPU as the model) through, in evaluation mode, which is left on.

    A parameter or a layer that has several names counts under the first. What is computed with the weights of a layer
    that isn't called (an LSTM that its model runs itself, the output of `nn.MultiheadAttention`) is that layer's.
    """
    model.eval()
    with _countable(), FlopCounterMode(display=False) as counter, _Meter(model, counter.get_total_flops) as meter:
        model(sample)
    return _tree(model, "", meter, {}, set())


@contextmanager
def _countable() -> Iterator[None]:
    """oneDNN's recurrent layer, fused attention in older torch, and the fast path of torch's own transformer layers
    are single operators that torch counts nothing for; without them they are matrix products."""
    fast = mha.get_fastpath_enabled()
    try:
        mha.set_fastpath_enabled(False)
        with warnings.catch_warnings():  # of a setting for Intel's GPUs that the next line touches
            warnings.simplefilter("ignore")
            with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):  # type: ignore[attr-defined]
                yield
    finally:
        mha.set_fastpath_enabled(fast)


class _Meter(TorchDispatchMode):
    """Who computes what: `flops` and `bytes` by the module's id, and the shape that came out of it first."""

    def __init__(self, model: nn.Module, total_flops: Callable[[], int]):
        super().__init__()  # type: ignore[no-untyped-call]
        self.model, self.total_flops = model, total_flops
        self.flops: dict[int, int] = {}
        self.bytes: dict[int, int] = {}
        self.shapes: dict[int, list[int]] = {}
        self.running: list[int] = []  # the modules whose forward is on, the innermost last
        self.uncalled: dict[int, int] = {}  # a running module → the one whose weights it used last without calling it
        self.owners: dict[int, list[int]] = {}  # a weight's memory → the modules that hold it
        self.kept: dict[int, Any] = {}  # memory that was counted; holding it keeps its address from being used again
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                storage = parameter.untyped_storage()
                self.kept[storage.data_ptr()] = storage
                self.owners.setdefault(storage.data_ptr(), []).append(id(module))

    def __enter__(self) -> _Meter:
        self.hooks = ExitStack()
        for module in self.model.modules():
            self.hooks.callback(module.register_forward_pre_hook(self._enter).remove)
            self.hooks.callback(module.register_forward_hook(self._leave).remove)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        self.hooks.close()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.total_flops()
        output = operator(*args, **(kwargs or {}))
        if flops := self.total_flops() - before:
            owner = self._owner(args)
            self.flops[owner] = self.flops.get(owner, 0) + flops
        return output

    def _owner(self, args: Any) -> int:
        for tensor in _tensors(args):
            holders = self.owners.get(tensor.untyped_storage().data_ptr(), [])
            if holders and not set(holders) & set(self.running):
                self.uncalled[self.running[-1]] = holders[0]
                return holders[0]
        return self.running[-1]

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        if self.running and (maker := self.uncalled.pop(self.running[-1], None)) is not None:
            self._hand_on(maker, [tensor for tensor in _tensors(inputs) if tensor.is_floating_point()])
        self.running.append(id(module))
        for tensor in _tensors(inputs):  # the sample's own memory is nobody's output
            self.kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage())

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.uncalled.pop(self.running.pop(), None)
        packed = isinstance(output, nn.utils.rnn.PackedSequence)  # without the dimension of the batch
        self._hand_on(id(module), list(_tensors(output)), batched=not packed)

    def _hand_on(self, maker: int, tensors: Sequence[Tensor], batched: bool = True) -> None:
        for storage in (tensor.untyped_storage() for tensor in tensors):
            if storage.data_ptr() not in self.kept:
                self.kept[storage.data_ptr()] = storage
                self.bytes[maker] = self.bytes.get(maker, 0) + storage.nbytes()
        if tensors:
            self.shapes.setdefault(maker, list(tensors[0].shape[int(batched) :]))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _tree(module: nn.Module, path: str, meter: _Meter, modules: dict[int, str], parameters: set[int]) -> Layer:
    """The module's part of the tree; `modules` and `parameters` are those that were met before."""
    modules[id(module)] = path
    inside = path + "." if path else ""
    layer = Layer(path, type(module).__name__, meter.shapes.get(id(module), []))
    held = [
        Layer(inside + name, "Parameter", [], _size(p, parameters)) for name, p in module.named_parameters("", False)
    ]
    cost = Cost(flops=meter.flops.get(id(module), 0), activation_bytes=meter.bytes.get(id(module), 0))
    for name, child in module._modules.items():  # named_children() leaves second names out
        if child is None:
            continue
        if id(child) in modules:
            again = f"{type(child).__name__}, as {modules[id(child)]}"
            layer.children.append(Layer(inside + name, again, meter.shapes.get(id(child), [])))
        else:
            layer.children.append(_tree(child, inside + name, meter, modules, parameters))
    if layer.children:
        layer.own, layer.children = cost, held + layer.children
    else:
        layer.own = sum((part.own for part in held), start=cost)
    return layer


def _size(parameter: nn.Parameter, seen: set[int]) -> Cost:
    if id(parameter) in seen:
        return Cost()
    seen.add(id(parameter))
    number = parameter.numel()
    return Cost(number, number if parameter.requires_grad else 0, number * parameter.element_size())
