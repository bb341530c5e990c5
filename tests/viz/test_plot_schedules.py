"""`dlrun plot schedules`: what the figure's lines say, against the optimizer of a real training at every step."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from matplotlib.figure import Figure

from dlrun.build import build
from dlrun.commands.plot import schedules as command
from dlrun.config import parse
from dlrun.profiler import Unwatched
from dlrun.registry import schedules
from dlrun.tracking import Quiet
from dlrun.tracking.terminal import Terminal
from dlrun.viz import schedules as viz

# Nine steps an epoch, and the last of each is of fewer micro-batches than the others.
TINY = ["model=mlp", "model.hidden_sizes=[4]", "data=digits", "data.limit=400", "data.batch_size=16", "augment=none"]
TINY += ["trainer.accumulate_grad_batches=2", "trainer.max_epochs=6", "optimizer=sgd", "optimizer.lr=0.0137"]
SHORT = {  # so that something happens in six epochs
    "step": ["scheduler.step_size=2", "scheduler.gamma=0.3"],
    "multistep": ["scheduler.milestones=[1,4]"],
    "plateau": ["scheduler.patience=0", "scheduler.threshold=0.05", "scheduler.factor=0.5"],
    "warm_restarts": ["scheduler.first_epochs=2"],
}


class Recorder(Quiet):
    """The optimizer's learning rate at each step, and each epoch's row; stands for the writer of checkpoints too."""

    busy = False

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.rows: list[dict[str, Any]] = []

    def step(self, metrics: dict[str, float], step: int) -> None:
        self.rates.append(metrics["lr"])

    def epoch(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def put(self, state: dict[str, Any], best: bool = False) -> None: ...


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Figure, dict[str, Any]]]:
    """What the command draws, and its numbers, in place of files."""
    found: list[tuple[Figure, dict[str, Any]]] = []

    def keep(path: Path, draw: Callable[[], Figure], content: dict[str, Any]) -> int:
        found.append((draw(), content))
        return 0

    monkeypatch.setattr(command, "leave", keep)
    return found


def trained(config: dict[str, Any]) -> Recorder:
    recorder = Recorder()
    run = build(parse(config))
    run.trainer(recorder, Terminal(1, False), recorder, Unwatched()).fit()  # type: ignore[arg-type]
    return recorder


def lines(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    """Of the learning rates: label → xs, ys."""
    found = [line for axis in figure.axes for line in axis.get_lines() if line.get_gid() == "rates"]
    return {str(li.get_label()): (list(li.get_xdata()), list(li.get_ydata())) for li in found}  # type: ignore[arg-type]


def test_the_picture_is_what_a_training_applies(
    figures: list[Any], compose_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    names = schedules.names()
    assert len(names) == 10
    cases = [(name, ["scheduler.warmup_epochs=1.5"]) for name in names]
    cases += [(name, []) for name in ("onecycle",)]
    for name, warmup in cases:
        words = [*TINY, f"scheduler={name}", *warmup, *SHORT.get(name, [])]
        real = trained(compose_config(*words, "trainer.log_every_n_steps=1"))
        metrics = tmp_path / "metrics.csv"
        with metrics.open("w", newline="") as file:
            writer = csv.DictWriter(file, real.rows[0])
            writer.writeheader()
            writer.writerows(real.rows)
        figures.clear()
        command.run([*words, f"loss={metrics}"])
        figure, content = figures[0]
        (label, (xs, ys)), *none_else = lines(figure).items()
        assert (label, none_else) == (name, [])
        assert xs == list(range(len(real.rates)))
        assert len(xs) >= 54
        assert ys == real.rates, name  # to the bit
        assert content["schedules"][0]["lr"] == ys
        assert len(set(ys)) > (name != "none"), "nothing happened"


def test_all_that_are_registered_side_by_side_on_shared_axes(figures: list[Any]) -> None:
    command.run(["trainer.max_epochs=100", "steps_per_epoch=20", "scheduler.warmup_epochs=5", "optimizer.lr=0.5"])
    figure, content = figures[0]
    assert list(lines(figure)) == schedules.names()
    panels = [axis for axis in figure.axes if axis.get_gid() == "rates" and axis.get_visible()]
    watched = next(axis for axis in figure.axes if axis.get_visible() and axis not in panels)
    assert len(panels) == 10
    assert len({axis.get_xlim() for axis in panels}) == len({axis.get_ylim() for axis in panels}) == 1
    for lowest in panels[-2:]:  # of each column, the one that has nobody below it in the last row, too
        assert lowest.get_xlabel() == "optimizer step"
        assert any(tick.label1.get_visible() for tick in lowest.xaxis.get_major_ticks())
        (below,) = lowest.child_axes
        assert below.get_xlabel() == "epoch"
    assert panels[0].get_ylabel() == "learning rate"
    assert watched.get_ylabel() == "a made-up loss"
    for axis in panels:  # the warm-up is a band of 100 steps
        (band,) = axis.patches
        assert band.get_extents().transformed(axis.transData.inverted()).x1 == pytest.approx(100)
    assert content["total_steps"] == 2000
    assert all(max(ys) == pytest.approx(0.5, rel=0.3) for _, ys in lines(figure).values())
    assert len(content["watched"]["values"]) == 100


def test_overlaid_and_logarithmic(figures: list[Any]) -> None:
    command.run(["layout=overlaid", "scale=log", "scheduler=cosine,step,plateau", "steps_per_epoch=5"])
    figure, _ = figures[0]
    first, second = figure.axes
    assert [line.get_label() for line in first.get_lines()] == ["cosine", "step", "plateau"]
    assert first.get_yscale() == "log"
    assert len({(line.get_color(), line.get_linestyle()) for line in first.get_lines()}) == 3
    assert second.get_ylabel() == "a made-up loss"
    command.run(["layout=overlaid", "scheduler=cosine", "steps_per_epoch=5"])
    assert len(figures[1][0].axes) == 1  # nothing of cosine watches a loss


def test_a_line_for_each_of_several_values_and_an_option_for_those_that_have_it(
    figures: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    command.run(["scheduler=exponential,cosine", "scheduler.gamma=0.9,0.5", "steps_per_epoch=2"])
    found = lines(figures[0][0])
    assert list(found) == ["exponential gamma=0.9", "exponential gamma=0.5", "cosine"]
    assert found["exponential gamma=0.5"][1][2] == pytest.approx(0.5 * found["exponential gamma=0.5"][1][0])
    assert "scheduler.gamma: of exponential; the others have no such option" in capsys.readouterr().err


def test_plateau_on_given_losses(figures: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scheduler=plateau", "scheduler.patience=1", "steps_per_epoch=1", "optimizer.lr=1", "trainer.max_epochs=9"]
    command.run([*words, "loss=5,4,4,4,3,3,nan,3,3"])
    figure, content = figures[0]
    ((_, rates),) = lines(figure).values()
    # Two without an improvement (epochs 3 and 4), two again (6 and 7: what isn't a number is none), and 8 and 9.
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    assert content["watched"]["mode"] == "min"
    command.run([*words, "loss=5,4,4"])
    ((xs, _),) = lines(figures[1][0]).values()
    assert xs == [0, 1, 2]
    assert "drawn as far as the loss goes: 3 of 9 epochs" in capsys.readouterr().err


def test_a_recipe_and_the_real_size_of_the_data(figures: list[Any]) -> None:
    command.run(["experiment=digits_cnn", "scheduler=onecycle,cosine"])
    content = figures[0][1]
    assert content["total_steps"] == 880
    assert content["lr"] == 5e-3


def test_a_million_steps_keep_their_jumps() -> None:
    rates = [0.1 ** (step // 300_000) for step in range(1_000_000)]
    steps = viz.kept(rates)
    assert len(steps) < 1.1 * viz.MOST
    assert {0, 299_999, 300_000, 599_999, 600_000, 999_999} <= set(steps)
    assert viz.kept([0.1] * 500) == list(range(500))
    assert len(viz.kept([2.0**step if step < 1000 else math.inf for step in range(50_000)])) < 60_000


def test_what_is_said_of_mistakes(dlrun: CommandLine) -> None:
    for words, said in [
        (["scheduler=cosin"], "unknown scheduler 'cosin'; did you mean 'cosine'?"),
        (["scheduler.patienc=5"], "scheduler.patienc: unknown option; did you mean 'patience'?"),
        (["scheduler.factor=x", "steps_per_epoch=2"], "scheduler.factor: expected a number > 0 and < 1, got 'x'"),
        (["layot=overlaid"], "layot: unknown option of dlrun plot schedules; did you mean 'layout'?"),
        (["layout=round"], "layout: expected one of 'panels', 'overlaid', got 'round'"),
        (["data=cifar10"], "say steps_per_epoch=N (training samples / 128)"),
        (["loss=nowhere", "steps_per_epoch=2"], "run: no folder 'nowhere'"),
        (["out=a.jpg"], "out: expected a file that ends in .png"),
        (["steps_per_epoch=1000000"], "steps are too many to draw"),
        (["~scheduler.patience"], "scheduler.patience: expected a value or several"),
        (["scheduler.factor=interval(0,1)"], "scheduler.factor: expected a value or several"),
        (["optimizer.lr=1,2"], "optimizer.lr: takes one value here"),
    ]:
        few = [] if words[0].startswith("scheduler=") else ["scheduler=plateau"]
        result = dlrun("plot", "schedules", *few, *words)
        assert result.code == 2, words
        assert said in result.err, (words, result.err)
        assert len(result.err.strip().splitlines()) == 1
    assert list(dlrun.folder.iterdir()) == []


def test_the_files(dlrun: CommandLine) -> None:
    result = dlrun("plot", "schedules", "steps_per_epoch=3", "scheduler=cosine", "trainer.max_epochs=2", "out=a/b.png")
    assert result.code == 0, result.err
    assert result.out == "written a/b.png\nwritten a/b.json\n"
    assert (dlrun.folder / "a/b.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((dlrun.folder / "a/b.json").read_text())
    lr = content["lr"]
    expected = [lr * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert content["schedules"][0]["lr"] == pytest.approx(expected)
