"""Zeros stay zero, whatever moves the weights around them."""

from __future__ import annotations

import json

import pytest
import torch

from dlrun import checkpoint
from dlrun.compression.sparsity import Sparsity
from dlrun.compression.unstructured import prune, weights, zeros_of
from dlrun.errors import UserError
from dlrun.registry import models, optimizers
from dlrun.spec import DataSpec
from dlrun.weights import judged

SPEC = DataSpec("text", (6,), ("a", "b", "c"), vocab_size=30)
PARENT = ["data.limit=200", "trainer.enable_progress_bar=false", "tracking=none", "trainer.max_epochs=2"]
MLP = [*PARENT, "model=mlp", "model.hidden_sizes=[24,16]", "hydra.run.dir=parent"]


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon", "rmsprop"])
def test_after_steps_of_an_optimizer(name):
    torch.manual_seed(0)
    model = models.build("lstm", {"embedding_dim": 8, "hidden_size": 8}, SPEC)
    torch.nn.init.normal_(model.embedding.weight, std=0.3)  # or all of it would go, and nothing come out of it
    prune(model, 0.6)
    before = {n: p.detach().clone() for n, p in weights(model)}
    sparsity, optimizer = Sparsity(model), optimizers.build(name, {}, model)
    for _ in range(4):
        model(torch.randint(1, 30, (8, 6))).logsumexp(1).sum().backward()
        optimizer.step()
        if name != "rmsprop":
            assert any(bool((p[before[n] == 0] != 0).any()) for n, p in weights(model)), "nothing to hold"
        sparsity.hold()
    for n, p in weights(model):
        assert not p[before[n] == 0].any()
        assert (p != before[n]).float().mean() > 0.1
    assert zeros_of(model).weights == pytest.approx(0.6, abs=1e-3)


def test_without_zeros():
    with pytest.raises(UserError, match="these weights have none"):
        Sparsity(torch.nn.Sequential(torch.nn.Linear(3, 3)))


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=adamw"],
        ["optimizer=sgd", "optimizer.lr=0.05"],
        ["optimizer=muon", "trainer.ema_decay=0.9", "trainer.accumulate_grad_batches=2"],
        ["precision=bf16_weights"],
        ["precision=bf16_weights", "precision.update=stochastic"],
        ["trainer.on_nonfinite=rollback", "optimizer.l1=1e-4"],
    ],
)
def test_through_a_training(dlrun, words):
    """In the checkpoints of a run that was compressed: live weights and averaged ones."""
    assert dlrun(*MLP, *words).code == 0
    result = dlrun("compress", "run=parent", "method=prune_unstructured", "amount=0.7", "bench=false")
    assert result.code == 0, result.err
    (child,) = (dlrun.folder / "parent/compress").iterdir()
    start = torch.load(child / "checkpoints/initial.pt", weights_only=True)
    for name in ("best.pt", "last.pt"):
        state = checkpoint.load(child / "checkpoints" / name)
        for tensors in (state["model"], judged(state)[0]):
            moved = 0
            for key, initial in start.items():
                if key.endswith("weight"):
                    assert not tensors[key][initial == 0].any(), key
                    moved += int((tensors[key] != initial).sum())
            assert moved > 100
    told = json.loads((child / "summary.json").read_text())["compression"]
    assert told["sparsity"] == pytest.approx(0.7, abs=1e-3)
    assert told["sparsity_before"] < 0.05
    assert told["sparsity_by_layer"].keys() == {"1.weight", "4.weight", "7.weight"}
