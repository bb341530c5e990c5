"""Fake quantisation against the arithmetic it stands for, and against the net that it is put around."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from onnxruntime.quantization.quant_utils import compute_scale_zp
from quantizable import PAIRS, SPECS, batch, net
from torch import Tensor, nn

from dlrun.compression import fake_quantization
from dlrun.compression.dataflow import layers
from dlrun.compression.fake_quantization import (
    MOMENTUM,
    RoundedLinear,
    observe,
    plain,
    prepare,
    rounded,
    rounded_weight,
    scale_and_zero,
)
from dlrun.errors import UserError
from dlrun.registry import models
from dlrun.spec import DataSpec


def observed(model: nn.Module, *batches: Tensor) -> nn.Module:
    observe(model, True)
    with torch.no_grad():
        for inputs in batches:
            model.eval()(inputs)
    observe(model, False)
    return model


@pytest.mark.parametrize("extent", [(-1.0, 3.0), (0.0, 2.5), (-0.3, 0.0), (-7.1, 0.2), (0.0, 0.0)])
def test_scale_and_zero_are_onnx_runtimes(extent: tuple[float, float]) -> None:
    scale, zero = scale_and_zero(torch.tensor(extent))
    low, high = np.array(extent[0], np.float32), np.array(extent[1], np.float32)
    theirs_zero, theirs = compute_scale_zp(low, high, np.array(0, np.uint8), np.array(255, np.uint8))
    assert (scale.item(), zero.item()) == (pytest.approx(float(theirs), rel=1e-6), int(theirs_zero))


def test_weights_are_rounded_per_output() -> None:
    weight = torch.randn(5, 3, 2, 2) * torch.tensor([1e-3, 1.0, 50.0, 0.0, 1.0]).view(5, 1, 1, 1)
    exact = weight.double().numpy()
    step = np.abs(exact).max(axis=(1, 2, 3), keepdims=True) / 64
    expected = np.divide(exact, step, out=np.zeros_like(exact), where=step > 0).round() * step
    assert np.allclose(rounded_weight(weight).numpy(), expected, rtol=1e-5, atol=0)
    assert len(rounded_weight(weight)[1].unique()) <= 129


def test_the_gradient_goes_straight_through_rounding_and_not_through_clipping() -> None:
    x = torch.tensor([-2.0, -1.1, -0.9, -0.001, 0.0, 0.4, 1.91, 2.1, 9.0], requires_grad=True)
    result = rounded(x, torch.tensor([-1.0, 2.0]), learns=False)
    result.backward(torch.arange(1.0, 10))
    inside = (x >= -1) & (x <= 2)
    assert torch.equal(x.grad, torch.arange(1.0, 10) * inside)
    step = 3 / 255
    expected = (np.round(x.detach().double().numpy() / step).clip(-85, 170)) * step
    assert np.allclose(result.detach().numpy(), expected, atol=1e-6)


def test_a_layers_gradients_are_those_of_the_rounded_product() -> None:
    layer = nn.Linear(6, 4)
    model = prepare(nn.Sequential(layer), DataSpec("tabular", (6,), ("a", "b")))
    assert type(layer) is RoundedLinear
    x = torch.randn(9, 6, requires_grad=True)
    upstream = torch.randn(9, 4)
    model.train()(x).backward(upstream)
    low, high = min(x.min().item(), 0), max(x.max().item(), 0)
    step = (high - low) / 255
    zero = round(-low / step)
    taken = ((x.detach() / step).round().clamp(-zero, 255 - zero) * step).double()
    weight = rounded_weight(layer.weight.detach()).double()
    assert torch.allclose(layer.weight.grad.double(), upstream.double().T @ taken, atol=1e-5)
    assert torch.allclose(layer.bias.grad, upstream.sum(0), atol=1e-5)
    inside = ((x.detach() / step).round() + zero >= 0) & ((x.detach() / step).round() + zero <= 255)
    assert torch.allclose(x.grad.double(), (upstream.double() @ weight) * inside, atol=1e-5)


def test_ranges_follow_what_is_seen_in_training_and_nothing_else() -> None:
    layer = nn.Linear(3, 2)
    model = prepare(nn.Sequential(layer), DataSpec("tabular", (3,), ("a", "b")))
    batches = [torch.randn(8, 3) * scale + 1 for scale in (1, 2, 0.5)]
    low = high = None
    for x in batches:
        model.train()(x)
        model.eval()(x * 100)
        now = min(x.min().item(), 0), max(x.max().item(), 0)
        low = now[0] if low is None else low + MOMENTUM * (now[0] - low)
        high = now[1] if high is None else high + MOMENTUM * (now[1] - high)
        assert layer.input_range.tolist() == pytest.approx([low, high], rel=1e-5)


def test_every_net_with_fine_enough_steps_is_the_net_that_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and gradients, in training and after it: rounding is all that is added."""
    monkeypatch.setattr(fake_quantization, "WEIGHT_STEPS", 2**17)
    monkeypatch.setattr(fake_quantization, "LAST_STEP", 2**17)
    monkeypatch.setattr(fake_quantization, "MOMENTUM", 1.0)  # nothing is outside the range
    walked = 0
    for name, modality in PAIRS:
        spec = SPECS[modality]
        model = net(name, spec)
        for module in model.modules():
            if isinstance(module, nn.Dropout | nn.LSTM | nn.RNN):
                module.dropout = module.p = 0.0
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
        other = observed(prepare(copy.deepcopy(model), spec), batch(spec, 16))
        names = dict(model.named_parameters())
        assert dict(other.named_parameters()).keys() == names.keys()
        added = other.state_dict().keys() - model.state_dict().keys()
        assert all(key.endswith(("input_range", "output_range")) for key in added)
        inputs = batch(spec, 16)
        assert torch.allclose(other(inputs), model(inputs), atol=1e-3, rtol=1e-3), (name, modality)
        for net_ in (model, other):
            net_.train()(inputs).square().sum().backward()
        assert torch.allclose(other(inputs), model(inputs), atol=2e-3, rtol=2e-3), (name, modality)
        # All in all: a maximum between two that are nearly the same may now be the other one.
        gradients = [(p.grad, names[key].grad) for key, p in other.named_parameters() if p.requires_grad]
        apart = sum((one - two).square().sum() for one, two in gradients)
        assert apart < 0.05**2 * sum(two.square().sum() for _, two in gradients), (name, modality)
        walked += 1
    assert walked == 17
    assert {name for name, _ in PAIRS} == set(models.names())


def test_what_is_left_without_rounding_is_the_net_with_its_weights() -> None:
    spec = SPECS["image"]
    model = net("cnn", spec)
    prepared = observed(prepare(copy.deepcopy(model), spec), batch(spec, 16))
    back = plain(prepared)
    assert back.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(back(batch(spec, 5)), model(batch(spec, 5)))
    assert [type(module) for module in back.modules()] == [type(module) for module in model.modules()]


def test_where_a_cnn_is_rounded() -> None:
    found = layers(net("cnn", SPECS["image"]), batch(SPECS["image"], 1))
    assert [type(layer.module).__name__ for layer in found] == ["Conv2d", "Conv2d", "Linear", "Linear"]
    # Pooled and flattened numbers are on the grid of the convolution that they come from.
    assert [layer.given for layer in found] == [False, True, True, False]
    assert [layer.relu for layer in found] == [True, True, False, False]
    assert [layer.norm is not None for layer in found] == [True, True, False, False]


def test_a_residual_and_a_shared_relu_are_seen() -> None:
    """In a residual block one ReLU comes after a batch norm, and after a sum, which is no convolution's output."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
            self.norm, self.relu = nn.BatchNorm2d(2), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.two(self.relu(self.norm(self.one(x)))) + x)

    one, two = layers(Block(), torch.randn(1, 2, 4, 4))
    assert (one.relu, one.given, one.norm is not None) == (True, False, True)
    assert (two.relu, two.given, two.norm is not None) == (False, True, False)


def test_channels_last_changes_nothing() -> None:
    spec = SPECS["image"]
    model = observed(prepare(net("cnn", spec), spec), batch(spec, 16))
    inputs = batch(spec, 6)
    expected = model(inputs)
    other = model.to(memory_format=torch.channels_last)(inputs.to(memory_format=torch.channels_last))
    # A sum in another order may round to the next step, a few hundredths of the whole.
    assert (other - expected).norm() < 0.02 * expected.norm()


def test_a_channel_that_is_switched_off_can_come_back() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    nn.init.zeros_(model[1].weight)
    prepare(model, DataSpec("image", (1, 4, 4), ("a", "b")))
    model.train()(torch.randn(16, 1, 4, 4)).square().sum().backward()
    assert model[1].weight.grad.abs().min() > 0
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_net_without_such_layers_is_refused() -> None:
    with pytest.raises(UserError, match="no linear layer, convolution or embedding"):
        prepare(nn.Sequential(nn.Flatten(), nn.LayerNorm(7)), SPECS["tabular"])
