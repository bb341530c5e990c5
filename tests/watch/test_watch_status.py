"""Whether a run is trained: by real locks of real processes, and by what its files say."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from made_up_runs import holding, made_up, row
from processes import Process

from dlrun.locks import hold, look, release
from dlrun.watch import following
from dlrun.watch.observation import Observation, Observer
from dlrun.watch.status import PATIENCE, Status, judge


def status(path: Path) -> Status:
    return following.look(Observer(path)).status


def test_a_process_that_has_the_run_is_seen_and_that_it_was_killed_too(tmp_path: Path) -> None:
    path = made_up(tmp_path / "run", [row(1, 0.5)])
    process = Process(holding, path / ".lock")
    try:
        process.until(lambda: look(path / ".lock"))
        name = f"process {process.pid} on {socket.gethostname()}"
        assert status(path) == Status("running", name)
        made_up(path, status="preempted", error="SIGTERM")  # as while it is resumed, or ends
        assert status(path) == Status("preempted", "by SIGTERM; its process is still at work")
        made_up(path)
        process.send(signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
    advice = f"to go on: dlrun resume run={path}"
    assert status(path) == Status("killed", f"its process is gone ({name})", advice, over=True)


def test_a_run_that_is_just_ending_is_not_called_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock was free when one looked, and its summary is older than that."""
    path = made_up(tmp_path / "run", [row(1, 0.5)])
    (path / ".lock").write_text(f"process 1 on {socket.gethostname()}\n")
    observer = Observer(path)
    assert judge(observer.look()).word == "killed"
    monkeypatch.setattr(following, "AGAIN", 0.0)
    monkeypatch.setattr(following.time, "sleep", lambda _: made_up(path, [row(1, 0.5)], status="finished"))
    assert following.look(observer).status == Status("finished", over=True)


def test_of_another_machine_only_the_files_speak(tmp_path: Path) -> None:
    path = made_up(tmp_path / "run", [row(1, 0.5)])
    (path / ".lock").write_text("process 7 on elsewhere\n")
    observer = Observer(path)
    seen = observer.look()
    assert (seen.held, seen.owned_here) == (False, False)
    assert judge(seen).word == "running"
    assert "process 7 on elsewhere isn't seen from here; a file changed" in judge(seen).more
    old = time.time() - 1.5 * PATIENCE
    for file in [*path.rglob("*"), path]:
        os.utime(file, (old, old))
    fresh = Observer(path)
    silent = judge(fresh.look())
    assert (silent.word, silent.over) == ("silent", False)
    assert silent.more == "nothing has changed for 3 min; process 7 on elsewhere may be gone"
    assert judge(fresh.look(), seconds_per_epoch=PATIENCE).word == "running", "its epochs take that long"
    with (path / "metrics.csv").open("a") as file:
        file.write("2,")
    os.utime(path / "metrics.csv", (old, old))  # a clock that is wrong: that it changed is what counts
    assert fresh.look().idle == pytest.approx(0.0, abs=2)
    assert judge(fresh.look()).word == "running"


def test_how_a_run_ended(tmp_path: Path) -> None:
    def told(trainer: dict[str, object] = {}, **summary: object) -> tuple[str, str, bool]:
        found = status(made_up(tmp_path / "run", [row(1, 0.5)], trainer, **summary))
        return found.word, found.more, found.over

    assert told(status="finished") == ("finished", "", True)
    assert told(status="failed", error="ValueError: no") == ("failed", "ValueError: no", True)
    assert told(status="preempted", error="SIGTERM") == ("preempted", "by SIGTERM", True)
    early = {"patience": 3, "monitor": "val/acc"}
    assert told(early, status="stopped_early") == ("stopped early", "no better val/acc for 3 evaluations", True)
    late = told(status="stopped_early", out_of_time=True)
    assert late == ("stopped early", "trainer.max_time is up", True)
    (tmp_path / "run/checkpoints/last.pt").touch()
    failed = status(made_up(tmp_path / "run", status="failed", error="x"))
    assert failed.advice == f"to go on: dlrun resume run={tmp_path / 'run'}"


def test_a_damaged_folder_and_one_that_went_away(tmp_path: Path) -> None:
    path = made_up(tmp_path / "run", [row(1, 0.5)])
    (path / "summary.json").write_text("[1, 2")
    observer = Observer(path)
    assert judge(observer.look()).word == "unknown"
    assert judge(observer.look()).more.startswith("summary.json can't be read: ")
    assert len(observer.look().history) == 1, "the rest is shown"
    (path / "summary.json").write_text("[]")
    assert judge(observer.look()).more == "summary.json can't be read: expected a mapping, got list"
    assert judge(Observation(path)) == Status("unknown", "its folder is gone", over=True)


def test_a_summary_that_nobody_understands(tmp_path: Path) -> None:
    odd, deep = made_up(tmp_path / "odd", status="no word of ours"), made_up(tmp_path / "deep")
    (deep / "summary.json").write_text('{"a":' * 100_000)
    assert status(odd).more == "its summary.json doesn't say"
    assert status(deep).more.startswith("summary.json can't be read: maximum recursion depth")


def test_asking_for_a_lock_takes_none(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    assert look(lock) is None, "no such file"
    lock.touch()
    os.chmod(lock, 0o444)
    assert look(lock) is False
    assert lock.read_bytes() == b""
    os.chmod(lock, 0o644)
    hold(lock)
    try:
        assert look(lock) is True
    finally:
        release(lock)
