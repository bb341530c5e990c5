"""Whatever order a split is evaluated in, its predictions come in its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlrun.data.loader import Batches
from dlrun.data.source import TokenSplit
from dlrun.evaluator import Evaluator
from dlrun.registry import models, precisions, tasks
from dlrun.spec import DataSpec

CPU = torch.device("cpu")
SPEC = DataSpec("text", (12,), ("a", "b", "c"), vocab_size=50)


@pytest.mark.parametrize("bucketing", [False, True])
@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize("name", ["lstm", "transformer", "mlp"])
def test_predictions_are_in_the_splits_own_order(name: str, limit: int | None, bucketing: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 13, (23,), generator=generator)
    tokens = torch.randint(1, 50, (23, 12), generator=generator) * (torch.arange(12) < lengths.unsqueeze(1))
    targets = torch.randint(3, (23,), generator=generator)
    torch.manual_seed(0)
    model: nn.Module = models.build(name, {}, SPEC).eval()
    task = tasks.build("classification", {}, SPEC, torch.bincount(targets, minlength=3))
    batches = Batches(TokenSplit(tokens, targets, bucketing=bucketing), 5, lambda b: b.long(), CPU, limit=limit)
    evaluator = Evaluator(model, task, precisions.build("fp32", {}, CPU))
    predicted = evaluator.predict(batches)
    seen = 23 if limit is None else 10
    with torch.inference_mode():  # one text at a time, without its padding
        alone = torch.cat([model(tokens[i : i + 1, : lengths[i]]) for i in range(seen)])
    assert torch.equal(predicted["targets"], targets[:seen])
    torch.testing.assert_close(predicted["probabilities"], alone.softmax(dim=1))
    torch.testing.assert_close(predicted["losses"], F.cross_entropy(alone, targets[:seen], reduction="none"))
    assert torch.equal(predicted["guesses"], alone.argmax(dim=1))
    assert torch.equal(predicted["ranks"], (alone > alone.gather(1, targets[:seen, None])).sum(dim=1))
    metrics = evaluator.evaluate(batches, "test")
    both = evaluator.examine(batches, "test")
    assert both[0] == metrics
    assert all(torch.equal(both[1][name], predicted[name]) for name in predicted)
    assert metrics["test/acc"] == pytest.approx((alone.argmax(dim=1) == targets[:seen]).double().mean().item())
    assert metrics["test/loss"] == pytest.approx(predicted["losses"].mean().item(), rel=1e-5)
