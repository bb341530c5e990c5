"""Structured pruning: the least important channels, neurons, hidden units and heads go, and the layers get smaller.

Li et al. 2017, "Pruning Filters for Efficient ConvNets"; the norm of all that belongs to a unit, as in Fang et al.
2023, "DepGraph".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dlrun.compression.groups import Group, known
from dlrun.compression.structure import reshape
from dlrun.compression.tracing import traced
from dlrun.errors import UserError
from dlrun.spec import DataSpec

Kept = dict[str, dict[int, list[int]]]  # tensor → dimension → places
STEP = 8  # a width's
SAMPLES = 4  # in the comparison of the smaller net with the larger one
TOLERANCE = 1e-4  # of the largest logit, in float64: a place that doesn't belong makes a tenth and more


def prune(model: nn.Module, spec: DataSpec, amount: float) -> tuple[nn.Module, Kept]:
    """A smaller net without the share `amount` of every width that can be cut, and what it kept of each tensor.

    Of each group the units of the smallest norm go; `remaining` stay. `model` is as it was; the result is on the CPU.
    Its outputs are those of `model` with zeros in place of what went: that is computed here, in float64, and a net of
    which it isn't true is refused. Raises UserError, too, if there is nothing to remove.
    """
    whole = copy.deepcopy(model).cpu()
    inputs = _inputs(spec)
    groups = known(whole)
    groups = traced(whole, inputs) if groups is None else groups
    if not groups:
        raise UserError("method=prune_structured: this model has nothing to remove between its inputs and its outputs")
    removed = _removed(whole, groups, amount)
    if not removed:
        widest = max(group.units for group in groups)
        raise UserError(f"amount={amount}: removes nothing, the widest layer has {widest} units; expected more")
    state = whole.state_dict()
    kept = {
        name: {d: sorted(set(range(state[name].shape[d])) - places) for d, places in dims.items()}
        for name, dims in removed.items()
    }
    smaller = take(whole, kept)
    _compare(masked(whole, removed), smaller, inputs)
    return smaller, kept


def take(model: nn.Module, kept: Kept) -> nn.Module:
    """A copy of `model` with those places of its tensors alone that were kept."""
    state = model.state_dict()  # not as a dict: it has the versions of its layers, too
    for name, dims in kept.items():
        for dim, places in dims.items():
            state[name] = state[name].index_select(dim, torch.tensor(places))
    smaller = reshape(copy.deepcopy(model), {name: list(state[name].shape) for name in kept})
    smaller.load_state_dict(state)
    return smaller


@torch.no_grad()
def masked(model: nn.Module, removed: Mapping[str, Mapping[int, set[int]]]) -> nn.Module:
    """A copy of `model` with zeros at those places."""
    copied = copy.deepcopy(model)
    state = copied.state_dict()
    for name, dims in removed.items():
        for dim, places in dims.items():
            state[name].index_fill_(dim, torch.tensor(sorted(places)), 0)
    return copied


def _removed(model: nn.Module, groups: list[Group], amount: float) -> dict[str, dict[int, set[int]]]:
    """Tensor → dimension → the places that go."""
    removed: dict[str, dict[int, set[int]]] = {}
    parameters = {name: p.detach().double() for name, p in model.named_parameters(remove_duplicate=False)}
    for group in groups:
        count = group.units - remaining(group.units, amount)
        if not count:
            continue
        units = _importance(group, parameters).argsort(stable=True)[:count]
        for member in group.members:
            places = removed.setdefault(member.name, {}).setdefault(member.dim, set())
            places |= set(member.places[units].flatten().tolist())
    return removed


def remaining(units: int, amount: float) -> int:
    """How many of `units` stay: one at least; of 32 and more the nearest multiple of 8, if that is 16 and removes any.

    ONNX Runtime's fast convolutions want channels by fours (its NCHWc layout), matrix kernels by eights: digits' CNN at
    0.3 with 22, 45 and 90 channels took 2.5 times as long in ONNX Runtime as with its 32, 64 and 128.
    """
    exact = max(units - round(amount * units), 1)
    even = STEP * ((exact + STEP // 2) // STEP)  # the nearest
    return even if units >= 4 * STEP and exact < units and 2 * STEP <= even < units else exact


def _importance(group: Group, parameters: Mapping[str, Tensor]) -> Tensor:
    """Of each unit, (n,): the squared L2 norms of its parts, each relative to what its tensor has on average.

    What makes a unit counts as well as what reads it: before a batch norm the size of a kernel alone says nothing.
    """
    score = torch.zeros(group.units, dtype=torch.float64)
    for member in group.members:
        if member.name in parameters:  # batch norm's statistics aren't
            rows = parameters[member.name].movedim(member.dim, 0)[member.places]  # (n, k, …)
            norms = rows.flatten(1).square().sum(dim=1)
            score += norms / norms.mean().clamp_min(torch.finfo(norms.dtype).tiny)
    return score


@torch.no_grad()
def _compare(large: nn.Module, small: nn.Module, inputs: Tensor) -> None:
    """Raise UserError unless both give the same: then a dependency was followed wrongly."""
    try:
        expected, got = (_logits(model, inputs) for model in (large, small))
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"method=prune_structured: this model can't run with other widths ({reason})") from error
    off = float((expected - got).abs().max() / expected.abs().max().clamp_min(1e-12))
    if expected.shape != got.shape or not off <= TOLERANCE:
        raise UserError(
            f"method=prune_structured: without what was removed this model gives other outputs (by {off:.1e} of the "
            "largest): what depends on what in it couldn't be followed"
        )


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    exact = copy.deepcopy(model).double().eval()
    logits: Tensor = exact(inputs.double() if inputs.is_floating_point() else inputs)
    return logits


def _inputs(spec: DataSpec) -> Tensor:
    """Samples (B, …) that look like nothing, always the same."""
    random = torch.Generator().manual_seed(0)
    if spec.modality == "text":
        return torch.randint(1, max(spec.vocab_size, 2), (SAMPLES, *spec.shape), generator=random)
    return torch.randn(SAMPLES, *spec.shape, generator=random)
