"""Any launcher that Hydra has a plugin for: Ray, joblib and others.

The plugin is told of jobs as Hydra would, in one batch of all that the sweep has to give. But where it asks for a
job's config, it gets the frozen one, and nothing of conf/ is read there; what it runs is a job in a process of its
own (launched.py), so that a crash costs it no worker; and it gets a plain number back, whatever happens. It works in
a thread, because it returns only when all its jobs have ended: what becomes of each is read from files as it happens.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.conf import HydraConf
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from dlrun.errors import UserError, shortened
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.launchers import Ended
from dlrun.sweep.launchers.launched import HOME, Launched, Notes

ALL = 1_000_000  # jobs: the plugin has its own way to run some at a time
NUMBER = "hydra.job.num"  # in a job's overrides, where Hydra's launchers don't print it
LOOK = 0.2  # seconds between two looks at the notes


class Plugin:
    """A launcher: a thread in which Hydra's `launcher` runs a batch, and the next one after it."""

    slots, elsewhere = ALL, True

    def __init__(self, folder: SweepFolder, launcher: Any, config: DictConfig):
        self.folder, self.launcher, self.config = folder, launcher, config
        self.held: list[FrozenJob] = []
        self.batch: set[int] = set()  # those of the batch that haven't ended
        self.withdrawn: list[int] = []
        self.notes = Notes(folder.path)
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None  # of the plugin

    def start(self, job: FrozenJob) -> None:
        self.held.append(job)

    def wait(self, seconds: float) -> list[Ended]:
        until = time.monotonic() + seconds
        if self.held and self.thread is None:
            self._launch()
        while not (ended := self._ended()) and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK))
        return ended

    def withdraw(self) -> None:
        self.withdrawn += [job.number for job in self.held]
        self.held.clear()
        self.notes.say("begin no more")

    def stop(self) -> None:
        self.withdraw()
        self.notes.say("kill" if self.notes.heard() in ("stop", "kill") else "stop")

    def close(self) -> None:
        self.notes.remove()
        if (loky := sys.modules.get("joblib.externals.loky")) is not None:  # its workers wait 300 s for more to do
            loky.get_reusable_executor().shutdown(kill_workers=True)

    def _launch(self) -> None:
        self.notes.begin(f"{int(time.time()):x}-{secrets.token_hex(2)}")
        jobs, self.held = self.held, []
        self.batch, self.error = {job.number for job in jobs}, None
        self.thread = threading.Thread(target=self._work, args=(jobs,), name="launcher", daemon=True)
        self.thread.start()

    def _work(self, jobs: list[FrozenJob]) -> None:
        # Inherited by what the plugin starts: Ctrl-C in the terminal is for us, who tell the jobs.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            context = _context({job.number: job for job in jobs}, self.config)
            task: Any = Launched(str(self.folder.path.absolute()), self.notes.batch, os.getcwd())
            self.launcher.setup(hydra_context=context, task_function=task, config=self.config)
            self.launcher.launch([[*job.overrides, f"{NUMBER}={job.number}"] for job in jobs], jobs[0].number)
        except BaseException as error:  # SystemExit of a plugin, too: it is this thread's alone
            self.error = error

    def _ended(self) -> list[Ended]:
        ended = [Ended(number, None, "taken back before it began") for number in self.withdrawn]
        self.withdrawn.clear()
        over = self.thread is not None and not self.thread.is_alive()  # asked before the notes are read
        notes = self.notes.read()
        ended += [Ended(number, *notes[number]) for number in sorted(self.batch) if number in notes]
        self.batch -= notes.keys()
        if over:
            if self.error is not None and not self.notes.begun():
                raise UserError(f"hydra/launcher: {_line(self.error)}") from self.error
            why = "the launcher lost it" if self.error is None else _line(self.error)
            ended += [Ended(number, None, why) for number in sorted(self.batch)]
            self.batch, self.thread = set(), None
        return ended


@dataclass(frozen=True)
class FrozenConfigs:
    """What Hydra's plugins take for a config loader: it has the jobs' frozen configs, and reads nothing."""

    config: DictConfig
    jobs: Mapping[int, FrozenJob]

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: Sequence[str]) -> DictConfig:
        """The config of the job whose number ends the overrides."""
        job = self.jobs[int(sweep_overrides[-1].partition("=")[2])]
        config = OmegaConf.create({"hydra": self.config.hydra.copy(), **job.config})
        with open_dict(config):
            config.hydra.overrides.task = list(job.overrides)
            config.hydra.overrides.hydra = [sweep_overrides[-1]]
            config.hydra.job.num = job.number
            config.hydra.runtime.choices = dict(job.choices)
        return config


def _hydra(folder: SweepFolder, node: Mapping[str, Any]) -> DictConfig:
    """Hydra's own part of a config, as its launchers look into it; it writes and logs nothing."""
    config = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    config.hydra.launcher = dict(node)
    config.hydra.mode = RunMode.MULTIRUN
    config.hydra.output_subdir = None
    config.hydra.hydra_logging = config.hydra.job_logging = {"root": None}
    config.hydra.sweep.dir = str(folder.path.absolute())
    config.hydra.sweep.subdir = HOME  # Hydra makes it before a job begins, and a run's folder isn't for it to make
    config.hydra.job.name, config.hydra.job.chdir = "dlrun", False
    config.hydra.job.id, config.hydra.job.num = "", 0
    return config


def build(node: Mapping[str, Any], folder: SweepFolder) -> Plugin:
    """Raises UserError if the plugin of `node` isn't there, or doesn't take its options."""
    from hydra.core.plugins import Plugins

    target = str(node["_target_"])
    package = ".".join(target.split(".")[:2])
    if not target.startswith("hydra_plugins.") or not _found(package):
        known = {"hydra_plugins.hydra_ray_launcher": "ray needs Hydra's plugin for it: pip install 'dlrun[ray]'"}
        raise UserError(f"hydra/launcher{'=' + known[package] if package in known else f': no plugin {target} here'}")
    config = _hydra(folder, node)
    try:
        launcher = Plugins.instance().instantiate_launcher(_context({}, config), int, config)
    except Exception as error:
        raise UserError(f"hydra.launcher: {_line(error.__cause__ or error)}") from error
    return Plugin(folder, launcher, config)


def _context(jobs: Mapping[int, FrozenJob], config: DictConfig) -> HydraContext:
    loader: Any = FrozenConfigs(config, jobs)
    return HydraContext(config_loader=loader, callbacks=Callbacks())


def _found(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _line(error: BaseException) -> str:
    return shortened(" ".join(f"{type(error).__name__}: {error}".split()))
