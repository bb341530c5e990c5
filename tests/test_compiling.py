"""torch.compile against the same model without it; what is compiled, and what is refused."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters

from dlrun import compiling
from dlrun.compiling import Compilation, Compiled, asked, blocks, compiled, reason
from dlrun.errors import TrainingError, UserError
from dlrun.registry import models, precisions, tasks
from dlrun.spec import DataSpec

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
IMAGE, TABLE = DataSpec("image", (1, 16, 16), ("a", "b", "c")), DataSpec("tabular", (6,), ("a", "b", "c"))
USUAL = {"varies": False, "halves": False, "accumulates": False}


@pytest.fixture(autouse=True)
def fresh_compiler():
    """Nothing compiled before, and torch's settings back as they were."""
    config = torch._dynamo.config
    before = config.fail_on_recompile_limit_hit, config.recompile_limit
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    config.fail_on_recompile_limit_hit, config.recompile_limit = before


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def batch(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 6, generator=generator), torch.randint(3, (count,), generator=generator)


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def compiled_for(model: nn.Module, count: int, **how: object) -> Compiled:
    options = {"mode": "default", "region": "auto", "device": CPU, **USUAL, **how}
    task = tasks.build("classification", {}, TABLE, torch.ones(3, dtype=torch.int64))
    return compiled(model, Compilation(**options), batch(count), task, precisions.build("fp32", {}, CPU))


def gradients(model: nn.Module, called: nn.Module, count: int) -> list[Tensor]:
    inputs, targets = batch(count)
    F.cross_entropy(called(inputs), targets).backward()
    found = [p.grad for p in model.parameters()]
    model.zero_grad()
    return found


def test_it_computes_the_same_once_compiled_and_never_compiles_again() -> None:
    model = small_net()
    model[3].p = 0.0
    plain, before = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    model[3].p = plain[3].p = 0.5
    random = torch.get_rng_state()
    called = compiled_for(model, 16, halves=True)
    # The rehearsal leaves nothing behind, and no name is another.
    assert {name: t.tolist() for name, t in model.state_dict().items()} == {n: t.tolist() for n, t in before.items()}
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    model[3].p = plain[3].p = 0.0
    called = compiled_for(model, 16, halves=True)
    assert called.sizes == {16, 8, 4, 2}
    made = graphs()
    for _ in range(3):  # epochs, with a smaller last batch, and an evaluation
        for count in (16, 16, 11):
            found, expected = gradients(model, called, count), gradients(plain, plain, count)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(dict(model.named_buffers()), dict(plain.named_buffers()), rtol=1e-5, atol=1e-6)
        called.eval()
        with torch.inference_mode():
            torch.testing.assert_close(called(batch(64)[0]), plain.eval()(batch(64)[0]), rtol=1e-4, atol=1e-6)
        called.train()
        plain.train()
    assert graphs() == made
    gradients(model, called, 8)  # a half, after memory ran out
    assert graphs() == made + 1
    with torch.no_grad():
        for p in model.parameters():  # as averaged weights are swapped in
            p.copy_(torch.ones_like(p))
    called(batch(16)[0])
    assert graphs() == made + 1
    assert [name for name, _ in called.model.named_parameters()] == [name for name, _ in plain.named_parameters()]


class Changing(nn.Module):
    """Is another program at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(6, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x) * self.calls


def test_a_model_that_would_be_compiled_for_ever_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "LIMIT", 2)
    called = compiled_for(Changing(), 4)

    def several() -> None:
        for _ in range(4):
            called(batch(4)[0])

    with pytest.raises(
        TrainingError, match=r"trainer\.compile: .* another program .*; go without: trainer.compile=fal"
    ):
        several()


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0))


def test_a_model_that_cant_run_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^trainer\.compile: .*; go without: trainer\.compile=false$") as caught:
        compiled_for(Broken(), 4)
    assert "\n" not in str(caught.value)


BLOCKS = {
    "transformer": ({"num_layers": 3, "d_model": 8, "d_ff": 8, "num_heads": 2}, 3, "EncoderLayer"),
    "torchvision": ({"arch": "resnet18"}, 8, "BasicBlock"),
    "timm": ({"arch": "vit_tiny_patch16_224"}, 12, "Block"),
    "cnn": ({}, 0, ""),
    "mlp": ({}, 0, ""),
    "lstm": ({}, 0, ""),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name: str) -> None:
    options, count, block = BLOCKS[name]
    with torch.device("meta"):
        model = models.build(name, options, IMAGE)
    found = blocks(model)
    assert len(found) == count
    assert {type(module).__name__ for module in found} == ({block} if count else set())
    parts, _ = compiling._parts(model, "auto")
    assert parts == (found if name == "timm" else [model])  # twelve of one kind; resnet18 has two at most
    assert compiling._parts(model, "model")[0] == [model]
    if count:
        assert compiling._parts(model, "blocks")[0] == found
    else:
        with pytest.raises(UserError, match=r"trainer\.compile_region: this model has no blocks"):
            compiling._parts(model, "blocks")


def test_equal_blocks_share_their_code() -> None:
    torch.manual_seed(0)
    spec = DataSpec("image", (1, 1, 6), ("a", "b", "c"))
    model = models.build(
        "transformer", {"num_layers": 5, "d_model": 8, "d_ff": 8, "num_heads": 2, "patch_size": 1}, spec
    )
    plain = copy.deepcopy(model)
    for module in (*model.modules(), *plain.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    before = graphs()
    task = tasks.build("classification", {}, spec, torch.ones(3, dtype=torch.int64))
    how = Compilation("default", "auto", CPU, **USUAL)
    inputs, targets = torch.randn(4, 1, 1, 6), torch.tensor([0, 1, 2, 0])
    called = compiled(model, how, (inputs, targets), task, precisions.build("fp32", {}, CPU))
    assert graphs() == before + 1
    F.cross_entropy(called(inputs), targets).backward()
    F.cross_entropy(plain(inputs), targets).backward()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "device", "training", "message"),
    [
        (
            "reduce-overhead",
            CPU,
            {},
            r"trainer\.compile: reduce-overhead is CUDA graphs .* the device is cpu; take true",
        ),
        ("reduce-overhead", CUDA, {"accumulates": True}, r"CUDA graphs \(reduce-overhead\) lose .*accumulate_grad_bat"),
        ("max-autotune", CUDA, {"halves": True}, r"trainer\.on_oom=halve does that; take max-autotune-no-cudagraphs"),
    ],
)
def test_cuda_graphs_are_refused_where_they_cant_be_had(
    mode: str, device: torch.device, training: dict[str, bool], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        asked(mode, "auto", device, **{**USUAL, **training})


def test_what_is_asked_for() -> None:
    assert asked(False, "auto", CPU, **USUAL) is None
    assert asked(True, "auto", CPU, **USUAL).mode == "default"
    assert asked("max-autotune", "model", CPU, **USUAL).mode == "max-autotune"
    assert asked("reduce-overhead", "auto", CUDA, **USUAL).mode == "reduce-overhead"
    with pytest.raises(
        UserError, match=r"trainer\.compile_region: blocks does nothing while trainer\.compile is false"
    ):
        asked(False, "blocks", CPU, **USUAL)


def test_reasons_are_one_line() -> None:
    assert reason(RuntimeError("InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config")) == (
        "there is no working C++ compiler; install one, such as g++"
    )
    assert reason(RuntimeError("\n  first thing:\nsecond")) == "first thing"
    assert reason(RuntimeError()) == "RuntimeError"


@pytest.mark.slow
def test_no_compiler_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    words = ["model=mlp", "data=blobs", "tracking=none", "trainer.compile=true", "trainer.enable_progress_bar=false"]
    done = subprocess.run(
        [sys.executable, "-m", "dlrun", *words],
        cwd=tmp_path,
        env={**os.environ, "PATH": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "dlrun: trainer.compile: there is no working C++ compiler; install one, such as g++; go w" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_speednet_has_the_same_gradients_compiled_in_bf16():
    """The backward pass computes some of it again, and not to the bit: a maximum must not be looked for by value."""
    spec = DataSpec("image", (3, 32, 32), tuple("0123456789"), (0.5,) * 3, (0.25,) * 3)
    torch.manual_seed(0)
    net = models.build("speednet", {"widths": [16, 32, 32]}, spec)
    inputs, targets = torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
    norms = []
    for called in (net, torch.compile(net)):
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(called(inputs), targets)
        loss.backward()
        norms.append([p.grad.norm().item() for p in net.parameters() if p.grad is not None])
        net.zero_grad()
    assert norms[1] == pytest.approx(norms[0], rel=0.1, abs=0.005)  # bf16 has 8 bits
