"""Jobs on this machine, each a process of its own, on GPUs and cores that no two of them fight for."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from dlrun.cores import SHARE, cores
from dlrun.errors import UserError
from dlrun.registry import Count, Index
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.launchers import Ended
from dlrun.sweep.launchers.devices import VISIBLE, Gpu, Places, chosen_gpus
from dlrun.sweep.launchers.process import Bell, Process

log = logging.getLogger("dlrun")

PATIENCE = 60.0  # seconds that jobs get to save where the sweep itself has failed
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Running:
    process: Process
    place: tuple[Gpu, ...]


class Local:
    """`jobs` processes at a time; each has a place of its own among the GPUs, and its share of the cores.

    `jobs`: auto is as many as the GPUs have room for, and 1 where there is none or no job uses one. `devices`: all GPUs
    that CUDA_VISIBLE_DEVICES leaves, the least used N, or these, by nvidia-smi's numbers or by UUID.
    `jobs_per_device`: that share one GPU. `processes`: of each job; above 1 torchrun starts it, on as many GPUs.

    `known` are the jobs, where they aren't in the manifest yet. Raises UserError for more than this machine has.
    """

    elsewhere = False

    def __init__(
        self,
        folder: SweepFolder,
        known: Sequence[FrozenJob] | None = None,
        *,
        jobs: Count | Literal["auto"] = "auto",
        devices: Index | Annotated[list[Index | str], MinLen(1)] | Literal["auto"] = "auto",
        jobs_per_device: Count = 1,
        processes: Count = 1,
    ):
        self.folder, self.processes = folder, processes
        gpus = chosen_gpus(devices)
        self.places = Places(gpus, processes, jobs_per_device)
        self.gives_out = bool(gpus) or devices == 0  # and what a job isn't given it doesn't see
        if known is None:
            known = folder.read_jobs() if folder.jobs.exists() else []
        # A search says what its jobs are when they come, and before there is a sweep nobody knows.
        on_gpus = bool(gpus) and (not known or any(map(uses_gpu, known)))
        if on_gpus and (known or folder.sweep.exists()):
            self._refuse_more(jobs, len(gpus))
        self.slots = jobs if jobs != "auto" else max(self.places.total, 1) if on_gpus else 1
        # The same for all, though some may be left over: the last bits of a result depend on the number of threads.
        self.share = max(cores() // (self.slots * processes), 1)
        self.running: dict[int, Running] = {}
        self.waiting = deque[FrozenJob]()  # for a GPU: jobs that weren't known when the slots were counted
        self.unborn: list[Ended] = []
        self.bell: Bell | None = None
        self.asked = False

    def _refuse_more(self, jobs: int | str, gpus: int) -> None:
        if self.processes > gpus:
            most = f"expected at most {gpus}, one per GPU (devices=0 takes none)"
            raise UserError(f"hydra.launcher.processes: {most}, got {self.processes}")
        if isinstance(jobs, int) and jobs > self.places.total:
            per_job = f" with processes={self.processes}" if self.processes > 1 else ""
            room = f"{gpus} GPUs × jobs_per_device={self.places.room}{per_job}"
            raise UserError(f"hydra.launcher.jobs: expected at most {self.places.total} ({room}), got {jobs}")

    def start(self, job: FrozenJob) -> None:
        """Begin a job; if the machine can't, that is what it ends with."""
        if self.bell is None:
            self.bell = Bell()
        self.waiting.append(job)
        self._begin()

    def _begin(self) -> None:
        """What there is room for."""
        for job in list(self.waiting):
            takes = bool(self.places.all) and uses_gpu(job)
            if not takes or self.places.free:
                self.waiting.remove(job)
                self._begin_at(job, self.places.take() if takes else ())

    def _begin_at(self, job: FrozenJob, place: tuple[Gpu, ...]) -> None:
        try:
            console = self.folder.run(job).path / "console.log"
            process = Process(self.command(job), self.environment(job, place), console)
        except OSError as error:
            self.places.give_back(place)
            self.unborn.append(Ended(job.number, None, f"can't be started: {error}"))
            return
        self.running[job.number] = Running(process, place)

    def command(self, job: FrozenJob) -> list[str]:
        # As this process was: what lies in the working directory can be imported, or can't shadow anything.
        python = [sys.executable] if {"", os.getcwd()} & set(sys.path) else [sys.executable, "-P"]
        command = [*python, "-m", "dlrun.sweep.job", str(self.folder.path), str(job.number)]
        if self.processes == 1:
            return command
        return [*python, "-m", "dlrun.sweep.launchers.elastic", str(self.processes), *command]

    def environment(self, job: FrozenJob, place: tuple[Gpu, ...]) -> dict[str, str]:
        """What a job has beside what this process has; a job by itself has the machine as any run has."""
        own = {}
        if self.slots * self.processes > 1:
            own = {name: str(threads(job) or _fewer(name, self.share)) for name in THREADS} | {SHARE: str(self.share)}
        if self.gives_out:
            own[VISIBLE] = ",".join(gpu.uuid for gpu in place)
        return own

    def wait(self, seconds: float) -> list[Ended]:
        """The jobs that have ended: as soon as one has; none after `seconds`, or at once when a signal comes."""
        return self.bell.wait(self._ended, seconds) if self.bell is not None else []

    def _ended(self) -> list[Ended]:
        ended, self.unborn = self.unborn, []
        for number, job in list(self.running.items()):
            if (code := job.process.poll()) is not None:
                self.places.give_back(job.place)
                del self.running[number]
                ended.append(Ended(number, code))
        if not self.asked:
            self._begin()
        return ended

    def withdraw(self) -> None:
        """Nothing waits."""

    def stop(self) -> None:
        """Ask all jobs to save and end; told again, kill them and what they have started."""
        for job in list(self.running.values()):
            job.process.kill() if self.asked else job.process.terminate()
        self.unborn += [Ended(job.number, None) for job in self.waiting]
        self.waiting.clear()
        self.asked = True

    def close(self) -> None:
        """Nothing is left running, also where the sweep broke off."""
        deadline = time.monotonic() + PATIENCE
        if self.running and not self.asked:
            self.stop()
        while self.running and (left := deadline - time.monotonic()) > 0:
            self.wait(left)
        for job in self.running.values():
            job.process.kill()
            job.process.popen.wait()
        if self.bell is not None:
            self.bell.close()
            self.bell = None


def uses_gpu(job: FrozenJob) -> bool:
    return job.config.get("device") in ("auto", "cuda")


def threads(job: FrozenJob) -> int | None:
    """That the job's own config asks for."""
    trainer: Mapping[str, Any] = job.config.get("trainer") or {}
    return trainer.get("num_threads")


def _fewer(name: str, share: int) -> int:
    """Threads: the share, or fewer if the environment of the sweep says so."""
    given = os.environ.get(name, "")
    return min(int(given), share) if given.isdecimal() and int(given) > 0 else share
