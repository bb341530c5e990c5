"""progress.json: what is in it, how often it is written, and that it costs nothing to be wrong."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from dlrun.tracking import heartbeat
from dlrun.tracking.heartbeat import Heartbeat

METRICS = {"train/loss": 0.25, "train/acc": 0.5, "lr": 0.001, "train/grad_norm": math.nan}


def test_a_note_has_the_place_and_the_numbers(tmp_path: Path) -> None:
    path, now = tmp_path / "progress.json", time.time()
    beat = Heartbeat(path, max_steps=900, steps_per_epoch=45)
    beat.step(METRICS, 50)
    noted = json.loads(path.read_text())
    assert abs(noted.pop("time") - now) < 10
    assert noted == {
        "step": 50,
        "max_steps": 900,
        "steps_per_epoch": 45,
        "steps_per_second": None,
        "train/loss": 0.25,
        "train/acc": 0.5,
        "lr": 0.001,
        "train/grad_norm": None,
    }
    beat.step(METRICS, 100)
    assert json.loads(path.read_text())["step"] == 50, "at most once a second"
    assert sorted(tmp_path.iterdir()) == [path], "nothing half-written"


def test_the_pace_is_the_mean_since_the_first_step_that_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 100.0, 104.0, 104.0, 105.0, 105.5, 200.0])
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: next(clock))
    path = tmp_path / "progress.json"
    beat = Heartbeat(path, 900, 45)
    beat.step(METRICS, 50)
    beat.step(METRICS, 100)
    assert json.loads(path.read_text())["steps_per_second"] == 50 / 4
    beat.step(METRICS, 150)  # half a second for a note, on a slow disk
    assert beat.due == 105.0 + 0.5 / heartbeat.SHARE
    beat.step(METRICS, 200)
    assert json.loads(path.read_text())["step"] == 150


def test_it_goes_with_the_run_and_when_the_run_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    for leave in (lambda beat: beat.finish({}), lambda beat: beat.rewind(1, 45, 0)):
        beat = Heartbeat(path, 900, 45)
        beat.step(METRICS, 50)
        assert path.exists()
        leave(beat)
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_disturbs_nobody(tmp_path: Path) -> None:
    beat = Heartbeat(tmp_path / "gone" / "progress.json", 900, 45)
    beat.step(METRICS, 50)
    beat.rewind(0, 0, 0)
    beat.finish({})
