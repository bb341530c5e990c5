"""The one training entry point: a resolved config and a folder in, a trained model and the truth about it out."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml

from dlrun import checkpoint
from dlrun.atomic import atomic_write
from dlrun.build import Run, build
from dlrun.config import Config, parse
from dlrun.distributed import refuse_several
from dlrun.errors import RunFailed, TrainingError, UserError
from dlrun.plugins import load_plugins
from dlrun.profiler import Profiler
from dlrun.runfolder import RunFolder, git_state, versions
from dlrun.tracking import Mistake, Predictions, Tracker, Trackers
from dlrun.tracking.files import MetricsFile
from dlrun.tracking.terminal import Terminal
from dlrun.trainer import Trainer

log = logging.getLogger("dlrun")
WORST_MISTAKES = 32


@dataclass(frozen=True)
class Job:
    """Which run it is, beside its config."""

    path: Path  # claimed already, by whoever made it
    run_id: str
    choices: Mapping[str, Any]  # config group → the name that was chosen, for the header
    command: Sequence[str]  # makes the same run again
    group: str | None = None  # the sweep that it is part of


def train(config: Mapping[str, Any], job: Job) -> float | None:
    """Train as `config` says and leave everything in `job.path`; returns the best value of the monitored metric.

    Raises UserError before anything was trained, RunFailed after that.
    """
    folder = RunFolder(job.path)
    began = time.monotonic()
    try:
        run, trackers, terminal, profiler = _prepare(config, folder, job)
    except UserError as error:
        folder.update_summary(status="failed", error=str(error), exit_code=2, seconds=time.monotonic() - began)
        raise
    except Exception as error:
        log.exception("the run failed before it began")
        message = f"{type(error).__name__}: {error}"
        folder.update_summary(status="failed", error=message, exit_code=1, seconds=time.monotonic() - began)
        raise RunFailed(message, 1) from error
    except (KeyboardInterrupt, SystemExit) as error:
        folder.update_summary(**_interrupted(error), seconds=time.monotonic() - began)
        raise

    def save(name: str, state: dict[str, Any]) -> None:
        whole = {**state, "random": checkpoint.random_state(), "config": dict(config), "spec": run.spec.plain()}
        checkpoint.save(folder.best if name == "best" else folder.last, whole)

    trainer = run.trainer(trackers, terminal, save, profiler)
    outcome: dict[str, Any] = {"status": "failed", "error": None, "exit_code": 1}
    try:
        outcome = _fit_and_test(trainer, run, folder)
    except (TrainingError, UserError, OSError) as error:
        log.error("%s", error)
        outcome["error"] = f"{type(error).__name__}: {error}"
    except (KeyboardInterrupt, SystemExit) as error:  # outside of the loop, or a second time
        outcome |= _interrupted(error)
    except Exception as error:
        log.exception("the run failed")
        outcome["error"] = f"{type(error).__name__}: {error}"
    with _undisturbed():
        summary = _close(folder, trackers, outcome, trainer, time.monotonic() - began)
        _farewell(folder, summary, run.limits.monitor)
    if summary["exit_code"] != 0:
        raise RunFailed(str(summary["error"]), summary["exit_code"])
    best: float | None = summary["best"].get(run.limits.monitor)
    return best


def _prepare(config: Mapping[str, Any], folder: RunFolder, job: Job) -> tuple[Run, Trackers, Terminal, Profiler | None]:
    """Everything that can go wrong before the first step, the cheap things first."""
    refuse_several()
    typed = parse(config)
    load_plugins(typed.plugins)
    run = build(typed)
    with atomic_write(folder.config) as file:
        file.write(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).encode())
    parameters = sum(p.numel() for p in run.parts["weights"].parameters())
    folder.update_summary(parameters=parameters, versions=versions(), git=git_state(), command=list(job.command))
    _header(typed, run, job.choices, parameters)
    terminal = Terminal(run.limits.max_epochs, typed.trainer.enable_progress_bar)
    trackers = Trackers(MetricsFile(folder.metrics), terminal, *_chosen_trackers(typed, config, folder, job))
    return run, trackers, terminal, Profiler(folder.path / "bench") if typed.trainer.profile else None


def _chosen_trackers(typed: Config, config: Mapping[str, Any], folder: RunFolder, job: Job) -> Iterator[Tracker]:
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
            **asdict(typed.tracking.wandb),
        )


def _fit_and_test(trainer: Trainer, run: Run, folder: RunFolder) -> dict[str, Any]:
    with _signals_stop(trainer) as received:
        status = trainer.fit()
    if trainer.profiler is not None:
        trainer.profiler.finish()
    if status == "preempted":
        return {"status": status, "error": signal.Signals(received[0]).name, "exit_code": 128 + received[0]}
    return {"status": status, "error": None, "exit_code": 0, "test": _test(trainer, run, folder)}


@contextmanager
def _signals_stop(trainer: Trainer) -> Iterator[list[int]]:
    """SIGINT and SIGTERM end the training at its next step, with a checkpoint; a second SIGINT ends it at once."""
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        trainer.stop_requested = True

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, stop)
    except ValueError:  # not in the main thread: whoever started the thread deals with signals
        pass
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What asked us to stop may ask again while the summary is being written."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupted(error: BaseException) -> dict[str, Any]:
    """cli.py turns SIGTERM into SystemExit(143)."""
    number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM
    return {"status": "preempted", "error": number.name, "exit_code": 128 + number}


def _test(trainer: Trainer, run: Run, folder: RunFolder) -> dict[str, float]:
    """The best checkpoint on the test split: its first and only look at it."""
    if not trainer.progress.best:
        raise TrainingError(f"{run.limits.monitor} was never a number: there is no best checkpoint to test")
    trainer.load_weights(checkpoint.load(folder.best, run.device))
    metrics = trainer.evaluate(run.test_batches, "test")
    predicted = trainer.predict(run.test_batches)
    guesses = predicted["probabilities"].argmax(dim=1)
    wrong = (guesses != predicted["targets"]).nonzero().flatten()
    worst = wrong[predicted["losses"][wrong].argsort(descending=True)][:WORST_MISTAKES].tolist()
    names, split = run.spec.class_names, run.test_batches.split
    mistakes = [
        Mistake(
            index=i,
            sample=split.show(i),
            truth=names[predicted["targets"][i]],
            guess=names[guesses[i]],
            probability=predicted["probabilities"][i, guesses[i]].item(),
            loss=predicted["losses"][i].item(),
        )
        for i in worst
    ]
    trainer.tracker.model(folder.best)
    trainer.tracker.predictions(Predictions(names, predicted["targets"].tolist(), guesses.tolist(), mistakes))
    return metrics


def _close(
    folder: RunFolder, trackers: Trackers, outcome: dict[str, Any], trainer: Trainer, seconds: float
) -> dict[str, Any]:
    """Write the summary first, then tell the trackers, so that none of them can cost us the truth."""
    progress = trainer.progress
    summary = folder.update_summary(
        **outcome,
        seconds=seconds,
        epochs=progress.epoch,
        steps=progress.step,
        samples_per_second=trainer.samples_seen / trainer.train_seconds if trainer.train_seconds else None,
        best=progress.best,
    )
    for tracker in trackers.trackers:
        try:
            tracker.finish(summary)
        except Exception:
            log.exception("%s couldn't be finished; the run folder is complete", type(tracker).__name__)
    return summary


def _header(typed: Config, run: Run, choices: Mapping[str, Any], parameters: int) -> None:
    chosen = {group: _name(choice) for group, choice in choices.items() if choice is not None and "/" not in group}
    first = [f"{group}={chosen.pop(group)}" for group in ("model", "data") if group in chosen]
    rest = [f"{group}={choice}" for group, choice in sorted(chosen.items())]
    log.info("%s", "  ".join([*first, *rest, f"seed={typed.seed}"]))
    sizes = " / ".join(f"{len(getattr(run.splits, split)):,} {split}" for split in ("train", "val", "test"))
    log.info("%s: %s; %s", typed.dataset.name, run.spec, sizes)
    threads = f", {torch.get_num_threads()} threads" if run.device.type == "cpu" else ""
    steps = f"{run.limits.max_steps:,} steps"
    log.info("%s: %s parameters on %s%s; %s", typed.model.name, f"{parameters:,}", run.device, threads, steps)


def _name(choice: Any) -> str:
    return choice if isinstance(choice, str) else "[" + ",".join(map(str, choice)) + "]"


def _farewell(folder: RunFolder, summary: Mapping[str, Any], monitor: str) -> None:
    best, test = summary["best"], summary.get("test")
    if summary["status"] == "stopped_early":
        log.info("stopped early: %s hasn't improved", monitor)
    if summary["status"] == "preempted":
        log.info("stopped by %s after step %s", summary["error"], summary.get("steps"))
    if best:
        log.info("best   %s %s in epoch %d", monitor, _value(monitor, best[monitor]), best["epoch"])
    if test:
        log.info("test   %s", "  ".join(f"{name} {_value(name, value)}" for name, value in test.items()))
    log.info("folder %s   (%.1f s)", os.path.relpath(folder.path), summary["seconds"])


def _value(name: str, value: float) -> str:
    return f"{value:.2%}".replace("%", " %") if name.endswith("/acc") else f"{value:.4f}"
