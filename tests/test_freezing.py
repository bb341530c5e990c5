"""Frozen parameters against a loop in which they simply aren't given to the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlrun.build import build
from dlrun.config import parse
from dlrun.errors import UserError
from dlrun.freezing import Freezing
from dlrun.profiler import Unwatched
from dlrun.tracking import Quiet
from dlrun.tracking.terminal import Terminal

WORDS = ["data=blobs", "data.batch_size=64", "model=mlp", "model.hidden_sizes=[8,8]", "model.dropout=0.0"]
WORDS += ["optimizer=sgd", "optimizer.weight_decay=0.1", "scheduler=none", "trainer.max_epochs=3"]
WORDS += ["trainer.gradient_clip_val=null", "trainer.num_threads=1"]


class Nowhere:
    """Keeps no checkpoint."""

    busy = False

    def put(self, state: dict[str, Any], best: bool = False) -> None: ...


def test_it_is_trained_for_so_many_epochs(compose_config: Callable[..., dict[str, Any]]) -> None:
    config = parse(compose_config(*WORDS, "trainer.freeze={1: 0, 4.bias: 1, 4: 2}"))
    run, reference = build(config), build(config)  # the same start
    model, batches = reference.parts["weights"], reference.parts["train_batches"]
    epochs = {"1.weight": 0, "1.bias": 0, "4.weight": 2, "4.bias": 1, "7.weight": 3, "7.bias": 3}
    assert list(epochs) == [name for name, _ in model.named_parameters()]
    run.trainer(Quiet(), Terminal(1, show_bar=False), Nowhere(), Unwatched()).fit()

    momentum = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for epoch in range(3):
        for inputs, targets in batches.epoch(epoch):
            model.train().requires_grad_(True)
            gradients = torch.autograd.grad(F.cross_entropy(model(inputs), targets), list(model.parameters()))
            with torch.no_grad():
                for (name, p), gradient in zip(model.named_parameters(), gradients, strict=True):
                    if epoch < epochs[name]:
                        gradient = gradient + (0.1 * p if p.ndim == 2 else 0)
                        momentum[name] = 0.9 * momentum[name] + gradient
                        p -= 0.1 * (gradient + 0.9 * momentum[name])
    for (name, p), expected in zip(run.parts["weights"].named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p, expected, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.Linear(3, 2))


def test_names_are_of_parts_and_of_parameters() -> None:
    model = net()
    freezing = Freezing(model, {"1": 2, "1.0.bias": 1, "2.bias": 0})
    trained = []
    for epoch in (0, 1, 2, 0):
        freezing.begin_epoch(epoch)
        trained.append({name for name, p in model.named_parameters() if p.requires_grad})
    always = {"0.weight", "0.bias", "2.weight"}
    assert trained[0] == trained[3] == always | {"1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias"}
    assert trained[1] == trained[0] - {"1.0.bias"}
    assert trained[2] == always


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        ({"10": 1}, r"trainer\.freeze: nothing that is trained is called '10'; did you mean '1\.0'"),
        ({"1.0.w": 1}, r"nothing that is trained is called '1\.0\.w'; did you mean '1\.0"),
        ({"0": 1, "1": 0, "2": 5}, r"trainer\.freeze: these are all parameters; nothing would be left to train"),
    ],
)
def test_mistakes_are_named(epochs: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Freezing(net(), epochs)


def test_values_are_epochs(compose_config: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=r"trainer\.freeze: expected a mapping or null, got \{0: -1\}"):
        parse(compose_config(*WORDS, "trainer.freeze={0: -1}"))
