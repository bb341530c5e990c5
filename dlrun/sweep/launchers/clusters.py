"""Where submitit's jobs wait and run: which of them still do, and how they are told to end.

SLURM is asked for all jobs at once, by `squeue`; that knows a job until it has ended, needs no accounting database,
and tells a preempted job that is queued again from one that is gone. `sacct` is asked once about each that left no
result.
"""

from __future__ import annotations

import getpass
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from dlrun.errors import UserError

PATIENCE = 60  # seconds for an answer of SLURM's


class Cluster(Protocol):
    """What submitit's executors and jobs don't do as a sweep needs it."""

    name: str
    elsewhere: bool  # whether jobs run on other machines
    at_once: int  # jobs that are handed over at the most
    pause: float  # seconds between two looks at the results
    patience: float  # seconds between two questions about jobs without a result
    late: float  # seconds that a result may take to be seen, once its job has gone: shared folders are slow

    def alive(self, ids: Collection[str]) -> set[str] | None:
        """Those that wait or run; None if there is no answer now."""

    def withdraw(self, ids: Collection[str]) -> None:
        """Take back those that don't run yet."""

    def ask(self, ids: Collection[str]) -> None:
        """Send SIGTERM to those that run."""

    def kill(self, ids: Collection[str]) -> None:
        """End them all, now."""

    def state(self, job: Any, ask: bool) -> str:
        """What became of a job of submitit's that has gone; without `ask`, as far as it was heard already."""


class Slurm:
    """SLURM's own commands."""

    name, elsewhere = "slurm", True
    at_once = 1000  # MaxArraySize is 1001 unless somebody chose another
    pause, patience, late = 5.0, 60.0, 15.0

    def __init__(self) -> None:
        for command in ("sbatch", "srun", "squeue", "scancel"):
            if shutil.which(command) is None:
                raise UserError(
                    f"hydra/launcher=submitit_slurm: there is no {command} here; expected a machine that submits to "
                    "SLURM (submitit_local and local run jobs on this one)"
                )

    def alive(self, ids: Collection[str]) -> set[str] | None:
        words = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i"]
        try:
            answer = subprocess.run(words, check=True, capture_output=True, text=True, timeout=PATIENCE)
        except (OSError, subprocess.SubprocessError):  # it is busy, or being restarted
            return None
        return set(answer.stdout.split()) & set(ids)

    def withdraw(self, ids: Collection[str]) -> None:
        self._cancel(ids, "--state=PENDING")

    def ask(self, ids: Collection[str]) -> None:
        self._cancel(ids, "--signal=TERM")  # `scancel` alone would leave them KillWait, 30 s, to save

    def kill(self, ids: Collection[str]) -> None:
        self._cancel(ids, "--signal=KILL")  # this ends a job's steps,
        self._cancel(ids)  # and this the job

    def state(self, job: Any, ask: bool) -> str:
        logging.getLogger("submitit").setLevel(logging.ERROR)  # a cluster without accounting is no news
        found: str = job.get_info(mode="force" if ask else "cache").get("State") or "UNKNOWN"
        return found

    def _cancel(self, ids: Collection[str], *how: str) -> None:
        if not ids:
            return
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", *how, *ids], capture_output=True, timeout=PATIENCE)


class Here:
    """submitit's local executor: each job has a controller, a process that outlives ours; its id is the job's."""

    name, elsewhere = "local", False
    pause = patience = 0.05
    late = 0.0

    def __init__(self, jobs: int):
        self.at_once = jobs

    def alive(self, ids: Collection[str]) -> set[str] | None:
        return {name for name in ids if _controls(int(name))}

    def withdraw(self, ids: Collection[str]) -> None:
        """All that were handed over run."""

    def ask(self, ids: Collection[str]) -> None:
        self._send(ids, signal.SIGTERM)  # which it hands on; of SIGINT it makes SIGKILL after a second

    def kill(self, ids: Collection[str]) -> None:
        self._send(ids, signal.SIGKILL)  # and what it started ends with it

    def state(self, job: Any, ask: bool) -> str:
        return str(job.state)

    def _send(self, ids: Collection[str], number: signal.Signals) -> None:
        for name in self.alive(ids) or ():
            with suppress(ProcessLookupError):
                os.kill(int(name), number)


def _controls(process: int) -> bool:
    """Whether a process is one of submitit's controllers, and not another that has its number by now, or a zombie."""
    place = Path(f"/proc/{process}")
    try:
        words = (place / "cmdline").read_bytes()
        if not words:  # a zombie has none; nor, for a moment, has one that was started just now
            return (place / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"submitit.local._local" in words
