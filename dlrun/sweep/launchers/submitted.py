"""What submitit runs where a job got its place: the job, the signals that reach it there, and its requeue.

A job's time limit: SLURM sends SIGUSR2 (SUBMITIT_PREEMPT_SIGNAL, `signal_delay_s` ahead). The job is sent SIGTERM,
saves and ends; then submitit's own handler decides: it asks SLURM for a requeue (`max_num_timeout` counts those for
time), or says why not. When the job runs again, in the same run folder, it goes on from its checkpoint. A preemption
that comes as that signal (`PreemptParameters=send_user_signal`) is the same, and isn't counted.

SIGTERM alone (`scancel`, a stop of the sweep, a preemption with a grace time): the job saves and ends, and nobody
here requeues it. SLURM does so itself with those that it preempts, where the cluster is set up for it; so no result
is left, and whether the job is over is for SLURM to say.

dlrun's own requeue, on SIGUSR1 (slurm.py), keeps out of it under submitit: one of the two asks, never both.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from dlrun.sweep.launchers.parent import watch
from dlrun.sweep.launchers.remote import start

SAVED = (143, -signal.SIGTERM)  # how a job ends that was asked to; the second, before it had begun


@dataclass(frozen=True)
class Submitted:
    """Job `number` of the sweep in `path`: pickled by submitit here, called by it there. Returns the exit code."""

    path: str
    number: int

    def __call__(self) -> int:
        import submitit

        soon = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
        requeue: Any = signal.getsignal(soon)
        received: list[int] = []
        process = None

        def ask(number: int, frame: FrameType | None) -> None:
            received.append(number)
            if process is not None:
                process.terminate()

        signal.signal(signal.SIGTERM, ask)
        signal.signal(soon, ask)
        watch(os.getppid())  # nothing runs on that nobody looks after
        process = start(Path(self.path), self.number, deaf=(soon,))
        if received:
            process.terminate()
        code = process.wait()
        if received and code in SAVED:
            if soon in received:
                requeue(soon, None)  # ends in SystemExit; or raises, and submitit hands on why
            raise SystemExit(143)
        return code

    def checkpoint(self) -> Any:
        """What submitit is to run after a requeue: the same; the job itself finds its checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)
