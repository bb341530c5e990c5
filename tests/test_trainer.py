"""The loop against a plain PyTorch one, written out in `plain_loop`, on tiny data in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from dlrun.data.loader import Batches
from dlrun.data.source import ArraySplit
from dlrun.ema import EMA
from dlrun.errors import UserError
from dlrun.evaluator import Evaluator
from dlrun.groups import L1
from dlrun.profiler import Unwatched
from dlrun.progress import Limits, Progress
from dlrun.registry import precisions, schedules, tasks
from dlrun.schedules import Clock, Schedule
from dlrun.spec import DataSpec
from dlrun.tracking import Quiet
from dlrun.tracking.terminal import Terminal
from dlrun.trainer import Trainer

CPU = torch.device("cpu")
SPEC = DataSpec("tabular", (6,), ("a", "b", "c"))
N, BATCH, PER_EPOCH = 300, 128, 3  # batches of 128, 128 and 44
LR = 0.2


def samples(count: int, seed: int) -> ArraySplit:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(3, (count,), generator=generator)
    noise = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    return ArraySplit(noise + F.one_hot(targets, 6), targets)


TRAIN, VAL = samples(N, 0), samples(70, 1)


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), LR, momentum=0.9)


class Recorder(Quiet):
    """Keeps what a tracker is told, and what is saved as it was at that moment."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.saved: list[tuple[str, dict[str, Any]]] = []
        self.rewound: list[tuple[int, int, int]] = []

    def step(self, metrics: dict[str, float], step: int) -> None:
        self.steps.append((step, metrics))

    def epoch(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    busy = False

    def put(self, state: dict[str, Any], best: bool = False) -> None:
        self.saved += [(name, copy.deepcopy(state)) for name in (["best"] if best else []) + ["last"]]

    def latest(self) -> dict[str, Any] | None:
        return copy.deepcopy(self.saved[-1][1]) if self.saved else None

    def keep_batch(self, record: dict[str, Any]) -> None:
        self.bad_batch = record

    def rewind(self, epoch: int, step: int, rollbacks: int) -> None:
        self.rewound.append((epoch, step, rollbacks))


def build(
    net: nn.Module,
    max_steps: int,
    *,
    accumulate: int = 1,
    train: ArraySplit = TRAIN,
    optimizer: torch.optim.Optimizer | None = None,
    schedule: Schedule | None = None,
    precision: str = "fp32",
    limit: int | None = None,
    ema: EMA | None = None,
    l1: L1 | None = None,
    progress: Progress | None = None,
    **limits: Any,
) -> tuple[Trainer, Recorder]:
    recorder = Recorder()
    task = tasks.build("classification", {}, SPEC, torch.bincount(TRAIN.targets))
    number_format = precisions.build(precision, {}, CPU)
    trainer = Trainer(
        model=net,
        weights=net,
        task=task,
        evaluator=Evaluator(net, task, number_format, ema, halves=limits.get("on_oom") == "halve"),
        optimizer=optimizer or sgd(net),
        schedule=schedule or schedules.build("none", {}, Clock(max_steps, PER_EPOCH), LR, "max"),
        precision=number_format,
        train_batches=Batches(train, BATCH // accumulate, lambda batch: batch, CPU, limit=limit),
        val_batches=Batches(VAL, 32, lambda batch: batch, CPU),
        limits=Limits(max_steps, math.ceil(max_steps / PER_EPOCH), accumulate, **limits),
        tracker=recorder,
        terminal=Terminal(1, show_bar=False),
        writer=recorder,
        ema=ema,
        l1=l1,
        progress=progress or Progress(),
    )
    return trainer, recorder


def plain_loop(
    net: nn.Module,
    steps: int,
    optimizer: torch.optim.Optimizer | None = None,
    clip: float | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> list[dict[str, float]]:
    """Every step's loss, right answers, samples and gradient norm."""
    optimizer = optimizer or sgd(net)
    found = []
    for step in range(steps):
        first = step % PER_EPOCH * BATCH
        inputs, targets = TRAIN.inputs[first : first + BATCH], TRAIN.targets[first : first + BATCH]
        optimizer.zero_grad()
        logits = net(inputs)
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), clip or math.inf)
        optimizer.step()
        after_step()
        right = (logits.argmax(dim=1) == targets).sum()
        found.append({"loss": loss.item(), "right": right.item(), "samples": len(inputs), "norm": norm.item()})
    return found


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def metrics_of(net: nn.Module, split: ArraySplit = VAL) -> dict[str, float]:
    """By scikit-learn, over the whole split at once."""
    with torch.no_grad():
        probabilities = net.eval()(split.inputs).softmax(dim=1).numpy()
    loss = log_loss(split.targets, probabilities, labels=range(3))
    return {"val/loss": loss, "val/acc": accuracy_score(split.targets, probabilities.argmax(axis=1))}


def scripted(trainer: Trainer, curve: list[float], metric: str = "val/acc") -> None:
    """Let each evaluation answer with the next value of `curve`."""
    values = iter(curve)
    trainer.evaluator.evaluate = lambda batches, split: {"val/loss": 1.0, "val/acc": 0.5, metric: next(values)}  # type: ignore


# ---- the step


@pytest.mark.parametrize("accumulate", [1, 4])
def test_it_trains_as_a_plain_loop_does(accumulate: int) -> None:
    net, reference = small_net(), small_net()
    trainer, recorder = build(net, 4 * PER_EPOCH, accumulate=accumulate)
    assert trainer.fit() == "finished"
    expected = plain_loop(reference, 4 * PER_EPOCH)
    assert_same_weights(net, reference)
    assert [(row["epoch"], row["step"], row["lr"]) for row in recorder.rows] == [(e, 3 * e, LR) for e in (1, 2, 3, 4)]
    for row in recorder.rows:
        steps = expected[row["step"] - PER_EPOCH : row["step"]]
        loss = sum(s["loss"] * s["samples"] for s in steps) / N
        assert row["train/loss"] == pytest.approx(loss, rel=1e-6)
        assert row["train/acc"] == pytest.approx(sum(s["right"] for s in steps) / N)
        norms = [s["norm"] for s in steps]
        assert (row["grad_norm"], row["grad_norm_max"]) == pytest.approx((sum(norms) / PER_EPOCH, max(norms)))
    assert trainer.progress.samples_seen == 4 * N


def test_batch_norm_is_in_training_mode_in_every_epoch_and_not_in_between() -> None:
    def normed() -> nn.Sequential:
        return nn.Sequential(small_net()[:2], nn.BatchNorm1d(8), small_net()[2]).double()

    net, reference = normed(), normed()
    trainer, recorder = build(net, 2 * PER_EPOCH)
    trainer.fit()
    optimizer = sgd(reference)
    for row in recorder.rows:
        plain_loop(reference.train(), PER_EPOCH, optimizer)
        assert {name: row[name] for name in ("val/loss", "val/acc")} == pytest.approx(metrics_of(reference), rel=1e-6)
    torch.testing.assert_close(net.state_dict(), reference.state_dict())


@pytest.mark.parametrize("accumulate", [1, 4])
def test_clipping_is_torchs_and_the_norm_before_it_is_logged(accumulate: int) -> None:
    net, reference = small_net(), small_net()
    trainer, recorder = build(net, 6, accumulate=accumulate, clip_norm=0.1, log_every=2)
    trainer.fit()
    expected = plain_loop(reference, 6, clip=0.1)
    assert_same_weights(net, reference)
    assert [step for step, _ in recorder.steps] == [2, 4, 6]
    for step, metrics in recorder.steps:
        assert metrics["train/grad_norm"] == pytest.approx(expected[step - 1]["norm"], rel=1e-9)
        assert metrics["train/grad_norm"] > 0.1
        so_far = expected[(step - 1) // PER_EPOCH * PER_EPOCH : step]  # of this epoch
        loss = sum(s["loss"] * s["samples"] for s in so_far) / sum(s["samples"] for s in so_far)
        assert metrics["train/loss"] == pytest.approx(loss, rel=1e-6)
        assert metrics["lr"] == LR


def test_the_schedule_multiplies_each_groups_own_rate() -> None:
    def two_groups(net: nn.Sequential) -> torch.optim.Optimizer:
        groups = [{"params": net[0].parameters(), "lr": LR}, {"params": net[2].parameters(), "lr": 0.01}]
        return torch.optim.SGD(groups, momentum=0.9)

    net, reference = small_net(), small_net()
    schedule = schedules.build("cosine", {}, Clock(9, PER_EPOCH), LR, "max")
    build(net, 9, optimizer=two_groups(net), schedule=schedule)[0].fit()
    optimizer = two_groups(reference)
    plain_loop(reference, 9, optimizer, after_step=CosineAnnealingLR(optimizer, 9).step)
    assert_same_weights(net, reference)


def test_fp16_gradients_are_unscaled_then_l1_is_added_then_they_are_clipped() -> None:
    train = ArraySplit(TRAIN.inputs.float(), TRAIN.targets)
    net, reference = small_net().float(), small_net().float()
    optimizer = sgd(net)
    trainer, _ = build(
        net, 3, train=train, optimizer=optimizer, precision="fp16", clip_norm=0.1, l1=L1(optimizer, 0.05, net)
    )
    scripted(trainer, [0.5])
    trainer.fit()

    optimizer, scaler = sgd(reference), torch.amp.GradScaler("cpu")
    for inputs, targets in zip(train.inputs.split(BATCH), train.targets.split(BATCH), strict=True):
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(reference(inputs), targets, reduction="sum") / len(inputs)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        for layer in (reference[0], reference[2]):
            layer.weight.grad += 0.05 * layer.weight.detach().sign()
        nn.utils.clip_grad_norm_(reference.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    for a, b in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_averaged_weights_are_evaluated_and_not_trained_on() -> None:
    net, reference = small_net(), small_net()
    trainer, recorder = build(net, 2 * PER_EPOCH, ema=EMA(net, 0.3))
    trainer.fit()

    def average(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        decay = min(0.3, (1 + int(count)) / (10 + int(count)))
        return decay * old + (1 - decay) * new

    averaged = AveragedModel(reference, avg_fn=average)
    averaged.update_parameters(reference)  # the first one copies: the average begins at the start
    plain_loop(reference, 2 * PER_EPOCH, after_step=lambda: averaged.update_parameters(reference))
    assert_same_weights(net, reference)
    for name, value in metrics_of(averaged.module).items():
        assert recorder.rows[-1][name] == pytest.approx(value, rel=1e-6)
    assert recorder.rows[-1]["val/loss"] != pytest.approx(metrics_of(reference)["val/loss"], rel=1e-4)
    torch.testing.assert_close(recorder.saved[-1][1]["ema"]["average"], list(averaged.module.parameters()))
    torch.testing.assert_close(recorder.saved[-1][1]["model"], dict(reference.state_dict()))


# ---- how long


def test_max_steps_may_end_in_the_middle_of_an_epoch() -> None:
    net, reference = small_net(), small_net()
    trainer, recorder = build(net, 4, eval_every=5)
    assert trainer.fit() == "finished"
    expected = plain_loop(reference, 4)
    assert_same_weights(net, reference)
    first, last = recorder.rows
    assert (first["epoch"], first["step"], first["val/loss"], first["val/acc"]) == (1, 3, None, None)
    assert (last["epoch"], last["step"]) == (2, 4)
    assert last["train/loss"] == pytest.approx(expected[3]["loss"], rel=1e-6)  # of the samples that were seen
    assert {name: last[name] for name in ("val/loss", "val/acc")} == pytest.approx(metrics_of(reference))
    assert [name for name, _ in recorder.saved] == ["last", "best", "last"]
    assert recorder.saved[-1][1]["progress"]["best"]["epoch"] == 2


def test_an_epoch_may_be_cut_to_some_batches() -> None:
    net, reference = small_net(), small_net()
    trainer, recorder = build(net, 4, accumulate=4, limit=5)  # 128 samples and 32: two steps
    trainer.fit()
    optimizer = sgd(reference)
    for first, last in [(0, 128), (128, 160)] * 2:
        optimizer.zero_grad()
        F.cross_entropy(reference(TRAIN.inputs[first:last]), TRAIN.targets[first:last]).backward()
        optimizer.step()
    assert_same_weights(net, reference)
    assert [(row["epoch"], row["step"]) for row in recorder.rows] == [(1, 2), (2, 4)]
    assert trainer.progress.samples_seen == 320


def test_nothing_is_trained_when_all_steps_are_done() -> None:
    net = small_net()
    trainer, recorder = build(net, 3, progress=Progress(epoch=1, step=3))
    assert trainer.fit() == "finished"
    assert_same_weights(net, small_net())
    assert not recorder.rows


# ---- evaluation


def test_evaluation_over_uneven_batches_equals_the_whole_split_at_once() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    net(TRAIN.inputs)
    trainer, _ = build(net, 3)
    before = copy.deepcopy(net.state_dict())
    found = trainer.evaluator.evaluate(trainer.val_batches, "val")  # 32, 32 and 6 samples
    predicted = trainer.evaluator.predict(trainer.val_batches)
    assert found == pytest.approx(metrics_of(net), rel=1e-6)
    torch.testing.assert_close(net.state_dict(), before)
    assert predicted["losses"].mean().item() == pytest.approx(found["val/loss"], rel=1e-5)
    assert torch.equal(predicted["targets"], VAL.targets)
    guesses = predicted["probabilities"].argmax(dim=1)
    assert accuracy_score(VAL.targets, guesses) == pytest.approx(found["val/acc"])


def test_an_empty_split_is_refused() -> None:
    trainer, _ = build(small_net(), 3)
    empty = Batches(VAL.subset([]), 32, lambda batch: batch, CPU)
    with pytest.raises(UserError, match="the test split is empty"):
        trainer.evaluator.evaluate(empty, "test")


# ---- judging


def lightnings_last_epoch(curve: list[float], mode: str, patience: int, min_delta: float) -> int | None:
    """`EarlyStopping._evaluate_stopping_criteria` of Lightning 2: after which epoch it stops, counted from 1."""
    best, wait = (-math.inf, 0) if mode == "max" else (math.inf, 0)
    for epoch, current in enumerate(curve, 1):
        better = current - min_delta > best if mode == "max" else current + min_delta < best
        if better:
            best, wait = current, 0
        else:
            wait += 1
            if wait >= patience:
                return epoch
    return None


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [1, 3])
@pytest.mark.parametrize("min_delta", [0.0, 0.05])
@pytest.mark.parametrize("seed", range(4))
def test_early_stopping_stops_when_lightning_does(mode: str, patience: int, min_delta: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    rising = 0.9 - 0.8 * np.exp(-np.arange(30) / 6) + 0.04 * random.normal(size=30)
    # Rounded, so that there are ties.
    curve = np.round(rising if mode == "max" else 1 - rising, 1 + seed % 2).tolist()
    trainer, recorder = build(
        small_net(),
        30,
        limit=1,
        monitor="val/loss" if mode == "min" else "val/acc",
        mode=mode,
        patience=patience,
        min_delta=min_delta,
    )
    scripted(trainer, curve, trainer.limits.monitor)
    status = trainer.fit()
    stops = lightnings_last_epoch(curve[:-1], mode, patience, min_delta)
    assert status == ("finished" if stops is None else "stopped_early")
    assert trainer.progress.epoch == len(recorder.rows) == (stops or 30)

    # The best epoch is the last of the best values, and was saved whenever none before was better.
    seen = np.array(curve[: trainer.progress.epoch]) * (1 if mode == "max" else -1)
    records = [e + 1 for e in range(len(seen)) if e == 0 or seen[e] >= seen[:e].max()]
    assert trainer.progress.best["epoch"] == len(seen) - seen[::-1].argmax() == records[-1]
    assert trainer.progress.best == recorder.rows[records[-1] - 1]
    assert [s["progress"]["epoch"] for name, s in recorder.saved if name == "best"] == records
    assert [s["progress"]["epoch"] for name, s in recorder.saved if name == "last"] == [*range(1, len(seen) + 1)]


@pytest.mark.parametrize(
    ("curve", "best"),
    [([0.5, math.nan, 0.7, 0.6, 0.6], 1), ([math.nan, 0.5, 0.5, 0.4, 0.4], 5), ([0.5, 0.4, 0.4, 0.6, math.nan], 3)],
)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_is_not_a_number_is_never_the_best(curve: list[float], best: int, mode: str) -> None:
    monitor = "val/loss" if mode == "min" else "val/acc"
    curve = curve if mode == "min" else [1 - value for value in curve]
    trainer, recorder = build(small_net(), 5, limit=1, monitor=monitor, mode=mode, patience=3)
    scripted(trainer, curve, monitor)
    trainer.fit()
    assert trainer.progress.epoch == (lightnings_last_epoch(curve[:-1], mode, 3, 0.0) or 5)
    assert trainer.progress.best["epoch"] == best
    assert [s["progress"]["epoch"] for name, s in recorder.saved if name == "best"][-1] == best


def test_epochs_without_an_evaluation_are_not_judged() -> None:
    trainer, recorder = build(small_net(), 8, limit=1, eval_every=3, patience=2)
    scripted(trainer, [0.5, 0.4, 0.6])
    assert trainer.fit() == "finished"
    assert [row["val/acc"] for row in recorder.rows] == [None, None, 0.5, None, None, 0.4, None, 0.6]
    assert trainer.progress.best["epoch"] == 8
    assert trainer.progress.waited == 0


def test_what_was_not_evaluated_is_not_in_the_best_row() -> None:
    trainer, recorder = build(small_net(), 9, eval_every=3, monitor="train/loss", mode="min")
    trainer.fit()
    losses = [row["train/loss"] for row in recorder.rows]
    assert losses == sorted(losses, reverse=True)  # the last epoch is the best
    assert [s["progress"]["best"]["epoch"] for name, s in recorder.saved if name == "best"] == [1, 2, 3]
    first, *_, last = (s["progress"]["best"] for name, s in recorder.saved if name == "best")
    assert set(last) - set(first) == {"val/loss", "val/acc"}
    assert None not in first.values()


def test_plateau_is_told_the_monitored_metric() -> None:
    curve = [0.5, 0.6, 0.6, 0.6, 0.6, 0.7, 0.7, 0.7, 0.7, 0.7, 0.9, 0.9]
    options = {"patience": 1, "factor": 0.5}
    net, reference = small_net(), small_net()
    trainer, recorder = build(net, 12, limit=1, schedule=schedules.build("plateau", options, Clock(12, 1), LR, "max"))
    scripted(trainer, curve)
    trainer.fit()
    optimizer = sgd(reference)
    scheduler = ReduceLROnPlateau(optimizer, "max", **options)
    rates = []
    for value in curve:
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step(value)
    assert [row["lr"] for row in recorder.rows] == pytest.approx(rates)
    assert len(set(rates)) == 4


# ---- accidents


class Calls(Unwatched):
    """A profiler that calls `then` after every optimizer step with its number."""

    def __init__(self, then: Callable[[int], Any]):
        self.then, self.steps = then, 0

    def step(self) -> None:
        self.steps += 1
        self.then(self.steps)


def test_the_share_of_time_spent_waiting_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of its own: a batch takes 3 seconds to fetch, and a step 1."""
    now = [0.0]

    class Slow(ArraySplit):
        def fetch(self, indices: Tensor) -> Tensor:
            now[0] += 3.0
            return super().fetch(indices)

    monkeypatch.setattr("dlrun.trainer.time.monotonic", lambda: now[0])
    trainer, recorder = build(small_net(), 2 * PER_EPOCH, train=Slow(TRAIN.inputs, TRAIN.targets))
    trainer.profiler = Calls(lambda step: now.__setitem__(0, now[0] + 1.0))
    assert trainer.fit() == "finished"
    assert [row["data_wait"] for row in recorder.rows] == [0.75, 0.75]
    assert [row["samples_per_second"] for row in recorder.rows] == [N / (4 * PER_EPOCH)] * 2


@pytest.mark.parametrize("stop_at", [1, 3, 4, 6])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(stop_at: int) -> None:
    reference = small_net()
    plain_loop(reference, 9)
    net = small_net()
    trainer, before = build(net, 9, accumulate=4)
    trainer.profiler = Calls(lambda step: setattr(trainer, "stop_requested", step == stop_at))
    assert trainer.fit() == "preempted"
    assert trainer.progress.step == stop_at
    name, state = before.saved[-1]
    assert name == "last"
    assert untimed(state["progress"]) == untimed(asdict(trainer.progress))

    resumed = small_net()
    trainer, after = build(resumed, 9, accumulate=4)
    trainer.load_state(state)
    assert trainer.fit() == "finished"
    assert_same_weights(resumed, reference)
    assert [row["epoch"] for row in before.rows + after.rows] == [1, 2, 3]
    assert trainer.progress.step == 9


@pytest.mark.parametrize("max_steps", [3, 4, 9])
def test_a_stop_during_an_evaluation_abandons_it_and_it_comes_after_the_resume(max_steps: int) -> None:
    undisturbed, expected = build(small_net(), max_steps)
    undisturbed.fit()
    trainer, before = build(small_net(), max_steps)
    forward = trainer.evaluator._forward
    trainer.evaluator._forward = lambda inputs: setattr(trainer, "stop_requested", True) or forward(inputs)  # type: ignore
    assert trainer.fit() == "preempted"
    assert (before.rows, trainer.progress.epoch, trainer.progress.step, trainer.progress.position) == ([], 0, 3, 3)
    name, state = before.saved[-1]
    assert (name, untimed(state["progress"])) == ("last", untimed(asdict(trainer.progress)))

    trainer, after = build(small_net(), max_steps)
    trainer.load_state(state)
    assert trainer.fit() == "finished"
    assert list(map(untimed, after.rows)) == list(map(untimed, expected.rows))


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    clocks = ("seconds", "samples_per_second", "data_wait", "saving_seconds")
    return {name: value for name, value in row.items() if name not in clocks}
