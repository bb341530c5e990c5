"""The range test against closed forms: gradient descent on quadratics, and fastai's formulas written out."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from command_line import CommandLine
from torch import Tensor, nn

from dlrun.data.loader import Batches
from dlrun.data.source import ArraySplit
from dlrun.lr_range import Sweep, exponential, suggested, sweep_rates
from dlrun.precision import Precision
from dlrun.progress import Limits
from dlrun.viz import lr_range as viz

CPU = torch.device("cpu")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 5, generator=GENERATOR, dtype=torch.float64) * torch.tensor([3.0, 1.5, 1.0, 0.5, 0.2])
Y = X @ torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0], dtype=torch.float64)
HESSIAN = (X.T @ X / len(X)).numpy()  # of the mean of ½ (x·w − y)²
LAMBDA = float(np.linalg.eigvalsh(HESSIAN)[-1])


class LeastSquares:
    """½ (x·w − y)² as a task, of which the trainer wants sums."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * (outputs.squeeze(1) - Y[targets]).square().sum()

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.zeros(())


def parts(batch_size: int = len(X), lr: float = 0.7) -> dict[str, Any]:
    net = nn.Linear(5, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(net.weight)
    split = ArraySplit(X, torch.arange(len(X)))  # a sample's target is its number
    batches = Batches(split, batch_size, lambda batch: batch, CPU)
    return {
        "model": net,
        "weights": net,
        "task": LeastSquares(),
        "optimizer": torch.optim.SGD(net.parameters(), lr=lr),
        "precision": Precision(CPU),
        "evaluator": type("Nobody", (), {})(),
        "train_batches": batches,
        "val_batches": batches,
    }


def descent(rates: list[float]) -> list[float]:
    """The loss before each step of gradient descent, from the eigenvalues: each error shrinks by 1 − rate · λ."""
    values, vectors = np.linalg.eigh(HESSIAN)
    best = np.linalg.lstsq(X.numpy(), Y.numpy(), rcond=None)[0]
    errors, losses = vectors.T @ -best, []
    for rate in rates:
        losses.append(float(0.5 * (values * errors**2).sum()))
        errors = errors * (1 - rate * values)
    return losses


def test_the_losses_of_a_quadratic_and_where_it_diverges() -> None:
    rates = exponential(1e-4, 10, 120)
    assert rates[0] == 1e-4
    assert rates[-1] == pytest.approx(10)
    net = parts()
    sweep = sweep_rates(net, Limits(1, 1), 0.7, rates, smoothing=0.0)
    expected = descent(rates)
    count = len(sweep.losses)
    np.testing.assert_allclose(sweep.losses, expected[:count], rtol=1e-4)  # rounding grows with the divergence
    # No part of the error grows below 2 / λ, so no step does harm; the steepest part grows at every step beyond it.
    critical = next(i for i, rate in enumerate(rates) if rate > 2 / LAMBDA)
    harm = next(i for i, (a, b) in enumerate(zip(sweep.losses, sweep.losses[1:], strict=False)) if b > a)
    assert critical <= harm < count
    # It ends at the first loss that is more than four times the lowest.
    assert sweep.ending == "diverged"
    assert count - 1 == next(i for i, x in enumerate(expected) if x > 4 * min(expected[: i + 1]))
    assert rates[count - 1] > 2 / LAMBDA
    found = suggested(sweep)
    assert found.steepest is not None
    assert 0 < found.steepest < 2 / LAMBDA
    assert found.minimum_tenth == pytest.approx(rates[int(np.argmin(sweep.smoothed()[:-5]))] / 10)


def test_an_even_quadratic_diverges_at_twice_the_best_rate() -> None:
    # One eigenvalue: the loss is L₀ Π (1 − rate · λ)², least where rate ≈ 1 / λ, growing as soon as rate > 2 / λ.
    sweep = sweep_rates(parts() | {"train_batches": even()}, Limits(1, 1), 0.7, exponential(0.3, 10, 40), 0.0)
    growing = next(i for i, (a, b) in enumerate(zip(sweep.losses, sweep.losses[1:], strict=False)) if b > a)
    # λ = 4: the step with `rates[growing]` is the first that made it worse.
    assert sweep.rates[growing - 1] <= 0.5 < sweep.rates[growing]


def even() -> Batches:
    inputs = 4 * torch.eye(5, dtype=torch.float64)[torch.arange(20) % 5] * math.sqrt(5) / 2
    return Batches(ArraySplit(inputs, torch.arange(20)), 20, lambda batch: batch, CPU)


def test_batches_accumulate_and_epochs_begin_again() -> None:
    rates = exponential(1e-5, 1e-3, 50)
    whole = sweep_rates(parts(), Limits(1, 1), 0.7, rates, 0.9)
    cut = sweep_rates(parts(batch_size=10), Limits(1, 1, accumulate=4), 0.7, rates, 0.9)  # a step an epoch
    np.testing.assert_allclose(cut.losses, whole.losses, rtol=1e-9)
    small = sweep_rates(parts(batch_size=16), Limits(1, 1), 0.7, rates, 0.9)  # 16, 16 and 8
    first = 0.5 * Y.square()
    expected = [first[:16].mean(), first[16:32].mean(), first[32:].mean()]
    np.testing.assert_allclose(small.losses[:3], expected, rtol=0.02)
    assert (small.ending, len(small.losses)) == ("done", 50)


def test_clipping_is_the_trainers() -> None:
    rates = exponential(1e-3, 1e-1, 20)
    net = parts()
    sweep_rates(net, Limits(1, 1, clip_norm=0.5), 0.7, rates, 0.0)
    # The gradient is much longer than 0.5 all the way: the weights move by rate · 0.5 at each step, no more.
    assert float(net["weights"].weight.detach().norm()) <= 0.5 * sum(rates) * (1 + 1e-6)
    assert net["optimizer"].param_groups[0]["lr"] == pytest.approx(rates[-1])


def test_a_schedule_of_its_own_and_rates_of_other_groups_in_proportion() -> None:
    net = parts()
    net["optimizer"].param_groups[0]["lr"] = 1.4  # bias_lr_scale=2, say
    sweep_rates(net, Limits(1, 1), 0.7, exponential(1e-4, 1e-2, 20), 0.0)
    assert net["optimizer"].param_groups[0]["lr"] == pytest.approx(2e-2)


def test_a_loss_that_is_no_number_from_the_start() -> None:
    net = parts()
    nn.init.constant_(net["weights"].weight, math.nan)
    sweep = sweep_rates(net, Limits(1, 1), 0.7, exponential(1e-4, 1, 50), 0.9)
    assert (sweep.ending, sweep.losses, sweep.smoothed()) == ("nonfinite", [], [])
    assert "very first step" in str(suggested(sweep).why_none)


def made(losses: list[float], steps: int = 100, smoothing: float = 0.9, ending: Any = "done") -> Sweep:
    sweep = Sweep(exponential(1e-7, 10, steps), smoothing, ending=ending)
    for loss in losses:
        sweep.note(loss)
    return sweep


def test_what_never_falls_gets_no_suggestion() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 100)
    assert "never falls" in str(suggested(made((2.3 + noise).tolist())).why_none)
    assert "never falls" in str(suggested(made(np.linspace(2, 7, 100).tolist())).why_none)
    why = str(suggested(made([2.0, 2.0, 3.0, 30.0, 90.0], ending="diverged")).why_none)
    assert "explodes after 5 steps" in why
    assert suggested(made(np.linspace(2, 1, 100).tolist())).doubt is not None


def sigmoid_fall(centre: float, noise: float = 0.0) -> list[float]:
    """A loss that falls from 2.3 to 0.3 over the logarithm of the rate, fastest at `centre`."""
    place = np.log10(exponential(1e-7, 10, 100))
    losses = 0.3 + 2 / (1 + np.exp(3 * (place - math.log10(centre))))
    losses += np.where(place > math.log10(centre) + 1.5, 10 ** np.clip(2 * (place + 0.5), -9, 2), 0)
    return list(losses + np.random.default_rng(1).normal(0, noise, 100))


@pytest.mark.parametrize("smoothing", [0.0, 0.7, 0.9])
def test_the_steepest_place_is_found_where_it_is(smoothing: float) -> None:
    noise = 0.0 if smoothing == 0 else 0.02
    found = suggested(made(sigmoid_fall(1e-3, noise), smoothing=smoothing, ending="diverged"))
    assert found.steepest is not None
    # A step is a factor of 1.2; an average that lags by 1 / (1 - 0.9) of them would be off by 6.
    assert 1e-3 / 2 <= found.steepest <= 2e-3


def test_the_average_is_fastais() -> None:
    losses = np.random.default_rng(2).random(30).tolist()
    sweep, value = made(losses, smoothing=0.98), 0.0
    for count, (loss, found) in enumerate(zip(losses, sweep.averages, strict=True), 1):
        value = 0.98 * value + 0.02 * loss  # torch.lerp(loss, value, beta) in AvgSmoothLoss
        assert found == pytest.approx(value / (1 - 0.98**count))


def fastais_valley(losses: list[float]) -> int:
    """fastai.callback.schedule.valley, in its own quadratic form."""
    n = len(losses)
    lds, max_start, max_end = [1] * n, 0, 0
    for i in range(1, n):
        for j in range(i):
            if losses[i] < losses[j] and lds[i] < lds[j] + 1:
                lds[i] = lds[j] + 1
            if lds[max_end] < lds[i]:
                max_end = i
                max_start = max_end - lds[max_end]
    sections = (max_end - max_start) / 3
    return max_start + int(sections) + int(sections / 2)


def test_the_valley_is_fastais() -> None:
    for centre in (1e-4, 1e-3, 1e-2):
        sweep = made(sigmoid_fall(centre, 0.03), smoothing=0.9, ending="diverged")
        lagging = made(sweep.losses, smoothing=0.98)
        steps = sweep.judged()
        expected = sweep.rates[steps[fastais_valley([lagging.averages[s] for s in steps])]]
        assert suggested(sweep).valley == expected


def test_the_picture_shows_what_was_measured() -> None:
    sweep = made(sigmoid_fall(1e-3, 0.02))
    figure = viz.draw(sweep.rates, sweep.losses, sweep.smoothed(), {"steepest": 1e-3, "valley": 1e-4}, "ended", "cnn")
    (axis,) = figure.axes
    assert axis.get_xscale() == "log"
    assert axis.get_xlabel() == "learning rate (log scale)"
    assert axis.get_ylabel() == "training loss"
    drawn = {line.get_gid(): line for line in axis.get_lines() if line.get_gid()}
    assert list(drawn["losses"].get_ydata()) == sweep.losses
    assert list(drawn["smoothed"].get_ydata()) == sweep.smoothed()
    assert list(drawn["smoothed"].get_xdata()) == sweep.rates
    marks = [line for line in axis.get_lines() if not line.get_gid()]
    assert [line.get_xdata()[0] for line in marks] == [1e-3, 1e-4]  # type: ignore[index]
    assert "suggested" in str(marks[0].get_label())
    assert "$" not in axis.xaxis.get_major_formatter()(1e-3, 0)
    assert axis.get_ylim()[1] < 4  # the explosion is cut off


def test_the_command(dlrun: CommandLine) -> None:
    tiny = ["model=mlp", "model.hidden_sizes=[32]", "data=digits", "data.limit=400"]
    result = dlrun("find-lr", *tiny, "seed=3")
    assert result.code == 0, result.err
    content = json.loads((dlrun.folder / "plots/lr_range.json").read_text())
    assert f"  optimizer.lr={content['steepest']:.2g}\n" in result.out
    assert 3e-4 < content["steepest"] < 5e-2
    assert "scheduler=onecycle begins at 0.04 of it" in result.out
    assert len(content["lr"]) == len(content["loss"]) == len(content["smoothed"]) > 50
    assert content["seed"] == 3
    assert sorted(path.name for path in dlrun.folder.iterdir()) == ["plots"]  # no run folder, nothing tracked
    again = dlrun("find-lr", *tiny, "seed=3", "out=again.png")
    assert json.loads((dlrun.folder / "again.json").read_text())["loss"] == content["loss"]
    assert again.out.splitlines()[2:] == result.out.splitlines()[2:]
    nothing = dlrun("find-lr", *tiny, "end=1e-6", "steps=20", "optimizer=muon")
    assert nothing.code == 1
    assert "nothing to suggest: the loss never falls" in nothing.out
    assert "optimizer.lr=" not in nothing.out
    for words, said in [
        (["start=1", "end=0.1"], "end: expected a number > start=1, got 0.1"),
        (["steps=3"], "steps: expected a whole number >= 20"),
        (["model=cn"], "unknown model 'cn'; did you mean 'cnn'?"),
        (["-m"], "no other flags"),
        (["stepss=3"], "stepss: unknown option of dlrun find-lr; did you mean 'steps'?"),
    ]:
        refused = dlrun("find-lr", *words)
        assert refused.code == 2
        assert said in refused.err
