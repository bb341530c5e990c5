"""The transformer against torch.nn's own layers, attention and convolution, and against formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.transformer import EncoderLayer, Patches, sinusoidal
from dlrun.registry import models
from dlrun.spec import DataSpec

CLASSES = ("a", "b", "c")
SMALL = {"d_model": 8, "num_heads": 2, "d_ff": 16}
TEXT, IMAGE = DataSpec("text", (9,), CLASSES, vocab_size=20), DataSpec("image", (3, 8, 12), CLASSES)
LENGTHS = [9, 1, 4]
VALID = torch.arange(9) < torch.tensor(LENGTHS).unsqueeze(1)  # (3, 9)


def torchs(layer: EncoderLayer) -> nn.TransformerEncoderLayer:
    """torch's own layer with the same weights."""
    d_model, d_ff = layer.qkv.in_features, layer.feed_forward[0].out_features
    other = nn.TransformerEncoderLayer(
        d_model, layer.num_heads, d_ff, layer.dropout.p, batch_first=True, norm_first=layer.norm_first
    )
    other.self_attn.in_proj_weight.data, other.self_attn.in_proj_bias.data = layer.qkv.weight.data, layer.qkv.bias.data
    other.self_attn.out_proj.load_state_dict(layer.out.state_dict())
    other.linear1.load_state_dict(layer.feed_forward[0].state_dict())
    other.linear2.load_state_dict(layer.feed_forward[3].state_dict())
    other.norm1.load_state_dict(layer.norm1.state_dict())
    other.norm2.load_state_dict(layer.norm2.state_dict())
    return other.train(layer.training)


def unlike_its_start(model: nn.Module) -> nn.Module:
    """Biases and norms at zero and one could be mixed up without anybody noticing."""
    for p in model.parameters():
        if p.ndim == 1:
            nn.init.normal_(p)
    return model


def texts() -> Tensor:
    return torch.randint(1, 20, (3, 9)) * VALID


def test_parameter_count() -> None:
    layer = EncoderLayer(512, 8, 2048, 0.1, norm_first=False)
    # The base model of Vaswani et al. 2017: 1,050,624 (attention) + 2,099,712 (feed-forward) + 2,048 (norms)
    assert sum(p.numel() for p in layer.parameters()) == 3_152_384


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_layer_and_its_gradients_equal_torchs(norm_first: bool, training: bool) -> None:
    torch.manual_seed(0)
    layer = unlike_its_start(EncoderLayer(8, 2, 16, 0.3, norm_first)).train(training)
    other = torchs(layer)
    valid = VALID[2:] if training else VALID  # both draw the same dropout for one text; of several, in another order
    x, out_gradient = torch.randn(*valid.shape, 8), torch.randn(*valid.shape, 8)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.manual_seed(1)
    output = layer(ours, valid)
    torch.manual_seed(1)
    expected = other(theirs, src_key_padding_mask=~valid)
    torch.testing.assert_close(output, expected)
    output.backward(out_gradient)
    expected.backward(out_gradient)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(layer.qkv.weight.grad, other.self_attn.in_proj_weight.grad)
    torch.testing.assert_close(layer.qkv.bias.grad, other.self_attn.in_proj_bias.grad)
    torch.testing.assert_close(layer.out.weight.grad, other.self_attn.out_proj.weight.grad)
    torch.testing.assert_close(layer.feed_forward[0].weight.grad, other.linear1.weight.grad)
    torch.testing.assert_close(layer.feed_forward[3].weight.grad, other.linear2.weight.grad)
    torch.testing.assert_close(layer.norm1.weight.grad, other.norm1.weight.grad)
    torch.testing.assert_close(layer.norm2.bias.grad, other.norm2.bias.grad)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_a_padded_text_equals_torchs_layers_on_the_text_alone(norm_first: bool, pooling: str, positions: str) -> None:
    torch.manual_seed(0)
    options = {**SMALL, "num_layers": 2, "norm_first": norm_first, "pooling": pooling, "positions": positions}
    model = unlike_its_start(models.build("transformer", options, TEXT)).eval()
    assert isinstance(model.positions, nn.Parameter) == (positions == "learned")
    layers = [torchs(layer) for layer in model.layers]
    tokens = texts()
    logits = model(tokens)
    for row, length in enumerate(LENGTHS):
        x = F.embedding(tokens[row : row + 1, :length], model.embedding.weight) + model.positions[:length]
        if pooling == "cls":
            x = torch.cat([model.class_token.view(1, 1, 8), x], dim=1)
        for layer in layers:
            x = layer(x)
        x = F.layer_norm(x, (8,), model.norm.weight, model.norm.bias) if norm_first else x
        pooled = x[:, 0] if pooling == "cls" else x.mean(dim=1)
        torch.testing.assert_close(logits[row], model.head(pooled)[0])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_image_equals_torchs_layers_on_its_patches(pooling: str) -> None:
    torch.manual_seed(0)
    options = {**SMALL, "num_layers": 1, "pooling": pooling, "patch_size": [4, 3]}
    model = unlike_its_start(models.build("transformer", options, IMAGE)).eval()
    images = torch.randn(2, 3, 8, 12)
    assert model.positions.shape == (2 * 4, 8)
    x = model.embedding(images) + model.positions
    if pooling == "cls":
        x = torch.cat([model.class_token.expand(2, 1, 8), x], dim=1)
    x = F.layer_norm(torchs(model.layers[0])(x), (8,), model.norm.weight, model.norm.bias)
    torch.testing.assert_close(model(images), model.head(x[:, 0] if pooling == "cls" else x.mean(dim=1)))


def test_patches_are_a_convolution_with_its_kernel_as_stride() -> None:
    torch.manual_seed(0)
    patches = Patches(3, 4, 2, 8)
    images = torch.randn(2, 3, 8, 12)
    weight = patches.projection.weight.view(8, 3, 4, 2)
    expected = F.conv2d(images, weight, patches.projection.bias, stride=(4, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches(images), expected)


@pytest.mark.parametrize(
    ("image", "patch"),
    [((28, 28), (2, 2)), ((32, 32), (4, 4)), ((224, 224), (28, 28)), ((64, 40), (8, 5)), ((29, 1), (1, 1))],
)
def test_patches_are_at_most_an_eighth_of_the_image(image: tuple[int, int], patch: tuple[int, int]) -> None:
    model = models.build("transformer", SMALL, DataSpec("image", (1, *image), CLASSES))
    assert (model.embedding.height, model.embedding.width) == patch


def test_sinusoidal_positions_follow_the_formula() -> None:
    expected = np.empty((50, 6))
    for position in range(50):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            expected[position, 2 * i : 2 * i + 2] = math.sin(angle), math.cos(angle)
    np.testing.assert_allclose(sinusoidal(50, 6), expected, atol=1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
def test_attention_weights_equal_those_of_torchs_attention(norm_first: bool) -> None:
    torch.manual_seed(0)
    layer = unlike_its_start(EncoderLayer(8, 2, 16, 0.0, norm_first)).eval()
    x = torch.randn(3, 9, 8)
    weights = layer.attention_weights(x, VALID)  # (3, 2, 9, 9)
    seen = layer.norm1(x) if norm_first else x
    attention = torchs(layer).self_attn
    expected = attention(seen, seen, seen, key_padding_mask=~VALID, average_attn_weights=False)[1]
    torch.testing.assert_close(weights, expected)


def test_each_layers_attention_weights_sum_to_one_and_leave_padding_out() -> None:
    torch.manual_seed(0)
    model = models.build("transformer", {**SMALL, "num_layers": 2, "pooling": "cls"}, TEXT).eval()
    first, second = model.attention_weights(texts())
    for weights in (first, second):
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 2, 10))
        assert not weights[:, :, :, 1:].masked_select(~VALID[:, None, None, :]).any()
    tokens, valid = model.tokens(texts())
    assert tokens.shape == (3, 10, 8)
    assert valid.sum(dim=1).tolist() == [10, 2, 5]


def test_the_second_layers_attention_looks_at_the_first_ones_output() -> None:
    torch.manual_seed(0)
    model = unlike_its_start(models.build("transformer", {**SMALL, "num_layers": 2}, TEXT)).eval()
    tokens = texts()
    x = torchs(model.layers[0])(F.embedding(tokens, model.embedding.weight) + model.positions, None, ~VALID)
    x = model.layers[1].norm1(x)
    attention = torchs(model.layers[1]).self_attn
    expected = attention(x, x, x, key_padding_mask=~VALID, average_attn_weights=False)[1]
    torch.testing.assert_close(model.attention_weights(tokens)[1], expected)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_text_without_a_word_has_finite_logits_and_gradients(pooling: str) -> None:
    torch.manual_seed(0)
    model = models.build("transformer", {**SMALL, "pooling": pooling}, TEXT)
    logits = model(torch.zeros(2, 9, dtype=torch.int64))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "spec", "message"),
    [
        ({"d_model": 10, "num_heads": 4}, TEXT, r"model\.num_heads: expected a divisor of model\.d_model=10, got 4"),
        ({"d_model": 9, "num_heads": 3, "positions": "sinusoidal"}, TEXT, r"model\.d_model: expected an even number"),
        ({"patch_size": 4}, TEXT, r"model\.patch_size: only images"),
        ({"patch_size": 5}, IMAGE, r"model\.patch_size: expected divisors of the image's 8×12, got 5"),
        ({"patch_size": [4, 5]}, IMAGE, r"model\.patch_size: expected divisors of the image's 8×12, got \[4, 5\]"),
        ({"pooling": "max"}, TEXT, r"model\.pooling: expected one of 'cls', 'mean', got 'max'"),
        ({}, DataSpec("tabular", (8,), CLASSES), "model 'transformer' takes tokens.*choose perceptron or mlp"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], spec: DataSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        models.build("transformer", options, spec)
