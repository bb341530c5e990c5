"""W&B that can't be reached: nobody waits, nothing is lost. A real client against a server that misbehaves."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import pytest
import wandb
from test_wandb_tracker import PREDICTIONS, summary, tracker
from wandb_server import API_KEY, Manners, RecordedRun, WandbServer

from dlrun.tracking.wandb import session
from dlrun.tracking.wandb.core import core
from dlrun.tracking.wandb.parts import numbers, parts

FAILURES = [manners for manners in get_args(Manners) if manners != "works"]
HANG = 15.0  # seconds; far more than it takes, and less than anything that waits for a server


def upload(text: str) -> None:
    """Runs the command that was printed, as a person would."""
    (command,) = re.findall(r"to upload this run: wandb (.*)", text)
    done = subprocess.run([sys.executable, "-m", "wandb", *shlex.split(command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr


def tell(run: Any, steps: range) -> None:
    """An epoch is ten steps."""
    for step in steps:
        run.step({"train/loss": 1 / step}, step)
        if step % 10 == 0:
            run.epoch({"epoch": step // 10, "step": step, "val/acc": step / 100})


def assert_whole(run: RecordedRun, steps: int) -> None:
    assert [row["step"] for row in run.history if "step/train/loss" in row] == list(range(1, steps + 1))
    assert [row["epoch"] for row in run.history if "val/acc" in row] == list(range(1, steps // 10 + 1))
    assert (run.summary["test/acc"], run.exit_code, run.complete) == (0.7, 0, True)
    assert any("mistakes" in name for name in run.files), "the table of mistakes"
    assert any("confusion_matrix" in name for name in run.files), "the confusion matrix"


@pytest.mark.parametrize("when", ["start", "middle", "end"])
@pytest.mark.parametrize("manners", FAILURES)
def test_nobody_waits_and_nothing_is_lost(
    manners: Manners,
    when: str,
    server: WandbServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO", "dlrun")
    if when == "start":
        server.turn(manners)
    began = time.monotonic()
    run = tracker(tmp_path, "lost")
    tell(run, range(1, 21))
    if when == "middle":
        wait_until(lambda: core() is not None and run.session.queue.empty())
        server.turn(manners)
    tell(run, range(21, 41))
    if when == "end":
        wait_until(lambda: core() is not None and run.session.queue.empty())
        server.turn(manners)
    run.predictions(PREDICTIONS)
    run.finish(summary(0))
    assert time.monotonic() - began < HANG
    assert not run.session.is_alive()
    assert caplog.text.count("can't be reached") == 1
    assert not any(API_KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    server.turn("works")
    upload(caplog.text)
    assert_whole(server.runs["lost"], 40)
    monkeypatch.setattr(session, "PATIENCE", 10.0)  # a busy machine isn't a dead server
    again = tracker(tmp_path, "again")
    again.finish(summary(0))
    assert server.runs["again"].complete, "a later run in this process is online again"


def test_a_killed_wandb_core_costs_nothing(
    server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dlrun")
    run = tracker(tmp_path, "shot")
    tell(run, range(1, 11))
    wait_until(lambda: core() is not None and run.session.queue.empty())
    time.sleep(1)  # what wandb-core hasn't yet taken from its socket isn't what this is about
    core().kill()
    tell(run, range(11, 21))
    run.predictions(PREDICTIONS)
    run.finish(summary(0))
    assert caplog.text.count("W&B failed") == 1
    upload(caplog.text)
    assert_whole(server.runs["shot"], 20)


PROGRAM = """
import logging, os, signal, sys, time
from pathlib import Path
from test_wandb_failures import tell
from test_wandb_tracker import PREDICTIONS, summary, tracker

logging.basicConfig(level="INFO", stream=sys.stdout)
first, last, saved, end = (*map(int, sys.argv[1:4]), sys.argv[4])
run = tracker(Path.cwd(), "parts", mode=os.environ.get("MODE", "auto"), resumes=saved > 0)
if saved:
    run.rewind(saved // 10, saved, 0)
tell(run, range(first, last + 1))
if end == "killed":
    while not (run.session.run_ and run.session.queue.empty()):
        time.sleep(0.1)
    time.sleep(1)  # five times as long as a row is kept from the file
    os.kill(os.getpid(), signal.SIGKILL)
print("told", flush=True)
sys.stdin.readline()
if end == "finished":
    run.predictions(PREDICTIONS)
    run.finish(summary(0))
"""


def program(first: int, last: int, saved: int, end: str, mode: str = "auto") -> subprocess.Popen[str]:
    tests = Path(__file__).resolve().parent
    path = os.pathsep.join(map(str, (tests, tests.parent, tests.parent.parent)))
    command = [sys.executable, "-c", PROGRAM, str(first), str(last), str(saved), end]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, "MODE": mode}, **pipes)


@pytest.mark.parametrize("end", ["finished", "forgotten"])
def test_a_process_ends_although_the_server_hangs(end: str, server: WandbServer) -> None:
    process = program(1, 20, 0, end)
    assert process.stdout is not None
    assert process.stdout.readline() == "told\n"
    wait_until(lambda: "parts" in server.runs)
    server.turn("hangs")
    text, _ = process.communicate("\n", timeout=HANG)
    assert process.returncode == 0
    if end == "finished":
        server.turn("works")
        upload(text)
        assert_whole(server.runs["parts"], 20)


@pytest.mark.parametrize(
    "modes",
    [
        ("auto", "auto"),
        ("offline", "offline"),
        *(pytest.param(modes, marks=pytest.mark.slow) for modes in (("auto", "offline"), ("offline", "auto"))),
    ],
    ids="-".join,
)
def test_what_a_resumed_run_tells_again_is_there_once(modes: tuple[str, str], server: WandbServer) -> None:
    """Killed after step 25, resumed from the checkpoint of step 20, killed after step 37, resumed from that of 30."""
    for first, last, saved, end, mode in [
        (1, 25, 0, "killed", modes[0]),
        (21, 37, 20, "killed", modes[1]),
        (31, 50, 30, "finished", modes[1]),
    ]:
        text, _ = program(first, last, saved, end, mode).communicate("\n", timeout=4 * HANG)
    if "offline" in modes:
        upload(text)
    assert_whole(server.runs["parts"], 50)


def test_a_killed_writer_leaves_rows_that_are_whole(tmp_path: Path) -> None:
    """Cut at any byte; read against what was logged."""
    with wandb.init(dir=tmp_path, id="torn", mode="offline", settings=wandb.Settings(silent=True)) as run:
        for step in range(2000):  # several blocks of the file
            run.log({"square": step**2}, step=step, commit=True)
    wandb.teardown()
    (part,) = parts(tmp_path, "torn")
    assert part.ended
    assert [numbers(row) for row in part.rows().values()] == [{"square": step**2} for step in range(2000)]
    whole = part.file.read_bytes()
    for length in (0, 7, 9, 100_000, 32_768 * 2, 32_768 * 3 + 5):
        part.file.write_bytes(whole[:length])
        rows = part.rows()
        assert list(rows) == list(range(len(rows)))
        assert whole.startswith(part.file.read_bytes())
        assert not part.ended
    assert len(rows) > 300


def wait_until(true: Any) -> None:
    end = time.monotonic() + HANG
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    assert true()
