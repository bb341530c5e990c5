"""What a model's layers cost: against closed forms, torch's own totals, and the counts that were published."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dlrun.layers import Cost, Layer, count
from dlrun.models.recurrent import lstm
from dlrun.models.transformer import transformer
from dlrun.spec import DataSpec

TEXT = DataSpec("text", (16,), ("a", "b", "c"), vocab_size=50)


def found(root: Layer, path: str) -> Layer:
    [layer] = [layer for layer in root.walk() if layer.path == path]
    return layer


def of_arch(arch: str) -> tuple[nn.Module, Layer, dict[str, float]]:
    with torch.random.fork_rng():
        model = torchvision.models.get_model(arch)
    published = next(iter(torchvision.models.get_model_weights(arch))).meta
    return model, count(model, torch.ones(1, 3, 224, 224)), published


@pytest.mark.parametrize("arch", ["resnet18", "alexnet", "vit_b_16", "mobilenet_v3_small"])
def test_totals_are_what_was_published(arch: str) -> None:
    model, root, published = of_arch(arch)
    assert root.total.parameters == published["num_params"]
    # Published in units of 10⁹ multiply-adds, to three places.
    assert root.total.flops / 2e9 == pytest.approx(published["_ops"], abs=6e-4)
    assert root.total.parameter_bytes == 4 * published["num_params"]
    assert root.total.trainable_parameters == sum(p.numel() for p in model.parameters())


def test_the_tree_sums_to_the_whole_and_to_torchs_count_of_each_module() -> None:
    with torch.random.fork_rng():
        model = torchvision.models.resnet18()
    image = torch.ones(1, 3, 64, 64)
    root = count(model, image)
    assert sum((layer.own for layer in root.walk()), start=Cost()) == root.total
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    theirs = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    ours = {f"ResNet.{la.path}".rstrip("."): la.total.flops for la in root.walk() if la.total.flops}
    assert ours == {name: flops for name, flops in theirs.items() if name != "Global" and flops}
    assert len(ours) > 30
    modules = dict(model.named_modules())
    for layer in root.walk():
        assert layer.total.parameters == sum(p.numel() for p in modules[layer.path].parameters())


def test_linear_convolution_and_what_they_hand_on() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, groups=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 6 * 4, 7, bias=False)
    )
    root = count(net, torch.ones(1, 3, 15, 11))
    conv, relu, flat, linear = root.children
    assert (conv.output_shape, relu.output_shape, linear.output_shape) == ([8, 6, 4], [8, 6, 4], [7])
    assert conv.own == Cost(8 * 75 + 8, 8 * 75 + 8, 4 * 608, 2 * 8 * 6 * 4 * 75, 4 * 8 * 6 * 4)
    assert (relu.own, flat.own) == (Cost(), Cost()), "in place, and a view: no memory of their own"
    assert linear.own == Cost(7 * 192, 7 * 192, 4 * 7 * 192, 2 * 7 * 192, 4 * 7)


def test_an_lstm_counts_under_its_own_name_whoever_runs_it() -> None:
    steps, hidden, inputs = 16, 4, 8
    closed = 2 * steps * 2 * 4 * hidden * (inputs + hidden)  # multiply-adds, length, directions, gates
    cell = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True)
    assert count(cell, torch.ones(1, steps, inputs)).own.flops == closed
    root = count(lstm(TEXT, embedding_dim=inputs, hidden_size=hidden), torch.ones(1, steps, dtype=torch.int64))
    layer = found(root, "recurrent")  # on a CPU its model calls the kernel with the layer's weights
    assert layer.total.flops == closed
    assert layer.total.parameters == sum(p.numel() for p in cell.parameters())
    assert (layer.output_shape, layer.own.activation_bytes) == ([steps, 2 * hidden], 4 * steps * 2 * hidden)
    assert (found(root, "attention").own.flops, found(root, "attention.score").own.flops) == (2 * 16 * 8, 2 * 16 * 8)


def test_attention_is_the_work_of_the_layer_that_mixes() -> None:
    net = transformer(TEXT, d_model=8, num_heads=2, d_ff=12, num_layers=2)
    root = count(net, torch.ones(1, 16, dtype=torch.int64))
    layer = found(root, "layers.1")
    assert layer.own.flops == 2 * 2 * 16 * 16 * 8, "scores and mixing"
    assert found(root, "layers.1.qkv").own.flops == 2 * 16 * 8 * 24
    assert layer.total.flops == 2 * (2 * 16 * 16 * 8 + 16 * 8 * 32 + 2 * 16 * 8 * 12)
    assert found(root, "positions").own.parameters == 16 * 8
    own = nn.MultiheadAttention(8, 2, batch_first=True)
    block = count(_SelfAttention(own), torch.ones(1, 16, 8))
    assert found(block, "attention.out_proj").own.flops == 2 * 16 * 8 * 8, "which torch doesn't call as a module"
    assert block.total.flops == 2 * (16 * 8 * 32 + 2 * 16 * 16 * 8)
    assert block.total.activation_bytes == 4 * (16 * 8 + 16 * 16), "the output, once, and the weights beside it"
    assert block.total.parameters == sum(p.numel() for p in own.parameters())


class _SelfAttention(nn.Module):
    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0]


class _Tied(nn.Module):
    """A weight with two names, and a layer with two."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.first = nn.Linear(6, 6)
        self.second = self.first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(self.embedding(x))))


def test_what_is_shared_counts_once_and_its_work_as_often_as_it_is_done() -> None:
    model = _Tied()
    root = count(model, torch.ones(1, 5, dtype=torch.int64))
    assert root.total.parameters == 66 + 42 == sum(p.numel() for p in model.parameters())
    assert [layer.total.parameters for layer in root.children] == [66, 0, 42, 0]
    assert [layer.total.flops for layer in root.children] == [0, 2 * 5 * 66, 2 * 2 * 5 * 36, 0]
    assert root.children[3].kind == "Linear, as first"


def test_counting_leaves_the_model_as_it_was() -> None:
    model = _SelfAttention(nn.MultiheadAttention(8, 2, batch_first=True)).eval()
    x = torch.rand(1, 16, 8)
    before = (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.is_available(), model(x))
    count(model, x)
    after = (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.is_available(), model(x))
    assert before[:2] == after[:2]
    torch.testing.assert_close(before[2], after[2], rtol=0, atol=0)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
