"""The W&B tracker: online against a server on loopback that speaks W&B's protocol, and offline."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from wandb_server import API_KEY, WandbServer

from dlrun.errors import UserError
from dlrun.tracking import Mistake, Predictions
from dlrun.tracking.wandb import WandB, session
from dlrun.tracking.wandb.parts import numbers, parts

CONFIG = {"seed": 3, "model": {"name": "cnn", "channels": [32, 64]}, "notes": None}
ROW = {"epoch": 1, "step": 20, "lr": 1e-3, "train/loss": 0.5, "val/acc": 0.75, "val/loss": None}
PREDICTIONS = Predictions(
    class_names=["cat", "dog"],
    truths=[0, 1, 1],
    guesses=[0, 1, 0],
    mistakes=[Mistake(2, np.zeros((4, 4, 3), np.uint8), "dog", "cat", 0.9, 2.3)],
)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No credentials from outside; wandb reads the environment once, so it is made to forget."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(session, "PATIENCE", 10.0)  # a busy machine isn't a dead server
    yield
    wandb.teardown()


def tracker(folder: Path, run_id: str, **changes: Any) -> WandB:
    options: dict[str, Any] = {
        "project": "dlrun",
        "entity": None,
        "mode": "auto",
        "init_timeout": 20.0,
        "max_steps": 100,
    }
    options |= {"log_report": False, "monitor": "val/acc", "maximize": True}
    options |= {"log_model": False, "group": None, "job_type": "train", "tags": [], "notes": None, "name": "cnn"}
    return WandB(folder, run_id, CONFIG, **options | changes)


def summary(exit_code: int, **changes: Any) -> dict[str, Any]:
    best = {"epoch": 1, "val/acc": 0.75}
    return {"exit_code": exit_code, "status": "finished", "best": best, "test": {"test/acc": 0.7}, **changes}


def test_online_runs_arrive_whole_and_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "best.pt"
    checkpoint.write_bytes(b"weights")
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        first = tracker(
            tmp_path, "first", tags=["a", "b"], notes="hello", group="09-00-00", job_type="sweep", log_model=True
        )
        first.step({"train/loss": 0.6, "lr": 0.01}, 10)
        first.epoch(ROW)
        first.predictions(PREDICTIONS)
        first.model(checkpoint)
        first.finish(summary(0))
        second = tracker(tmp_path, "second")
        second.finish(summary(1, status="failed", error="it broke"))
        runs = server.runs
    assert set(runs) == {"first", "second"}
    run = runs["first"]
    assert {key: run.config[key] for key in CONFIG} == CONFIG
    assert (run.group, run.job_type, run.tags, run.notes) == ("09-00-00", "sweep", ["a", "b"], "hello")
    step, epoch, *_ = run.history
    assert (step["step"], step["step/train/loss"], step["step/lr"]) == (10, 0.6, 0.01)
    assert (epoch["epoch"], epoch["train/loss"], epoch["val/acc"]) == (1, 0.5, 0.75)
    assert "val/loss" not in epoch
    assert (run.summary["best/val/acc"], run.summary["test/acc"]) == (0.75, 0.7)
    assert any("mistakes" in name for name in run.files), "the table of mistakes"
    assert any("confusion_matrix" in name for name in run.files), "the confusion matrix"
    assert b"weights" in run.files.values(), "the checkpoint as an artifact"
    assert (run.complete, run.exit_code) == (True, 0)
    assert (runs["second"].complete, runs["second"].exit_code) == (True, 1)
    assert runs["second"].summary["error"] == "it broke"


def test_without_credentials_it_is_offline_and_says_how_to_upload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    with caplog.at_level("INFO", "dlrun"):
        run = tracker(tmp_path, "quiet")
        run.epoch(ROW)
        run.finish(summary(0))
    (folder,) = (tmp_path / "wandb").glob("offline-run-*-quiet")
    assert (folder / "run-quiet.wandb").stat().st_size > 0
    assert f"wandb sync wandb/{folder.name}" in caplog.text


def test_what_wandb_raises_is_said_once_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tracker(tmp_path, "broken")
    for _ in range(3):
        run.step({"lr": object()}, 1)  # type: ignore[dict-item]
    run.finish(summary(0))
    assert caplog.text.count("W&B failed") == 1


def test_a_bad_key_is_no_question_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    run = tracker(tmp_path, "short")
    run.finish(summary(0))
    assert "credentials can't be used" in caplog.text


def test_after_a_rollback_rows_go_on_above_all_that_were(tmp_path: Path) -> None:
    run = tracker(tmp_path, "rolled", max_steps=30)
    for step in range(1, 31):
        run.step({"train/loss": 1.0}, step)
    run.rewind(1, 10, 1)
    for step in range(11, 31):
        run.step({"train/loss": 2.0}, step)
    run.finish(summary(0))
    wandb.teardown()
    (part,) = parts(tmp_path, "rolled")
    rows = [numbers(row) for _, row in sorted(part.rows().items())]
    told = [(row["step"], row["step/train/loss"]) for row in rows]
    assert told == [(step, 1.0) for step in range(1, 31)] + [(step, 2.0) for step in range(11, 31)]


def test_without_wandb_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        tracker(tmp_path, "none")
