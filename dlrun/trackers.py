"""The trackers that a run's config asks for, beside its files and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dlrun.config import Config
from dlrun.errors import shortened
from dlrun.tracking import Tracker

LONGEST_NAME = 120  # characters of a run's name in W&B, which takes 128


def chosen_trackers(
    typed: Config,
    config: Mapping[str, Any],
    path: Path,
    max_steps: int,
    *,
    run_id: str,
    group: str | None,
    resumes: bool,
) -> Iterator[Tracker]:
    """Those of the run in `path`; `group` is the sweep that it is part of, `config` the same as `typed`, plain."""
    if typed.trainer.fast_dev_run:
        return
    if typed.tracking.tensorboard is not None:
        from dlrun.tracking.tensorboard import TensorBoard

        yield TensorBoard(path / "tensorboard")
    if typed.tracking.wandb is not None:
        from dlrun.tracking.wandb import WandB

        job_type = "train" if group is None else "sweep"
        yield WandB(
            path,
            run_id,
            config,
            group=group if typed.compression is None else typed.compression.parent,
            job_type=job_type if typed.compression is None else "compress",
            tags=typed.tags,
            notes=typed.notes,
            name=_name(typed, path, run_id, group),
            max_steps=max_steps,
            resumes=resumes,
            **asdict(typed.tracking.wandb),
        )


def _name(typed: Config, path: Path, run_id: str, group: str | None) -> str:
    """What tells the run from others in W&B's lists; in a sweep its number and the words that only it has."""
    words = [tag.partition("=") for tag in typed.tags if "=" in tag]
    swept = [f"{key.rpartition('.')[2]}={value}" for key, _, value in words]
    if group is None or not swept:
        return f"{typed.model.name}-{typed.dataset.name}-{run_id[:4]}"
    return shortened(" ".join([path.name, *swept]), LONGEST_NAME)
