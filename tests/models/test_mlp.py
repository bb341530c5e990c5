"""The MLP against the functions of torch.nn.functional and against layers stacked by hand."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlrun.errors import UserError
from dlrun.models.mlp import ACTIVATIONS, WordLinear
from dlrun.registry import models
from dlrun.spec import DataSpec

TABLE = DataSpec("tabular", (6,), ("a", "b", "c"))


def test_parameter_count() -> None:
    options = {"hidden_sizes": [512, 256, 128], "dropout": 0.3}
    model = models.build("mlp", options, DataSpec("image", (1, 28, 28), tuple("0123456789")))
    # 784·512 + 512 + 512·256 + 256 + 256·128 + 128 + 128·10 + 10
    assert sum(p.numel() for p in model.parameters()) == 567_434


def test_each_activation_is_the_function_of_its_name() -> None:
    assert len(ACTIVATIONS) == 9
    inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    for name in ACTIVATIONS:
        torch.manual_seed(1)
        model = models.build("mlp", {"hidden_sizes": [8], "activation": name}, TABLE).eval()
        w1, b1, w2, b2 = model.parameters()
        expected = getattr(F, name)(inputs @ w1.T + b1) @ w2.T + b2
        torch.testing.assert_close(model(inputs), expected, msg=name)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_training_equals_layers_stacked_by_hand(batch_norm: bool) -> None:
    torch.manual_seed(0)
    options = {"hidden_sizes": [16, 8], "dropout": 0.4, "activation": "tanh", "batch_norm": batch_norm}
    model = models.build("mlp", options, DataSpec("image", (2, 3, 4), ("a", "b", "c"))).train()
    linear = [copy.deepcopy(m) for m in model.modules() if isinstance(m, nn.Linear)]
    norm = [nn.BatchNorm1d(16), nn.BatchNorm1d(8)] if batch_norm else [nn.Identity(), nn.Identity()]
    inputs = torch.randn(10, 2, 3, 4)
    torch.manual_seed(7)
    hidden = F.dropout(torch.tanh(norm[0](linear[0](inputs.reshape(10, 24)))), 0.4)
    hidden = F.dropout(torch.tanh(norm[1](linear[1](hidden))), 0.4)
    torch.manual_seed(7)
    torch.testing.assert_close(model(inputs), linear[2](hidden))


def test_word_linear_is_a_linear_layer_on_word_frequencies() -> None:
    torch.manual_seed(0)
    layer = WordLinear(vocab_size=12, width=4)
    nn.init.normal_(layer.bias)
    tokens = torch.tensor([[3, 3, 5, 11, 3, 1], [7, 2, 0, 0, 0, 0], [4, 4, 4, 0, 0, 0]])
    counts = F.one_hot(tokens, 12).sum(dim=1).float()
    counts[:, 0] = 0  # padding is no word
    reference = nn.Linear(12, 4)
    reference.weight.data, reference.bias.data = layer.words.weight.data.T.clone(), layer.bias.data.clone()
    expected = reference(counts / counts.sum(dim=1, keepdim=True))
    output = layer(tokens)
    torch.testing.assert_close(output, expected)
    output.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(layer.words.weight.grad, reference.weight.grad.T)
    torch.testing.assert_close(layer.bias.grad, reference.bias.grad)


def test_an_unknown_activation_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"model\.activation: unknown activation 'rellu'; did you mean 'relu'\?"):
        models.build("mlp", {"activation": "rellu"}, TABLE)
