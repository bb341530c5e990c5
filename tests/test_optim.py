"""Every optimizer against torch's own run by hand, and what goes around them: groups, L1, averaged weights."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.ema import EMA
from dlrun.errors import UserError
from dlrun.groups import L1, parameter_groups, set_biases
from dlrun.registry import models, optimizers
from dlrun.spec import DataSpec

LR, DECAY = 0.01, 0.1
BETAS = {"betas": (0.8, 0.95), "eps": 1e-6}

# name → options, and torch's optimizer with the same ones
OPTIMIZERS: dict[str, tuple[dict[str, Any], Callable[[Any], torch.optim.Optimizer]]] = {
    "sgd": ({"momentum": 0.8, "nesterov": True}, lambda g: torch.optim.SGD(g, LR, momentum=0.8, nesterov=True)),
    "adam": ({**BETAS, "amsgrad": True}, lambda g: torch.optim.Adam(g, LR, **BETAS, amsgrad=True)),
    "adamw": ({**BETAS, "amsgrad": True}, lambda g: torch.optim.AdamW(g, LR, **BETAS, amsgrad=True)),
    "nadam": (
        {**BETAS, "momentum_decay": 0.01, "decoupled_weight_decay": True},
        lambda g: torch.optim.NAdam(g, LR, **BETAS, momentum_decay=0.01, decoupled_weight_decay=True),
    ),
    "radam": (
        {**BETAS, "decoupled_weight_decay": True},
        lambda g: torch.optim.RAdam(g, LR, **BETAS, decoupled_weight_decay=True),
    ),
    "rmsprop": (
        {"alpha": 0.9, "eps": 1e-6, "momentum": 0.5, "centered": True},
        lambda g: torch.optim.RMSprop(g, LR, alpha=0.9, eps=1e-6, momentum=0.5, centered=True),
    ),
    "adagrad": (
        {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-6},
        lambda g: torch.optim.Adagrad(g, LR, lr_decay=0.1, initial_accumulator_value=0.2, eps=1e-6),
    ),
    "adadelta": ({"rho": 0.8, "eps": 1e-4}, lambda g: torch.optim.Adadelta(g, LR, rho=0.8, eps=1e-4)),
    "adafactor": ({"beta2_decay": -0.7, "d": 1.5}, lambda g: torch.optim.Adafactor(g, LR, beta2_decay=-0.7, d=1.5)),
    "muon": ({"momentum": 0.9, "nesterov": False, "ns_steps": 4, "others_lr": 0.002}, lambda g: ByHand(g)),
}


class ByHand:
    """torch's Muon for the hidden matrix and for the kernel as one, AdamW for the rest."""

    def __init__(self, groups: list[dict[str, Any]]):
        (self.kernel, hidden, last), rest = (group["params"] for group in groups)
        self.matrix = nn.Parameter(self.kernel.detach().view(len(self.kernel), -1))  # the same memory
        muon = torch.optim.Muon([self.matrix, hidden], LR, weight_decay=DECAY, momentum=0.9, nesterov=False, ns_steps=4)
        groups = [{"params": [last], "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
        self.parts = [muon, torch.optim.AdamW(groups, 0.002)]

    def step(self) -> None:
        self.matrix.grad = self.kernel.grad.view_as(self.matrix)
        for part in self.parts:
            part.step()


def small_net() -> nn.Sequential:
    """A kernel, a hidden matrix, a norm, and a last matrix."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)
    ).double()


def groups_by_hand(net: nn.Sequential) -> list[dict[str, Any]]:
    kernel, hidden, norm, last = net[0], net[2], net[3], net[5]
    decay = [kernel.weight, hidden.weight, last.weight]
    rest = [kernel.bias, hidden.bias, norm.weight, norm.bias, last.bias]
    return [{"params": decay, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]


def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        targets = torch.randint(4, (16,), generator=generator)
        noise = torch.randn(16, 1, 6, 6, generator=generator, dtype=torch.float64)
        yield noise + targets.view(16, 1, 1, 1), targets


def train(net: nn.Module, optimizer: Any, data: Iterable[tuple[Tensor, Tensor]]) -> list[float]:
    losses = []
    for inputs, targets in data:
        net.zero_grad()
        loss = F.cross_entropy(net(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def assert_same_weights(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def test_every_optimizer_is_tested_here() -> None:
    assert sorted(OPTIMIZERS) == optimizers.names()
    assert len(OPTIMIZERS) == 10


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps_equal_torchs(name: str) -> None:
    options, make = OPTIMIZERS[name]
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    net, reference = small_net(), small_net()
    train(net, optimizers.build(name, {"lr": LR, "weight_decay": DECAY, **options}, net), batches(5))
    train(reference, make(groups_by_hand(reference)), batches(5))
    assert_same_weights(net, reference, rtol=1e-9, atol=1e-12)
    with pytest.raises(AssertionError):
        assert_same_weights(net, small_net())


KERNELS = {"sgd": "fused", "adam": "fused", "adamw": "fused", "adagrad": "fused"} | dict.fromkeys(
    ("nadam", "radam", "rmsprop", "adadelta"), "foreach"
)


@pytest.mark.parametrize("options", [{}, {"weight_decay": DECAY}], ids=["plain", "decaying"])
@pytest.mark.parametrize("name", KERNELS)
def test_twenty_steps_equal_a_loop_over_the_parameters(name: str, options: dict[str, Any]) -> None:
    """In fp32, against torch's own loop: `fused` and `foreach` off."""
    net, reference = small_net().float(), small_net().float()
    optimizer, loop = optimizers.build(name, options, net), optimizers.build(name, options, reference)
    assert all(group[KERNELS[name]] is True for group in optimizer.param_groups)
    original = next(kind for kind in type(loop).__mro__ if kind.__module__.startswith("torch.optim."))
    assert original is not torch.optim.Optimizer
    settings = [{**group, "fused": None, "foreach": False} for group in loop.param_groups]
    slow = original(settings)
    for inputs, targets in batches(20):
        train(net, optimizer, [(inputs.float(), targets)])
        for p, q in zip(net.parameters(), reference.parameters(), strict=True):
            q.grad = p.grad.clone()  # or Adam would make much of the noise in a gradient of nearly zero
        slow.step()
    assert_same_weights(net, reference, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_with_its_defaults_it_learns_a_batch(name: str) -> None:
    net = small_net()
    losses = train(net, optimizers.build(name, {}, net), list(batches(1)) * 300)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_from_a_saved_state(name: str) -> None:
    def second_half(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group["lr"] *= 0.5  # as a schedule does
        train(net, optimizer, data[4:])

    net = small_net().float()
    optimizer = optimizers.build(name, {}, net)
    data = [(inputs.float(), targets) for inputs, targets in batches(8)]
    train(net, optimizer, data[:4])
    file = io.BytesIO()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
    second_half(net, optimizer)

    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed = small_net().float()
    resumed.load_state_dict(state["model"])
    optimizer = optimizers.build(name, {}, resumed)
    optimizer.load_state_dict(state["optimizer"])
    second_half(resumed, optimizer)
    assert_same_weights(resumed, net, rtol=0, atol=0)


# family → model, options, data
IMAGE, TABLE = DataSpec("image", (1, 32, 32), ("a", "b", "c")), DataSpec("tabular", (6,), ("a", "b", "c"))
TEXT = DataSpec("text", (9,), ("a", "b", "c"), vocab_size=20)
RECURRENT = {"embedding_dim": 4, "hidden_size": 5, "bidirectional": True, "attention": True}
TRANSFORMER = {"d_model": 8, "num_heads": 2, "d_ff": 8, "pooling": "cls"}
FAMILIES: dict[str, tuple[str, dict[str, Any], DataSpec]] = {
    "perceptron": ("perceptron", {}, TABLE),
    "perceptron on text": ("perceptron", {}, TEXT),
    "mlp": ("mlp", {"hidden_sizes": [5, 4], "batch_norm": True}, TABLE),
    "mlp on text": ("mlp", {"hidden_sizes": [5, 4]}, TEXT),
    "cnn": ("cnn", {"channels": [2, 3], "hidden_size": 4}, IMAGE),
    "speednet": ("speednet", {"widths": [2, 3]}, IMAGE),
    "cnn on text": ("cnn", {"channels": [2, 3], "hidden_size": 4}, TEXT),
    "rnn": ("rnn", RECURRENT, IMAGE),
    "lstm": ("lstm", RECURRENT, TEXT),
    "transformer": ("transformer", TRANSFORMER, IMAGE),
    "transformer on text": ("transformer", TRANSFORMER, TEXT),
    "torchvision": ("torchvision", {"arch": "mobilenet_v3_small"}, IMAGE),
    "torchvision's transformer": ("torchvision", {"arch": "vit_b_16"}, IMAGE),
    "timm": ("timm", {"arch": "resnet18"}, IMAGE),
    "timm's transformer": ("timm", {"arch": "vit_tiny_patch16_224"}, IMAGE),
}


def family(name: str) -> nn.Module:
    """On the meta device, as only shapes and names count."""
    model, options, spec = FAMILIES[name]
    with torch.device("meta"):
        return models.build(model, options, spec)


def that_decay(model: nn.Module) -> set[str]:
    """By the kind of layer: weights of linear, convolutional, recurrent and attention layers."""
    found = set()
    for path, module in model.named_modules():
        names = []
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            names = ["weight"]
        elif isinstance(module, nn.RNNBase):
            names = [name for name, _ in module.named_parameters() if name.startswith("weight")]
        elif isinstance(module, nn.MultiheadAttention):
            names = ["in_proj_weight"]
        found |= {f"{path}.{name}".lstrip(".") for name in names}
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_matrices_and_kernels_decay_and_nothing_else(name: str) -> None:
    model = family(name)
    names = {p: n for n, p in model.named_parameters() if p.requires_grad}
    groups = parameter_groups(model, DECAY)
    everything = [names[p] for group in groups for p in group["params"]]
    assert sorted(everything) == sorted(names.values())  # each in exactly one group
    decay = [names[p] for group in groups if group["weight_decay"] == DECAY for p in group["params"]]
    assert set(decay) == that_decay(model)
    assert all(group["weight_decay"] in (0.0, DECAY) for group in groups)


def test_every_model_is_grouped_here() -> None:
    assert sorted({model for model, _, _ in FAMILIES.values()}) == models.names()


def test_what_is_frozen_is_in_no_group() -> None:
    net = small_net()
    net[0].requires_grad_(False)
    groups = parameter_groups(net, DECAY)
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in net[2:].parameters()}


def test_muon_takes_the_hidden_matrices_alone() -> None:
    model = family("transformer on text")
    names = {p: n for n, p in model.named_parameters()}
    muon, adamw = optimizers.build("muon", {}, model).parts
    taken = {names[p] for group in muon.param_groups for p in group["params"]}
    assert taken == that_decay(model) - {"head.weight"}
    others = {names[p] for group in adamw.param_groups for p in group["params"]}
    assert taken | others == set(names.values())
    assert not taken & others
    undecayed = {names[p] for g in adamw.param_groups if g["weight_decay"] == 0 for p in g["params"]}
    assert others - undecayed == {"head.weight"}


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("mlp", "sgd"),
        ("cnn", "muon"),
        ("lstm", "sgd"),
        ("transformer on text", "muon"),
    ],
)
def test_l1_adds_the_sign_to_what_decays(name: str, optimizer: str) -> None:
    model, options, spec = FAMILIES[name]
    torch.manual_seed(0)
    net = models.build(model, options, spec)
    l1 = L1(optimizers.build(optimizer, {"weight_decay": DECAY}, net), 0.25, net)
    inputs = torch.randint(1, 20, (4, 9)) if spec.modality == "text" else torch.randn(4, *spec.shape)
    F.cross_entropy(net(inputs), torch.tensor([0, 1, 2, 0])).backward()
    before = {n: p.grad.clone() for n, p in net.named_parameters()}
    l1.add_gradient()
    for n, p in net.named_parameters():
        expected = before[n] + 0.25 * p.detach().sign() if n in that_decay(net) else before[n]
        torch.testing.assert_close(p.grad, expected, msg=n)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_biases_can_have_their_own_rate_and_decay(name: str) -> None:
    net = small_net()
    optimizer = optimizers.build(name, {}, net)
    before = {id(p): dict(group) for group in optimizer.param_groups for p in group["params"]}
    set_biases(optimizer, net, lr_scale=64.0, weight_decay=0.25)
    after = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    decays = that_decay(net)
    assert len(after) == len(list(net.parameters()))
    for parameter_name, p in net.named_parameters():
        was, group = before[id(p)], after[id(p)]
        own = (was["lr"], was["weight_decay"]) if parameter_name in decays else (64 * was["lr"], 0.25)
        assert (group["lr"], group["weight_decay"]) == own, parameter_name
    weight, bias = net[0].weight.clone(), net[0].bias.clone()
    train(net, optimizer, batches(1))
    assert not torch.equal(weight, net[0].weight)
    assert not torch.equal(bias, net[0].bias)


def test_a_rate_for_biases_needs_some() -> None:
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    optimizer = optimizers.build("sgd", {}, net)
    set_biases(optimizer, net, lr_scale=1.0, weight_decay=0.0)
    with pytest.raises(UserError, match=r"optimizer\.bias_lr_scale: 64\.0 does nothing: this model has no biases"):
        set_biases(optimizer, net, lr_scale=64.0, weight_decay=0.0)
    with pytest.raises(UserError, match=r"optimizer\.bias_weight_decay: 0\.1 does nothing"):
        set_biases(optimizer, net, lr_scale=1.0, weight_decay=0.1)


def test_l1_needs_something_that_decays() -> None:
    net = family("perceptron on text")
    with pytest.raises(UserError, match=r"optimizer\.l1: this model has no weights that decay"):
        L1(optimizers.build("sgd", {}, net), 0.25, net)


def test_muon_needs_a_matrix() -> None:
    with pytest.raises(UserError, match=r"optimizer\.name: muon trains hidden layers"):
        optimizers.build("muon", {}, family("perceptron on text"))


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_averaged_weights_follow_the_recursion(decay: float) -> None:
    net = small_net().float()
    net(torch.randn(8, 1, 6, 6))  # so that batch norm's statistics aren't at their start
    ema = EMA(net, decay)
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    expected = [p.detach().double() for p in net.parameters()]
    for t in range(1, 9):
        train(net, optimizer, [(x.float(), y) for x, y in batches(1)])
        ema.update()
        share = min(decay, (1 + t) / (10 + t))
        weights = [p.detach().double() for p in net.parameters()]
        expected = [share * e + (1 - share) * w for e, w in zip(expected, weights, strict=True)]
    live = copy.deepcopy(net.state_dict())
    ema.swap()
    for average, wanted in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(average.double(), wanted, rtol=1e-5, atol=1e-7)
    assert torch.equal(net[3].running_mean, live["3.running_mean"])  # the model's own
    ema.swap()
    assert all(torch.equal(tensor, live[name]) for name, tensor in net.state_dict().items())
    assert net[3].num_batches_tracked == 9


def test_averaging_goes_on_from_a_saved_state() -> None:
    def steps(net: nn.Module, ema: EMA, first: int, last: int) -> None:
        for t in range(first, last):
            with torch.no_grad():
                for i, p in enumerate(net.parameters()):
                    p.fill_(t * 0.1 + i)
            net[3].running_mean.fill_(t)
            ema.update()

    net = small_net()
    ema = EMA(net, 0.99)
    steps(net, ema, 0, 3)
    file = io.BytesIO()
    torch.save({"model": net.state_dict(), "ema": ema.state_dict()}, file)
    steps(net, ema, 3, 6)

    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed = small_net()
    other = EMA(resumed, 0.99)
    resumed.load_state_dict(state["model"])
    other.load_state_dict(state["ema"])
    steps(resumed, other, 3, 6)
    ema.swap()
    other.swap()
    assert_same_weights(resumed, net, rtol=0, atol=0)
    assert torch.equal(resumed[3].running_mean, net[3].running_mean)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sgd", {"momentum": 0.0}, r"optimizer\.nesterov: needs optimizer\.momentum > 0"),
        ("adamw", {"betas": [0.9]}, r"optimizer\.betas: expected two numbers, got \[0\.9\]"),
        ("adamw", {"betas": [0.9, 1.0]}, r"optimizer\.betas: expected a list, each a number >= 0 and < 1"),
        ("adamw", {"lr": 0.0}, r"optimizer\.lr: expected a number > 0, got 0\.0"),
        ("adafactor", {"d": 0.5}, r"optimizer\.d: expected a number >= 1"),
        ("muon", {"ns_steps": 100}, r"optimizer\.ns_steps: expected a whole number >= 1 and < 100"),
        ("adamww", {}, "unknown optimizer 'adamww'; did you mean 'adamw'"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        optimizers.build(name, options, small_net())
