"""The first layer's filters: the weights themselves, and the n-grams that a text's filters answer to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlrun.errors import UserError
from dlrun.models.cnn import TextCNN, cnn
from dlrun.models.recurrent import lstm
from dlrun.models.transformer import transformer
from dlrun.models.zoo import timm, torchvision
from dlrun.registry import models
from dlrun.spec import PAD, DataSpec
from dlrun.viz.network.filters import first_filters, most_activating, text_convolution
from dlrun.viz.network.pictures import filters as pictures

RGB = DataSpec("image", (3, 8, 8), ("a", "b"), (0.5,) * 3, (0.5,) * 3)
GREY = DataSpec("image", (1, 8, 12), ("a", "b"), (0.5,), (0.5,))
TEXT = DataSpec("text", (9,), ("a", "b"), vocab_size=20)


def test_a_convolution_gives_its_kernels_and_of_many_the_largest() -> None:
    network = cnn(RGB, channels=[6, 4])
    weight = network[0][0].weight  # type: ignore[index]
    found = first_filters(network, RGB, "cnn", 64)
    assert (found.layer, found.count, found.shown) == ("0.0", 6, list(range(6)))
    np.testing.assert_array_equal(found.weights, weight.detach().numpy())
    few = first_filters(network, RGB, "cnn", 2)
    largest = np.argsort(np.linalg.norm(weight.detach().numpy().reshape(6, -1), axis=1))[-2:]
    assert few.count == 6
    assert few.shown == sorted(largest.tolist())


def test_what_is_no_convolution_is_laid_over_what_it_sees() -> None:
    picture = torch.randn(1, 1, 8, 12)
    over_rows = first_filters(lstm(GREY), GREY, "lstm", 64)
    assert over_rows.weights.shape == (64, 1, 1, 12)
    network = transformer(GREY, patch_size=[4, 3])
    patches = first_filters(network, GREY, "transformer", 200)
    assert patches.weights.shape == (128, 1, 4, 3)
    # As a convolution with these kernels, from patch to patch, a transformer's first layer gives the same.
    projection = network.embedding.projection  # type: ignore[union-attr]
    convolved = F.conv2d(picture, torch.from_numpy(patches.weights), projection.bias, stride=(4, 3))
    torch.testing.assert_close(convolved.flatten(2).transpose(1, 2), network.embedding(picture))  # type: ignore[operator]
    perceptron = models.build("perceptron", {}, GREY)
    over_all = first_filters(perceptron, GREY, "perceptron", 64)
    sums = (torch.from_numpy(over_all.weights) * picture).sum(dim=(1, 2, 3)) + perceptron[1].bias
    torch.testing.assert_close(sums, perceptron(picture)[0])


def test_nets_of_torchvision_and_timm() -> None:
    for build in (torchvision, timm):
        network = build(DataSpec("image", (3, 32, 32), ("a", "b")), arch="resnet18")
        found = first_filters(network, RGB, "resnet18", 16)
        assert (found.layer, found.count, found.weights.shape) == ("conv1", 64, (16, 3, 7, 7))


def test_the_picture_has_the_weights_on_one_scale() -> None:
    weights = np.random.default_rng(0).normal(size=(11, 1, 3, 5))
    figure = pictures.filters("eleven", weights, range(11))
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == 11
    top = np.abs(weights).max()
    for axis, weight in zip(drawn, weights, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), weight[0])
        assert axis.images[0].get_clim() == (-top, top)
    assert "weight" in [axis.get_ylabel() for axis in figure.axes]  # the colour bar's


def test_three_channels_are_colours_and_two_are_cells() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3, 2, 2))
    figure = pictures.filters("four", weights, range(4))
    drawn = [axis.images[0] for axis in figure.axes if axis.images]
    top = np.abs(weights).max()
    np.testing.assert_allclose(np.asarray(drawn[2].get_array()), 0.5 + weights[2].transpose(1, 2, 0) / (2 * top))
    assert drawn[0].get_array().min() >= 0  # type: ignore[union-attr]
    two = pictures.filters("two", weights[:, :2], range(4))
    assert [axis.get_title() for axis in two.axes if axis.images][:3] == [
        "0, channel 0",
        "0, channel 1",
        "1, channel 0",
    ]


def test_ngrams_are_those_that_a_convolution_by_hand_finds() -> None:
    torch.manual_seed(0)
    network = cnn(TEXT, channels=[5, 4]).eval()
    assert isinstance(network, TextCNN)
    for norm in [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
    tokens = torch.randint(2, 20, (7, 9))
    tokens[3, 4:] = PAD
    words = [f"w{number}" for number in range(20)]
    found = most_activating(network, tokens.split(3), words, 5, each=4)
    assert (found.width, found.texts, found.count, found.shown) == (3, 7, 5, [0, 1, 2, 3, 4])
    convolution, norm, _ = network.blocks[0]  # type: ignore[misc]
    for number, grams in zip(found.shown, found.found, strict=True):
        by_hand: dict[str, float] = {}
        for text in tokens:
            ids = [PAD, *[int(t) for t in text if t != PAD], PAD]
            for place in range(len(ids) - 2):
                window = ids[place : place + 3]
                vectors = network.embedding.weight[window].T  # (E, 3)
                value = (convolution.weight[number] * vectors).sum() + convolution.bias[number]
                value = (value - norm.running_mean[number]) / (norm.running_var[number] + norm.eps) ** 0.5
                value = (value * norm.weight[number] + norm.bias[number]).relu()
                by_hand[" ".join("·" if i == PAD else words[i] for i in window)] = value.item()
        best = sorted(by_hand.values(), reverse=True)[:4]
        np.testing.assert_allclose([value for _, value in grams if value > 0], [v for v in best if v > 0], rtol=1e-4)
        for gram, value in grams:
            if value > 0:
                assert by_hand[gram] == pytest.approx(value, rel=1e-4)
    figure = pictures.ngrams("texts", found.found, found.shown)
    panels = [axis for axis in figure.axes if axis.patches]
    assert [axis.get_title() for axis in panels] == [f"filter {number}" for number in range(5)]
    assert [bar.get_width() for bar in panels[2].patches] == [value for _, value in found.found[2]]  # type: ignore[attr-defined]


def test_what_has_no_filters_is_refused() -> None:
    with pytest.raises(UserError, match=r"'mlp' has no convolution over the words; train model=cnn"):
        text_convolution(models.build("mlp", {}, TEXT), "mlp")
    with pytest.raises(UserError, match="the first layer of the model 'mine' doesn't look at pixels by filters"):
        first_filters(nn.Sequential(nn.ReLU()), RGB, "mine", 64)
