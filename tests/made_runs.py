"""Run folders as training leaves them, made in a moment: for what only reads them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

HEADER = ("epoch", "step", "lr", "train/loss", "train/acc", "val/loss", "val/acc", "samples_per_second", "seconds")


def config(model: str = "mlp", lr: float = 0.01, seed: int = 0, **more: Any) -> dict[str, Any]:
    """Enough of a config: keys with dots in `more` are `model__dropout=…`."""
    made: dict[str, Any] = {"seed": seed, "tags": [f"seed={seed}"], "data": {"name": "digits", "num_workers": "auto"}}
    made |= {"model": {"name": model}, "optimizer": {"name": "adamw", "lr": lr}}
    made |= {"trainer": {"monitor": "val/acc", "mode": None, "max_epochs": 3}, "tracking": {}}
    for key, value in more.items():
        group, _, name = key.partition("__")
        if name:
            made[group][name] = value
        else:
            made[group] = value
    return made


def curve(accs: Sequence[float], seconds: float = 1.0) -> list[list[Any]]:
    """Rows of metrics.csv with these val/acc."""
    return [
        [i, 10 * i, 0.01, 1.1 - acc, acc + 0.01, 1 - acc, acc, 1000.0, seconds * i] for i, acc in enumerate(accs, 1)
    ]


def make(path: Path, settings: Mapping[str, Any], rows: Sequence[Sequence[Any]], **summary: Any) -> Path:
    """A run of which `rows` are the epochs; what isn't said of its summary is as if it had finished."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))
    with (path / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    best = max((dict(zip(HEADER, row, strict=True)) for row in rows), key=lambda row: row["val/acc"], default={})
    said = {"format": 1, "run_id": path.name, "status": "finished", "error": None, "exit_code": 0, "best": best}
    said |= {"test": {"test/acc": best["val/acc"] - 0.02} if best else None, "parameters": 4810, "epochs": len(rows)}
    said |= {"seconds": 9.5, "samples_per_second": 1000.0, "started": "2026-11-24T01:20:13.586+00:00"}
    (path / "summary.json").write_text(json.dumps(said | summary))
    return path
