"""The net of the speed records: its size and its start as published, its forward pass layer by layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.registry import models
from dlrun.spec import DataSpec

CLASSES = tuple("0123456789")
CIFAR = DataSpec("image", (3, 32, 32), CLASSES)


def numbers(model: nn.Module) -> int:
    """Parameters, and the whitening's weight, which the record counts too."""
    return sum(p.numel() for p in model.parameters()) + model.first.weight.numel()


def test_parameter_count_of_the_records() -> None:
    # airbench94 prints 1,972,792, "1.97 million" in the paper: whitening 24·12 + 24; kernels 9·(24·64 + 64·64 +
    # 64·256 + 3·256·256); norms 2·(2·64 + 4·256); head 256·10.
    assert numbers(models.build("speednet", {}, CIFAR)) == 312 + 1_967_616 + 2_304 + 2_560 == 1_972_792
    # airbench96: kernels 9·(24·128 + 2·128² + 128·512 + 5·512²), norms 2·(3·128 + 6·512), head 512·10.
    large = models.build("speednet", {"widths": [128, 512, 512], "depth": 3}, CIFAR)
    assert numbers(large) == 312 + 12_708_864 + 6_912 + 5_120


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize(
    ("size", "pools"),
    [((32, 32), [2, 2]), ((9, 6), [2, 2]), ((4, 2), [(2, 1), 1]), ((8, 8), [2, 2])],
)
def test_it_computes_what_its_layers_compute_one_by_one(
    depth: int, size: tuple[int, int], pools: list[int | tuple[int, int]]
) -> None:
    torch.manual_seed(0)
    options = {"widths": [6, 5], "depth": depth, "logit_scale": 0.5}
    model = models.build("speednet", options, DataSpec("image", (2, *size), CLASSES))
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.bias.data.normal_()
    images = torch.randn(7, 2, *size)

    def normed(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        return F.batch_norm(x, None, None, None, norm.bias, training=True)

    def convolved(x: Tensor, convolution: nn.Conv2d) -> Tensor:
        return F.conv2d(x, convolution.weight, padding=1)

    x = F.gelu(F.conv2d(images, model.first.weight, model.first.bias))
    for group, pool in zip(model.groups, pools, strict=True):
        kernels, norms = group.convolutions, group.norms
        first = F.gelu(normed(F.max_pool2d(convolved(x, kernels[0]), pool), norms[0]))
        x = normed(convolved(first, kernels[1]), norms[1])
        if depth == 3:
            x = normed(convolved(F.gelu(x), kernels[2]), norms[2]) + first
        x = F.gelu(x)
    expected = 0.5 * F.max_pool2d(x, x.shape[2:]).flatten(1) @ model.head.weight.T
    torch.testing.assert_close(model.train()(images), expected)


def test_kernels_begin_as_the_identity() -> None:
    model = models.build("speednet", {"widths": [40, 64], "depth": 3}, CIFAR)
    kernels = [m for group in model.groups for m in group.convolutions]
    assert [(k.in_channels, k.out_channels) for k in kernels] == [(24, 40), (40, 40), (40, 40), (40, 64)] + [
        (64, 64)
    ] * 2
    for kernel in kernels:
        x = torch.randn(2, kernel.in_channels, 5, 5)
        y = kernel(x)
        torch.testing.assert_close(y[:, : kernel.in_channels], x)
        if kernel.out_channels > kernel.in_channels:
            assert y[:, kernel.in_channels :].std() > 0.1  # and what is new is random


def test_narrower_groups_keep_the_first_channels() -> None:
    kernel = models.build("speednet", {"widths": [8]}, CIFAR).groups[0].convolutions[0]
    x = torch.randn(2, 24, 5, 5)
    torch.testing.assert_close(kernel(x), x[:, :8])


def test_norms_shift_and_dont_scale() -> None:
    norms = [m for m in models.build("speednet", {}, CIFAR).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 6
    for norm in norms:
        assert (norm.momentum, norm.weight.requires_grad, norm.bias.requires_grad) == (0.4, False, True)
        assert (norm.weight == 1).all()


def test_the_first_layer_can_be_learned() -> None:
    model = models.build("speednet", {"whitening": False, "whitening_size": 3}, CIFAR)
    assert isinstance(model.first, nn.Conv2d)
    assert model.first.weight.shape == (54, 3, 3, 3)
    assert model.first.weight.requires_grad


def test_what_it_cant_do_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.whitening_size: expected at most 2, a side of the pictures"):
        models.build("speednet", {"whitening_size": 3}, DataSpec("image", (1, 5, 2), CLASSES))
    with pytest.raises(UserError, match="'speednet' takes images, not text data; for text data choose perceptron, mlp"):
        models.build("speednet", {}, DataSpec("text", (9,), CLASSES, vocab_size=20))
    with pytest.raises(UserError, match=r"model\.depth: expected one of 2, 3, got 4"):
        models.build("speednet", {"depth": 4}, CIFAR)
