"""Every schedule against torch's scheduler of that name, at every step of 100 epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as torchs

from dlrun.errors import UserError
from dlrun.registry import schedules
from dlrun.schedules import Clock, Schedule

EPOCHS, PER_EPOCH, LR, MIN_LR = 100, 4, 0.3, 0.006
STEPS = EPOCHS * PER_EPOCH
WARMUP = 10  # two and a half epochs

# Stepped once per epoch in torch.
PER_EPOCH_CASES: list[tuple[str, dict[str, Any], Callable[..., Any]]] = [
    ("step", {"step_size": 30, "gamma": 0.1}, lambda opt: torchs.StepLR(opt, 30, 0.1)),
    ("step", {"step_size": 1, "gamma": 0.9}, lambda opt: torchs.StepLR(opt, 1, 0.9)),
    ("multistep", {"milestones": [2, 60, 61], "gamma": 0.5}, lambda opt: torchs.MultiStepLR(opt, [2, 60, 61], 0.5)),
    ("exponential", {"gamma": 0.95}, lambda opt: torchs.ExponentialLR(opt, 0.95)),
]
# Stepped after every optimizer step; told how many there are.
PER_STEP_CASES: list[tuple[str, dict[str, Any], Callable[..., Any]]] = [
    ("none", {}, lambda opt, steps: torchs.ConstantLR(opt, 1.0)),
    ("cosine", {}, lambda opt, steps: torchs.CosineAnnealingLR(opt, steps)),
    ("cosine", {"min_lr": MIN_LR}, lambda opt, steps: torchs.CosineAnnealingLR(opt, steps, MIN_LR)),
    ("linear", {}, lambda opt, steps: torchs.LinearLR(opt, 1.0, 0.0, steps)),
    (
        "linear",
        {"start_factor": 0.5, "end_factor": 0.1},
        lambda opt, steps: torchs.LinearLR(opt, 0.5, 0.1, steps),
    ),
    ("polynomial", {"power": 2.0}, lambda opt, steps: torchs.PolynomialLR(opt, steps, 2.0)),
    ("polynomial", {"power": 0.5}, lambda opt, steps: torchs.PolynomialLR(opt, steps, 0.5)),
]
RESTARTS: list[dict[str, Any]] = [
    {"first_epochs": 10, "multiply": 2, "min_lr": MIN_LR},
    {"first_epochs": 7, "multiply": 1},
    {"first_epochs": 1, "multiply": 3},
]


def build(name: str, options: dict[str, Any], warmup: int = 0, mode: str = "max", steps: int = STEPS) -> Schedule:
    schedule: Schedule = schedules.build(name, options, Clock(steps, PER_EPOCH, warmup), LR, mode)
    return schedule


def rates(schedule: Schedule, steps: int = STEPS) -> np.ndarray:
    return LR * np.array([schedule.factor(s) for s in range(steps)])


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)


def torchs_rates(make: Callable[..., Any], steps: int, every: int) -> np.ndarray:
    """The learning rates of torch's scheduler, stepped after every `every` optimizer steps."""
    opt = optimizer()
    scheduler = make(opt)
    found = []
    for s in range(1, steps + 1):
        found.append(opt.param_groups[0]["lr"])
        opt.step()
        if s % every == 0:
            scheduler.step()
    return np.array(found)


def restarting_rates(options: dict[str, Any], steps: int) -> np.ndarray:
    """torch's warm restarts, told fractions of epochs."""
    opt = optimizer()
    scheduler = torchs.CosineAnnealingWarmRestarts(
        opt, options["first_epochs"], options["multiply"], options.get("min_lr", 0.0)
    )
    found = []
    for s in range(steps):
        scheduler.step(s / PER_EPOCH)
        found.append(opt.param_groups[0]["lr"])
    return np.array(found)


def ramp(steps: int = STEPS) -> np.ndarray:
    return np.minimum((np.arange(steps) + 1) / WARMUP, 1)


def test_every_schedule_is_tested_here() -> None:
    tested = {name for name, _, _ in PER_EPOCH_CASES + PER_STEP_CASES} | {"warm_restarts", "onecycle", "plateau"}
    assert sorted(tested) == schedules.names()
    assert len(tested) == 10


@pytest.mark.parametrize(("name", "options", "make"), PER_EPOCH_CASES)
def test_what_changes_per_epoch_equals_torch(name: str, options: dict[str, Any], make: Callable[..., Any]) -> None:
    expected = torchs_rates(make, STEPS, PER_EPOCH)
    np.testing.assert_allclose(rates(build(name, options)), expected, rtol=1e-9)
    # With a warm-up the epochs stay where they were.
    np.testing.assert_allclose(rates(build(name, options, WARMUP)), expected * ramp(), rtol=1e-9)


@pytest.mark.parametrize(("name", "options", "make"), PER_STEP_CASES)
def test_what_changes_per_step_equals_torch(name: str, options: dict[str, Any], make: Callable[..., Any]) -> None:
    expected = torchs_rates(lambda opt: make(opt, STEPS), STEPS, 1)
    np.testing.assert_allclose(rates(build(name, options)), expected, rtol=1e-9, atol=1e-12)
    # With a warm-up it begins when that is over, and ends when it did before.
    after = torchs_rates(lambda opt: make(opt, STEPS - WARMUP), STEPS - WARMUP, 1)
    expected = ramp() * np.concatenate([np.full(WARMUP, after[0]), after])
    np.testing.assert_allclose(rates(build(name, options, WARMUP)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", RESTARTS)
def test_warm_restarts_equal_torch(options: dict[str, Any]) -> None:
    expected = restarting_rates(options, STEPS)
    np.testing.assert_allclose(rates(build("warm_restarts", options)), expected, rtol=1e-9, atol=1e-12)
    expected = ramp() * np.concatenate([np.full(WARMUP, LR), expected[: STEPS - WARMUP]])
    np.testing.assert_allclose(rates(build("warm_restarts", options, WARMUP)), expected, rtol=1e-9, atol=1e-12)


def test_a_warmup_is_a_ramp_to_the_whole_rate() -> None:
    found = rates(build("none", {}, warmup=4), 6)
    np.testing.assert_allclose(found, LR * np.array([0.25, 0.5, 0.75, 1, 1, 1]))


@pytest.mark.parametrize(("steps", "pct_start"), [(STEPS, 0.15), (STEPS, 0.5), (37, 0.15), (10, 0.05), (2, 0.3)])
def test_onecycle_equals_torch(steps: int, pct_start: float) -> None:
    options = {"pct_start": pct_start, "div_factor": 20.0, "final_div_factor": 1e3}
    expected = torchs_rates(lambda opt: torchs.OneCycleLR(opt, LR, steps, cycle_momentum=False, **options), steps, 1)
    np.testing.assert_allclose(rates(build("onecycle", options, steps=steps), steps), expected, rtol=1e-9)


def test_onecycles_way_up_is_the_warmup_if_there_is_one() -> None:
    up = WARMUP / STEPS
    expected = torchs_rates(lambda opt: torchs.OneCycleLR(opt, LR, STEPS, pct_start=up, cycle_momentum=False), STEPS, 1)
    np.testing.assert_allclose(rates(build("onecycle", {"pct_start": 0.5}, WARMUP)), expected, rtol=1e-9)
    assert expected.argmax() == WARMUP - 1


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    "options",
    [
        {"factor": 0.5, "patience": 3, "threshold": 0.01},
        {"factor": 0.1, "patience": 0, "threshold": 1e-4, "cooldown": 5, "min_lr": MIN_LR},
        {"factor": 0.7, "patience": 2, "threshold": 0.0, "cooldown": 2, "min_lr": 0.05},
    ],
)
def test_plateau_equals_torch_on_a_bumpy_curve(mode: str, options: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).normal(size=EPOCHS) * 0.1
    curve = np.exp(-np.arange(EPOCHS) / 20) + 0.2 * np.abs(noise)
    curve = curve if mode == "min" else 1 - curve
    opt = optimizer()
    scheduler = torchs.ReduceLROnPlateau(opt, mode, **options)
    schedule = build("plateau", options, mode=mode)
    seen = set()
    for epoch, value in enumerate(curve.tolist()):
        schedule.observe(value)
        scheduler.step(value)
        expected = opt.param_groups[0]["lr"]
        assert LR * schedule.factor(epoch * PER_EPOCH) == pytest.approx(expected, rel=1e-9), epoch
        seen.add(expected)
        if epoch == 40:  # resumed
            state = schedule.state_dict()
            schedule = build("plateau", options, mode=mode)
            schedule.load_state_dict(state)
    assert len(seen) > 2
    assert options.get("min_lr", min(seen)) == pytest.approx(min(seen))


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_gets_over_a_first_value_that_is_not_a_number(mode: str) -> None:
    opt = optimizer()
    scheduler = torchs.ReduceLROnPlateau(opt, mode, patience=2)
    schedule = build("plateau", {"patience": 2}, mode=mode)
    better = [0.5, 0.4, 0.3, 0.2, 0.1] if mode == "min" else [0.1, 0.2, 0.3, 0.4, 0.5]
    for value in [math.nan, *better]:
        schedule.observe(value)
        scheduler.step(value)
        assert LR * schedule.factor(0) == pytest.approx(opt.param_groups[0]["lr"])


def test_a_warmup_before_plateau_multiplies() -> None:
    schedule = build("plateau", {"patience": 0, "factor": 0.5}, WARMUP)
    schedule.observe(0.5)
    schedule.observe(0.4)
    np.testing.assert_allclose(rates(schedule), LR * 0.5 * ramp())


@pytest.mark.parametrize("name", ["cosine", "polynomial", "warm_restarts", "plateau"])
def test_a_floor_above_the_learning_rate_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"scheduler\.min_lr: expected at most optimizer\.lr=0\.3, got 1\.0"):
        build(name, {"min_lr": 1.0})
