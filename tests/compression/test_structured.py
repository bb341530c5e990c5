"""A net with fewer channels is held against the original with zeros in their place, and against torch-pruning's own."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from dlrun.compression import unstructured
from dlrun.compression.groups import known
from dlrun.compression.structure import reshape, shapes_of
from dlrun.compression.structured import Kept, prune, remaining
from dlrun.compression.tracing import traced
from dlrun.errors import UserError
from dlrun.registry import models
from dlrun.spec import DataSpec

IMAGE = DataSpec("image", (3, 16, 16), tuple("abcde"))
TEXT = DataSpec("text", (12,), tuple("abc"), vocab_size=50)
TABLE = DataSpec("tabular", (9,), ("a", "b"))
LARGER = DataSpec("image", (3, 64, 64), tuple("abcde"))
SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"channels": [8, 12], "hidden_size": 20},
    "mlp": {"hidden_sizes": [20, 10]},
    "lstm": {"embedding_dim": 10, "hidden_size": 12},
    "rnn": {"embedding_dim": 10, "hidden_size": 12},
    "transformer": {"d_model": 16, "d_ff": 20},
    "speednet": {"widths": [8, 12]},
}


def built(name: str, spec: DataSpec, seed: int = 0, **options: Any) -> nn.Module:
    """A net as it is after some training: batch norm has seen something, no bias is zero."""
    torch.manual_seed(seed)
    model: nn.Module = models.build(name, {**SMALL.get(name, {}), **options}, spec)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 2)
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                parameter.normal_(std=0.1)
    return model.eval()


def inputs(spec: DataSpec, rows: int = 6) -> Tensor:
    torch.manual_seed(7)
    if spec.modality != "text":
        return torch.randn(rows, *spec.shape)
    tokens = torch.randint(1, spec.vocab_size, (rows, *spec.shape))
    for row, length in enumerate((12, 9, 5, 1, 7, 3)):
        tokens[row, length:] = 0
    return tokens


def silenced(model: nn.Module, kept: Kept) -> nn.Module:
    """The original, in which what makes a removed unit is zero: its weights, its bias, its batch norm's affine.

    What reads it is as it was.
    """
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, module in model.named_modules():
            dim = 1 if isinstance(module, nn.Embedding | nn.EmbeddingBag) else 0
            for tensor, parameter in module.named_parameters(recurse=False):
                full = f"{name}.{tensor}" if name else tensor
                if dim in kept.get(full, {}):
                    gone = sorted(set(range(parameter.shape[dim])) - set(kept[full][dim]))
                    parameter.index_fill_(dim, torch.tensor(gone, dtype=torch.long), 0)
    return model


def same(small: nn.Module, large: nn.Module, x: Tensor) -> None:
    small, large = (copy.deepcopy(model).double().eval() for model in (small, large))
    x = x.double() if x.is_floating_point() else x
    with torch.no_grad():
        assert torch.allclose(small(x), large(x), rtol=1e-5, atol=1e-6)


CASES: list[tuple[str, DataSpec, dict[str, Any]]] = [
    *(("mlp", spec, {"batch_norm": norm}) for spec in (IMAGE, TEXT, TABLE) for norm in (False, True)),
    *(("mlp", TABLE, {"activation": name}) for name in ("gelu", "tanh", "selu", "mish", "leaky_relu")),
    *(("cnn", spec, {}) for spec in (IMAGE, TEXT)),
    ("cnn", DataSpec("image", (1, 7, 40), ("a", "b")), {"channels": [6, 9, 8, 5], "kernel_size": 5}),
    *(("speednet", IMAGE, {"depth": depth, "whitening": w}) for depth in (2, 3) for w in (True, False)),
    *(
        (name, spec, {"num_layers": layers, "bidirectional": both, "attention": both})
        for name in ("rnn", "lstm")
        for spec in (IMAGE, TEXT)
        for layers in (1, 3)
        for both in (False, True)
    ),
    *(
        ("transformer", spec, {"norm_first": first, "pooling": pooling})
        for spec in (IMAGE, TEXT)
        for first in (False, True)
        for pooling in ("cls", "mean")
    ),
    ("torchvision", LARGER, {"arch": "resnet18"}),
    ("torchvision", LARGER, {"arch": "mobilenet_v2"}),
    ("torchvision", LARGER, {"arch": "swin_t"}),
    ("timm", LARGER, {"arch": "resnet18"}),
    ("timm", LARGER, {"arch": "mobilenetv3_small_100"}),
    ("timm", LARGER, {"arch": "vit_tiny_patch16_224"}),
    ("timm", LARGER, {"arch": "convnext_atto"}),
]


@pytest.mark.parametrize(("name", "spec", "options"), CASES)
def test_the_smaller_net_is_the_masked_one(name, spec, options):
    model = built(name, spec, **options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    small, kept = prune(model, spec, 0.5)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    same(small, silenced(model, kept), inputs(spec))
    fresh = built(name, spec, seed=1, **options)
    shapes = shapes_of(fresh, small)
    assert set(shapes) == set(kept)
    reshape(fresh, shapes).load_state_dict(small.state_dict())
    assert str(fresh) == str(small)  # every size that a layer says of itself
    same(small, fresh, inputs(spec))
    fresh.train()(inputs(spec)).logsumexp(1).sum().backward()  # and it can be trained
    trained = [p for p in fresh.parameters() if p.requires_grad and p.grad is not None]
    assert len(trained) > 3
    assert all(p.grad.shape == p.shape for p in trained)


def test_all_of_the_registry_by_both_methods():
    """Each model on each kind of data that it takes."""
    walked, refused = 0, []
    for name in models.names():
        for spec in (IMAGE, TEXT, TABLE):
            try:
                model = built(name, spec)
            except UserError:
                continue
            size = sum(p.numel() for p in model.parameters())
            try:
                small, _ = prune(model, spec, 0.5)
                assert small.eval()(inputs(spec)).shape == (6, spec.num_outputs)
                assert sum(p.numel() for p in small.parameters()) < 0.8 * size, name
            except UserError as error:
                refused.append((name, str(error)))
            zeros = max(0.5, unstructured.zeros_of(model).weights)  # speednet begins with most of its weights zero
            unstructured.prune(model, 0.5)
            assert unstructured.zeros_of(model).weights == pytest.approx(zeros, abs=1 / 80)  # of 80 weights at least
            walked += 2
    assert walked == 34
    reason = "method=prune_structured: this model has nothing to remove between its inputs and its outputs"
    assert refused == [("perceptron", reason)] * 3


def test_half_of_the_cnn_is_a_third_of_its_parameters_at_most():
    spec = DataSpec("image", (3, 32, 32), tuple("abcdefghij"))
    model = models.build("cnn", {}, spec)
    small, _ = prune(model, spec, 0.5)
    count = [sum(p.numel() for p in m.parameters()) for m in (small, model)]
    assert count[0] <= 0.35 * count[1]
    assert [m.out_channels for m in small.modules() if isinstance(m, _ConvNd)] == [16, 32, 64]
    linear = [(m.in_features, m.out_features) for m in small.modules() if isinstance(m, nn.Linear)]
    assert linear == [(64 * 4 * 4, 256), (256, 10)]


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_dlruns_groups_are_those_that_torch_pruning_finds(name):
    model = built(name, IMAGE)
    ours, theirs = known(model), traced(model, inputs(IMAGE))
    assert ours is not None

    def plain(groups):
        return {
            g.name: {(m.name, m.dim): [sorted(row) for row in m.places.tolist()] for m in g.members} for g in groups
        }

    assert plain(ours) == plain(theirs)


def test_the_result_is_torch_prunings_own():
    """resnet18, the same channels removed by the library, which cuts the layers itself."""
    model = built("torchvision", LARGER, arch="resnet18")
    small, kept = prune(model, LARGER, 0.5)
    theirs = copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph().build_dependency(theirs, example_inputs=inputs(LARGER, 1))
    for name, module in list(theirs.named_modules()):
        places = kept.get(f"{name}.weight", {}).get(0)
        if isinstance(module, nn.Conv2d) and places is not None and module.out_channels > len(places):
            gone = sorted(set(range(module.out_channels)) - set(places))
            graph.get_pruning_group(module, torch_pruning.prune_conv_out_channels, idxs=gone).prune()
    same(small, theirs, inputs(LARGER))


def test_the_least_important_go():
    """In a net whose units differ by a factor alone, the order is that of the factors."""
    model = built("mlp", TABLE, hidden_sizes=[8])
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        model[1].weight.copy_((order + 1.0).view(-1, 1).expand(8, 9))
        model[1].bias.copy_(order + 1.0)
        model[-1].weight.copy_((order + 1.0).expand(2, 8))
    _, kept = prune(model, TABLE, 0.25)
    assert kept["1.weight"][0] == (order >= 2).nonzero().flatten().tolist()


def test_one_unit_always_stays():
    small, _ = prune(built("mlp", TABLE, hidden_sizes=[3, 1]), TABLE, 0.99)
    assert [m.out_features for m in small.modules() if isinstance(m, nn.Linear)] == [1, 1, 2]


def test_an_amount_that_removes_nothing():
    with pytest.raises(UserError) as error:
        prune(built("mlp", TABLE), TABLE, 0.02)
    assert str(error.value) == "amount=0.02: removes nothing, the widest layer has 20 units; expected more"


class Fixed(nn.Module):
    """Counts on a width that nobody can see."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(9, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).view(-1, 6).relu())


class Turned(nn.Module):
    """Reads its units in another order than it makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(9, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).flip(1).sigmoid())


@pytest.mark.parametrize(
    ("model", "reason"), [(Fixed, "this model can't run with other widths"), (Turned, "gives other outputs")]
)
def test_what_cant_be_followed_is_refused(model, reason):
    torch.manual_seed(0)
    with pytest.raises(UserError, match=reason):
        prune(model(), TABLE, 0.5)


def test_without_torch_pruning(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    prune(built("cnn", IMAGE), IMAGE, 0.5)  # which needs none
    with pytest.raises(UserError, match=r"pip install 'dlrun\[compress\]'"):
        prune(built("torchvision", LARGER, arch="resnet18"), LARGER, 0.5)


def test_pruned_again():
    """Shapes are told against what the registry builds, however often a net was cut."""
    once, _ = prune(built("cnn", IMAGE), IMAGE, 0.5)
    twice, _ = prune(once, IMAGE, 0.5)
    fresh = built("cnn", IMAGE, seed=1)
    reshape(fresh, shapes_of(built("cnn", IMAGE, seed=2), twice)).load_state_dict(twice.state_dict())
    same(fresh, twice, inputs(IMAGE))
    assert [m.out_channels for m in twice.modules() if isinstance(m, _ConvNd)] == [2, 3]


@pytest.mark.parametrize(
    ("units", "amount", "left"),
    [
        *[(32, 0.3, 24), (64, 0.3, 48), (128, 0.3, 88), (64, 0.5, 32), (20, 0.1, 18), (32, 0.1, 29), (32, 0.02, 31)],
        *[(32, 0.9, 3), (20, 0.3, 14), (3, 0.99, 1), (256, 0.001, 256)],
    ],
)
def test_what_is_left_is_a_width_that_kernels_are_made_for(units, amount, left):
    """Multiples of 8 of 32 and more, unless nothing would go for it; small widths to the unit."""
    assert remaining(units, amount) == left
