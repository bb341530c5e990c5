"""Attention: torch's own module, products by hand, and rollout's definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from dlrun.errors import UserError
from dlrun.models.cnn import cnn
from dlrun.models.recurrent import Recurrent, lstm, rnn
from dlrun.models.transformer import transformer
from dlrun.models.zoo import timm
from dlrun.spec import DataSpec
from dlrun.viz.network.attention import attention, pooling, rollout
from dlrun.viz.network.pictures.attention import between_words, on_patches, on_rows
from dlrun.viz.network.subject import Subject

GREY = DataSpec("image", (1, 8, 8), ("a", "b"))
RGB = DataSpec("image", (3, 32, 48), ("a", "b"))
SQUARE = DataSpec("image", (3, 32, 32), ("a", "b"))
TEXT = DataSpec("text", (9,), ("a", "b"), vocab_size=20)


@pytest.mark.parametrize("pooled", ["mean", "cls"])
def test_a_transformer_s_weights_are_those_of_torch_s_own_attention(pooled: str) -> None:
    network = transformer(TEXT, d_model=16, num_heads=4, num_layers=1, pooling=pooled).eval()  # type: ignore[arg-type]
    tokens = torch.randint(2, 20, (1, 7))
    found = attention(network, tokens, "transformer")
    prefix = int(pooled == "cls")
    assert (found.prefix, found.grid, len(found.layers)) == (prefix, None, 1)
    layer = network.layers[0]
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict({
        "in_proj_weight": layer.qkv.weight, "in_proj_bias": layer.qkv.bias,
        "out_proj.weight": layer.out.weight, "out_proj.bias": layer.out.bias,
    })  # fmt: skip
    x = layer.norm1(network.tokens(tokens)[0])  # type: ignore[operator]
    expected = theirs(x, x, x, average_attn_weights=False)[1][0]
    torch.testing.assert_close(found.layers[0], expected.detach())
    read = expected[:, 0, 1:] if prefix else expected.mean(dim=1)
    torch.testing.assert_close(found.read(found.layers[0]), read.detach())


def test_patches_lie_as_the_picture_has_them() -> None:
    network = transformer(GREY, d_model=16, patch_size=[4, 2]).eval()
    found = attention(network, torch.randn(1, 1, 8, 8), "transformer")
    assert found.grid == (2, 4)
    assert [weights.shape for weights in found.layers] == [(4, 8, 8)] * 2


def test_rollout() -> None:
    torch.manual_seed(0)
    layers = [torch.rand(3, 5, 5).softmax(dim=-1) for _ in range(2)]
    mixed = [0.5 * weights.double().mean(dim=0) + 0.5 * torch.eye(5) for weights in layers]
    expected = mixed[1] @ mixed[0]  # the first layer sees the input
    torch.testing.assert_close(rollout(layers), expected)
    torch.testing.assert_close(rollout(layers).sum(dim=1), torch.ones(5).double())
    torch.testing.assert_close(rollout([torch.eye(4)[None]]), torch.eye(4).double())


def test_torchvision_s_vision_transformer() -> None:
    network = VisionTransformer(32, 16, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=8, num_classes=2).eval()
    inputs = torch.randn(1, 3, 32, 32)
    before = network(inputs)
    found = attention(network, inputs, "vit")
    assert (found.prefix, found.from_class_token, found.grid, len(found.layers)) == (1, True, (2, 2), 3)
    torch.testing.assert_close(network(inputs), before)  # and it is left as it was
    x = network._process_input(inputs)  # type: ignore[operator]
    x = torch.cat([network.class_token, x], dim=1) + network.encoder.pos_embedding  # type: ignore[list-item,operator,union-attr]
    block = network.encoder.layers[0]  # type: ignore[index,union-attr]
    weights, biases = block.self_attention.in_proj_weight, block.self_attention.in_proj_bias
    q, k, _ = (block.ln_1(x) @ weights.T + biases).view(5, 3, 2, 8).permute(1, 2, 0, 3)
    torch.testing.assert_close(found.layers[0], (q @ k.transpose(1, 2) / 8**0.5).softmax(dim=-1).detach())


def test_timm_s_vision_transformer() -> None:
    network = timm(RGB, arch="vit_tiny_patch16_224").eval()
    inputs = torch.randn(1, 3, 32, 48)
    found = attention(network, inputs, "vit")
    assert (found.prefix, found.from_class_token, found.grid, len(found.layers)) == (1, True, (2, 3), 12)
    taken: list[torch.Tensor] = []
    handle = network.blocks[3].attn.register_forward_pre_hook(lambda _, given: taken.append(given[0]))  # type: ignore[index,union-attr]
    network(inputs)
    handle.remove()
    q, k, _ = network.blocks[3].attn.qkv(taken[0]).view(7, 3, 3, 64).permute(1, 2, 0, 3)  # type: ignore[index,union-attr]
    torch.testing.assert_close(
        found.layers[3], (q @ k.transpose(1, 2) / 8).softmax(dim=-1).detach(), atol=1e-5, rtol=1e-4
    )
    assert all(block.attn.fused_attn for block in network.blocks)  # type: ignore[union-attr]


def test_pooling_weights_are_those_that_the_lstm_pools_by() -> None:
    network = lstm(TEXT, hidden_size=6).eval()
    assert isinstance(network, Recurrent)
    tokens = torch.randint(2, 20, (1, 7))
    found = pooling(network, tokens)
    steps = network.steps(tokens)[0]
    assert float(found.sum()) == pytest.approx(1)
    torch.testing.assert_close(network.head((found[None, None] @ steps)[:, 0]), network(tokens))
    plain = rnn(TEXT)
    assert isinstance(plain, Recurrent)
    with pytest.raises(UserError, match=r"no attention; train it with model\.attention=true"):
        pooling(plain, tokens)


def test_what_it_can_t_do() -> None:
    with pytest.raises(UserError, match=r"'cnn' has no attention.*see dlrun plot gradcam"):
        attention(cnn(GREY).eval(), torch.randn(1, 1, 8, 8), "cnn")
    swin = timm(SQUARE, arch="swin_tiny_patch4_window7_224").eval()
    with pytest.raises(UserError, match="isn't between the patches of a picture"):
        attention(swin, torch.randn(1, 3, 32, 32), "swin")


def test_the_pictures() -> None:
    random = np.random.default_rng(0)
    maps, total = random.random((2, 3, 2, 4)), random.random((2, 4))
    subject = Subject("it", "a", 0.5, "b", np.zeros((8, 8, 1), np.uint8))
    figure = on_patches("patches", subject, total, maps, [1, 2], [1, 3, 5])
    panels = [axis for axis in figure.axes if axis.images and not axis.get_title().startswith(("input", "all"))]
    images = [axis for axis in panels if axis.get_ylabel() != "share of attention"]
    assert [axis.get_title() for axis in images[:3]] == ["head 1", "head 3", "head 5"]
    np.testing.assert_array_equal(images[4].images[0].get_array(), maps[1, 1])
    (over,) = [axis for axis in figure.axes if axis.get_title().startswith("all layers")]
    np.testing.assert_array_equal(over.images[1].get_array(), total)
    assert list(over.images[1].get_extent()) == [-0.5, 7.5, 7.5, -0.5]

    words = [f"w{number}" for number in range(80)]
    matrices = random.random((1, 2, 80, 80))
    figure = between_words("words", words, matrices, [1], [1, 2])
    first = figure.axes[0]
    np.testing.assert_array_equal(first.images[0].get_array(), matrices[0, 0, :64, :64])
    assert [text.get_text() for text in first.get_yticklabels()] == words[:64]
    assert figure.get_supxlabel() == "looked at (the first 64 of 80 words)"

    figure = on_rows("rows", subject, np.array([0.1, 0.9]))
    assert [bar.get_width() for bar in figure.axes[1].patches] == [0.1, 0.9]  # type: ignore[attr-defined]
    assert figure.axes[1].get_xlabel() == "share of attention"
