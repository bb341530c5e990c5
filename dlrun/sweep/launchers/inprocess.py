"""Jobs in this very process, one after the other: hydra/launcher=basic. For tiny ones, and for a debugger.

A crash of one is the end of all, and what a job's plugins or libraries leave behind, the next one finds. Undone after
each job: its log file and the terminal's, captured warnings, environment variables, what torch compiled. Set anew by
each, so not undone: seeds, threads, determinism, matrix precision. Caches stay on purpose.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dlrun.errors import StopSignal
from dlrun.logs import configure_terminal
from dlrun.signals import EXIT_CODES, stop_as_exit
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.launchers import Ended


class InProcess:
    """No queue and no processes: `wait` is the job."""

    slots, elsewhere = 1, False

    def __init__(self, folder: SweepFolder):
        self.folder = folder
        self.job: FrozenJob | None = None

    def start(self, job: FrozenJob) -> None:
        self.job = job

    def wait(self, seconds: float) -> list[Ended]:
        if self.job is None:
            return []
        job, self.job = self.job, None
        with _undone(), _signals():
            code = self._run(job)
        if code in EXIT_CODES.values():  # whoever stops a job here means the sweep, whose turn it is to hear that
            signal.raise_signal(signal.SIGINT if code == EXIT_CODES[signal.SIGINT] else signal.SIGTERM)
        return [Ended(job.number, code)]

    def _run(self, job: FrozenJob) -> int:
        from dlrun.sweep.job import run_frozen

        try:
            return run_frozen(self.folder.path, job.number)
        except KeyboardInterrupt:
            return EXIT_CODES[signal.SIGINT]
        except StopSignal as stop:
            return int(str(stop.code))
        except SystemExit:  # of somebody's module
            return 1

    def withdraw(self) -> None:
        """Nothing waits."""

    def stop(self) -> None:
        """The job that runs hears the signal itself."""

    def close(self) -> None:
        """There is nothing."""


@contextmanager
def _signals() -> Iterator[None]:
    """Before its training a job is stopped by an exception, as in a process of its own."""
    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    stop_as_exit()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undone() -> Iterator[None]:
    """What a job changes in the process is as it was, afterwards."""
    environment = dict(os.environ)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.shutdown()  # its file
        configure_terminal()
        os.environ.clear()
        os.environ.update(environment)
        gc.collect()  # a trainer is full of circles, and may hold a GPU's memory
        if "torch" in sys.modules:
            import torch

            torch.cuda.empty_cache()
        if "torch._dynamo" in sys.modules:
            import torch._dynamo

            torch._dynamo.reset()  # compiled code counts towards a limit by the class that it is of
