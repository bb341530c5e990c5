"""metrics.csv, TensorBoard's event files, and the lines on the terminal, read back by others' readers."""

from __future__ import annotations

import csv
import io
import resource
from pathlib import Path

import pytest
from processes import Process

from dlrun.tracking import Mistake, Predictions, Quiet, Trackers
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
    _row |= {"samples_per_second": 5000.0, "data_wait": 0.04}


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
        "epoch  2/40  train loss 0.1000  acc 75.00 %  val loss 0.2000  acc 98.61 %  lr 1.00e-08"
        "  5,000 samples/s  data 4 %"
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


# ---- going back, and failing


def row(epoch: int, **more: float) -> dict[str, float | None]:
    return {"epoch": epoch, "step": 10 * epoch, "val/acc": epoch / 8, **more}


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_rows_after_the_epoch_that_a_run_goes_back_to_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    tracker = MetricsFile(path)
    tracker.rewind(0, 0, 0)  # nothing there yet
    assert not path.exists()
    for epoch in (1, 2, 3):
        tracker.epoch(row(epoch))
    undisturbed = path.read_bytes()
    tracker.rewind(3, 35, 1)
    assert path.read_bytes() == undisturbed
    tracker.rewind(1, 15, 1)
    assert read(path) == [["epoch", "step", "val/acc"], ["1", "10", "0.125"]]
    for epoch in (2, 3):
        MetricsFile(path).epoch(row(epoch))  # as another process would
    assert path.read_bytes() == undisturbed
    tracker.rewind(0, 0, 2)
    assert read(path) == [["epoch", "step", "val/acc"]]
    for epoch in (1, 2, 3):
        tracker.epoch(row(epoch))
    assert path.read_bytes() == undisturbed


@pytest.mark.parametrize("rest", ["3", "3,30,0.3", "3,30", "4,40,0.5,7", "\0\0\0"])
def test_a_row_that_was_cut_off_is_dropped(tmp_path: Path, rest: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.csv"
    for epoch in (1, 2):
        MetricsFile(path).epoch(row(epoch))
    whole = path.read_bytes()
    path.write_bytes(whole + rest.encode())
    MetricsFile(path).rewind(2, 25, 0)
    assert path.read_bytes() == whole
    MetricsFile(path).rewind(4, 45, 0)
    assert caplog.messages == ["metrics.csv has 2 of the 4 rows that it had"]


def test_a_resumed_run_may_note_more_than_it_did(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    MetricsFile(path).epoch(row(1))
    MetricsFile(path).epoch(row(2, skipped_steps=3))
    MetricsFile(path).epoch(row(3, skipped_steps=4))
    assert read(path) == [
        ["epoch", "step", "val/acc", "skipped_steps"],
        ["1", "10", "0.125", ""],
        ["2", "20", "0.25", "3"],
        ["3", "30", "0.375", "4"],
    ]


def within_limits(path: Path) -> None:
    tracker = MetricsFile(path)
    tracker.epoch(row(1))
    size = path.stat().st_size
    for more in range(30):  # a row of 11 bytes fits in part, at the end whole, and then the next one
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + more // 3, resource.RLIM_INFINITY))
        tracker.epoch(row(2 + more))
        text = path.read_text()
        assert text.endswith("\n")
        assert all(line.count(",") == 2 for line in text.splitlines())
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    tracker.finish({})


def test_a_disk_without_room_for_a_row(tmp_path: Path) -> None:
    """Under a limit on the file's size, which grows; in the end there is room."""
    process = Process(within_limits, tmp_path / "metrics.csv")
    assert process.wait() == 0, process.output
    assert "couldn't be written: [Errno 27] File too large; its rows are kept for the next time" in process.output
    assert [int(line[0]) for line in read(tmp_path / "metrics.csv")[1:]] == list(range(1, 32))


def test_tensorboard_shows_no_value_twice_after_a_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.summary.writer import event_file_writer

    # Files are read in the order of their names, which end in this process's count of them: 10 comes before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    first = TensorBoard(tmp_path)
    for step in range(1, 8):
        first.step({"train/loss": float(step)}, step)
    first.epoch({"epoch": 1, "step": 5, "val/acc": 0.5})
    first.epoch({"epoch": 2, "step": 7, "val/acc": 0.6})
    first.rewind(1, 5, 1)  # by itself, in mid-training
    for step in (6, 7, 8):
        first.step({"train/loss": 10.0 * step}, step)
    first.epoch({"epoch": 2, "step": 7, "val/acc": 0.7})
    first.writer.close()
    second = TensorBoard(tmp_path)  # and another process that resumes from step 7
    second.rewind(2, 7, 1)
    second.step({"train/loss": 800.0}, 8)
    second.finish({"test": {"test/acc": 0.9}, "steps": 8})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("train/loss_step")]
    assert shown == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 60), (7, 70), (8, 800)]
    assert [(event.step, round(event.value, 3)) for event in events.Scalars("val/acc")] == [(5, 0.5), (7, 0.7)]


class Failing(Quiet):
    """Raises in the second step."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def step(self, metrics: dict[str, float], step: int) -> None:
        self.told.append(step)
        if step == 2:
            raise ConnectionError("the server has gone")


def test_a_tracker_that_fails_is_left_out_and_the_others_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failing, file = Failing(), MetricsFile(tmp_path / "metrics.csv")
    trackers = Trackers(failing, file)
    for step in range(1, 5):
        trackers.step({"train/loss": 0.5}, step)
        trackers.epoch(row(step))
    trackers.rewind(3, 3, 0)
    trackers.finish({})
    assert failing.told == [1, 2]
    assert len(read(tmp_path / "metrics.csv")) == 4
    (said,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert said.getMessage() == "Failing failed; the run goes on without it"
    assert said.exc_info is not None
    assert "the server has gone" in str(said.exc_info[1])
