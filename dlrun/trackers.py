"""The trackers that a run's config asks for, beside its files and the terminal: while it trains, and afterwards."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.config import Config, TrackingConfig
from dlrun.errors import shortened
from dlrun.locks import holding
from dlrun.runfolder import RunFolder
from dlrun.tracking import Predictions, Tracker

if TYPE_CHECKING:
    from dlrun.progress import Limits

log = logging.getLogger("dlrun")

LONGEST_NAME = 120  # characters of a run's name in W&B, which takes 128


def chosen_trackers(
    typed: Config,
    config: Mapping[str, Any],
    path: Path,
    limits: Limits,
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
            max_steps=limits.max_steps,
            monitor=limits.monitor,
            maximize=limits.mode == "max",
            report=_report,
            resumes=resumes,
            **asdict(typed.tracking.wandb),
        )


def _report(path: Path) -> Path:
    """The run's report.html, of what its folder says by now."""
    from dlrun.report import making

    return making.write(path)


def tell_afterwards(
    folder: RunFolder,
    tracking: TrackingConfig,
    *,
    step: int,
    values: Mapping[str, float] | None = None,
    predictions: Predictions | None = None,
    plots: Sequence[Path] = (),
    report: Path | None = None,
) -> None:
    """What was found out about a run after its training, to those trackers that know the run.

    `values` by names such as "eval/test/acc", `predictions` of a split, pictures in `plots`, a report.html; `step` is
    that of the checkpoint they are of. W&B gets a row above all that it has, and the values in the run's summary;
    TensorBoard values and pictures at `step`. Takes a second; online as long as the server answers, at most 35 s.
    Whatever goes wrong is a line in the log, and no more.
    """
    finite = {name: value for name, value in (values or {}).items() if math.isfinite(value)}
    if tracking.wandb is not None:
        from dlrun.tracking.wandb.afterwards import tell

        try:
            summary = folder.read_summary()
            with holding(folder.lock):  # two that tell at once would take the same row
                tell(
                    folder.path,
                    summary["run_id"],
                    folder.read_config(),
                    finite,
                    predictions,
                    plots,
                    report,
                    step=step,
                    exit_code=1 if summary.get("exit_code") is None else summary["exit_code"],
                    project=tracking.wandb.project,
                    entity=tracking.wandb.entity,
                    mode=tracking.wandb.mode,
                    init_timeout=tracking.wandb.init_timeout,
                )
        except Exception as error:
            log.debug("W&B", exc_info=True)
            log.warning("W&B isn't told: %s", error)
    board = folder.path / "tensorboard"
    if tracking.tensorboard is not None and board.is_dir():
        from dlrun.tracking.tensorboard import tell as tell_tensorboard

        try:
            tell_tensorboard(board, finite, plots, step)
        except Exception as error:
            log.debug("TensorBoard", exc_info=True)
            log.warning("TensorBoard isn't told: %s", error)


def _name(typed: Config, path: Path, run_id: str, group: str | None) -> str:
    """What tells the run from others in W&B's lists; in a sweep its number and the words that only it has."""
    words = [tag.partition("=") for tag in typed.tags if "=" in tag]
    swept = [f"{key.rpartition('.')[2]}={value}" for key, _, value in words]
    if group is None or not swept:
        return f"{typed.model.name}-{typed.dataset.name}-{run_id[:4]}"
    return shortened(" ".join([path.name, *swept]), LONGEST_NAME)
