"""bfloat16 weights: probabilities of the rounding in closed form, and optimizers against torch's own in fp32."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun import rounding
from dlrun.ema import EMA
from dlrun.registry import models, optimizers
from dlrun.rounding import BF16Weights, rounded
from dlrun.spec import DataSpec

ALL_NOISE = torch.arange(2**16, dtype=torch.int32)


@pytest.mark.parametrize("number", [1.001, -1.001, 3.14159, -2.7e-38, 6.02e23, 0.1, -0.3333333, 1e-41, -3.2e38])
def test_up_is_as_likely_as_the_fraction_says(number: float) -> None:
    exact = torch.full((2**16,), number)
    got = rounded(exact, ALL_NOISE).double()
    low, high = got.min(), got.max()
    assert low < exact[0] < high
    assert len(got.unique()) == 2
    near = exact[0].bfloat16()  # neighbours: torch's own rounding is one of the two, and the other is the next one
    assert near.double() in (low, high)
    other = high if near.double() == low else low
    assert torch.nextafter(near, torch.tensor(math.copysign(math.inf, other - near.double())).bfloat16()) == other
    share = ((exact[0].double() - low) / (high - low)).item()
    assert (got == high).double().mean().item() == share  # exactly, over all noise there is
    torch.testing.assert_close(got.mean(), exact[0].double(), rtol=1e-12, atol=0)  # unbiased


def test_what_bfloat16_holds_stays() -> None:
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)  # all there are
    for noise in (0, 1, 40_000, 65_535):
        got = rounded(numbers.float(), torch.full((2**16,), noise, dtype=torch.int32))
        assert torch.equal(got.isnan(), numbers.isnan())
        assert torch.equal(got[~got.isnan()].view(torch.int16), numbers[~got.isnan()].view(torch.int16))
    nan = torch.tensor([0x7FFFFFFF, 0x7F800001, -1], dtype=torch.int32).view(torch.float32)
    assert rounded(nan, torch.full((3,), 65_535, dtype=torch.int32)).isnan().all()


def net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 16), nn.LayerNorm(16)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        targets = torch.randint(3, (16,), generator=generator)
        yield torch.randn(16, 1, 6, 6, generator=generator) + targets.view(16, 1, 1, 1), targets


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, skip: int = 0) -> list[float]:
    losses = []
    for number, (inputs, targets) in enumerate(batches(steps)):
        if number < skip:
            continue
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_matrices_and_kernels_become_bf16_and_nothing_else() -> None:
    model = net()
    BF16Weights(model, optimizers.build("adamw", {}, model), "master", 0)
    low = {name for name, tensor in model.state_dict().items() if tensor.dtype == torch.bfloat16}
    assert low == {"0.weight", "4.weight", "7.weight", "9.weight"}
    tied = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    tied[1].weight = tied[0].weight
    BF16Weights(tied, optimizers.build("adamw", {}, tied), "master", 0)
    assert tied[1].weight is tied[0].weight
    assert tied[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize("bucket", [2**24, 100])
@pytest.mark.parametrize("name", optimizers.names())
def test_copies_are_what_torch_makes_of_the_same_gradients(
    name: str, bucket: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients of the bf16 model, given in fp32 to the optimizer of an fp32 model."""
    monkeypatch.setattr(rounding, "BUCKET", bucket)
    model, exact = net(), net()
    optimizer = BF16Weights(model, optimizers.build(name, {}, model), "master", 0)
    assert (len(optimizer.buckets) > 1) == (bucket == 100)
    reference = optimizers.build(name, {}, exact)
    for inputs, targets in batches(5):
        with torch.autocast("cpu", torch.bfloat16):
            F.cross_entropy(model(inputs), targets).backward()
        for p, e in zip(model.parameters(), exact.parameters(), strict=True):
            e.grad = p.grad.float()
        optimizer.step()
        optimizer.zero_grad()
        reference.step()
        for p, e in zip(model.parameters(), exact.parameters(), strict=True):
            assert p.grad is None
            assert torch.equal(p, e.to(p.dtype))


@pytest.mark.parametrize("update", ["master", "stochastic"])
@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizer_learns(name: str, update: str) -> None:
    model = net()
    optimizer = BF16Weights(model, optimizers.build(name, {}, model), update, 0)
    losses = [train(model, optimizer, 1)[0] for _ in range(300)]  # the same batch
    assert losses[-1] < losses[0] / 2


def test_small_changes_arrive_on_average_and_are_lost_to_the_nearest() -> None:
    """500 steps of 1/4096 down from 1, where bfloat16's next number is 1/256 below."""
    for update in ("master", "stochastic"):
        model = nn.Linear(100, 100, bias=False)
        nn.init.ones_(model.weight)
        optimizer = BF16Weights(model, torch.optim.SGD(model.parameters(), 1 / 4096), update, 3)
        for _ in range(500):
            model.weight.grad = torch.ones_like(model.weight)
            optimizer.step()
        # Of a random walk of 500 steps of at most 1/256: its mean over 10,000 weights is within six standard errors.
        assert abs(model.weight.float().mean().item() - (1 - 500 / 4096)) < 6 / 256 * math.sqrt(500) / 100
        assert (len(model.weight.unique()) > 1) == (update == "stochastic")
    nearest = torch.ones(1, dtype=torch.bfloat16)
    for _ in range(500):
        nearest -= 1 / 4096
    assert nearest == 1


@pytest.mark.parametrize("update", ["master", "stochastic"])
@pytest.mark.parametrize("name", ["adamw", "muon", "adagrad"])
def test_goes_on_from_a_saved_state_to_the_bit(name: str, update: str) -> None:
    model = net()
    optimizer = BF16Weights(model, optimizers.build(name, {}, model), update, 5)
    train(model, optimizer, 4)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(model, optimizer, 8, skip=4)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    torch.manual_seed(99)
    resumed = copy.deepcopy(net())
    optimizer = BF16Weights(resumed, optimizers.build(name, {}, resumed), update, 5)
    resumed.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    train(resumed, optimizer, 8, skip=4)
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    other = net()
    another = "master" if update == "stochastic" else "stochastic"
    optimizer = BF16Weights(other, optimizers.build(name, {}, other), another, 5)
    with pytest.raises(ValueError, match=r"another precision\.update"):
        optimizer.load_state_dict(state["optimizer"])


@pytest.mark.parametrize(("update", "expected"), [("master", 2 + 2 + 4 + 8), ("stochastic", 2 + 2 + 8)])
def test_bytes_per_weight_of_adamw(update: str, expected: int) -> None:
    """Weight, gradient, copy, and two moments in fp32; fp32 throughout takes 16."""
    model = nn.Linear(1000, 1000, bias=False)
    optimizer = BF16Weights(model, optimizers.build("adamw", {}, model), update, 0)
    for _ in range(2):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
    held = [model.weight, model.weight.grad, *(exact for _, exact in optimizer.pairs)]
    held += [t for state in optimizer.inner.state.values() for t in state.values() if t.ndim == 2]
    assert sum(tensor.nbytes for tensor in held) == expected * 10**6


def test_the_noise_depends_on_seed_and_step_alone() -> None:
    def weights(seed: int, disturb: int) -> Tensor:
        model = net()
        optimizer = BF16Weights(model, optimizers.build("sgd", {}, model), "stochastic", seed)
        torch.manual_seed(disturb)
        train(model, optimizer, 3)
        return model[4].weight.detach().float()

    assert torch.equal(weights(1, 7), weights(1, 8))
    assert not torch.equal(weights(1, 7), weights(2, 7))


def test_an_average_of_bf16_weights_is_fp32_and_comes_back_whole() -> None:
    model = net()
    optimizer = BF16Weights(model, optimizers.build("adamw", {}, model), "master", 0)
    ema = EMA(model, 0.9)
    expected = [p.detach().double() for p in model.parameters()]
    for t in range(1, 6):
        train(model, optimizer, 1)
        ema.update()
        share = min(0.9, (1 + t) / (10 + t))
        weights = [p.detach().double() for p in model.parameters()]
        expected = [share * e + (1 - share) * w for e, w in zip(expected, weights, strict=True)]
    live = [p.detach().clone() for p in model.parameters()]
    with torch.inference_mode():
        ema.swap()
        for p, e in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(p.double(), e, rtol=2**-8 if p.dtype == torch.bfloat16 else 1e-5, atol=1e-6)
        ema.swap()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), live, strict=True))
    for a, e in zip(ema.average, expected, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=1e-5, atol=1e-7)
    ema.update()  # the averages are none of inference mode's


IMAGE, TEXT = DataSpec("image", (1, 16, 16), ("a", "b", "c")), DataSpec("text", (9,), ("a", "b", "c"), vocab_size=20)
SMALL = {
    "perceptron": {},
    "mlp": {"hidden_sizes": [8], "batch_norm": True},
    "cnn": {"channels": [4], "hidden_size": 8},
    "rnn": {"hidden_size": 8, "attention": True},
    "lstm": {"hidden_size": 8, "bidirectional": True},
    "transformer": {"d_model": 8, "num_heads": 2, "d_ff": 8, "pooling": "cls"},
}


@pytest.mark.parametrize("spec", [IMAGE, TEXT], ids=lambda spec: spec.modality)
@pytest.mark.parametrize("family", SMALL)
def test_every_model_trains_and_answers(family: str, spec: DataSpec) -> None:
    torch.manual_seed(0)
    model = models.build(family, SMALL[family], spec)
    optimizer = BF16Weights(model, optimizers.build("adamw", {"lr": 0.01}, model), "stochastic", 0)
    targets = torch.tensor([0, 1, 2, 0])
    inputs = torch.randint(1, 20, (4, 9)) if spec.modality == "text" else torch.randn(4, *spec.shape)
    losses = []
    for _ in range(40):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert model.eval()(inputs).shape == (4, 3)
