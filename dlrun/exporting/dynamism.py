"""The batch's size and a text's length stay open in an exported graph.

B batch, L steps, H hidden size times directions.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import decomposition_table
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

from dlrun.spec import PAD, DataSpec

symbolic_shapes: Any = _config
DECOMPOSITION = torch._C.DispatchKey.CompositeImplicitAutograd


def example(spec: DataSpec, preprocess: bool = False, device: torch.device | str = "cpu") -> Tensor:
    """A batch of two to trace with, of sizes that no weight has, so that none is taken for the other.

    With `preprocess` it is what is in the data, uint8 pixels (B, H, W, C), and not what the model takes.
    """
    if spec.modality == "text":
        tokens = torch.full((2, max(min(spec.shape[0] - 1, 9), 1)), PAD + 1, dtype=torch.int64)
        tokens[1, 1:] = PAD  # one of them ends early
        return tokens.to(device)
    if spec.modality == "image" and preprocess:
        channels, height, width = spec.shape
        return torch.full((2, height, width, channels), 128, dtype=torch.uint8, device=device)
    return torch.ones(2, *spec.shape, device=device)


def program(model: nn.Module, inputs: Tensor, text: bool) -> ExportedProgram:
    """`model` in eval mode as torch.export's graph, whose batch, and length of a text, are open from 1 on."""
    sizes: dict[int, Any] = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} if text else {0: Dim.DYNAMIC}
    with recurrences_whole(), torch.no_grad(), warnings.catch_warnings(action="ignore"):  # of what cuDNN would like
        graph = torch.export.export(model, (inputs,), dynamic_shapes=(sizes,))
    graph._guards_code = []  # torch 2.11 has conditions there that the example met by chance, such as an odd length
    return graph


@contextmanager
def recurrences_whole() -> Iterator[None]:
    """While this lasts, torch.export sees a recurrent layer as one operator, whatever the length.

    It works out the shape of what comes out by running the layer's decomposition, a step of the text at a time, which
    nails the length to the example's (torch.export._patches replaces LSTM's by a loop for the same reason, from 2.12
    on). And no size is taken to be "0, 1 or more", so that a batch of 1 needs no graph of its own.
    """
    with ExitStack() as stack:
        stack.enter_context(symbolic_shapes.patch(backed_size_oblivious=True))
        for operator, shapes in {torch.ops.aten.lstm.input: _lstm, torch.ops.aten.rnn_tanh.input: _rnn}.items():
            stack.enter_context(_implemented(operator, shapes))
        yield


@contextmanager
def _implemented(operator: Any, function: Any) -> Iterator[None]:
    """Both where an export looks for the shapes of what comes out, and where a later round over its graph does."""
    kernels, table = dict(operator.py_kernels), decomposition_table.get(operator)
    operator.py_kernels[DECOMPOSITION] = decomposition_table[operator] = function
    operator._dispatch_cache.clear()
    try:
        yield
    finally:
        operator.py_kernels.clear()
        operator.py_kernels.update(kernels)
        operator._dispatch_cache.clear()
        decomposition_table.pop(operator)
        if table is not None:
            decomposition_table[operator] = table


def _lstm(x: Tensor, states: list[Tensor], *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(x, states[0], *rest), torch.empty_like(states[0]), torch.empty_like(states[1])


def _rnn(x: Tensor, state: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return _outputs(x, state, *rest), torch.empty_like(state)


def _outputs(x: Tensor, state: Tensor, *rest: Any) -> Tensor:
    """(B, L, E) → (B, L, H), batch first or not; nothing is computed."""
    directions = 2 if rest[-2] else 1
    return x.new_empty(*x.shape[:2], state.shape[-1] * directions)
