"""The CNN against torch.nn.functional, on images of any size and on texts with and without padding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.registry import models
from dlrun.spec import DataSpec

CLASSES = tuple("0123456789")


def unlike_its_start(model: nn.Module) -> nn.Module:
    """The model with batch norms that do something, as after some training."""
    torch.manual_seed(1)
    for norm in model.modules():
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
                tensor.normal_()
            norm.running_var.uniform_(0.5, 2)
    return model.eval()


def block(x: Tensor, convolution: nn.Module, norm: nn.Module) -> Tensor:
    convolve = F.conv2d if x.ndim == 4 else F.conv1d
    x = convolve(x, convolution.weight, convolution.bias, padding="same")
    return F.relu(F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias))


def test_parameter_count() -> None:
    options = {"channels": [32, 64, 128], "hidden_size": 512}
    model = models.build("cnn", options, DataSpec("image", (1, 28, 28), CLASSES))
    # 320 + 18,496 + 73,856 (convolutions) + 448 (norms) + 590,336 (hidden layer on 128·3·3) + 5,130 (head)
    assert sum(p.numel() for p in model.parameters()) == 688_586


@pytest.mark.parametrize(
    ("size", "kernel_size", "windows"),
    [((11, 8), 3, [2, 2, 2]), ((8, 9), 5, [2, 2, 2]), ((3, 9), 3, [2, (1, 2), (1, 2)]), ((2, 1), 3, [(2, 1), 1, 1])],
)
def test_it_computes_what_its_layers_compute_one_by_one(
    size: tuple[int, int], kernel_size: int, windows: list[int | tuple[int, int]]
) -> None:
    torch.manual_seed(0)
    options = {"channels": [4, 6, 3], "hidden_size": 8, "kernel_size": kernel_size}
    model = unlike_its_start(models.build("cnn", options, DataSpec("image", (2, *size), CLASSES)))
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    hidden, head = [m for m in model.modules() if isinstance(m, nn.Linear)]
    images = torch.randn(3, 2, *size)
    x = images
    for convolution, norm, window in zip(convolutions, norms, windows, strict=True):
        x = F.max_pool2d(block(x, convolution, norm), window)
    torch.testing.assert_close(model(images), head(F.relu(hidden(x.flatten(1)))))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 5), (2, 1, 9), (1, 33, 20), (3, 224, 224)])
def test_any_image_size_trains(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    options = {"channels": [2, 3, 4], "hidden_size": 5}
    model = models.build("cnn", options, DataSpec("image", shape, CLASSES))
    logits = model(torch.randn(2, *shape))
    assert logits.shape == (2, 10)
    F.cross_entropy(logits, torch.tensor([0, 9])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    hidden = next(m for m in model.modules() if isinstance(m, nn.Linear))
    assert hidden.in_features <= 4 * 8 * 8


def test_a_large_map_is_averaged_down() -> None:
    torch.manual_seed(0)
    options = {"channels": [2], "hidden_size": 3}
    model = unlike_its_start(models.build("cnn", options, DataSpec("image", (1, 40, 20), CLASSES)))
    images = torch.randn(2, 1, 40, 20)
    x = F.max_pool2d(block(images, model[0][0], model[0][1]), 2)  # (2, 2, 20, 10)
    x = x[:, :, :18].reshape(2, 2, 6, 3, 5, 2).mean(dim=(3, 5))  # windows of 3×2; two rows are left over
    hidden, head = [m for m in model.modules() if isinstance(m, nn.Linear)]
    torch.testing.assert_close(model(images), head(F.relu(hidden(x.flatten(1)))))


def test_padding_has_no_say_in_a_text() -> None:
    torch.manual_seed(0)
    spec = DataSpec("text", (21,), CLASSES, vocab_size=30)
    model = unlike_its_start(models.build("cnn", {"channels": [4, 6, 5], "hidden_size": 8}, spec))
    hidden, head = [m for m in model.modules() if isinstance(m, nn.Linear)]
    lengths = [1, 2, 3, 6, 7, 11, 21, 21, 21, 21]
    tokens = torch.zeros(len(lengths), 21, dtype=torch.int64)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = torch.randint(1, 30, (length,))
    logits = model(tokens)
    for row, length, padded in zip(tokens, lengths, logits, strict=True):
        x = F.embedding(row[None, :length], model.embedding.weight).transpose(1, 2)
        for convolution, norm, _ in model.blocks:
            x = F.max_pool1d(block(x, convolution, norm), 2, ceil_mode=True)
        alone = head(F.relu(hidden(x.amax(dim=2))))[0]
        torch.testing.assert_close(padded, alone)


def test_a_text_without_a_word_has_finite_logits() -> None:
    model = models.build("cnn", {"channels": [4]}, DataSpec("text", (6,), CLASSES, vocab_size=30))
    assert model(torch.zeros(2, 6, dtype=torch.int64)).isfinite().all()


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.kernel_size: expected an odd number.*got 4"):
        models.build("cnn", {"kernel_size": 4}, DataSpec("image", (1, 8, 8), CLASSES))


def test_a_table_is_refused_with_what_would_do() -> None:
    with pytest.raises(UserError, match=r"model 'cnn' takes images and text.*choose perceptron or mlp"):
        models.build("cnn", {}, DataSpec("tabular", (8,), CLASSES))
