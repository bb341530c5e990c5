"""metrics.csv, TensorBoard's event files, and the lines on the terminal, read back by others' readers."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from dlrun.tracking import Mistake, Predictions, Trackers
from dlrun.tracking.files import MetricsFile
from dlrun.tracking.tensorboard import TensorBoard
from dlrun.tracking.terminal import Terminal

ROWS: list[dict[str, float | None]] = [
    {
        "epoch": 1,
        "step": 20,
        "lr": 0.001,
        "train/loss": 0.123456789,
        "train/acc": 0.5,
        "val/loss": None,
        "val/acc": None,
    },
    {"epoch": 2, "step": 40, "lr": 1e-8, "train/loss": 0.1, "train/acc": 0.75, "val/loss": 0.2, "val/acc": 0.9861},
]
for _row in ROWS:
    _row["samples_per_second"] = 5000.0


def test_metrics_csv_has_a_row_per_epoch(tmp_path: Path) -> None:
    tracker = MetricsFile(tmp_path / "metrics.csv")
    for number, row in enumerate(ROWS, 1):
        tracker.epoch(row)
        with (tmp_path / "metrics.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) == number  # on disk at once
    with (tmp_path / "metrics.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == list(ROWS[0])
    assert (first["val/acc"], first["epoch"]) == ("", "1")
    assert float(first["train/loss"]) == pytest.approx(0.123456789, rel=1e-5)
    assert float(second["lr"]) == 1e-8


def test_tensorboard_scalars_read_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = Trackers(TensorBoard(tmp_path))
    tracker.step({"train/loss": 0.7}, 10)
    for row in ROWS:
        tracker.epoch(row)
    tracker.predictions(Predictions(["a", "b"], [0], [1], [Mistake(0, "some words", "a", "b", 0.9, 2.0)]))
    tracker.finish({"test": {"test/acc": 0.97}, "steps": 40})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("val/acc")] == [(40, pytest.approx(0.9861))]
    assert [(e.step, e.value) for e in events.Scalars("train/loss_step")] == [(10, pytest.approx(0.7))]
    assert events.Scalars("test/acc")[0].value == pytest.approx(0.97)


def test_terminal_line_shows_percent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "dlrun"):
        Terminal(40).epoch(ROWS[1])
    assert caplog.messages == [
        "epoch  2/40  train loss 0.1000  acc 75.00 %  val loss 0.2000  acc 98.61 %  lr 1.00e-08  5,000 samples/s"
    ]


def test_bar_on_a_terminal_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "120")
    for screen, shown in ((Screen(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", screen)
        terminal = Terminal(3)
        bar = terminal.start_epoch(1, samples=100, done=0)
        terminal.step({"train/loss": 0.5, "train/acc": 0.25, "lr": 0.01}, 1)
        bar.update(100)
        bar.refresh()
        bar.close()
        written = screen.getvalue()
        assert ("epoch 1/3" in written) is shown
        assert ("loss 0.5000  acc 25.00 %  lr 1.00e-02" in written) is shown
