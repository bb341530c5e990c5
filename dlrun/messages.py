"""What a person reads before a training and after it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dlrun.build import Run
from dlrun.config import Config
from dlrun.progress import Limits
from dlrun.tta import VIEWS

log = logging.getLogger("dlrun")

WIDTH = 120


def header(typed: Config, run: Run, chosen: Sequence[str], untrained: bool = False) -> None:
    """What was chosen, and what that comes to."""
    for line in _filled(chosen):
        log.info("%s", line)
    sizes = " / ".join(f"{len(getattr(run.inputs.splits, split)):,} {split}" for split in ("train", "val", "test"))
    log.info("%s: %s; %s", typed.dataset.name, run.spec, sizes)
    threads = f", {torch.get_num_threads()} threads" if run.device.type == "cpu" else ""
    parameters = sum(p.numel() for p in run.parts["weights"].parameters())
    steps = "not to be trained" if untrained else f"{run.limits.max_steps:,} steps"
    if typed.trainer.tta != "none":
        views = VIEWS[typed.trainer.tta]
        log.info("evaluation: the mean of %d views of each picture (trainer.tta=%s)", views, typed.trainer.tta)
    shared = run.parts["shared"]
    together = "" if shared is None else f" in each of {shared.ranks.size} processes"
    where = f"{run.device}{threads}{together}"
    if shared is not None and shared.statistics:
        log.warning(
            "batch norm: each process normalises by its own samples alone; one process would give other numbers"
        )
    log.info("%s: %s parameters on %s; %s", typed.model.name, f"{parameters:,}", where, steps)


def _filled(words: Sequence[str]) -> list[str]:
    """As many to a line as fit; a value may have spaces."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 2 + len(word) <= WIDTH:
            lines[-1] += f"  {word}"
        else:
            lines.append(word)
    return lines


def farewell(path: str, summary: Mapping[str, Any], limits: Limits, resumable: bool) -> None:
    """How it ended, what came out, where it lies, and how it can go on."""
    best, test, status, monitor = summary["best"], summary.get("test"), summary["status"], limits.monitor
    if status == "stopped_early":
        why = f"no better {monitor} than before for {limits.patience} evaluations"
        log.info("stopped early: %s", "trainer.max_time is up" if summary.get("out_of_time") else why)
    if status == "pruned":
        log.info("pruned: the search has better ones at this point")
    if status == "preempted":
        log.info("stopped by %s after step %s", summary["error"], summary.get("steps"))
    if skipped := summary.get("skipped_steps"):
        log.info("%d steps were skipped: their loss or gradient wasn't finite", skipped)
    if best:
        log.info("best   %s %s in epoch %d", monitor, _value(monitor, best[monitor]), best["epoch"])
    if test:
        log.info("test   %s", "  ".join(f"{name} {_value(name, value)}" for name, value in test.items()))
    log.info("folder %s   (%.1f s)", path, summary["seconds"])
    if resumable and status in ("preempted", "failed"):
        log.info("to go on: dlrun resume run=%s", path)


def _value(name: str, value: float) -> str:
    return f"{value:.2%}".replace("%", " %") if name.endswith("/acc") else f"{value:.4f}"
