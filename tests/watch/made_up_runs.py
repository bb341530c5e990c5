"""Run folders as a run would leave them, written by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dlrun.locks import hold

COLUMNS = ["epoch", "step", "lr", "train/loss", "train/acc", "val/loss", "val/acc"]
COLUMNS += ["samples_per_second", "seconds", "data_wait"]
CONFIG = {
    "model": {"name": "cnn"},
    "data": {"name": "digits"},
    "trainer": {"max_epochs": 20, "max_steps": None, "monitor": "val/acc", "mode": None, "max_time": None},
}


def row(epoch: int, loss: Any, seconds: float = 2.0) -> list[Any]:
    """Of 10 steps an epoch; the validation loss is a tenth more."""
    measured = [loss, 0.5, 1.1 * loss, 0.5 + epoch / 100]
    return [epoch, 10 * epoch, 0.001 / epoch, *measured, 1234.5, seconds * epoch, 0.25]


def made_up(path: Path, rows: Sequence[Sequence[Any]] = (), trainer: Mapping[str, Any] = {}, **summary: Any) -> Path:
    """A run in `path`, and `path`: running if the summary doesn't say otherwise; without metrics.csv if no rows."""
    (path / "checkpoints").mkdir(parents=True, exist_ok=True)
    (path / "summary.json").write_text(json.dumps({"run_id": "abc", "status": "running", **summary}))
    (path / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"trainer": {**CONFIG["trainer"], **trainer}}))  # type: ignore[dict-item]
    if rows:
        lines = [COLUMNS, *rows]
        (path / "metrics.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return path


def holding(lock: Path) -> None:
    """For a process of its own: one that trains, as far as anybody can tell."""
    hold(lock)
    time.sleep(600)
