"""The one training entry point: a resolved config and a folder in, a trained model and the truth about it out."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import torch

from dlrun import checkpoint, slurm
from dlrun.build import Run, build
from dlrun.config import Config, may_change, parse
from dlrun.data.source import fingerprint
from dlrun.distributed import refuse_several
from dlrun.errors import RunFailed, TrainingError, UserError
from dlrun.evaluator import Stopped
from dlrun.extension import check_extension
from dlrun.faults import out_of_memory
from dlrun.messages import farewell, header
from dlrun.plugins import load_plugins
from dlrun.profiler import Profiler
from dlrun.runfolder import RunFolder, git_state, versions
from dlrun.signals import EXIT_CODES, asked_to_stop, stop_signals
from dlrun.testing import evaluate_best
from dlrun.tracking import Tracker, Trackers
from dlrun.tracking.files import MetricsFile
from dlrun.tracking.terminal import Terminal
from dlrun.trainer import Trainer
from dlrun.writer import CheckpointWriter

log = logging.getLogger("dlrun")


@dataclass(frozen=True)
class Resumption:
    """What is resumed, and by which words."""

    before: Mapping[str, Any]  # the run's config as it was
    command: Sequence[str]


@dataclass(frozen=True)
class Job:
    """Which run it is, beside its config."""

    path: Path  # claimed already, by whoever made it
    run_id: str
    choices: Mapping[str, Any]  # config group → the name that was chosen, for the header
    group: str | None = None  # the sweep that it is part of
    resumes: Resumption | None = None


@dataclass
class Session:
    """A run that is ready to train."""

    run: Run
    trainer: Trainer
    writer: CheckpointWriter
    trackers: Trackers
    earlier: float  # seconds that the run took before this process


def train(config: Mapping[str, Any], job: Job) -> float | None:
    """Train as `config` says and leave everything in `job.path`; returns the best value of the monitored metric.

    Goes on from the folder's newest checkpoint if the job is a resumed one. Raises UserError before anything was
    trained, RunFailed after that.
    """
    folder, began = RunFolder(job.path), time.monotonic()
    fails = {"status": "failed", "exit_code": 1}
    try:
        session = _prepare(config, folder, job)
        if (stop := asked_to_stop()) is not None:
            raise stop
    except UserError as error:
        if job.resumes is None:  # a resume that is refused changes nothing
            folder.update_summary(**fails | {"exit_code": 2}, error=str(error), seconds=time.monotonic() - began)
        raise
    except Exception as error:
        if (stop := asked_to_stop()) is not None:
            _note_interruption(folder, stop, time.monotonic() - began)
            raise stop from error
        log.exception("the run failed before it began")
        message = f"{type(error).__name__}: {error}"
        with suppress(OSError):  # which may be what it failed for
            folder.update_summary(**fails, error=message, seconds=time.monotonic() - began)
        raise RunFailed(message, 1) from error
    except (KeyboardInterrupt, SystemExit) as error:
        _note_interruption(folder, error, time.monotonic() - began)
        raise
    trainer = session.trainer

    def ask() -> None:
        trainer.stop_requested = True

    def leave() -> None:
        folder.update_summary(status="preempted", error="SIGINT, twice", exit_code=130)

    with stop_signals(ask, leave) as received:
        outcome = _fit_and_test(session, folder, received)
        summary = _close(session, folder, outcome, session.earlier + time.monotonic() - began)
    if summary["status"] == "preempted" and Signals.SIGUSR1 in received and slurm.job() is not None:
        slurm.requeue()
    if summary["exit_code"] != 0:
        raise RunFailed(str(summary["error"]), summary["exit_code"])
    best: float | None = summary["best"].get(session.run.limits.monitor)
    return best


def _prepare(config: Mapping[str, Any], folder: RunFolder, job: Job) -> Session:
    """Everything that can go wrong before the first step, the cheap things first."""
    refuse_several()
    typed = parse(config)
    load_plugins(typed.plugins)
    found = None
    if job.resumes is not None:
        found = checkpoint.load_newest([folder.last, folder.previous, folder.best])
    run = build(typed)
    data = {split: fingerprint(getattr(run.splits, split)) for split in ("train", "val", "test")}
    if job.resumes is not None and found is not None:
        _check_config(found[0]["config"], config)
        _check_data(found[0]["data"], data)
        check_extension(parse(job.resumes.before), typed, run, found[0]["progress"]["step"])
    header(typed, run, job.choices)
    terminal = Terminal(run.limits.max_epochs, typed.trainer.enable_progress_bar)
    trackers = Trackers(MetricsFile(folder.metrics), terminal, *_chosen_trackers(typed, config, run, folder, job))
    machine = {"device": run.device.type, "trainer.num_threads": torch.get_num_threads()}
    constant = {"config": dict(config), "spec": run.spec.plain()}
    writer = CheckpointWriter(folder, constant | {"run_id": job.run_id, "data": data, "machine": machine})
    trainer = run.trainer(
        trackers, terminal, writer, Profiler(folder.path / "bench") if typed.trainer.profile else None
    )
    if run.transfer is not None and found is None:
        log.info("%s", run.transfer)
    if job.resumes is not None:
        _restore(found, trainer, writer, folder)
        _compare_machines(found, machine)
        _note_resume(folder, job.resumes, trainer)
        folder.write_config(config)
    facts: dict[str, Any] = {"parameters": sum(p.numel() for p in trainer.weights.parameters())}
    summary = folder.update_summary(**facts, versions=versions(), git=git_state())
    # A part that was killed told nothing; the checkpoint knows at least how long it had trained.
    earlier = max(trainer.progress.seconds, summary.get("seconds") or 0.0)
    return Session(run, trainer, writer, trackers, earlier)


def _check_config(before: Mapping[str, Any], now: Mapping[str, Any], path: tuple[str, ...] = ()) -> None:
    """config.yaml may have been edited by hand; what `resume` would refuse on the command line is refused here too."""
    for key in before.keys() | now.keys():
        place, pair = (*path, key), (before.get(key), now.get(key))
        if all(isinstance(value, Mapping) for value in pair):
            _check_config(*pair, place)  # type: ignore[arg-type]
        elif pair[0] != pair[1] and not may_change(".".join(place)):
            raise UserError(
                f"{'.'.join(place)}: config.yaml says {pair[1]!r}, and the run was begun with {pair[0]!r}: that can't "
                "change in the middle of a run"
            )


def _check_data(before: Mapping[str, str] | None, now: Mapping[str, str]) -> None:
    """A run that goes on with other samples would be neither the one nor the other run."""
    changed = [split for split in now if before is not None and before.get(split) != now[split]]
    if changed:
        raise UserError(
            f"data: the {' and '.join(changed)} split isn't what it was when the run began, so it can't be resumed; "
            "a new run can begin with its weights: dlrun init_from=DIR"
        )


def _restore(
    found: tuple[dict[str, Any], Path] | None, trainer: Trainer, writer: CheckpointWriter, folder: RunFolder
) -> None:
    """Put the trainer where the newest checkpoint was, and the metrics and the best checkpoint with it."""
    if found is None:
        log.info("resume: there is no checkpoint yet; the run begins again")
        trainer.tracker.rewind(0, 0, 0)
        return
    state, path = found
    if path != folder.last and folder.last.exists():
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


def _compare_machines(found: tuple[dict[str, Any], Path] | None, now: Mapping[str, Any]) -> None:
    """What may change, but leaves its trace in the last bits."""
    before = now if found is None or found[0]["machine"] is None else found[0]["machine"]
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


def _note_resume(folder: RunFolder, resumption: Resumption, trainer: Trainer) -> None:
    """The summary tells of each part of a run, and no longer how the one before ended."""
    part = {"step": trainer.progress.step, "command": list(resumption.command)}
    parts = [*folder.read_summary().get("resumed", []), part]
    folder.update_summary(status="running", error=None, exit_code=None, test=None, resumed=parts)


def _chosen_trackers(
    typed: Config, config: Mapping[str, Any], run: Run, folder: RunFolder, job: Job
) -> Iterator[Tracker]:
    if typed.trainer.fast_dev_run:
        return
    if typed.tracking.tensorboard is not None:
        from dlrun.tracking.tensorboard import TensorBoard

        yield TensorBoard(folder.path / "tensorboard")
    if typed.tracking.wandb is not None:
        from dlrun.tracking.wandb import WandB

        yield WandB(
            folder.path,
            job.run_id,
            config,
            group=job.group,
            job_type="train" if job.group is None else "sweep",
            tags=typed.tags,
            notes=typed.notes,
            name=f"{typed.model.name}-{typed.dataset.name}-{job.run_id[:4]}",
            max_steps=run.limits.max_steps,
            resumes=job.resumes is not None,
            **asdict(typed.tracking.wandb),
        )


def _fit_and_test(session: Session, folder: RunFolder, received: Sequence[Signals]) -> dict[str, Any]:
    """Train and test; returns what the summary has to say of it. Raises nothing."""
    trainer = session.trainer
    outcome: dict[str, Any] = {"status": "failed", "error": None, "exit_code": 1}
    try:
        status = trainer.fit()
        if trainer.profiler is not None:
            trainer.profiler.finish()
        session.writer.close()  # the best checkpoint is on disk
        if not received:
            outcome |= {"status": status, "exit_code": 0, "test": evaluate_best(trainer, session.run, folder)}
    except Stopped:
        pass
    except (TrainingError, UserError, OSError) as error:
        log.error("%s", error)
        outcome["error"] = f"{type(error).__name__}: {error}"
    except (KeyboardInterrupt, SystemExit) as error:
        outcome |= _interrupted(error)
    except Exception as error:
        if out_of_memory(error):
            log.error("out of memory: %s", error)
        else:
            log.exception("the run failed")
        outcome["error"] = f"{type(error).__name__}: {error}"
    if received and outcome["exit_code"] != 0 and outcome["error"] is None:
        outcome |= {"status": "preempted", "error": received[0].name, "exit_code": EXIT_CODES[received[0]]}
    return outcome


def _note_interruption(folder: RunFolder, error: BaseException, seconds: float) -> None:
    """Before the first step; a resume that hasn't begun leaves the summary as it is."""
    if folder.read_summary()["status"] == "running":
        folder.update_summary(**_interrupted(error), seconds=seconds)


def _interrupted(error: BaseException) -> dict[str, Any]:
    """cli.py turns SIGTERM into SystemExit(143)."""
    number = Signals.SIGINT if isinstance(error, KeyboardInterrupt) else Signals.SIGTERM
    return {"status": "preempted", "error": number.name, "exit_code": EXIT_CODES[number]}


def _close(session: Session, folder: RunFolder, outcome: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Write the summary first, then tell the trackers, so that none of them can cost us the truth."""
    trainer, progress = session.trainer, session.trainer.progress
    unsaved = session.writer.close()
    if unsaved is not None:
        error = f"the last checkpoint couldn't be saved: {unsaved}"
        error = error if outcome["error"] is None else f"{outcome['error']}; {error}"
        status = outcome["status"] if outcome["exit_code"] else "failed"
        outcome = {**outcome, "status": status, "exit_code": outcome["exit_code"] or 1, "error": error}
    trained = progress.train_seconds + progress.epoch_seconds
    summary = {
        **outcome,
        "seconds": seconds,
        "epochs": progress.epoch,
        "steps": progress.step,
        "samples_per_second": (progress.samples_seen + progress.samples) / trained if trained else None,
        "best": progress.best,
    }
    if summary["status"] == "stopped_early":
        summary["out_of_time"] = trainer.out_of_time()
    if trainer.limits.on_nonfinite == "skip":
        summary["skipped_steps"] = progress.skipped
    try:
        summary = folder.update_summary(**summary)
    except OSError as error:  # the disk is full, most likely: at least this process tells
        log.error("%s couldn't be written: %s", folder.summary, error)
        summary = {**summary, "exit_code": summary["exit_code"] or 1}
    session.trackers.finish(summary)
    farewell(os.path.relpath(folder.path), summary, trainer.limits, folder.last.exists())
    return summary
