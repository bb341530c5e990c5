"""Grad-CAM against the paper's formula, by hand and autograd."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.cnn import cnn
from dlrun.models.zoo import timm, torchvision
from dlrun.spec import DataSpec
from dlrun.viz.network.gradcam import gradcam
from dlrun.viz.network.pictures import words as marked
from dlrun.viz.network.pictures.gradcam import on_picture
from dlrun.viz.network.subject import Subject

CLASSES = ("a", "b", "c")
GREY = DataSpec("image", (1, 16, 16), CLASSES)
RGB = DataSpec("image", (3, 64, 64), CLASSES)
TEXT = DataSpec("text", (11,), CLASSES, vocab_size=20)


def by_hand(before: nn.Module, after: nn.Module, inputs: Tensor, target: int) -> Tensor:
    """The sum over channels k of (mean of ∂y/∂A_k) · A_k (Selvaraju et al. 2017, equations 1 and 2)."""
    maps = before(inputs).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(after(maps)[0, target], maps)
    weights = gradient.flatten(2).mean(dim=2).view(*maps.shape[:2], *[1] * (maps.ndim - 2))
    return (weights * maps).sum(dim=1)[0].detach()


def test_on_the_cnn() -> None:
    torch.manual_seed(0)
    network = cnn(GREY, channels=[6, 8], hidden_size=12).eval()
    inputs = torch.randn(1, 1, 16, 16)
    for target in range(3):
        found = gradcam(network, inputs, target, None, "cnn")
        assert (found.layer, found.signed.shape, found.laid.shape) == ("0.6", (8, 8), (16, 16))
        expected = by_hand(network[0][:7], nn.Sequential(network[0][7:], network[1:]), inputs, target)  # type: ignore[index]
        torch.testing.assert_close(torch.from_numpy(found.signed), expected)
        laid = F.interpolate(expected.relu()[None, None], (16, 16), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(torch.from_numpy(found.laid), laid)
    assert gradcam(network, inputs, None, None, "cnn").target == int(network(inputs).argmax())
    first = gradcam(network, inputs, 0, "0.0", "cnn")
    expected = by_hand(network[0][:1], nn.Sequential(network[0][1:], network[1:]), inputs, 0)  # type: ignore[index]
    torch.testing.assert_close(torch.from_numpy(first.signed), expected)
    assert first.layers == [("0.2", (6, 16, 16)), ("0.6", (8, 8, 8))]


def test_on_words() -> None:
    torch.manual_seed(0)
    network = cnn(TEXT, channels=[6, 8], hidden_size=12).eval()
    tokens = torch.randint(2, 20, (1, 11))
    found = gradcam(network, tokens, 1, None, "cnn")

    def before(ids: Tensor) -> Tensor:
        x = network.blocks[0](network.embedding(ids).transpose(1, 2))  # type: ignore[index,operator,union-attr]
        return network.blocks[1](network.pool(x))  # type: ignore[index,operator,no-any-return,union-attr]

    def after(maps: Tensor) -> Tensor:
        return network.head(network.pool(maps).amax(dim=2))  # type: ignore[operator,no-any-return]

    expected = by_hand(before, after, tokens, 1)  # type: ignore[arg-type]
    assert found.layer == "blocks.1"
    torch.testing.assert_close(torch.from_numpy(found.signed), expected)
    step_of = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]  # two words make a step after one pooling
    np.testing.assert_allclose(found.laid, expected.relu().numpy()[step_of])


def test_the_last_maps_of_nets_by_others() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(1, 3, 64, 64)
    network = torchvision(RGB, arch="resnet18").eval()
    found = gradcam(network, inputs, 2, None, "resnet18")
    assert found.layer == "layer4"
    parts = list(network.children())
    expected = by_hand(nn.Sequential(*parts[:8]), nn.Sequential(parts[8], nn.Flatten(), parts[9]), inputs, 2)
    torch.testing.assert_close(torch.from_numpy(found.signed), expected, rtol=1e-4, atol=1e-6)
    for build, arch, layer in (
        (torchvision, "squeezenet1_1", "classifier.2"),
        (torchvision, "mobilenet_v3_small", "features"),
        (timm, "resnet10t", "layer4"),
        (timm, "mobilenetv3_small_050", "blocks"),
    ):
        found = gradcam(build(RGB, arch=arch).eval(), inputs, None, None, arch)
        assert found.layer == layer, arch
        assert found.laid.shape == (64, 64)


def test_what_it_can_t_do() -> None:
    inputs = torch.randn(1, 3, 64, 64)
    vit = timm(RGB, arch="vit_tiny_patch16_224").eval()
    with pytest.raises(UserError, match=r"only cuts the picture into patches; dlrun plot attention"):
        gradcam(vit, inputs, None, None, "vit")
    network = cnn(GREY, channels=[6, 8], hidden_size=12).eval()
    small = torch.randn(1, 1, 16, 16)
    with pytest.raises(UserError, match=r"unknown layer '0\.22'.*0\.2, 0\.6"):
        gradcam(network, small, None, "0.22", "cnn")
    with pytest.raises(UserError, match=r"'2\.0' gives 12, which isn't maps"):
        gradcam(network, small, None, "2.0", "cnn")
    tiny = DataSpec("image", (1, 1, 1), CLASSES)
    with pytest.raises(UserError, match="no convolution of 'cnn' has a map of more than one place"):
        gradcam(cnn(tiny, channels=[4]).eval(), torch.randn(1, 1, 1, 1), None, None, "cnn")


def test_the_picture_and_the_words() -> None:
    laid, small = np.linspace(0, 1, 64).reshape(8, 8), np.array([[0.0, 0.25], [0.5, 2.0]])
    pixels = np.zeros((8, 8, 3), np.uint8)
    figure = on_picture("a title", Subject("it", "a", 0.5, pixels=pixels), laid, small, "layer4")
    given, over, alone, bar = figure.axes
    assert [len(axis.images) for axis in (given, over, alone)] == [1, 2, 1]
    np.testing.assert_array_equal(over.images[1].get_array(), laid)
    np.testing.assert_array_equal(alone.images[0].get_array(), small)
    assert over.images[1].get_clim() == alone.images[0].get_clim() == (0, 2)
    assert bar.get_ylabel() == "Grad-CAM (logit's gradient × activation)"
    said = ["a", "<b>", "$c$", "слово", *["long"] * 100]
    weights = [float(place) for place in range(len(said))]
    figure = marked.figure("words", said, weights, "Grad-CAM", "unit")
    text, scale, bars = figure.axes
    assert [drawn.get_text() for drawn in text.texts] == said
    assert len(text.patches) == 104
    assert scale.get_xlabel() == "Grad-CAM (unit)"
    assert [bar.get_height() for bar in bars.patches] == weights[:64]  # type: ignore[attr-defined]
    assert bars.get_xlabel() == "word (the first 64 of 104)"
    boxes = [patch.get_window_extent() for patch in text.patches]
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))
