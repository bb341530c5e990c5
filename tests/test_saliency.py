"""Gradient × input, against closed forms and Captum's."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradientXActivation
from torch import Tensor, nn

from dlrun.registry import models
from dlrun.saliency import word_relevance
from dlrun.spec import DataSpec

SPEC = DataSpec("text", (6,), ("a", "b", "c"), vocab_size=20)
TOKENS = torch.tensor([[3, 4, 5, 0, 0, 0], [7, 8, 9, 10, 11, 3]])
CLASSES = torch.tensor([2, 0])


def test_a_bag_of_words_is_linear() -> None:
    """Each word's part is its own row of logits, divided by the number of words."""
    torch.manual_seed(0)
    net = models.build("mlp", {"hidden_sizes": [4], "dropout": 0.0, "activation": "relu"}, SPEC).eval()
    words, first, last = net[0].words.weight, net[0].bias, net[-1].weight  # type: ignore[union-attr, index]
    found = word_relevance(net, TOKENS, CLASSES)
    assert found is not None
    for row, (tokens, cls) in enumerate(zip(TOKENS, CLASSES, strict=True)):
        own = tokens[tokens > 0]
        active = (words[own].mean(dim=0) + first > 0).float()
        expected = words[own] @ (last[cls] * active)
        torch.testing.assert_close(found[row, : len(own)], expected.detach())


@pytest.mark.parametrize("name", ["lstm", "transformer", "cnn"])
def test_it_is_captums(name: str) -> None:
    torch.manual_seed(0)
    options = {"lstm": {"hidden_size": 5, "embedding_dim": 4}, "transformer": {"d_model": 4, "num_heads": 2}, "cnn": {}}
    net = models.build(name, options[name], SPEC).eval()
    (embedding,) = [module for module in net.modules() if isinstance(module, nn.Embedding)]
    expected: Tensor = LayerGradientXActivation(net, embedding).attribute(TOKENS, target=CLASSES)
    with torch.inference_mode():
        found = word_relevance(net, TOKENS, CLASSES)
    torch.testing.assert_close(found, expected.sum(dim=2).detach())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_model_without_words() -> None:
    assert word_relevance(nn.Linear(6, 3), torch.randn(2, 6), CLASSES) is None
