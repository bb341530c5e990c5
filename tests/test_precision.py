"""Number formats against torch.amp used by hand."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun import precision
from dlrun.errors import UserError
from dlrun.registry import precisions

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def torchs_own_settings() -> Iterator[None]:
    """Back to how they were, whatever a precision has set."""
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolution


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3))


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        yield torch.randn(8, 6, generator=generator), torch.randint(3, (8,), generator=generator)


def train(net: nn.Module, used: precision.Precision, clip: float = 0.05) -> list[Tensor]:
    """Five steps in the order of the trainer; returns the gradients' norms before clipping."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    norms = []
    for inputs, targets in batches():
        with used.autocast():
            loss = F.cross_entropy(net(inputs), targets)
        used.scale(loss).backward()
        used.unscale(optimizer)
        norms.append(nn.utils.clip_grad_norm_(net.parameters(), clip))
        used.step(optimizer)
        optimizer.zero_grad()
    return norms


def train_by_hand(net: nn.Module, dtype: torch.dtype | None, clip: float = 0.05) -> list[Tensor]:
    """The same as in torch's own examples of mixed precision."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16)
    norms = []
    for inputs, targets in batches():
        with nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype):
            loss = F.cross_entropy(net(inputs), targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norms.append(nn.utils.clip_grad_norm_(net.parameters(), clip))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    return norms


def test_every_precision_is_tested_here() -> None:
    assert precisions.names() == ["bf16", "bf16_weights", "fp16", "fp32", "tf32"]


@pytest.mark.parametrize(("name", "dtype"), [("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_five_clipped_steps_equal_torchs(name: str, dtype: torch.dtype | None, net: nn.Sequential) -> None:
    by_hand, plain = copy.deepcopy(net), copy.deepcopy(net)
    norms = train(net, precisions.build(name, {}, CPU))
    assert norms == train_by_hand(by_hand, dtype)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), by_hand.parameters(), strict=True))
    assert all(p.dtype == torch.float32 for p in net.parameters())
    # Near fp32, and the same as fp32 only if it is fp32.
    train_by_hand(plain, None)
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.01)
    same = all(torch.equal(a, b) for a, b in zip(net.parameters(), plain.parameters(), strict=True))
    assert same == (dtype is None)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_linear_layers_compute_in_it_and_losses_in_fp32(name: str, dtype: torch.dtype, net: nn.Sequential) -> None:
    inputs, targets = next(batches())
    with precisions.build(name, {}, CPU).autocast():
        logits = net(inputs)
        loss = F.cross_entropy(logits, targets)
    assert (logits.dtype, loss.dtype) == (dtype, torch.float32)


def test_fp32_is_fp32_in_matrix_products_and_convolutions() -> None:
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True  # torch's default
    precisions.build("fp32", {}, CPU)
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32


def test_tf32_is_refused_without_a_gpu_that_has_it() -> None:
    with pytest.raises(UserError, match=r"precision: tf32 needs an NVIDIA GPU .*, got cpu"):
        precisions.build("tf32", {}, CPU)


def test_fp16_is_refused_on_mps() -> None:
    with pytest.raises(UserError, match=r"precision: fp16 .* isn't supported on mps; take bf16 or fp32"):
        precisions.build("fp16", {}, torch.device("mps"))


@pytest.mark.parametrize("name", ["bf16", "bf16_weights", "fp16"])
@pytest.mark.parametrize("native", [False, True])
def test_a_cpu_that_has_to_emulate_it_is_warned_of(
    name: str, native: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "cpu_has", lambda *flags: native)
    with caplog.at_level(logging.WARNING, logger="dlrun.precision"):
        precisions.build(name, {}, CPU)
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == ([] if native else [f"precision={name}"])


@pytest.mark.parametrize("flag", ["avx512_bf16", "avx512_fp16"])
def test_what_the_cpu_has_is_what_torch_finds(flag: str) -> None:
    assert precision.cpu_has(flag) == torch.cpu.get_capabilities().get(flag, False)
    assert precision.cpu_has("no_such_flag", flag) == precision.cpu_has(flag)


@pytest.mark.parametrize("overflow", [math.inf, math.nan])
def test_an_overflow_skips_the_step_and_halves_the_scale(overflow: float, net: nn.Sequential) -> None:
    used = precisions.build("fp16", {}, CPU)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, fused=True)
    before = copy.deepcopy(net.state_dict())
    scale = used.state_dict()["scale"]
    for step in range(2):
        inputs, targets = next(batches())
        with used.autocast():
            loss = F.cross_entropy(net(inputs), targets)
        used.scale(loss).backward()
        if step == 0:
            net[3].weight.grad[1, 2] = overflow
        used.unscale(optimizer)
        used.step(optimizer)
        optimizer.zero_grad()
        unchanged = all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
        assert unchanged == (step == 0)
        assert used.state_dict()["scale"] == scale / 2
    # The scale goes into a checkpoint and comes back.
    other = precisions.build("fp16", {}, CPU)
    other.load_state_dict(used.state_dict())
    assert other.state_dict() == used.state_dict()
    assert other.scale(torch.ones(())) == scale / 2
