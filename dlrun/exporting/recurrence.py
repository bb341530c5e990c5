"""Recurrent layers as a loop in the graph, for AOTInductor: it would unroll them, a step of one text's length each.

L steps, B batch, E inputs, H hidden size, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.exporting.dynamism import recurrences_whole

Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


def looped(program: Any, device: torch.device, half: bool) -> Any:
    """`program` (ExportedProgram) with its recurrent layers as loops, where AOTInductor has no operator for them.

    It has one for the LSTM in single precision on a CPU (oneDNN's).
    """
    decompositions: dict[Any, Callable[..., Any]] = {torch.ops.aten.rnn_tanh.input: _rnn}
    if half or device.type != "cpu":
        decompositions[torch.ops.aten.lstm.input] = _lstm
    if not any(node.target in decompositions for node in program.graph.nodes):
        return program
    torch._dynamo.reset()  # else it takes another net's loops for variants of these, and opens sizes that differ
    with recurrences_whole(), torch.no_grad():
        return program.run_decompositions(decompositions)


def _rnn(x: Tensor, state: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """aten::rnn_tanh.input."""
    return _layers(x, (state,), lambda gates, states: (gates.tanh(),), *rest)


def _lstm(x: Tensor, states: Sequence[Tensor], *rest: Any) -> tuple[Tensor, ...]:
    """aten::lstm.input."""

    def step(gates: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        i, f, g, o = gates.chunk(4, dim=1)
        cell = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell

    return _layers(x, tuple(states), step, *rest)


def _layers(
    x: Tensor,
    states: tuple[Tensor, ...],
    step: Step,
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    x = x.transpose(0, 1) if batch_first else x  # (L, B, E)
    directions, each = (2 if bidirectional else 1), (4 if has_biases else 2)
    last = []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            mine = [*weights[place * each : (place + 1) * each], None, None][:4]
            begin = tuple(state[place].clone() for state in states)  # a loop takes no memory twice
            output, end = _direction(x, begin, step, mine, backward=direction == 1)
            outputs.append(output)
            last.append(end)
        x = torch.cat(outputs, dim=2) if bidirectional else outputs[0]
    finals = [torch.stack([end[k] for end in last]) for k in range(len(states))]
    return (x.transpose(0, 1) if batch_first else x), *finals


def _direction(
    x: Tensor, states: tuple[Tensor, ...], step: Step, weights: Sequence[Tensor | None], backward: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    from torch._higher_order_ops.while_loop import while_loop

    of_input, of_hidden, input_bias, hidden_bias = weights
    assert of_input is not None
    assert of_hidden is not None
    gates = F.linear(x, of_input, input_bias)  # (L, B, G · H)
    gates = gates.flip(0) if backward else gates
    length = x.shape[0]

    def goes_on(place: Tensor, outputs: Tensor, *states: Tensor) -> Any:
        return place < length

    def body(place: Tensor, outputs: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        row = place.view(1).to(x.device)
        mixed = gates.index_select(0, row).squeeze(0) + F.linear(states[0], of_hidden, hidden_bias)
        states = step(mixed, states)
        return place + 1, outputs.index_copy(0, row, states[0].unsqueeze(0)), *states

    outputs = x.new_zeros(length, x.shape[1], states[0].shape[-1])
    _, outputs, *last = while_loop(goes_on, body, (torch.tensor(0), outputs, *states))
    return (outputs.flip(0) if backward else outputs), tuple(last)
