"""Numbers that go wrong and memory that runs out, against plain PyTorch loops that leave out what we leave out."""

from __future__ import annotations

import csv
import json
import math
import os
import resource
import sys
import time
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from command_line import CommandLine
from processes import Process
from test_trainer import BATCH, LR, PER_EPOCH, TRAIN, Calls, N, assert_same_weights, build, sgd
from test_trainer import small_net as plain_net
from torch import Tensor, nn

from dlrun import checkpoint, runfolder
from dlrun.cli import main
from dlrun.config import duration
from dlrun.data.order import shuffled
from dlrun.data.source import ArraySplit
from dlrun.ema import EMA
from dlrun.errors import TrainingError, UserError
from dlrun.faults import out_of_memory
from dlrun.registry import datasets
from dlrun.trainer import HOPELESS, Trainer


def normed_net() -> nn.Sequential:
    """Batch norm and dropout: what a step left out must not touch, and what a repeated one must not draw twice."""
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


def with_nan(*samples: int, value: float = math.nan) -> ArraySplit:
    inputs = TRAIN.inputs.clone()
    inputs[list(samples), 2] = value
    return ArraySplit(inputs, TRAIN.targets)


def all_finite(state: Any) -> bool:
    if isinstance(state, Tensor):
        return bool(state.isfinite().all())
    return all(map(all_finite, state.values())) if isinstance(state, dict) else True


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "samples_per_second", "data_wait")} for row in rows]


# ---- stop


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_that_is_not_finite_ends_the_training_and_names_its_samples(
    value: float, at_once: bool, accumulate: int
) -> None:
    sample = BATCH + 70  # in the second step of three
    trainer, recorder = build(plain_net(), 9, train=with_nan(sample, value=value), accumulate=accumulate)
    trainer.tally.at_once = at_once
    with pytest.raises(TrainingError, match=r"at step 2 \(epoch 1\); try a lower optimizer.lr"):
        trainer.fit()
    told = recorder.bad_batch
    assert (told["epoch"], told["step"]) == (1, 2)
    assert [i for batch in told["indices"] for i in batch] == list(range(BATCH, 2 * BATCH))
    assert told["batches"] == list(range(accumulate, 2 * accumulate))
    assert any(sample in batch for batch in told["indices"])
    assert recorder.rows == []
    assert all_finite([state for _, state in recorder.saved])


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("epoch", "log_every"), [(0, 50), (2, 50), (2, 2), (2, 1)])
def test_the_batch_is_found_in_a_shuffled_epoch(at_once: bool, epoch: int, log_every: int) -> None:
    """The learning rate is 0 until one sample, met in every epoch, becomes NaN."""
    trainer, recorder = build(plain_net(), 12, train=with_nan(), log_every=log_every)
    trainer.train_batches.shuffle_seed = 5
    trainer.tally.at_once = at_once
    order = shuffled(N, 5, epoch).tolist()
    sample = order[BATCH + 3]
    bad = trainer.train_batches.split.inputs  # type: ignore[attr-defined]
    trainer.profiler = Calls(lambda step: bad[sample].fill_(math.nan) if step == epoch * PER_EPOCH else None)
    if epoch == 0:
        bad[sample] = math.nan
    with pytest.raises(TrainingError, match=f"the training loss is nan at step {epoch * PER_EPOCH + 2} "):
        trainer.fit()
    assert recorder.bad_batch["indices"] == [order[BATCH : 2 * BATCH]]
    assert recorder.bad_batch["epoch"] == epoch + 1
    assert all_finite([state for _, state in recorder.saved])
    assert [row["epoch"] for row in recorder.rows] == list(range(1, epoch + 1))
    if log_every == 1:
        assert [step for step, _ in recorder.steps] == list(range(1, epoch * PER_EPOCH + 2))


# ---- skip


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_skipped_step_is_as_if_it_had_not_been(accumulate: int, precision: str) -> None:
    """The second of three steps is left out in each epoch; the plain loop never sees its samples."""
    net, reference = normed_net()[:3] + plain_net()[2:], normed_net()[:3] + plain_net()[2:]
    train = with_nan(BATCH + 9)
    if precision == "fp16":
        net, reference, train = net.float(), reference.float(), ArraySplit(train.inputs.float(), train.targets)
    ema = EMA(net, 0.5)
    trainer, recorder = build(
        net, 9, train=train, accumulate=accumulate, on_nonfinite="skip", clip_norm=1.0, precision=precision, ema=ema
    )
    trainer.evaluator.evaluate = lambda batches, split: {"val/loss": 1.0, "val/acc": 0.5}  # type: ignore
    assert trainer.fit() == "finished"

    optimizer, averaged, scaler = sgd(reference), EMA(reference, 0.5), torch.amp.GradScaler("cpu")
    scaler = scaler if precision == "fp16" else torch.amp.GradScaler("cpu", enabled=False)
    losses = []
    for step in range(9):
        if step % PER_EPOCH == 1:
            continue
        first = step % PER_EPOCH * BATCH
        whole = slice(first, first + BATCH)
        inputs, targets = train.inputs[whole], train.targets[whole]
        optimizer.zero_grad()
        size = BATCH // accumulate
        for some, wanted in zip(inputs.split(size), targets.split(size), strict=True):
            with torch.autocast("cpu", torch.float16, enabled=precision == "fp16"):
                loss = F.cross_entropy(reference(some), wanted, reduction="sum")
            losses.append((step // PER_EPOCH, loss.item()))
            scaler.scale(loss / len(inputs)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        averaged.update()
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if precision == "fp16" else {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(net.state_dict(), reference.state_dict(), **tolerance)
    torch.testing.assert_close(ema.average, averaged.average, **tolerance)
    assert trainer.precision.state_dict() == (scaler.state_dict() if precision == "fp16" else {})
    assert [(row["step"], row["skipped_steps"]) for row in recorder.rows] == [(3, 1), (6, 2), (9, 3)]
    for epoch, row in enumerate(recorder.rows):
        seen = sum(loss for e, loss in losses if e == epoch) / (N - BATCH)
        assert row["train/loss"] == pytest.approx(seen, rel=1e-5 if precision == "fp32" else 1e-3)


def test_an_epoch_of_which_all_is_skipped_is_the_last() -> None:
    net = plain_net()
    trainer, recorder = build(net, 9, train=with_nan(5, BATCH + 5, 2 * BATCH + 5), on_nonfinite="skip")
    with pytest.raises(TrainingError, match="every step of epoch 1 was skipped: the weights are beyond help"):
        trainer.fit()
    assert_same_weights(net, plain_net())
    assert (trainer.progress.skipped, recorder.rows) == (3, [])


def test_fifty_in_a_row_are_beyond_help_and_forty_nine_are_not() -> None:
    everything = with_nan(*range(N))
    trainer, recorder = build(plain_net(), 200, train=everything, on_nonfinite="skip")
    trainer.train_batches.batch_size = 4  # 75 steps an epoch
    with pytest.raises(TrainingError, match="50 steps in a row were skipped: the weights are beyond help"):
        trainer.fit()
    assert trainer.progress.skipped == HOPELESS == 50
    assert all_finite([state for _, state in recorder.saved])

    trainer, _ = build(plain_net(), 100, train=everything, on_nonfinite="skip")
    trainer.train_batches.batch_size = 4
    forward = trainer.model.forward
    steps = iter(range(1000))

    def passed(batch: Tensor) -> Tensor:
        if trainer.model.training:
            step = next(steps)
            return forward(batch.nan_to_num() if step == 49 else batch)  # one in between goes well
        return forward(batch)

    trainer.model.forward = passed  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="at step 100, and 50 steps in a row"):
        trainer.fit()
    assert trainer.progress.skipped == 99


def test_an_infinite_gradient_under_scaling_is_no_fault() -> None:
    """The first scale of 65536 overflows float16 on gradients as large as these: the scaler halves it, and goes on."""
    net = plain_net().float()
    with torch.no_grad():
        net[2].weight.mul_(300)
    train = ArraySplit(TRAIN.inputs.float() * 100, TRAIN.targets)
    trainer, recorder = build(net, 6, train=train, precision="fp16", on_nonfinite="stop")
    trainer.precision.scaler.load_state_dict(  # type: ignore[attr-defined]
        trainer.precision.state_dict() | {"scale": 2.0**40}
    )
    trainer.evaluator.evaluate = lambda batches, split: {"val/loss": 1.0, "val/acc": 0.5}  # type: ignore
    assert trainer.fit() == "finished"
    assert trainer.precision.state_dict()["scale"] < 2.0**40
    assert all_finite(net.state_dict())
    assert not hasattr(recorder, "bad_batch")


# ---- rollback


def once_nan(trainer: Trainer, *steps: int) -> None:
    """The loss is NaN at these steps, counted over all that is done and done again."""
    loss, count = trainer.task.loss, iter(range(10**6))
    trainer.task.loss = lambda logits, targets: (
        loss(logits, targets)
        * (  # type: ignore[method-assign]
            math.nan if trainer.model.training and next(count) in steps else 1.0
        )
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_return_goes_on_from_the_checkpoint_with_half_the_rate(at_once: bool, precision: str) -> None:
    def fresh() -> nn.Sequential:
        return plain_net() if precision == "fp32" else plain_net().float()

    train = TRAIN if precision == "fp32" else ArraySplit(TRAIN.inputs.float(), TRAIN.targets)
    net, reference = fresh(), fresh()
    trainer, recorder = build(net, 9, train=train, on_nonfinite="rollback", precision=precision)
    trainer.tally.at_once = at_once
    trainer.evaluator.evaluate = lambda batches, split: {"val/loss": 1.0, "val/acc": 0.5}  # type: ignore[method-assign]
    # Steps 0 to 2 go well; 4 fails: back to 3, where the epoch began. Then 3, 4 and 5 (5, 6, 7 as they are counted, or
    # one more where it shows at the end of the epoch).
    once_nan(trainer, 4)
    assert trainer.fit() == "finished"

    optimizer, scaler = sgd(reference), torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    for step in range(9):
        if step == 3:
            optimizer.param_groups[0]["lr"] = LR / 2
        first = step % PER_EPOCH * BATCH
        inputs, targets = train.inputs[first : first + BATCH], train.targets[first : first + BATCH]
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16, enabled=precision == "fp16"):
            loss = F.cross_entropy(reference(inputs), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if precision == "fp16" else {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(net.state_dict(), reference.state_dict(), **tolerance)
    assert [(row["epoch"], row["step"], row["lr"]) for row in recorder.rows] == [
        (1, 3, LR),
        (2, 6, LR / 2),
        (3, 9, LR / 2),
    ]
    assert recorder.rewound == [(1, 3, 1)]
    assert recorder.bad_batch["step"] == 5
    assert recorder.bad_batch["indices"] == [list(range(BATCH, 2 * BATCH))]


def test_returns_are_bounded() -> None:
    net = plain_net()
    trainer, recorder = build(net, 9, train=with_nan(BATCH), on_nonfinite="rollback", max_rollbacks=2)
    with pytest.raises(TrainingError, match=r"at step 2 \(epoch 1\), after 2 returns to a checkpoint; try a lower"):
        trainer.fit()
    assert recorder.rewound == [(0, 0, 1), (0, 0, 2)]
    assert trainer.progress.rollbacks == 2
    assert recorder.rows == []


def test_a_resume_after_a_return_remembers_it() -> None:
    net, reference = plain_net(), plain_net()
    trainer, before = build(net, 9, on_nonfinite="rollback")
    once_nan(trainer, 4)
    trainer.profiler = Calls(lambda step: setattr(trainer, "stop_requested", trainer.progress.step == 6))
    assert trainer.fit() == "preempted"
    state = before.saved[-1][1]
    assert (state["progress"]["rollbacks"], state["progress"]["step"]) == (1, 7)

    resumed = plain_net()
    trainer, after = build(resumed, 9, on_nonfinite="rollback")
    trainer.load_state(state)
    assert trainer.fit() == "finished"
    optimizer = sgd(reference)
    for step in range(9):
        optimizer.param_groups[0]["lr"] = LR if step < 3 else LR / 2
        whole = slice(step % PER_EPOCH * BATCH, step % PER_EPOCH * BATCH + BATCH)
        optimizer.zero_grad()
        F.cross_entropy(reference(TRAIN.inputs[whole]), TRAIN.targets[whole]).backward()
        optimizer.step()
    assert_same_weights(resumed, reference)
    assert [(row["epoch"], row["lr"]) for row in before.rows + after.rows] == [(1, LR), (2, LR / 2), (3, LR / 2)]


# ---- out of memory


def small_memory(net: nn.Module, most: int, error: type[BaseException] = torch.OutOfMemoryError) -> nn.Module:
    """`net` on a machine that has room for `most` samples, and that notices after the first layer has drawn numbers."""
    forward = net.forward

    def limited(inputs: Tensor) -> Tensor:
        torch.rand(7)
        if len(inputs) > most:
            net[0](inputs) if not isinstance(net[0], nn.BatchNorm1d) else None  # type: ignore[index]
            for module in net.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module(torch.randn(5, module.num_features, dtype=torch.float64))
            raise error(f"{len(inputs)} samples are too many\nsecond line")
        return forward(inputs)

    net.forward = limited  # type: ignore[method-assign]
    return net


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_halves_add_up_to_the_same_step(
    accumulate: int, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    net, reference = small_memory(plain_net(), 16, error), plain_net()
    trainer, recorder = build(net, 9, accumulate=accumulate, on_oom="halve", clip_norm=0.5)
    with caplog.at_level("INFO", "dlrun"):
        assert trainer.fit() == "finished"
    undisturbed, expected = build(reference, 9, accumulate=accumulate, clip_norm=0.5)
    undisturbed.fit()
    assert_same_weights(net, reference)
    for one, other in zip(untimed(recorder.rows), untimed(expected.rows), strict=True):
        assert one == pytest.approx(other, rel=1e-6)
    size = BATCH // accumulate
    assert trainer.progress.parts == size // 16
    said = [message for message in caplog.messages if "out of memory" in message]
    sizes = [size // 2**k for k in range(1, 10) if size // 2**k >= 16]
    assert said == [
        f"out of memory at step 1: from here on {s} samples at a time, accumulated; the effective batch stays 128"
        for s in sizes
    ]
    assert recorder.saved[-1][1]["progress"]["parts"] == size // 16  # a resumed run doesn't try again


@pytest.mark.parametrize("step", [0, 4])
def test_a_step_that_is_done_again_draws_the_same_numbers_and_counts_once(step: int) -> None:
    """Dropout and batch norm, as in a run that took these parts from that step on without being told by an error."""

    def run(failing: bool) -> tuple[nn.Module, list[dict[str, Any]]]:
        net = normed_net()
        trainer, recorder = build(net, 9, on_oom="halve")
        forward, calls = net.forward, iter(range(10**6))

        def passed(inputs: Tensor) -> Tensor:
            output = forward(inputs)
            if failing and net.training and next(calls) == step:
                raise torch.OutOfMemoryError("no")
            return output

        net.forward = passed  # type: ignore[method-assign]
        if not failing and step == 0:
            trainer.progress.parts = 2
        if not failing and step > 0:
            trainer.profiler = Calls(lambda done: setattr(trainer.progress, "parts", 1 + (done >= step)))
        torch.manual_seed(3)
        assert trainer.fit() == "finished"
        assert trainer.progress.parts == 2
        return net, recorder.rows

    (one, rows), (other, expected) = run(True), run(False)
    assert untimed(rows) == untimed(expected)
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_an_evaluation_takes_halves_too() -> None:
    net = plain_net()
    trainer, _ = build(net, 3, on_oom="halve")
    expected = trainer.evaluator.evaluate(trainer.val_batches, "val")
    small_memory(net, 5)
    assert trainer.evaluator.evaluate(trainer.val_batches, "val") == pytest.approx(expected, rel=1e-9)
    small_memory(net, 0)
    with pytest.raises(TrainingError, match="out of memory in evaluating 1 samples at a time"):
        trainer.evaluator.evaluate(trainer.val_batches, "val")


def test_without_leave_to_halve_it_is_one_line_and_the_steps_before_are_kept() -> None:
    net = plain_net()
    trainer, recorder = build(net, 9)
    trainer.profiler = Calls(lambda step: small_memory(net, 16) if step == 4 else None)
    with pytest.raises(TrainingError) as caught:
        trainer.fit()
    assert str(caught.value) == (
        "out of memory at step 5 with 128 samples at a time (128 samples are too many); try trainer.on_oom=halve, "
        "or a smaller data.batch_size with more trainer.accumulate_grad_batches"
    )
    assert len(recorder.rows) == 1
    with pytest.raises(TrainingError, match="out of memory in evaluating 32 samples at a time"):
        trainer.evaluator.evaluate(trainer.val_batches, "val")


def test_there_is_an_end_to_halving() -> None:
    trainer, _ = build(small_memory(plain_net(), 0), 9, on_oom="halve")
    with pytest.raises(TrainingError, match="out of memory at step 1 with 2 samples at a time"):
        trainer.fit()


def test_other_errors_are_not_lack_of_memory() -> None:
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("DefaultCPUAllocator"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        build(nn.Sequential(nn.Linear(7, 3)).double(), 3, on_oom="halve")[0].fit()


# ---- whole runs

PLANTED = '''
import math

import torch

from dlrun.data.source import ArraySplit, Source, Splits
from dlrun.registry import Index, datasets
from dlrun.spec import DataSpec


@datasets.register("planted")
def planted(common, *, bad: list[Index] = []):
    """Tables of which some training samples are NaN."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(600) % 3
    inputs = torch.randn(600, 6, generator=generator) + 2 * torch.nn.functional.one_hot(targets, 6)
    train, val, test = (ArraySplit(i, t) for i, t in zip(inputs.split(200), targets.split(200)))
    train.inputs[bad] = math.nan
    return Source(DataSpec("tabular", (6,), ("a", "b", "c")), lambda: Splits(train, val, test))
'''
RUN = ["tracking=none", "augment=none", "model=perceptron", "data=breast_cancer", "data.batch_size=50"]
RUN += ["hydra.run.dir=run", "scheduler=none", "trainer.max_epochs=3"]
PLANT = ["data.name=planted", "~data.test_fraction", "plugins=[planted]"]


@pytest.fixture
def planted(dlrun: CommandLine) -> CommandLine:
    (dlrun.folder / "planted.py").write_text(PLANTED)
    assert all(datasets[name] for name in datasets.names())  # imported, and what the plugin adds goes with the test
    dlrun.monkeypatch.setattr(datasets, "_builders", dict(datasets._builders))
    dlrun.monkeypatch.delitem(sys.modules, "planted", raising=False)
    return dlrun


def read_metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_with_a_bad_sample_names_its_batch(planted: CommandLine) -> None:
    result = planted(*RUN, *PLANT, "+data.bad=[137]")
    assert result.code == 1
    order = shuffled(200, 0, 0).tolist()
    place = order.index(137) // 50
    said = f"the training loss is nan at step {place + 1} (epoch 1); try a lower optimizer.lr"
    assert result.out.count(said) == 1
    assert "Traceback" not in result.out + result.err
    summary = planted.summary("run")
    assert (summary["status"], summary["exit_code"]) == ("failed", 1)
    assert said in summary["error"]
    told = json.loads((planted.folder / "run/nonfinite_batch.json").read_text())
    assert told["indices"] == [order[place * 50 : place * 50 + 50]]
    assert (told["epoch"], told["step"], told["batches"], told["loss"]) == (1, place + 1, [place], "nan")


def test_skipped_steps_are_counted_and_shown(planted: CommandLine) -> None:
    result = planted(*RUN, *PLANT, "+data.bad=[137]", "trainer.on_nonfinite=skip")
    assert result.code == 0, result.err
    assert [row["skipped_steps"] for row in read_metrics(planted.folder / "run")] == ["1", "2", "3"]
    assert planted.summary("run")["skipped_steps"] == 3
    assert result.out.count("; the step is skipped (") == 2  # said of the first, the second, the fourth, …
    assert "3 steps were skipped" in result.out
    assert not (planted.folder / "run/nonfinite_batch.json").exists()


def test_a_run_that_goes_back_has_no_row_twice(dlrun: CommandLine) -> None:
    """A model whose loss is NaN once, in the third epoch."""
    (dlrun.folder / "my_models.py").write_text(
        "import math\nfrom torch import nn\nfrom dlrun.registry import models\n\n"
        "class Once(nn.Linear):\n    passes = 0\n    def forward(self, x):\n        self.passes += self.training\n"
        "        return super().forward(x) * (math.nan if self.training and self.passes == 20 else 1)\n\n"
        "@models.register('once')\ndef once(spec):\n    '''Breaks once.'''\n    return Once(30, 2)\n"
    )
    words = ["plugins=[my_models]", "model.name=once", "trainer.on_nonfinite=rollback"]
    result = dlrun(*RUN, *words)
    assert result.code == 0, result.err
    assert "1/2 of the learning rate (return 1 of 3)" in result.out
    rows = read_metrics(dlrun.folder / "run")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["lr"]) for row in rows] == [0.003, 0.003, 0.0015]
    assert checkpoint.load(dlrun.folder / "run/checkpoints/last.pt")["progress"]["rollbacks"] == 1
    assert dlrun("resume", "run=run", "trainer.max_epochs=4", "plugins=[my_models]").code == 0
    assert [float(row["lr"]) for row in read_metrics(dlrun.folder / "run")] == [0.003, 0.003, 0.0015, 0.0015]


@pytest.mark.parametrize("place", ["built", "trained"])
def test_sys_exit_is_a_failure_and_no_signal(place: str, dlrun: CommandLine) -> None:
    """As argparse calls it, or a library that finds something missing."""
    (dlrun.folder / "my_models.py").write_text(
        "import sys\nfrom torch import nn\nfrom dlrun.registry import models\n\n"
        "class Leaves(nn.Linear):\n    def forward(self, x):\n        sys.exit(3)\n\n"
        "@models.register('leaves')\ndef leaves(spec):\n    '''Leaves.'''\n"
        f"    return {'sys.exit(3)' if place == 'built' else 'Leaves(30, 2)'}\n"
    )
    result = dlrun(*RUN, "plugins=[my_models]", "model.name=leaves")
    assert result.code == 1, result.err
    summary = dlrun.summary("run")
    assert (summary["status"], summary["error"], summary["exit_code"]) == ("failed", "SystemExit: 3", 1)
    assert "Traceback" in (dlrun.folder / "run/dlrun.log").read_text()


def with_little_memory(folder: Path, megabytes: int, words: list[str]) -> None:
    os.chdir(folder)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if megabytes:
        limit = size + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.argv = ["dlrun", *words]
    main()


def test_memory_that_really_runs_out(tmp_path: Path) -> None:
    """A batch of 2,048 makes 16,000 numbers of each sample, 131 MB in several places; there is room for 400."""
    words = ["tracking=none", "augment=none", "data=blobs", "data.size=3000", "data.batch_size=2048", "scheduler=none"]
    words += ["model=mlp", "model.hidden_sizes=[16000]", "model.dropout=0", "trainer.max_epochs=1", "optimizer=sgd"]
    outputs = {}
    for name, megabytes, options in (("plenty", 0, []), ("stop", 400, []), ("halve", 400, ["trainer.on_oom=halve"])):
        process = Process(with_little_memory, tmp_path, megabytes, [*words, *options, f"hydra.run.dir={name}"])
        assert process.wait() == (name == "stop"), process.output
        outputs[name] = process.output
        assert "Traceback" not in process.output
    assert "out of memory at step 1: from here on " in outputs["halve"]
    assert "DefaultCPUAllocator" in outputs["stop"]
    assert outputs["stop"].count("out of memory at step 1 with 2048 samples at a time") == 1
    one, other = (checkpoint.load(tmp_path / name / "checkpoints/last.pt")["model"] for name in ("plenty", "halve"))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


# ---- time


def test_when_time_is_up_the_best_is_tested_and_more_time_goes_on(dlrun: CommandLine) -> None:
    seconds = iter(range(10**9))
    dlrun.monkeypatch.setattr(time, "monotonic", lambda: float(next(seconds)))  # one with every look at the clock
    words = [*RUN, "trainer.max_epochs=1000000", "trainer.monitor=val/loss"]
    assert dlrun(*words, "trainer.max_time=5min").code == 0
    first = dlrun.summary("run")
    assert (first["status"], first["out_of_time"], first["exit_code"]) == ("stopped_early", True, 0)
    assert first["test"]["test/acc"] > 0.5
    assert first["best"]["epoch"] >= 1
    result = dlrun("resume", "run=run")
    assert (result.code, "nothing left to do" in result.out) == (0, True)
    assert dlrun.summary("run") == first
    result = dlrun("resume", "run=run", "trainer.max_time=10min")
    assert result.code == 0, result.err
    second = dlrun.summary("run")
    assert second["status"] == "stopped_early"
    assert second["steps"] > first["steps"]
    rows = read_metrics(dlrun.folder / "run")
    assert [int(row["epoch"]) for row in rows] == list(range(1, len(rows) + 1))
    assert [int(row["step"]) for row in rows] == [int(row["epoch"]) * 9 for row in rows]


def test_time_that_is_up_before_there_is_a_best(dlrun: CommandLine) -> None:
    result = dlrun(*RUN, "trainer.max_time=0.000001s")
    assert result.code == 0, result.err
    summary = dlrun.summary("run")
    assert (summary["status"], summary["steps"], summary["test"], summary["best"]) == ("stopped_early", 0, None, {})
    assert dlrun("resume", "run=run", "trainer.max_time=1h").code == 0
    assert dlrun.summary("run")["status"] == "finished"
    assert dlrun.summary("run")["steps"] == 27


def test_a_clock_that_jumps_back_is_of_no_consequence(dlrun: CommandLine) -> None:
    """An hour back with every look at it."""
    jumps = iter(range(10**9))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(2e9 - 3600 * next(jumps), tz)

    real = time.time
    dlrun.monkeypatch.setattr(time, "time", lambda: real() - 3600 * next(jumps))
    dlrun.monkeypatch.setattr(runfolder, "datetime", Clock)
    words = ["trainer.max_time=1h", "trainer.checkpoint_every=0.001s"]
    assert dlrun(*RUN, *words).code == 0
    assert dlrun("resume", "run=run", "trainer.max_epochs=5").code == 0
    seconds = [float(row["seconds"]) for row in read_metrics(dlrun.folder / "run")]
    assert len(seconds) == 5
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < seconds[-1] < 600
    summary = dlrun.summary("run")
    assert (summary["status"], summary["epochs"]) == ("finished", 5)
    assert summary["samples_per_second"] > 0
    assert next(jumps) >= 1  # somebody looked


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10min", 600),
        ("8h", 28800),
        ("1h30min", 5400),
        ("2d 90s", 172890),
        ("1.5h", 5400),
        (" 3 min 2 s ", 182),
        ("0.25s", 0.25),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text, "trainer.max_time") == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "90", "s", "1h30", "-5min", "0s", "0d 0h", "10m", "8H", "1e3s", "inf", "1:30", "1.s", ".5h", "h5"),
        *("5 s s", "1h,30min", "9" * 400 + "d", "1,5h"),
    ],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UserError) as caught:
        duration(text, "trainer.max_time")
    assert str(caught.value) == (
        f"trainer.max_time: expected a time > 0 such as 90s, 10min, 8h, 1h30min or 2d, got {text!r}"
    )


def test_no_duration_is_for_ever() -> None:
    assert duration(None, "trainer.max_time") == math.inf


@pytest.mark.parametrize("word", ["trainer.max_time=90", "trainer.max_time=0s", "trainer.checkpoint_every=soon"])
def test_a_wrong_duration_is_one_line(dlrun: CommandLine, word: str) -> None:
    result = dlrun(*RUN, word)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert word.partition("=")[0] in result.err
    assert list(dlrun.folder.iterdir()) == []
