"""The process that draws beside a run, whatever happens to it or to the run: real processes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from processes import PATIENCE, Process

from dlrun import drawing
from dlrun.drawing import Drawing
from dlrun.viz import drawer

ROWS = "epoch,step,lr,train/loss,val/acc\n1,21,0.001,1.5,0.5\n2,42,0.0005,1.0,0.7\n"
FINDINGS = {
    "confusion": {"split": "test", "epoch": 2, "samples": 3, "class_names": ["a", "b"], "cells": [[0, 0, 2], [0, 1, 1]]}
}


def never() -> bool:
    return False


def begun(folder: Path) -> Drawing:
    """Beside a run of two epochs."""
    (folder / "metrics.csv").write_text(ROWS)
    made = Drawing(folder, "val/acc", "max", "a run")
    made.start()
    return made


def names(pictures: list[Path]) -> list[str]:
    return [path.name for path in pictures]


def test_it_draws_what_there_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/mistakes.png").write_text("of an earlier part of the run")
    one = begun(tmp_path)
    assert not (tmp_path / "plots/mistakes.png").exists()
    assert one.process is not None
    pid = one.process.pid
    assert os.getpgid(pid) == pid != os.getpgid(0), "Ctrl-C on the terminal isn't for it"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        _until(lambda: "SigIgn" in _status(pid) and int(_status(pid)["SigIgn"], 16) >> signal.SIGTERM - 1 & 1)
        os.kill(pid, number)
    one.epoch({})
    one.note(lambda: FINDINGS)
    assert names(one.end(never)) == ["curves.png", "confusion.png"]
    assert sorted(os.listdir(tmp_path / "plots")) == ["confusion.json", "confusion.png", "curves.png"]
    assert caplog.messages == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_is_killed_or_hangs_costs_a_warning_at_most(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(drawing, "FIRST", 0.2)
    one = begun(tmp_path)
    process = one.process
    assert process is not None
    os.kill(process.pid, number)
    if number == signal.SIGKILL:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    before = time.monotonic()
    for _ in range(70_000):  # more than a pipe holds
        one.epoch({})
    assert time.monotonic() - before < PATIENCE
    assert names(one.end(never)) == ["curves.png"]
    told = ["pictures: the process that draws them has ended (exit code -9); the curves are drawn at the end"]
    assert caplog.messages == (told if number == signal.SIGKILL else [])
    assert process.returncode == -signal.SIGKILL, "it is gone, and isn't a zombie"


def test_a_run_that_is_asked_to_stop_meanwhile_waits_no_longer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = begun(tmp_path)
    assert one.process is not None
    os.kill(one.process.pid, signal.SIGSTOP)
    looks = iter([False] * 3)
    assert one.end(lambda: next(looks, True)) == []
    assert caplog.messages == ["pictures: not all of them could be drawn in time"]


def test_one_that_cannot_begin_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    one = begun(tmp_path)
    one.epoch({})
    assert one.end(never) == []
    (said,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert said.getMessage().startswith("pictures: their process couldn't be started ([Errno 2]")


def test_pictures_that_cannot_be_written_are_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "plots").write_text("in the way")
    one = begun(tmp_path)
    one.note(lambda: FINDINGS)
    assert one.end(never) == []
    (said,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "FileExistsError" in said.getMessage()


def test_what_a_test_found_may_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> Any:
        raise ZeroDivisionError("by nothing")

    one = Drawing(tmp_path, "val/acc", "max", "a run")
    one.note(fails)
    assert caplog.messages == ["pictures: what the test found can't be told (ZeroDivisionError: by nothing)"]


def _beside(folder: Path) -> None:
    one = begun(folder)
    assert one.process is not None
    print(one.process.pid, flush=True)
    time.sleep(PATIENCE)


def test_none_outlives_its_run(tmp_path: Path) -> None:
    run = Process(_beside, tmp_path)
    run.until(lambda: run.output.endswith("\n"))
    pid = int(run.output)
    run.kill()
    _until(lambda: _status(pid).get("State", "Z")[0] == "Z")  # whoever adopts it reaps it


def test_new_curves_are_drawn_when_they_are_due_and_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawer, "APART", 0.0)
    monkeypatch.setattr(drawer, "SOON", 0.0)
    reader, writer = os.pipe()
    drawn: list[int] = []

    def curves() -> None:
        drawn.append(len(drawn))
        os.write(writer, drawer.END) if len(drawn) == 2 else os.write(writer, drawer.NEW)

    os.write(writer, drawer.NEW * 5)
    assert drawer.wait(curves, reader)
    assert drawn == [0, 1]
    monkeypatch.setattr(drawer, "SOON", 1000.0)
    os.write(writer, drawer.NEW)
    os.close(writer)
    assert not drawer.wait(curves, reader), "there is no run any more"
    os.close(reader)
    assert drawn == [0, 1]


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_a_kill_left_undrawn_is_drawn_by_a_resume(dlrun: CommandLine) -> None:
    words = ["model=perceptron", "data=breast_cancer", "tracking=none", "trainer.max_epochs=1", "plots=true"]
    assert dlrun(*words, "hydra.run.dir=run").code == 0
    plots = dlrun.folder / "run" / "plots"
    before = {path.name: path.read_bytes() for path in plots.glob("*.png")}
    assert len(before) == 4
    for name in ("confusion.png", "curves.png"):
        (plots / name).unlink()
    (plots / ".mistakes.json.1.partial").touch()
    shown = dlrun("resume", "run=run")
    assert shown.code == 0
    assert "its pictures were missing: 4 of them are drawn" in shown.out
    assert {path.name: path.read_bytes() for path in plots.glob("*.png")} == before
    assert not list(plots.glob(".*"))
    assert "missing" not in dlrun("resume", "run=run").out
