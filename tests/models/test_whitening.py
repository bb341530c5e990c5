"""Whitening against what it is for: outputs whose second moments are the identity."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.models.whitening import EPS, Whitening


def correlated(count: int, channels: int = 3, side: int = 8) -> Tensor:
    """Pictures (N, C, H, W) that are smooth, with colours that go together."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(count, channels, side + 2, side + 2, generator=random)
    mixed = torch.einsum("nchw,cd->ndhw", noise, torch.eye(channels) + 0.9)
    return F.avg_pool2d(mixed, 3, stride=1)


def second_moments(outputs: Tensor) -> Tensor:
    """Of the channels, over pictures and places: (C, C)."""
    rows = outputs.double().transpose(0, 1).flatten(1)
    return rows @ rows.T / rows.shape[1]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_comes_out_is_white(channels: int, size: int) -> None:
    images = correlated(700, channels) * 10  # variances far above EPS, and more pictures than are taken at once
    layer = Whitening(channels, size)
    layer.initialize_from(images)
    half = channels * size**2
    identity = torch.eye(half, dtype=torch.float64)
    expected = torch.cat([torch.cat([identity, -identity]), torch.cat([-identity, identity])], dim=1)
    torch.testing.assert_close(second_moments(layer(images).detach()), expected, rtol=0, atol=2e-3)
    before = second_moments(F.unfold(images, size))
    assert (before - before.diag().diag()).abs().max() > 10  # and it wasn't, before


def test_directions_that_hardly_vary_arent_blown_up() -> None:
    layer, gray = Whitening(3, 2), correlated(100, channels=1).expand(-1, 3, -1, -1)
    layer.initialize_from(gray)
    variances = second_moments(F.unfold(gray, 2))
    eigenvalues = torch.linalg.eigvalsh(variances).flip(0)
    expected = eigenvalues / (eigenvalues + EPS)
    torch.testing.assert_close(second_moments(layer(gray).detach()).diag()[:12], expected, rtol=1e-3, atol=1e-4)
    assert (expected[4:] < 1e-4).all()  # three colours that are one: eight of twelve directions


def test_the_weight_is_kept_and_not_trained() -> None:
    layer = Whitening(3, 2)
    layer.initialize_from(correlated(50))
    layer(correlated(4)).square().sum().backward()
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert layer.bias.grad is not None
    other = Whitening(3, 2)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, layer.weight)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once_at_the_end(low: torch.dtype) -> None:
    images, layer = correlated(50) + 3, Whitening(3, 2)  # far from zero, where low bits matter
    layer.initialize_from(images)
    exact = layer(images)
    with torch.autocast("cpu", low):
        rounded = layer(images)
    assert rounded.dtype == low
    assert torch.equal(rounded, exact.to(low))
    with torch.autocast("cpu", low):
        plain = F.conv2d(images, layer.weight, layer.bias)
    assert (plain - exact).abs().max() > 4 * (rounded - exact).abs().max()
