from __future__ import annotations

import pytest
import torch
from torch import nn

from dlrun.gradients import Gradients
from dlrun.groups import L1
from dlrun.profiler import Unwatched
from dlrun.registry import precisions, tasks
from dlrun.spec import DataSpec

CPU, PHASE = torch.device("cpu"), Unwatched().phase
SPEC = DataSpec("tabular", (6,), tuple("abc"))


def made(clip_norm: float | None = None) -> tuple[nn.Sequential, Gradients]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    task, fp32 = tasks.build("classification", {}, SPEC, torch.ones(3)), precisions.build("fp32", {}, CPU)
    return net, Gradients(net, list(net.parameters()), task, fp32, clip_norm)


def batch(size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 6, generator=generator), torch.randint(3, (size,), generator=generator)


@pytest.mark.parametrize("cuts", [[32], [16, 16], [5, 20, 7]])
@pytest.mark.parametrize("parts", [1, 3])
def test_however_the_batch_is_cut_it_is_the_mean_loss_that_is_differentiated(cuts: list[int], parts: int) -> None:
    inputs, targets = batch()
    net, gradients = made()
    for x, y in zip(inputs.split(cuts), targets.split(cuts), strict=True):
        gradients.add(x, y, 32, parts, PHASE)
    reference, _ = made()
    logits = reference(inputs)
    loss = nn.functional.cross_entropy(logits, targets)
    loss.backward()
    for ours, theirs in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)
    assert gradients.loss.item() / 32 == pytest.approx(loss.item(), rel=1e-6)
    assert gradients.correct.item() == (logits.argmax(1) == targets).sum().item()
    gradients.clear()
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("clip_norm", [None, 0.01, 0.2, 100.0])
@pytest.mark.parametrize("l1", [0.0, 0.3])
def test_length_and_clipping_are_torchs_own(clip_norm: float | None, l1: float) -> None:
    net, gradients = made(clip_norm)
    if l1:
        gradients.l1 = L1(torch.optim.SGD(net.parameters(), lr=1.0), l1, net)
    reference, _ = made()
    inputs, targets = batch()
    gradients.add(inputs, targets, 32, 1, PHASE)
    loss = nn.functional.cross_entropy(reference(inputs), targets)
    (loss + l1 * sum(p.abs().sum() for p in reference.parameters() if p.ndim > 1)).backward()
    norm = gradients.norm()
    gradients.clip(norm)
    expected = nn.utils.clip_grad_norm_(reference.parameters(), clip_norm or torch.inf, foreach=False)
    assert norm.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)
