"""`wandb agent` drives dlrun: its run is ours, in its sweep, whatever the config says, and a stop is no failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
import yaml
from command_line import CommandLine
from test_wandb_tracker import CONFIG, ROW, summary, tracker
from wandb_server import RecordedRun, WandbServer

from dlrun import agent
from dlrun.errors import UserError
from dlrun.tracking.wandb import session
from dlrun.tracking.wandb.parts import parts

WORDS = ["model=mlp", "data.limit=200", "data.num_workers=0", "trainer.enable_progress_bar=false"]
PYTHONPATH = str(Path(agent.__file__).parent.parent)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a process that `wandb agent` starts for a run; its id."""
    chosen = tmp_path / "config-theirs12.yaml"
    chosen.write_text(yaml.safe_dump({"wandb_version": 1, "model": {"value": "mlp"}, "optimizer.lr": {"value": 0.25}}))
    for name, value in {"SWEEP_ID": "sweep123", "RUN_ID": "theirs12", "SWEEP_PARAM_PATH": str(chosen)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_PROJECT", "tuned")
    monkeypatch.setattr(session, "PATIENCE", 10.0)
    wandb.teardown()  # it reads the environment once
    return "theirs12"


def test_the_run_is_the_agents_and_its_config_is_whole(
    tmp_path: Path,
    server: WandbServer,
    asked: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "dlrun")
    run = tracker(tmp_path, asked)
    for epoch, accuracy in ((1, 0.75), (2, 0.5)):
        run.epoch({**ROW, "epoch": epoch, "step": 20 * epoch, "val/acc": accuracy})
    run.finish(summary(0))
    told = server.runs[asked]
    assert (told.sweep, told.project, told.job_type, told.exit_code) == ("sweep123", "tuned", "sweep", 0)
    assert "project is tuned; tracking.wandb.project=dlrun doesn't count" in caplog.text
    chosen = {"model": "mlp", "optimizer.lr": 0.25, "model.name": "cnn", "model.channels": [32, 64]}
    assert {key: told.config[key] for key in chosen} == chosen
    assert told.config["seed"] == CONFIG["seed"]
    assert [row["val/acc"] for row in told.history if "val/acc" in row] == [0.75, 0.5]
    assert told.summary["val/acc"] == 0.75, "what a sweep looks at is the best value, not the last"


def test_another_run_in_the_agents_environment_is_not_its_run(
    tmp_path: Path,
    server: WandbServer,
    asked: str,
) -> None:
    for name in ("ours1", "ours2"):  # as the jobs of a sweep that the agent's command starts
        run = tracker(tmp_path, name)
        run.finish(summary(0))
    assert set(server.runs) == {"ours1", "ours2"}
    for told in server.runs.values():
        assert (told.sweep, told.project) == (None, "dlrun")
        assert told.config["model"] == CONFIG["model"]


def test_an_id_that_is_no_name_is_refused(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agent.run_id() == asked
    monkeypatch.setenv("WANDB_RUN_ID", "../outside")
    with pytest.raises(UserError, match="WANDB_RUN_ID: expected letters"):
        agent.run_id()
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert agent.run_id() is None


def test_a_run_that_the_agent_stops_is_saved_told_and_no_failure(
    tmp_path: Path,
    server: WandbServer,
    asked: str,
) -> None:
    words = [*WORDS, "trainer.max_epochs=100000", "optimizer.lr=0.25"]
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    with subprocess.Popen(
        [sys.executable, "-m", "dlrun", *words], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split()[:2] == ["epoch", "3/100000"]:
                process.terminate()
                break
        process.stdout.read()
    assert process.returncode == -signal.SIGTERM  # a shell sees 143; an exit code above 0 the agent would count
    (folder,) = (tmp_path / "outputs").glob(f"*/*-{asked}")
    told = json.loads((folder / "summary.json").read_text())
    assert (told["run_id"], told["status"], told["exit_code"]) == (asked, "preempted", 143)
    assert (folder / "checkpoints" / "last.pt").exists()
    assert len(parts(folder, asked)) == 1
    run = server.runs[asked]
    assert (run.sweep, run.complete) == ("sweep123", True)
    assert run.summary["val/acc"] == max(row["val/acc"] for row in run.history if "val/acc" in row)


@pytest.mark.slow  # a minute: an agent looks up every five seconds
def test_wandb_agent_itself(dlrun: CommandLine, server: WandbServer) -> None:
    """`dlrun wandb-sweep`, `wandb sweep FILE`, then `wandb agent`: three runs, one of which the server calls off."""
    space = ["seed=1,2,3", "trainer.max_epochs=2,100000", "tracking.wandb.project=tuned", "sweep.check=config"]
    assert dlrun("wandb-sweep", *space, *WORDS).code == 0
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "PATH": path}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "wandb", *words], cwd=dlrun.folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "wandb agent tester/tuned/sweep123" in run("sweep", "wandb-sweep.yaml")
    assert server.sweep is not None
    drawn = {"ccc": (3, 2), "bbb": (2, 100000), "aaa": (1, 2)}  # the last one first
    server.sweep.todo = {name: {"seed": seed, "trainer.max_epochs": most} for name, (seed, most) in drawn.items()}

    def hopeless(run: RecordedRun | None) -> bool:
        return run is not None and run.id == "bbb" and len(run.history) > 3

    server.sweep.hopeless = hopeless
    run("agent", "tester/tuned/sweep123")
    assert [(name, run.sweep, run.project) for name, run in server.runs.items()] == [
        (name, "sweep123", "tuned") for name in ("aaa", "bbb", "ccc")
    ]
    assert [run.exit_code for run in server.runs.values()] == [0, 143, 0]
    assert [run.config["seed"] for run in server.runs.values()] == [1, 2, 3]
    for told in server.runs.values():
        accuracies = [row["val/acc"] for row in told.history if "val/acc" in row]
        assert told.summary["val/acc"] == max(accuracies)
    assert {path.name[-3:] for path in dlrun.folder.glob("outputs/*/*")} == {"aaa", "bbb", "ccc"}
