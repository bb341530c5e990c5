"""What a search makes better: the monitored metric, or what else a run's summary says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dlrun.errors import UserError, choices
from dlrun.registry import tasks
from dlrun.sweep.search.options import KEY, SearchOptions

# Not of an epoch but of the run: the summary's name → what is usually wanted.
OF_THE_RUN = {"parameters": "minimize", "seconds": "minimize", "samples_per_second": "maximize"}


def read_objectives(options: SearchOptions, config: Mapping[str, Any]) -> dict[str, str]:
    """Objective → `minimize` or `maximize`, in order; `config` is any job's.

    A metric of an epoch counts as it was in the run's best epoch, by `trainer.monitor`. Raises UserError for what no
    run logs, and for a direction that would look for the worst.
    """
    monitor = str(config["trainer"]["monitor"])
    given = options.objective if isinstance(options.objective, list) else [options.objective or monitor]
    directions = options.direction if isinstance(options.direction, list) else [options.direction] * len(given)
    if not given:
        raise UserError(f"{KEY}.objective: expected one or more, got none")
    if len(set(given)) < len(given):
        raise UserError(f"{KEY}.objective: expected each once, got {given}")
    if len(directions) != len(given) or (len(given) > 1 and isinstance(options.direction, str)):
        raise UserError(f"{KEY}.direction: expected null or a list of {len(given)}, got {options.direction}")
    found = {}
    for name, direction in zip(given, directions, strict=True):
        usual = _usual(name, config)
        if direction not in (None, usual) and name not in OF_THE_RUN:
            raise UserError(
                f"{KEY}.direction: expected '{usual}' or null, since that is the better {name}, got '{direction}'"
            )
        found[name] = direction or usual
    return found


def _usual(name: str, config: Mapping[str, Any]) -> str:
    if name in OF_THE_RUN:
        return OF_THE_RUN[name]
    metrics: Mapping[str, str] = tasks[config["task"]["name"]].metrics  # type: ignore[attr-defined]
    split, _, metric = name.partition("/")
    if split == "test" and metric in metrics:
        raise UserError(f"{KEY}.objective: the best by {name} would be the best by luck; expected val/{metric}")
    if split not in ("train", "val") or metric not in metrics:
        known = [f"{split}/{metric}" for split in ("train", "val") for metric in metrics] + list(OF_THE_RUN)
        raise UserError(f"{KEY}.objective: unknown metric '{name}'{choices(name, known)}")
    return f"{metrics[metric]}imize"


def value_of(name: str, summary: Mapping[str, Any]) -> float | None:
    """What a run that has ended says; None if it doesn't, or if that is no finite number."""
    value = summary.get(name) if name in OF_THE_RUN else (summary.get("best") or {}).get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
