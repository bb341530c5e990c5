"""What commands tell of a run that is trained: into its own W&B run, above its rows, and in nobody's way."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from test_wandb_tracker import CONFIG, PREDICTIONS, summary, tracker
from wandb_server import RecordedRun, WandbServer

from dlrun.tracking.wandb import session
from dlrun.tracking.wandb.afterwards import tell
from dlrun.tracking.wandb.parts import numbers, parts

VALUES = {"eval/test/acc": 0.75, "eval/test/loss": 0.5}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(session, "PATIENCE", 10.0)
    yield
    wandb.teardown()


def told(folder: Path, mode: str, step: int = 20, **values: float) -> None:
    options = {"project": "dlrun", "entity": None, "mode": mode, "init_timeout": 20.0}
    tell(folder, "mine", CONFIG, VALUES | values, PREDICTIONS, step=step, exit_code=0, **options)
    wandb.teardown()  # all of it is in the file


def trained(folder: Path, mode: str, steps: range = range(1, 21), resumes: bool = False) -> None:
    run = tracker(folder, "mine", mode=mode, resumes=resumes, tags=["a"], notes="hello", group="g", job_type="sweep")
    run.rewind(0, steps[0] - 1, 0)
    for step in steps:
        run.step({"train/loss": 1 / step}, step)
    run.predictions(PREDICTIONS)
    run.finish(summary(0))


def of_training(run: RecordedRun) -> list[int]:
    return [row["step"] for row in run.history if "step/train/loss" in row]


def test_a_row_and_the_summary_of_the_run_itself(tmp_path: Path, server: WandbServer) -> None:
    trained(tmp_path, "online")
    told(tmp_path, "online")
    (run,) = server.runs.values()
    *before, last = run.history
    assert of_training(run) == list(range(1, 21))
    assert {name: last[name] for name in VALUES} == VALUES
    assert last["checkpoint_step"] == 20
    assert last["_step"] > before[-1]["_step"]
    assert {name: run.summary[name] for name in (*VALUES, "test/acc", "status")} == {
        **VALUES,
        "test/acc": 0.7,
        "status": "finished",
    }
    assert (run.name, run.tags, run.notes, run.group, run.job_type) == ("cnn", ["a"], "hello", "g", "sweep")
    assert {key: run.config[key] for key in CONFIG} == CONFIG
    assert (run.complete, run.exit_code) == (True, 0)
    assert last["test/mistakes"]["_type"] == "table-file"


def test_a_run_that_is_trained_on_loses_no_row_to_what_was_told(tmp_path: Path, server: WandbServer) -> None:
    trained(tmp_path, "online")
    told(tmp_path, "online")
    told(tmp_path, "online", **{"bench/p50": 1.5})
    trained(tmp_path, "online", range(21, 31), resumes=True)
    told(tmp_path, "online", step=30)
    trained(tmp_path, "online", range(29, 36), resumes=True)
    (run,) = server.runs.values()
    assert of_training(run) == list(range(1, 36))
    assert [row["checkpoint_step"] for row in run.history if "eval/test/acc" in row] == [20, 20, 30]
    steps = [row["_step"] for row in run.history]
    assert steps == sorted(set(steps))


def test_offline_it_is_a_part_that_is_uploaded_with_the_others(
    tmp_path: Path,
    server: WandbServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trained(tmp_path, "offline")
    caplog.clear()
    with caplog.at_level("INFO", "dlrun"):
        told(tmp_path, "auto")  # the server works, but the part before isn't there yet
    assert server.runs == {}
    first, second = parts(tmp_path, "mine")
    assert min(second.rows()) > max(first.rows())
    (command,) = re.findall(r"to upload this run: wandb (.*)", caplog.text)
    done = subprocess.run([sys.executable, "-m", "wandb", *shlex.split(command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = server.runs.values()
    assert of_training(run) == list(range(1, 21))
    assert run.history[-1]["eval/test/acc"] == 0.75
    assert run.summary["eval/test/acc"] == 0.75
    assert (run.name, run.tags, run.notes, run.group) == ("cnn", ["a"], "hello", "g")
    assert {key: run.config[key] for key in CONFIG} == CONFIG


def test_a_server_that_is_gone_is_a_line_and_a_file(
    tmp_path: Path,
    server: WandbServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trained(tmp_path, "online")
    server.turn("refuses")
    with caplog.at_level("INFO", "dlrun"):
        told(tmp_path, "online")
    assert "can't be reached" in caplog.text
    *_, last = parts(tmp_path, "mine")
    assert last.offline
    assert VALUES.items() <= numbers(last.rows()[max(last.rows())]).items()


def test_a_run_that_wandb_does_not_know_stays_unknown(tmp_path: Path, server: WandbServer) -> None:
    told(tmp_path, "online")
    assert server.runs == {}
    assert not (tmp_path / "wandb").exists()
