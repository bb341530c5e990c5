"""How far a run has come and what is left, in closed form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import made_up, row

from dlrun.watch.observation import Observer
from dlrun.watch.pace import Pace, pace


def told(path: Path, beat: dict[str, Any] | None = None) -> Pace:
    if beat is not None:
        (path / "progress.json").write_text(json.dumps(beat))
    return pace(Observer(path).look())


def test_what_is_left_goes_by_the_last_epochs(tmp_path: Path) -> None:
    path = made_up(tmp_path, [row(n, 1.0, seconds=2.0) for n in range(1, 9)])
    seen = told(path)
    assert (seen.epoch, seen.epochs, seen.step, seen.steps, seen.share) == (8, 20, 80, 200, 0.4)
    assert (seen.left, seen.basis) == (pytest.approx(12 * 2.0), "by the last 5 epochs")
    within = told(path, {"step": 85, "max_steps": 200, "steps_per_epoch": 10})
    assert (within.step, within.share) == (85, 0.425)
    assert within.left == pytest.approx(11.5 * 2.0)
    behind = told(path, {"step": 75, "max_steps": 200, "steps_per_epoch": 10})
    assert behind.step == 80, "the row is newer"


def test_one_epoch_and_none(tmp_path: Path) -> None:
    one = told(made_up(tmp_path / "one", [row(1, 1.0, seconds=7.0)]))
    assert (one.left, one.basis) == (pytest.approx(19 * 7.0), "by one epoch")
    none = made_up(tmp_path / "none")
    assert told(none) == Pace(epochs=20)
    beat = {"step": 300, "max_steps": 9000, "steps_per_epoch": 450, "steps_per_second": 12.5}
    begun = told(none, beat)
    assert (begun.step, begun.steps, begun.epoch, begun.epochs) == (300, 9000, 0, 20)
    assert (begun.left, begun.basis) == (8700 / 12.5, "by its steps so far, evaluations not counted")
    slow = told(none, beat | {"steps_per_second": None})
    assert (slow.left, slow.share) == (None, 300 / 9000)


def test_a_run_whose_rows_are_lost_says_itself_how_far_it_came(tmp_path: Path) -> None:
    ended = told(made_up(tmp_path, status="finished", epochs=20, steps=200))
    assert (ended.epoch, ended.epochs, ended.step, ended.steps) == (20, 20, 200, 200)


def test_limits_of_the_config(tmp_path: Path) -> None:
    rows = [row(n, 1.0, seconds=2.0) for n in range(1, 9)]
    steps = told(made_up(tmp_path / "steps", rows, {"max_steps": 125}))
    assert (steps.steps, steps.epochs, steps.left) == (125, 13, pytest.approx(4.5 * 2.0))
    alone = told(made_up(tmp_path / "alone", rows, {"max_steps": 125, "max_epochs": None}))
    assert (alone.steps, alone.epochs) == (125, 13)
    time = told(made_up(tmp_path / "time", rows, {"max_time": "20s"}))
    assert (time.left, time.basis) == (pytest.approx(20 - 16), "by trainer.max_time")
    patience = told(made_up(tmp_path / "patience", rows, {"patience": 3}))
    assert patience.basis == "by the last 5 epochs, or less by trainer.patience"
    beyond = told(made_up(tmp_path / "beyond", rows, {"max_epochs": 5}))
    assert (beyond.epoch, beyond.epochs, beyond.steps, beyond.left) == (8, 8, 80, 0)


@pytest.mark.parametrize(
    "beat",
    [{"step": "x"}, {"step": -1, "max_steps": 0}, {"steps_per_second": "fast"}, {"step": True, "max_steps": None}, {}],
)
def test_a_strange_file_is_as_good_as_none(beat: dict[str, Any], tmp_path: Path) -> None:
    assert told(made_up(tmp_path), beat) == Pace(epochs=20)
