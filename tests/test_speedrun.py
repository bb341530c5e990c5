"""The recipes of the speed records: they run, and take the steps that the record's own loop takes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from command_line import CommandLine
from torch import Tensor, nn

from dlrun.build import build
from dlrun.config import parse
from dlrun.data.loader import Batches
from dlrun.profiler import Unwatched
from dlrun.tracking import Quiet
from dlrun.tracking.terminal import Terminal

PICTURES = ["data=fake", "data.shape=[3,32,32]", "precision=fp32", "trainer.num_threads=1", "tracking=none"]


@pytest.mark.parametrize("recipe", ["cifar10_speedrun", "cifar10_speedrun_96"])
def test_it_trains_evaluates_and_goes_on(dlrun: CommandLine, recipe: str) -> None:
    words = [f"experiment={recipe}", *PICTURES, "model.widths=[4,8,8]", "data.size=500", "data.batch_size=100"]
    words += ["scheduler.warmup_epochs=0", "scheduler.total_steps=9", "hydra.run.dir=run"]
    result = dlrun(*words, "trainer.max_steps=3")
    assert result.code == 0, result.err
    assert "the mean of 6 views of each picture" in result.out
    result = dlrun("resume", "run=run", "trainer.max_steps=9")
    assert result.code == 0, result.err
    summary = dlrun.summary(".")
    assert (summary["status"], summary["steps"]) == ("finished", 9)
    assert 0 <= summary["test"]["test/acc"] <= 1


class Nowhere:
    """Keeps no checkpoint."""

    busy = False

    def put(self, state: dict[str, Any], best: bool = False) -> None: ...


STEPS, SCALE = 2, 0.111 * 256  # of the record's head to ours


def test_its_steps_are_those_of_airbench94_muon(
    compose_config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps of 2,000 pictures, not augmented and without the whitening's bias, but for digits of the recipe.

    Both orthogonalise exactly: what bfloat16 adds there grows sevenfold from one step to the next on such noise.
    """
    monkeypatch.setattr("dlrun.muon.orthogonalized", lambda matrix, steps: polar(matrix))
    words = ["experiment=cifar10_speedrun", *PICTURES, "model.widths=[6,8,8]", "data.size=2100"]
    words += ["augment.transforms=[]", "trainer.limit_train_batches=1", "trainer.freeze={first: 0}"]
    words += ["scheduler.total_steps=200", f"trainer.max_steps={STEPS}", "trainer.tta=none"]
    run = build(parse(compose_config(*words)))
    model = run.parts["weights"]
    start = copy.deepcopy(model)
    expected = recorded(copy.deepcopy(model), run.parts["train_batches"])
    run.trainer(Quiet(), Terminal(1, show_bar=False), Nowhere(), Unwatched()).fit()
    moved = 0
    every = zip(model.named_parameters(), expected.parameters(), start.parameters(), strict=True)
    for (name, ours), theirs, before in every:
        if torch.equal(before, theirs):
            assert torch.equal(ours, before), name
            continue
        moved += 1
        change = (theirs - before).norm()
        assert (ours - theirs).norm() < 0.01 * change, (name, (ours - theirs).norm() / change)
    assert moved == 6 + 6 + 1  # kernels, biases of norms, head


def test_values_of_airbench96(compose_config: Callable[..., dict[str, Any]]) -> None:
    """As it works them out: rates and decays per 1,024 samples, decoupled from each other and from the momentum."""
    config = compose_config("experiment=cifar10_speedrun_96")
    optimizer, scale = config["optimizer"], 1 + 1 / (1 - 0.85)
    lr, decay = 9.0 / scale, 0.012 / scale  # for the sum over 1,024 samples there, for their mean here
    biases = lr * optimizer["bias_lr_scale"]
    assert (optimizer["name"], optimizer["bias_lr_scale"], optimizer["momentum"]) == ("sgd", 64, 0.85)
    assert optimizer["lr"] == pytest.approx(lr, rel=1e-2)
    assert optimizer["lr"] * optimizer["weight_decay"] == pytest.approx(decay, rel=1e-2)
    assert biases * optimizer["bias_weight_decay"] == pytest.approx(decay, rel=1e-2)


def recorded(model: nn.Module, batches: Batches) -> nn.Module:
    """The published loop with its own values: the loss is summed, logits are divided by 256."""
    model.head.weight.data *= SCALE
    model.logit_scale = 1 / 256
    kernels = [p for p in model.parameters() if p.ndim == 4 and p.requires_grad]
    biases = [m.bias for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    decay = 2e-6 * 2000
    rest = torch.optim.SGD(
        [
            {"params": biases, "lr": 0.053, "weight_decay": decay / 0.053},
            {"params": [model.head.weight], "lr": 0.67, "weight_decay": decay / 0.67},
        ],
        momentum=0.85,
        nesterov=True,
    )
    rates, momenta = [group["lr"] for group in rest.param_groups], [torch.zeros_like(p) for p in kernels]
    for step in range(STEPS):
        ((inputs, targets),) = batches.epoch(step)
        assert len(targets) == 2000
        model.zero_grad()
        F.cross_entropy(model.train()(inputs), targets, label_smoothing=0.2, reduction="sum").backward()
        for group, rate in zip(rest.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - step / 200)
        rest.step()
        with torch.no_grad():
            for kernel, momentum in zip(kernels, momenta, strict=True):
                momentum.mul_(0.6).add_(kernel.grad)
                update = kernel.grad + 0.6 * momentum
                kernel.mul_(len(kernel) ** 0.5 / kernel.norm())
                kernel.sub_(0.24 * (1 - step / 200) * polar(update.flatten(1)).view_as(kernel))
    model.head.weight.data /= SCALE
    return model


def polar(matrix: Tensor) -> Tensor:
    """The record's three Newton-Schulz steps, on singular values."""
    u, singular, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    singular = singular / singular.norm()
    for _ in range(3):
        singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
    return (u @ torch.diag(singular) @ v).float()
