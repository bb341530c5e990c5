"""The perceptron is a linear map, whatever comes in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlrun.errors import UserError
from dlrun.registry import models
from dlrun.spec import DataSpec

CLASSES = ("a", "b", "c")


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 4, 4), (6,)])
def test_logits_are_a_linear_map_of_the_flattened_input(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    spec = DataSpec("image" if len(shape) == 3 else "tabular", shape, CLASSES)
    model = models.build("perceptron", {}, spec)
    weight, bias = (p.detach().double().numpy() for p in model.parameters())
    inputs = torch.randn(4, *shape)
    expected = inputs.double().numpy().reshape(4, -1) @ weight.T + bias
    np.testing.assert_allclose(model(inputs).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_on_text_it_is_a_linear_map_of_word_frequencies() -> None:
    torch.manual_seed(0)
    model = models.build("perceptron", {}, DataSpec("text", (5,), CLASSES, vocab_size=9))
    weight, bias = (p.detach().double().numpy() for p in (model[0].words.weight, model[0].bias))  # (9, 3), (3,)
    tokens = torch.tensor([[2, 2, 8, 1, 2], [3, 4, 0, 0, 0]])
    frequencies = np.zeros((2, 9))
    frequencies[0, [1, 2, 8]] = 1 / 5, 3 / 5, 1 / 5
    frequencies[1, [3, 4]] = 1 / 2, 1 / 2
    np.testing.assert_allclose(model(tokens).detach().numpy(), frequencies @ weight + bias, rtol=1e-5, atol=1e-6)


def test_it_has_as_many_parameters_as_softmax_regression() -> None:
    model = models.build("perceptron", {}, DataSpec("image", (1, 28, 28), tuple("0123456789")))
    assert sum(p.numel() for p in model.parameters()) == 7_850  # 784 · 10 + 10, as in every MNIST tutorial


def test_an_option_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.hidden_sizes: unknown option"):
        models.build("perceptron", {"hidden_sizes": [3]}, DataSpec("tabular", (6,), CLASSES))
