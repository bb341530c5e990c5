"""Feature maps: what a convolution, its norm and its activation give, and nothing that is added to it later."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dlrun.errors import UserError
from dlrun.models.cnn import cnn
from dlrun.models.speednet import speednet
from dlrun.models.zoo import timm, torchvision
from dlrun.registry import models
from dlrun.spec import DataSpec
from dlrun.viz.network.convolutions import record, require
from dlrun.viz.network.features import Features, features
from dlrun.viz.network.pictures.features import on_picture, on_words
from dlrun.viz.network.subject import Subject

DIGITS = DataSpec("image", (1, 8, 8), ("a", "b"))
RGB = DataSpec("image", (3, 32, 32), ("a", "b"))
TEXT = DataSpec("text", (9,), ("a", "b"), vocab_size=20)


def test_the_cnn_s_maps_are_those_after_each_relu() -> None:
    network = cnn(DIGITS, channels=[6, 4]).eval()
    inputs = torch.randn(1, 1, 8, 8)
    found, count = features(network, inputs, 8, 3)
    assert count == 2
    assert [layer.title for layer in found] == ["0.0: Conv2d, BatchNorm2d, ReLU", "0.4: Conv2d, BatchNorm2d, ReLU"]
    for layer, last in zip(found, (3, 7), strict=True):
        maps = network[0][:last](inputs)[0].detach()  # type: ignore[index]
        strongest = maps.abs().mean(dim=(1, 2)).argsort(descending=True)[:3].tolist()
        assert (layer.count, layer.shown, layer.signed) == (len(maps), strongest, False)
        torch.testing.assert_close(torch.from_numpy(layer.maps), maps[strongest])


def test_a_resnet_s_residual_is_no_part_of_a_convolution() -> None:
    network = torchvision(RGB, arch="resnet18").eval()
    inputs = torch.randn(1, 3, 32, 32)
    _, stages, logits = record(network, inputs)
    by_name = {stage.name: stage for stage in stages}
    assert len(stages) == 20
    assert by_name["conv1"].kinds == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert by_name["layer1.0.conv2"].kinds == ["Conv2d", "BatchNorm2d"]  # a ReLU follows, on the sum
    assert by_name["layer2.0.downsample.0"].kinds == ["Conv2d", "BatchNorm2d"]
    stem = network.maxpool(torch.relu(network.bn1(network.conv1(inputs))))  # type: ignore[operator]
    block = network.layer1[0]  # type: ignore[index]
    inner = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(stem)))))
    torch.testing.assert_close(by_name["layer1.0.conv2"].output, inner)
    torch.testing.assert_close(logits, network(inputs))


def test_timm_s_norms_that_activate_belong_to_their_convolution() -> None:
    network = timm(RGB, arch="mobilenetv3_small_050").eval()
    stages = record(network, torch.randn(1, 3, 32, 32))[1]
    assert stages[0].kinds == ["Conv2d", "BatchNormAct2d"]
    assert not any(stage.output.isnan().any() for stage in stages)
    speed = speednet(RGB, widths=[8, 8]).eval()
    assert [stage.kinds[0] for stage in record(speed, torch.randn(1, 3, 32, 32))[1]] == ["Whitening", *["Conv2d"] * 4]


def test_of_many_layers_some_are_chosen() -> None:
    network = torchvision(RGB, arch="resnet18").eval()
    found, count = features(network, torch.randn(1, 3, 32, 32), 4, 2)
    assert count == 20
    assert [layer.layer for layer in found] == ["conv1", "layer2.0.conv2", "layer3.1.conv1", "layer4.1.conv2"]
    assert all(len(layer.shown) == 2 for layer in found)


def test_a_text_s_steps_stand_for_more_and_more_words() -> None:
    network = cnn(TEXT, channels=[6, 4, 4]).eval()
    found, _ = features(network, torch.randint(2, 20, (1, 9)), 8, 16)
    assert [(layer.maps.shape, layer.words_per_step) for layer in found] == [((6, 9), 1), ((4, 5), 2), ((4, 3), 4)]
    figure = on_words("nine words", Subject("it", "a", 0.9, words=tuple("abcdefghi")), found)
    panels = [axis for axis in figure.axes if axis.get_ylabel() == "channel"]
    assert len(panels) == 3
    assert [list(axis.images[0].get_extent())[:2] for axis in panels] == [[-0.5, 8.5], [-0.5, 9.5], [-0.5, 11.5]]
    assert {axis.get_xlim() for axis in panels} == {(-0.5, 8.5)}
    assert [text.get_text() for text in panels[-1].get_xticklabels()] == list("abcdefghi")


def test_the_picture_has_a_row_for_each_layer_and_the_input() -> None:
    maps = np.random.default_rng(0).normal(size=(3, 4, 4))
    layers = [
        Features("0.0", "0.0: Conv2d", 7, [4, 1, 0], maps, True),
        Features("0.4", "0.4", 2, [1], abs(maps[:1]), False),
    ]
    subject = Subject("it", "<script>$x$", 0.5, "数字", np.full((8, 8, 1), 128, np.uint8))
    figure = on_picture("two layers", subject, layers)
    images = [axis for axis in figure.axes if axis.images and not axis.get_ylabel()]
    assert [axis.get_title() for axis in images] == ["input (1×8×8)", "4", "1", "0", "1"]
    np.testing.assert_array_equal(images[2].images[0].get_array(), maps[1])
    top = abs(maps).max()
    assert images[1].images[0].get_clim() == (-top, top)
    assert images[4].images[0].get_clim() == (0, abs(maps[0]).max())
    assert [axis.get_ylabel() for axis in figure.axes].count("activation") == 2


def test_a_model_without_convolution_is_refused() -> None:
    with pytest.raises(UserError, match=r"'mlp' has no convolution; train model=cnn.*: dlrun plot filters"):
        require(models.build("mlp", {}, DIGITS), "mlp", "features")
    with pytest.raises(UserError, match="dlrun plot attention, landscape"):
        require(models.build("transformer", {}, DIGITS), "transformer", "gradcam")
    require(nn.Sequential(nn.Conv1d(1, 1, 1)), "mine", "features")
