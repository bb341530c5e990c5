"""SLURM: which job this is, whether it was requeued, and how it asks for that."""

from __future__ import annotations

import logging
import os

log = logging.getLogger("dlrun")


def job() -> str | None:
    """This job's id as SLURM gives it, the same after a requeue; with the task's number, where there are several."""
    name = os.environ.get("SLURM_JOB_ID")
    task = os.environ.get("SLURM_PROCID", "0")
    return name if name is None or task == "0" else f"{name}.{task}"


def restarted() -> bool:
    """Whether this job ran before: its batch script now runs a second time, from the top."""
    count = os.environ.get("SLURM_RESTART_COUNT", "0")
    return job() is not None and count.isdecimal() and int(count) > 0


def requeue() -> bool:
    """Ask SLURM to run this job again; False if it doesn't, with a word in the log, or if submitit is there to ask."""
    if os.environ.get("SUBMITIT_EXECUTOR"):  # it asks for its jobs itself: sweep/launchers/submitted.py
        return False
    import subprocess  # not for --help

    name = os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", name], check=True, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        log.error("SLURM didn't requeue job %s: scontrol gave no answer in 30 s", name)
        return False
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        log.error("SLURM didn't requeue job %s: %s", name, " ".join(str(reason).split()))
        return False
    log.info("SLURM job %s is queued again, and will go on from here", name)
    return True
