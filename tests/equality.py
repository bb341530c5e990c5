"""When two runs are the same run: to the bit, apart from how long they took."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch

CLOCKS = {"seconds", "samples_per_second", "epoch_seconds", "train_seconds", "data_seconds", "data_wait"}
CLOCKS |= {"wait_seconds", "evaluation_seconds", "saving_seconds"}
OTHERS = {"run_id", "config"}  # of checkpoints: they belong to the run, and num_workers may change on the way
TOLD = ("status", "exit_code", "error", "epochs", "steps", "best", "test", "parameters")  # by summary.json


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two run folders: weights, optimizer, random state, rows, best and test, names of files."""
    found = []
    for name in ("last.pt", "best.pt"):
        states = [torch.load(path / "checkpoints" / name, weights_only=True) for path in (one, other)]
        found += _differ(*({k: v for k, v in state.items() if k not in OTHERS} for state in states), name)
    found += _differ(rows(one), rows(other), "metrics.csv")
    summaries = [json.loads((path / "summary.json").read_text()) for path in (one, other)]
    found += _differ(*({key: summary[key] for key in TOLD} for summary in summaries), "summary.json")
    return found + [f"only in one of them: {name}" for name in sorted({*files(one)} ^ {*files(other)})]


def rows(path: Path) -> list[dict[str, str]]:
    """metrics.csv without the clocks."""
    with (path / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in CLOCKS} for row in csv.DictReader(file)]


def files(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def _differ(one: Any, other: Any, where: str) -> list[str]:
    """The leaves of nested dicts and lists that aren't equal."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [f"{where}: {one} != {other}"]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one if key not in CLOCKS for found in _differ(one[key], other[key], f"{where}.{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            found
            for place, pair in enumerate(zip(one, other, strict=True))
            for found in _differ(*pair, f"{where}.{place}")
        ]
    return [] if type(one) is type(other) and one == other else [f"{where}: {one} != {other}"]
