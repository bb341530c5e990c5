"""torchvision's and timm's classifiers fit the data, with random weights and with ImageNet's.

Weights "of ImageNet" are random ones here, put where torch and timm keep what they have downloaded before.
"""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
import torch
import torchvision.models as zoo
from torch import nn

from dlrun.errors import UserError
from dlrun.registry import models
from dlrun.spec import DataSpec

CLASSES = ("a", "b", "c", "d", "e")


def image(*shape: int, classes: int = 5) -> DataSpec:
    return DataSpec("image", shape, tuple(map(str, range(classes))))


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub keeps its downloads: empty, and nothing can be downloaded."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxy of its first download
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    return tmp_path / "checkpoints"


def downloaded(arch: str, downloads: Path) -> nn.Module:
    """A net with random weights that were "downloaded"."""
    torch.manual_seed(0)
    quick = {"init_weights": False} if arch == "googlenet" else {}
    net = zoo.get_model(arch, weights=None, **quick)
    downloads.mkdir(parents=True)
    url = zoo.get_model_weights(arch).DEFAULT.url
    torch.save(net.state_dict(), downloads / url.rpartition("/")[2])
    return net.eval()


@pytest.mark.parametrize(
    ("library", "arch", "parameters"),
    [
        # Published by torchvision with its weights, and by timm in results/model_metadata-in1k.csv (in millions).
        ("torchvision", "resnet18", 11_689_512),
        ("torchvision", "vgg11_bn", 132_868_840),
        ("torchvision", "mobilenet_v3_small", 2_542_856),
        ("torchvision", "squeezenet1_1", 1_235_496),
        ("torchvision", "vit_b_16", 86_567_656),
        ("timm", "resnet18", 11_689_512),
        ("timm", "vit_tiny_patch16_224", 5_717_416),
    ],
)
def test_published_parameter_counts(library: str, arch: str, parameters: int) -> None:
    with torch.device("meta"):  # which has shapes and no numbers
        model = models.build(library, {"arch": arch}, image(3, 224, 224, classes=1000))
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("library", "arch", "shape"),
    [
        ("torchvision", "resnet18", (1, 28, 28)),
        ("torchvision", "resnet18", (4, 20, 33)),
        ("torchvision", "vgg11_bn", (1, 64, 64)),
        ("torchvision", "mobilenet_v3_small", (3, 32, 32)),
        ("torchvision", "squeezenet1_1", (1, 32, 32)),
        ("torchvision", "vit_b_16", (1, 32, 32)),
        ("timm", "resnet18", (1, 28, 28)),
        ("timm", "vit_tiny_patch16_224", (1, 32, 48)),
    ],
)
def test_the_first_layer_and_the_head_fit_the_data(library: str, arch: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = models.build(library, {"arch": arch}, image(*shape))
        assert model(torch.empty(2, *shape)).shape == (2, 5)
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    assert first.in_channels == first.weight.shape[1] == shape[0]


@pytest.mark.parametrize(("library", "arch"), [("torchvision", "squeezenet1_1"), ("timm", "resnet18")])
def test_it_trains_on_real_numbers(library: str, arch: str) -> None:
    torch.manual_seed(0)
    model = models.build(library, {"arch": arch}, image(1, 32, 32))
    logits = model(torch.randn(2, 1, 32, 32))
    nn.functional.cross_entropy(logits, torch.tensor([0, 4])).backward()
    assert logits.shape == (2, 5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("arch", "channels"), [("resnet18", 1), ("resnet18", 4), ("mobilenet_v3_small", 1), ("squeezenet1_1", 3)]
)
def test_pretrained_weights_answer_to_grey_images_as_they_did(arch: str, channels: int, downloads: Path) -> None:
    theirs = downloaded(arch, downloads)
    model = models.build("torchvision", {"arch": arch, "pretrained": True}, image(channels, 32, 32)).eval()
    features: dict[nn.Module, torch.Tensor] = {}
    for net in (theirs, model):
        last = [m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
        last.register_forward_pre_hook(lambda _, inputs, net=net: features.update({net: inputs[0]}))
    grey = torch.rand(2, 1, 32, 32)
    assert model(grey.expand(2, channels, 32, 32)).shape == (2, 5)
    theirs(grey.expand(2, 3, 32, 32))
    torch.testing.assert_close(features[model], features[theirs], rtol=1e-4, atol=1e-5)


def test_pretrained_weights_that_expect_three_channels_take_one(downloads: Path) -> None:
    downloaded("googlenet", downloads)  # its published weights come with a rescaling of red, green and blue
    model = models.build("torchvision", {"arch": "googlenet", "pretrained": True}, image(1, 32, 32))
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 5)


def test_pretrained_weights_that_cannot_be_downloaded_are_one_line(downloads: Path) -> None:
    with pytest.raises(UserError, match=r"model\.pretrained: can't load the weights of 'resnet18' \(.*refused"):
        models.build("torchvision", {"arch": "resnet18", "pretrained": True}, image(3, 32, 32))


def test_timms_weights_that_cannot_be_downloaded_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"model\.arch: can't make timm's 'resnet18' \("):
        models.build("timm", {"arch": "resnet18", "pretrained": True}, image(3, 32, 32))


@pytest.mark.parametrize(
    ("library", "arch", "near"),
    [("torchvision", "resnet81", "resnet18"), ("timm", "vit_tinypatch16_224", "vit_tiny_patch16_224")],
)
def test_an_unknown_architecture_names_the_nearest(library: str, arch: str, near: str) -> None:
    with pytest.raises(UserError, match=rf"model\.arch: unknown architecture '{arch}'; did you mean '{near}'\?"):
        models.build(library, {"arch": arch}, image(3, 32, 32))


def test_images_that_are_too_small_are_refused() -> None:
    with (
        torch.device("meta"),
        pytest.raises(UserError, match=r"'alexnet' can't take 3×16×16 images .*data\.image_size"),
    ):
        models.build("torchvision", {"arch": "alexnet"}, image(3, 16, 16))


@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize(
    ("spec", "instead"),
    [
        (DataSpec("tabular", (8,), CLASSES), "perceptron or mlp"),
        (DataSpec("text", (8,), CLASSES, vocab_size=9), "perceptron, mlp, cnn, rnn, lstm or transformer"),
    ],
)
def test_what_is_no_image_is_refused_with_what_would_do(library: str, spec: DataSpec, instead: str) -> None:
    with pytest.raises(UserError, match=f"model '{library}' takes images, not {spec.modality} data.*choose {instead}"):
        models.build(library, {}, spec)
