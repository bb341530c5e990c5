"""From a folder's newest checkpoint to a trainer that stands where it did, if the run is still the same one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrun import checkpoint
from dlrun.config import may_change
from dlrun.errors import UserError
from dlrun.runfolder import RunFolder
from dlrun.trainer import Trainer
from dlrun.writer import CheckpointWriter

log = logging.getLogger("dlrun")


@dataclass(frozen=True)
class Resumption:
    """What is resumed, and by which words."""

    before: Mapping[str, Any]  # the run's config as it was
    command: Sequence[str]


def check_config(before: Mapping[str, Any], now: Mapping[str, Any], path: tuple[str, ...] = ()) -> None:
    """config.yaml may have been edited by hand; what `resume` would refuse on the command line is refused here too."""
    for key in before.keys() | now.keys():
        place, pair = (*path, key), (before.get(key), now.get(key))
        if all(isinstance(value, Mapping) for value in pair):
            check_config(*pair, place)  # type: ignore[arg-type]
        elif pair[0] != pair[1] and not may_change(".".join(place)):
            raise UserError(
                f"{'.'.join(place)}: config.yaml says {pair[1]!r}, and the run was begun with {pair[0]!r}: that can't "
                "change in the middle of a run"
            )


def check_data(before: Mapping[str, str] | None, now: Mapping[str, str]) -> None:
    """A run that goes on with other samples would be neither the one nor the other run."""
    changed = [split for split in now if before is not None and before.get(split) != now[split]]
    if changed:
        raise UserError(
            f"data: the {' and '.join(changed)} split isn't what it was when the run began, so it can't be resumed; "
            "a new run can begin with its weights: dlrun init_from=DIR"
        )


def restore(
    found: tuple[dict[str, Any], Path] | None, trainer: Trainer, writer: CheckpointWriter, folder: RunFolder
) -> None:
    """Put the trainer where the newest checkpoint was, and the metrics and the best checkpoint with it."""
    if found is None:
        log.info("resume: there is no checkpoint yet; the run begins again")
        trainer.tracker.rewind(0, 0, 0)
        return
    state, path = found
    leads = trainer.shared is None or trainer.shared.ranks.leads
    if path != folder.last and folder.last.exists() and leads:
        folder.last.replace(folder.last.with_suffix(".damaged"))  # not to be kept in place of the one that is whole
    try:
        trainer.load_state(state)
    except (RuntimeError, ValueError, KeyError) as error:  # torch names every tensor that doesn't fit
        raise UserError(f"{path} doesn't fit the model or optimizer of {folder.config}: {error}") from None
    progress = trainer.progress
    batches, place = len(trainer.train_batches), f"epoch {progress.epoch + 1}"
    place += f", batch {progress.position + 1}" if progress.position < batches else ", to be evaluated"
    log.info("resume: goes on after step %d of %d (%s)", progress.step, trainer.limits.max_steps, place)
    if progress.best and not _is_of_epoch(folder.best, progress.best["epoch"]):
        if progress.best["epoch"] == progress.epoch and progress.position == 0:
            writer.put(trainer.state(), best=True)  # killed between the two
        else:
            log.warning("best.pt isn't of epoch %d, the best so far; it counts from here on", progress.best["epoch"])
            progress.best = {}
    trainer.tracker.rewind(progress.epoch, progress.step, progress.rollbacks)


def compare_machines(found: tuple[dict[str, Any], Path] | None, now: Mapping[str, Any]) -> None:
    """What may change, but leaves its trace in the last bits."""
    before = now if found is None or found[0]["machine"] is None else found[0]["machine"]
    before = {"number of processes": 1, **before}  # older files don't say
    for key, value in now.items():
        if before.get(key) != value:
            log.warning(
                "with another %s (%s, it was %s) the run goes on, but not bit for bit as it would have",
                *(key, value, before.get(key)),
            )


def _is_of_epoch(path: Path, epoch: float) -> bool:
    try:
        return bool(checkpoint.load(path)["progress"]["epoch"] == epoch)
    except UserError as error:
        log.warning("%s", error)
        return False


def note_resume(folder: RunFolder, resumption: Resumption, trainer: Trainer) -> None:
    """The summary tells of each part of a run, and no longer how the one before ended."""
    part = {"step": trainer.progress.step, "command": list(resumption.command)}
    parts = [*folder.read_summary().get("resumed", []), part]
    folder.update_summary(status="running", error=None, exit_code=None, test=None, resumed=parts)
