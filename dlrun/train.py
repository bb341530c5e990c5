"""The one training entry point: a resolved config and a folder in, a trained model and the truth about it out."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals
from typing import Any

import torch

from dlrun import checkpoint, slurm
from dlrun.build import Run, build
from dlrun.config import Config, parse
from dlrun.data.source import fingerprint
from dlrun.dataparallel import SharedWriter
from dlrun.differences import changed_since, chosen_words, own
from dlrun.distributed import Ranks, agreed
from dlrun.drawing import Drawing, title
from dlrun.errors import RunFailed, StopSignal, TrainingError, UserError
from dlrun.evaluator import Stopped
from dlrun.extension import check_extension
from dlrun.faults import out_of_memory
from dlrun.garbage import look_as_usual
from dlrun.messages import header
from dlrun.plugins import load_plugins
from dlrun.profiler import Profiler, Unwatched
from dlrun.restoration import Resumption, check_config, check_data, compare_machines, note_resume, restore
from dlrun.runfolder import FollowedFolder, RunFolder, versions
from dlrun.session import Session, Times
from dlrun.signals import EXIT_CODES, asked_to_stop, stop_signals
from dlrun.testing import evaluate_best, keep_untrained
from dlrun.torchrun import refuse_several
from dlrun.trackers import chosen_trackers
from dlrun.tracking import Tracker, Trackers
from dlrun.tracking.files import MetricsFile
from dlrun.tracking.heartbeat import Heartbeat
from dlrun.tracking.terminal import Terminal
from dlrun.writer import CheckpointWriter

log = logging.getLogger("dlrun")

Hopeless = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Job:
    """Which run it is, beside its config."""

    path: Path  # claimed already, by whoever made it
    run_id: str
    choices: Mapping[str, Any]  # config group → the name that was chosen
    changed: Mapping[str, Any] | None = None  # what differs from the defaults → what it would be; None: nobody knows
    group: str | None = None  # the sweep that it is part of
    resumes: Resumption | None = None
    untrained: bool = False  # the weights that it begins with are evaluated, kept and tested as they are
    hopeless: Hopeless | None = None  # whether a search gives it up: see Trainer
    ranks: Ranks | None = None  # of several processes that train it together

    @property
    def folder(self) -> RunFolder:
        """As this process sees it: of several, only one writes."""
        return RunFolder(self.path) if self.ranks is None or self.ranks.leads else FollowedFolder(self.path)


def train(config: Mapping[str, Any], job: Job) -> float | None:
    """Train as `config` says and leave everything in `job.path`; returns the best value of the monitored metric.

    Goes on from the folder's newest checkpoint if the job is a resumed one. Raises UserError before anything was
    trained, RunFailed after that.
    """
    look_as_usual()
    folder, ranks, began = job.folder, job.ranks, time.monotonic()
    fails = {"status": "failed", "exit_code": 1}
    try:
        session = _prepare(config, folder, job)
        if (stop := asked_to_stop()) is not None:
            raise stop
    except UserError as error:
        if job.resumes is None:  # a resume that is refused changes nothing
            folder.update_summary(**fails | {"exit_code": 2}, error=str(error), seconds=time.monotonic() - began)
        raise
    except RunFailed:  # on another rank, which was told
        raise
    except (KeyboardInterrupt, StopSignal) as error:
        _note_interruption(folder, error, time.monotonic() - began)
        raise
    except (Exception, SystemExit) as error:
        if (stop := asked_to_stop()) is not None:
            _note_interruption(folder, stop, time.monotonic() - began)
            raise stop from error
        log.exception("the run failed before it began")
        message = f"{type(error).__name__}: {error}"
        if ranks is not None:
            ranks.fail(error, traceback.format_exc())
        with suppress(OSError):  # which may be what it failed for
            folder.update_summary(**fails, error=message, seconds=time.monotonic() - began)
        raise RunFailed(message, 1) from error
    trainer = session.trainer

    def ask() -> None:
        if trainer.shared is None:
            trainer.stop_requested = True
        else:
            trainer.shared.asked = True

    def leave() -> None:
        if folder.read_summary().get("status") == "running":  # else it has ended, and draws or tells its trackers
            folder.update_summary(status="preempted", error="SIGINT, twice", exit_code=130)

    with stop_signals(ask, leave) as received, closing(session.run.inputs):
        outcome = _fit_and_test(session, folder, received)
        summary = session.close(folder, outcome, session.earlier + time.monotonic() - began, lambda: bool(received))
        if ranks is not None:
            summary["exit_code"] = ranks.end(summary["exit_code"])
    leads = ranks is None or ranks.leads
    if summary["status"] == "preempted" and Signals.SIGUSR1 in received and slurm.job() is not None and leads:
        slurm.requeue()
    if summary["exit_code"] != 0:
        raise RunFailed(str(summary["error"]), summary["exit_code"])
    best: float | None = summary["best"].get(session.run.limits.monitor)
    return best


def _prepare(config: Mapping[str, Any], folder: RunFolder, job: Job) -> Session:
    """Everything that can go wrong before the first step, the cheap things first."""
    ranks, began = job.ranks, time.monotonic()
    if ranks is None:
        refuse_several("training")
    typed = parse(config)
    if typed.compression is not None:  # its weights lie in its folder, wherever that is by now
        typed = replace(typed, init_from=str(folder.initial))
    load_plugins(typed.plugins)
    found = None
    if job.resumes is not None:
        found = checkpoint.load_newest([folder.last, folder.previous, folder.best])
        if ranks is not None:
            ranks.gather(None)  # before rank 0 writes there
    run = build(typed, ranks)
    data = {split: fingerprint(getattr(run.inputs.splits, split)) for split in ("train", "val", "test")}
    if job.resumes is not None and found is not None:
        check_config(found[0]["config"], config)
        check_data(found[0]["data"], data)
        check_extension(parse(job.resumes.before), typed, run, found[0]["progress"]["step"])
    origin = _origin(job, config, folder)
    header(typed, run, chosen_words(config, job.choices, origin.get("changed")), job.untrained)
    leads, processes = (True, 1) if ranks is None else (ranks.leads, ranks.size)
    terminal = Terminal(run.limits.max_epochs, typed.trainer.enable_progress_bar and leads, processes)
    trackers, drawing = _trackers(job, typed, config, folder, run, terminal) if leads else (Trackers(), None)
    machine = {"device": run.device.type, "trainer.num_threads": torch.get_num_threads()}
    machine["number of processes"] = processes
    constant: dict[str, Any] = {"config": dict(config), "spec": run.spec.plain()}
    constant |= {"run_id": job.run_id, "data": data, "machine": machine}
    writer = CheckpointWriter(folder, constant)
    if run.parts["shared"] is not None:
        writer = SharedWriter(folder, constant, run.parts["shared"])
    trainer = run.trainer(
        trackers,
        terminal,
        writer,
        Profiler(folder.path / "bench", run.device) if typed.trainer.profile and leads else Unwatched(),
    )
    trainer.hopeless = job.hopeless if ranks is None else _asked_once(ranks, job.hopeless)
    if run.transfer is not None and found is None:
        log.info("%s", run.transfer)
    if job.resumes is not None:
        restore(found, trainer, writer, folder)
        compare_machines(found, machine)
        note_resume(folder, job.resumes, trainer)
        folder.write_config(config)
        if leads:
            folder.int8.unlink(missing_ok=True)  # it is of weights that will change; `dlrun resume` makes another
    facts: dict[str, Any] = {"parameters": sum(p.numel() for p in trainer.weights.parameters())}
    facts["machine"] = {"device": run.device.type, "threads": torch.get_num_threads(), "processes": processes}
    if run.device.type == "cuda":
        facts["machine"]["gpu"] = torch.cuda.get_device_name(run.device)
    before = folder.read_summary().get("time") or {}
    times = Times.after(before, time.monotonic() - began)
    facts |= origin | {"time": before | {"starting": times.starting}}
    summary = folder.update_summary(**facts, versions=versions(), git=folder.keep_git_state())
    if ranks is not None:
        _meet(ranks, run.device, data)
    # A part that was killed told nothing; the checkpoint knows at least how long it had trained.
    earlier = max(trainer.progress.seconds, summary.get("seconds") or 0.0)
    return Session(run, trainer, writer, trackers, earlier, times, drawing, job.untrained, ranks)


def _trackers(
    job: Job, typed: Config, config: Mapping[str, Any], folder: RunFolder, run: Run, terminal: Terminal
) -> tuple[Trackers, Drawing | None]:
    """All that is told of the run, in this order: what is drawn, and what W&B calls the best, is read from the file."""
    told: list[Tracker] = [MetricsFile(folder.metrics)]
    drawing = None
    if typed.plots:
        words = (run.limits.monitor, run.limits.mode, title(typed.model.name, typed.dataset.name, folder))
        drawing = Drawing(folder.path, *words)
        told.append(drawing)
    told += [Heartbeat(folder.progress, run.limits.max_steps, run.steps_per_epoch), terminal]
    told += chosen_trackers(
        *(typed, config, folder.path, run.limits),
        run_id=job.run_id,
        group=job.group,
        resumes=job.resumes is not None,
    )
    return Trackers(*told), drawing


def _origin(job: Job, config: Mapping[str, Any], folder: RunFolder) -> dict[str, Any]:
    """Which names were chosen, and what differs from the defaults; of a resumed run with what it changes."""
    if job.resumes is None:
        return {"choices": own(job.choices)} | ({} if job.changed is None else {"changed": dict(job.changed)})
    already = folder.read_summary().get("changed")
    return {} if already is None else {"changed": changed_since(already, job.resumes.before, config)}


def _meet(ranks: Ranks, device: torch.device, data: Mapping[str, str]) -> None:
    """All ranks are ready, and are ready for the same."""
    for rank, theirs in enumerate(ranks.gather(data)):
        if theirs != data:
            raise UserError(f"data: rank {rank} reads other samples than rank {ranks.rank}")
    ranks.connect(device)


def _asked_once(ranks: Ranks, hopeless: Hopeless | None) -> Hopeless | None:
    """Of several processes only rank 0 asks the search, if there is one, and all do as it says."""
    if not agreed(ranks, lambda: hopeless is not None):
        return None
    return lambda row: agreed(ranks, lambda: hopeless is not None and hopeless(row))


def _fit_and_test(session: Session, folder: RunFolder, received: Sequence[Signals]) -> dict[str, Any]:
    """Train and test; returns what the summary has to say of it. Raises nothing."""
    trainer, ranks = session.trainer, session.ranks
    outcome: dict[str, Any] = {"status": "failed", "error": None, "exit_code": 1}

    def asked() -> Sequence[Signals]:
        return received if ranks is None else next(filter(None, ranks.gather(list(received))), [])

    try:
        if session.drawing is not None:
            session.drawing.start()
        try:
            status = keep_untrained(trainer) if session.untrained else trainer.fit()
        finally:
            trainer.profiler.finish()
        with session.timed("saving"):
            session.writer.close()  # the best checkpoint is on disk
        if not asked():
            with session.timed("test"):
                tested = None if status == "pruned" else evaluate_best(trainer, session.run, folder)
            if tested is not None:
                session.findings = tested.findings
            outcome |= {"status": status, "exit_code": 0, "test": None if tested is None else tested.metrics}
    except Stopped:
        pass
    except (TrainingError, UserError, OSError) as error:
        log.error("%s", "\n".join([str(error), *getattr(error, "__notes__", [])]))
        outcome["error"] = _told(error, ranks)
    except (KeyboardInterrupt, StopSignal) as error:
        outcome |= _interrupted(error)
    except (Exception, SystemExit) as error:  # a library's sys.exit() is nobody's signal
        if out_of_memory(error):
            log.error("out of memory: %s", error)
        else:
            log.exception("the run failed")
        outcome["error"] = _told(error, ranks, traceback.format_exc())
    if outcome["exit_code"] != 0 and outcome["error"] is None and (signals := asked()):
        outcome |= {"status": "preempted", "error": signals[0].name, "exit_code": EXIT_CODES[signals[0]]}
    return outcome


def _told(error: BaseException, ranks: Ranks | None, report: str = "") -> str:
    """The error in one line, which the other processes get to know."""
    if ranks is not None:
        ranks.fail(error, report)
    return f"{type(error).__name__}: {error}"


def _note_interruption(folder: RunFolder, error: BaseException, seconds: float) -> None:
    """Before the first step; a resume that hasn't begun leaves the summary as it is."""
    if folder.read_summary()["status"] == "running":
        folder.update_summary(**_interrupted(error), seconds=seconds)


def _interrupted(error: BaseException) -> dict[str, Any]:
    number = Signals.SIGINT if isinstance(error, KeyboardInterrupt) else Signals.SIGTERM
    return {"status": "preempted", "error": number.name, "exit_code": EXIT_CODES[number]}
