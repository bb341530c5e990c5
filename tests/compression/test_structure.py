"""Layers that were cut are layers as torch makes them in that size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlrun.compression.structure import reshape, shapes_of
from dlrun.errors import UserError

PAIRS = [
    (lambda n: nn.Linear(2 * n, n), torch.randn(3, 4)),
    (lambda n: nn.Conv2d(2 * n, n, 3, bias=False), torch.randn(3, 4, 5, 5)),
    (lambda n: nn.Conv1d(2 * n, 2 * n, 3, groups=2 * n), torch.randn(3, 4, 5)),  # depthwise
    (lambda n: nn.Conv2d(2 * n, 6 * n, 3, groups=2 * n), torch.randn(3, 4, 5, 5)),  # and three for each
    (lambda n: nn.Conv2d(4 * n, 6 * n, 3, groups=2), torch.randn(3, 8, 5, 5)),
    (lambda n: nn.ConvTranspose2d(2 * n, n, 3), torch.randn(3, 4, 5, 5)),
    (lambda n: nn.BatchNorm2d(n), torch.randn(3, 2, 5, 5)),
    (lambda n: nn.BatchNorm1d(n, affine=False), torch.randn(3, 2)),
    (lambda n: nn.LayerNorm(n), torch.randn(3, 2)),
    (lambda n: nn.GroupNorm(2, 2 * n), torch.randn(3, 4, 5)),
    (lambda n: nn.Embedding(5, n, padding_idx=0), torch.tensor([[1, 0]])),
    (lambda n: nn.EmbeddingBag(5, n, padding_idx=0), torch.tensor([[1, 0]])),
    (lambda n: nn.LSTM(n, 3 * n, 2, bidirectional=True), torch.randn(3, 1, 2)),
    (lambda n: nn.RNN(2 * n, n, batch_first=True), torch.randn(3, 1, 4)),
]


@pytest.mark.parametrize(("make", "x"), PAIRS)
def test_a_layer_is_as_torch_makes_it(make, x):
    large, small = nn.Sequential(make(4)).eval(), nn.Sequential(make(2)).eval()
    reshape(large, shapes_of(large, small)).load_state_dict(small.state_dict())
    assert str(large) == str(small)
    one, other = (out[0] if isinstance(out, tuple) else out for out in (large(x), small(x)))
    assert torch.equal(one, other)


def test_what_isnt_trained_stays_so():
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].weight.requires_grad_(False)
    reshape(model, {"0.weight": [4, 2]})
    assert (model[0].weight.requires_grad, model[0].bias.requires_grad) == (False, True)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"1.weight": [1, 1]}, "compression.shapes: this model has no '1.weight'"),
        ({"0.weight": [3, 5]}, "compression.shapes.0.weight: expected at most 4×4, got 3×5"),
        ({"0.weight": [3]}, "compression.shapes.0.weight: expected at most 4×4, got 3"),
        ({"0.weight": [0, 4]}, "expected at most 4×4, got 0×4"),
    ],
)
def test_shapes_of_another_model(shapes, said):
    with pytest.raises(UserError, match=said):
        reshape(nn.Sequential(nn.Linear(4, 4)), shapes)


def test_attention_is_refused():
    with pytest.raises(UserError, match="one width inside and outside"):
        reshape(nn.Sequential(nn.MultiheadAttention(8, 2)), {"0.in_proj_weight": [12, 8]})
