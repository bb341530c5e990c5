"""Muon against torch's own on matrices, and against its author's loop over kernels, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dlrun.muon import Muon, orthogonalized
from dlrun.optim import Muon as Used
from dlrun.registry import models, optimizers
from dlrun.spec import DataSpec

CIFAR = DataSpec("image", (3, 32, 32), tuple("0123456789"), (0.5,) * 3, (0.25,) * 3)


def iterated(singular: Tensor, steps: int) -> Tensor:
    """What the iteration makes of singular values: its polynomial, applied to each."""
    for _ in range(steps):
        singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
    return singular


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (9, 9)])
@pytest.mark.parametrize("steps", [3, 5])
def test_it_moves_the_singular_values_and_nothing_else(shape: tuple[int, int], steps: int) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, singular, v = torch.linalg.svd(matrix, full_matrices=False)
    expected = u @ torch.diag(iterated(singular / singular.norm(), steps)) @ v
    torch.testing.assert_close(orthogonalized(matrix, steps).double(), expected, rtol=0, atol=0.03)  # in bfloat16


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
def test_matrices_move_as_with_torchs(shape: tuple[int, int], nesterov: bool) -> None:
    random = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=random)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    options = {"lr": 0.1, "weight_decay": 0.2, "momentum": 0.7, "nesterov": nesterov, "ns_steps": 4}
    optimizer, reference = Muon([ours], **options), torch.optim.Muon([theirs], **options)
    for _ in range(4):
        ours.grad = torch.randn(shape, generator=random)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_kernels_move_as_in_the_speed_record(layout: torch.memory_format) -> None:
    """The loop of airbench94_muon, in float64 and with singular values by SVD."""
    random = torch.Generator().manual_seed(0)
    start = torch.randn(8, 4, 3, 3, generator=random)
    lr, momentum, steps = 0.24, 0.6, 3
    kernel = nn.Parameter(start.clone().to(memory_format=layout))
    options = {"weight_decay": 0.0, "momentum": momentum, "nesterov": True, "ns_steps": steps, "normalize": True}
    optimizer = Muon([kernel], lr, **options)
    weight, buffer = start.double().flatten(1), torch.zeros(8, 36, dtype=torch.float64)
    for _ in range(3):
        gradient = torch.randn(8, 4, 3, 3, generator=random)
        kernel.grad = gradient.to(memory_format=layout)
        optimizer.step()
        buffer = momentum * buffer + gradient.double().flatten(1)
        update = gradient.double().flatten(1) + momentum * buffer
        weight = weight * math.sqrt(len(weight)) / weight.norm()
        u, singular, v = torch.linalg.svd(update, full_matrices=False)
        weight = weight - lr * u @ torch.diag(iterated(singular / singular.norm(), steps)) @ v
    torch.testing.assert_close(kernel.detach().double().flatten(1), weight, rtol=0, atol=0.02)
    assert kernel.is_contiguous(memory_format=layout)
    assert (kernel.detach().flatten(1) - start.flatten(1)).abs().max() > 0.1  # it did move


def test_it_has_the_kernels_of_a_net_and_sgd_the_rest() -> None:
    net = models.build("speednet", {"widths": [4, 8, 8]}, CIFAR)
    options = {"lr": 0.24, "others": "sgd", "others_lr": 1.6, "others_momentum": 0.85, "weight_decay": 0.01}
    kernels, others = optimizers.build("muon", options, net).parts
    names = {p: name for name, p in net.named_parameters()}
    assert isinstance(kernels, Used)
    assert {names[p] for group in kernels.param_groups for p in group["params"]} == {
        f"groups.{group}.convolutions.{place}.weight" for group in range(3) for place in range(2)
    }
    assert isinstance(others, torch.optim.SGD)
    (head, biases) = others.param_groups
    assert [names[p] for p in head["params"]] == ["head.weight"]
    assert {names[p].rpartition(".")[2] for p in biases["params"]} == {"bias"}
    assert [(g["weight_decay"], g["lr"], g["momentum"], g["nesterov"]) for g in others.param_groups] == [
        (0.01, 1.6, 0.85, True),
        (0.0, 1.6, 0.85, True),
    ]
