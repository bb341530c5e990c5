"""Bit for bit what torch's own fused optimizers do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from dlrun.fused import FusedAdam, FusedSGD

Make = Callable[[Any], Optimizer]
PAIRS: dict[str, tuple[Make, Make]] = {
    "adamw": (
        lambda groups: FusedAdam(groups, lr=1e-2, weight_decay=0.05, decoupled_weight_decay=True, fused=True),
        lambda groups: AdamW(groups, lr=1e-2, weight_decay=0.05, fused=True),
    ),
    "adam, amsgrad": (
        lambda groups: FusedAdam(groups, lr=1e-2, weight_decay=0.05, amsgrad=True, fused=True),
        lambda groups: Adam(groups, lr=1e-2, weight_decay=0.05, amsgrad=True, fused=True),
    ),
    "sgd, nesterov": (
        lambda groups: FusedSGD(groups, lr=1e-2, weight_decay=0.05, momentum=0.9, nesterov=True, fused=True),
        lambda groups: SGD(groups, lr=1e-2, weight_decay=0.05, momentum=0.9, nesterov=True, fused=True),
    ),
    "sgd, no momentum": (
        lambda groups: FusedSGD(groups, lr=1e-2, fused=True),
        lambda groups: SGD(groups, lr=1e-2, fused=True),
    ),
}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def groups(model: nn.Module) -> list[dict[str, Any]]:
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def gradients(model: nn.Module, step: int, without: int | None = None) -> None:
    torch.manual_seed(step)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = None if number == without else torch.randn_like(parameter)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("name", PAIRS)
def test_steps_are_torchs_own_to_the_bit(name: str) -> None:
    ours, theirs = net(), net()
    mine, reference = (make(groups(model)) for make, model in zip(PAIRS[name], (ours, theirs), strict=True))
    direct = 0
    for step in range(12):
        # Not all parameters take part in every step; the learning rate changes; a state is loaded in the middle.
        for model in (ours, theirs):
            gradients(model, step, without=2 if step == 5 else None)
        for optimizer in (mine, reference):
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 / (step + 1)
        if step == 8:
            kept = copy.deepcopy(mine.state_dict())
            mine = PAIRS[name][0](groups(ours))
            mine.load_state_dict(kept)
        mine.step()
        reference.step()
        direct += mine.lists is not None  # type: ignore[attr-defined]
        assert same(list(ours.state_dict().values()), list(theirs.state_dict().values())), step
    assert same(mine.state_dict()["state"], reference.state_dict()["state"])
    assert direct == (0 if name == "sgd, no momentum" else 11)  # all but the first


def test_gradient_scaling_goes_torchs_way() -> None:
    ours, theirs = net(), net()
    mine, reference = (make(groups(model)) for make, model in zip(PAIRS["adamw"], (ours, theirs), strict=True))
    scalers = [torch.amp.GradScaler("cpu", init_scale=8.0) for _ in range(2)]
    for step in range(6):
        for model, optimizer, scaler in zip((ours, theirs), (mine, reference), scalers, strict=True):
            optimizer.zero_grad()
            torch.manual_seed(step)
            loss = model(torch.randn(16, 6)).square().sum()
            scaler.scale(loss * (torch.inf if step == 3 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
    assert scalers[0].get_scale() == scalers[1].get_scale() == 4.0
    assert same(list(ours.state_dict().values()), list(theirs.state_dict().values()))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_after_a_first_step_that_scaling_skips(momentum: float) -> None:
    """Where torch's own fused SGD goes on with momentum from memory as it finds it; against its plain loop."""
    ours, theirs = net(), net()
    mine = FusedSGD(groups(ours), lr=1e-2, momentum=momentum, fused=True)
    reference = SGD(groups(theirs), lr=1e-2, momentum=momentum, foreach=False)
    scalers = [torch.amp.GradScaler("cpu", init_scale=8.0) for _ in range(2)]
    waste = [torch.full_like(p, 1e30) for p in ours.parameters() for _ in range(50)]
    del waste  # so that it is found again
    for step in range(4):
        for model, optimizer, scaler in zip((ours, theirs), (mine, reference), scalers, strict=True):
            optimizer.zero_grad()
            torch.manual_seed(step)
            loss = model(torch.randn(16, 6)).square().sum()
            scaler.scale(loss * (torch.inf if step == 0 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_sgd_with_a_parameter_that_comes_later() -> None:
    ours, theirs = net(), net()
    mine = FusedSGD(groups(ours), lr=1e-2, momentum=0.9, nesterov=True, fused=True)
    reference = SGD(groups(theirs), lr=1e-2, momentum=0.9, nesterov=True, foreach=False)
    for step in range(5):
        for model, optimizer in ((ours, mine), (theirs, reference)):
            gradients(model, step, without=2 if step < 2 else None)
            optimizer.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_a_closure_and_mixed_types_go_torchs_way() -> None:
    ours, theirs = net(), net()
    for model in (ours, theirs):
        model[3].double()  # type: ignore[index]
    mine, reference = (make(groups(model)) for make, model in zip(PAIRS["adamw"], (ours, theirs), strict=True))
    for step in range(3):
        for model in (ours, theirs):
            gradients(model, step)
        mine.step()
        reference.step()
    assert mine.lists is None  # type: ignore[attr-defined]
    assert same(list(ours.state_dict().values()), list(theirs.state_dict().values()))
    assert mine.step(lambda: 3.5) == 3.5
