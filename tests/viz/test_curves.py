"""What is on the axes, read back from the figure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlrun.history import History
from dlrun.viz.curves import figure
from dlrun.viz.pictures import LeftOut
from dlrun.viz.style import written_in


def history(epochs: int, **columns: list[float | None]) -> History:
    """Twenty steps an epoch."""
    own = {"lr": [0.1 * 0.5**i for i in range(epochs)], "train/loss": [2 / i for i in range(1, epochs + 1)]}
    own |= {"val/loss": [1 + 1 / i for i in range(1, epochs + 1)], "val/acc": [i / epochs for i in range(epochs)]}
    numbers = list(range(1, epochs + 1))
    return History(own | columns, numbers, [20 * n for n in numbers])  # type: ignore[operator]


def named(drawn: Figure) -> dict[str, Axes]:
    drawn.draw_without_rendering()
    return {axis.get_ylabel(): axis for axis in drawn.axes if axis.get_visible()}


def line(axis: Axes, words: str) -> tuple[list[float], list[float]]:
    (found,) = [line for line in axis.lines if line.get_label() == words]
    return list(np.asarray(found.get_xdata(), float)), list(np.asarray(found.get_ydata(), float))


def test_each_metric_has_an_axis_with_both_splits_and_the_best_epoch() -> None:
    told = history(8, **{"val/top5": [0.5] * 8, "grad_norm": [1.0] * 8, "grad_norm_max": [2.0] * 8})
    axes = named(figure(told, "val/acc", 7, "a run"))
    assert list(axes) == ["loss", "acc (fraction)", "top5 (fraction)", "learning rate", "gradient norm"]
    assert line(axes["loss"], "train") == (told.epochs, told.column("train/loss"))
    assert line(axes["loss"], "val")[1] == told.column("val/loss")
    assert line(axes["gradient norm"], "largest")[1] == [2.0] * 8
    assert line(axes["acc (fraction)"], "best: epoch 7, val/acc 0.75")[0] == [7, 7]
    assert axes["learning rate"].get_xlabel() == "epoch"
    assert axes["learning rate"].get_yscale() == "log"
    assert axes["loss"].get_yscale() == "linear"
    ticks = [text.get_text() for text in axes["learning rate"].get_yticklabels()]
    assert not any("$" in text for text in ticks), "matplotlib's own are formulas"


def test_steps_are_above_epochs() -> None:
    told = history(3)
    told.steps[:] = [20, 40, 46]  # the last epoch was cut off
    steps = named(figure(told, "val/acc"))["loss"].child_axes[0]
    assert steps.get_xlabel() == "optimizer step"
    forward, back = steps._functions  # type: ignore[attr-defined]
    assert list(forward(np.array([0, 1, 1.5, 3, 4]))) == pytest.approx([0, 20, 30, 46, 46 + 46 / 3])
    assert list(back(forward(np.array([-1, 0.5, 2.5, 9])))) == pytest.approx([-1, 0.5, 2.5, 9])


@pytest.mark.parametrize("losses", [[7e24, 5.6e25], [2.3025851, 2.3025853], [1.2e-8, 1.4e-8], [0.0, 0.0]])
def test_nothing_of_a_tick_is_written_elsewhere(losses: list[float | None]) -> None:
    axis = named(figure(history(2, **{"train/loss": losses, "val/loss": losses}), "val/acc"))["loss"]
    assert axis.yaxis.get_offset_text().get_text() == ""
    low, high = axis.get_ylim()
    said = [float(tick.replace("−", "-")) for tick in (text.get_text() for text in axis.get_yticklabels())]
    assert said == pytest.approx(list(axis.get_yticks()), rel=1e-5, abs=(high - low) / 100)
    assert len(set(said)) == len(said) > 2


def test_what_is_no_number_is_a_gap_and_a_cross() -> None:
    losses = [3.0, None, 2.0, math.nan, 1.0, math.inf]
    axis = named(figure(history(6, **{"train/loss": losses}), "val/acc"))["loss"]
    xs, ys = line(axis, "train")
    assert xs == [1, 3, 4, 5, 6], "on over what wasn't measured"
    assert [y for y in ys if not math.isnan(y)] == [3.0, 2.0, 1.0]
    assert line(axis, "train NaN")[0] == [4]
    assert line(axis, "train infinite")[0] == [6]


def test_a_point_between_two_gaps_is_seen_among_many() -> None:
    losses: list[float | None] = [1.0] * 100
    losses[49] = losses[51] = math.nan
    axis = named(figure(history(100, **{"train/loss": losses}), "val/acc"))["loss"]
    dots = [list(each.get_xdata()) for each in axis.lines if each.get_marker() == "o"]
    assert [51] in dots


@pytest.mark.parametrize("epochs", [1, 1000])
def test_one_epoch_and_a_thousand(epochs: int) -> None:
    with written_in():
        axes = named(figure(history(epochs), "val/acc", epochs))
    for axis in axes.values():
        labels = [text for text in axis.get_xticklabels() if text.get_text()]
        assert len(labels) <= 12
    assert (axes["loss"].lines[0].get_marker() == "o") == (epochs == 1)
    assert axes["learning rate"].get_xlim()[0] < epochs < axes["learning rate"].get_xlim()[1]


def test_what_there_is_nothing_of() -> None:
    with pytest.raises(LeftOut, match="no epoch is over yet"):
        figure(History(), "val/acc")
    axes = named(figure(history(2), "val/acc"))
    assert [text.get_text() for text in axes["gradient norm"].texts] == ["not noted by this run"]
