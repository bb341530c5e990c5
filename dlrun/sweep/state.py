"""How far a job of a sweep has come, as its run folder tells."""

from __future__ import annotations

from typing import Literal

from dlrun.errors import UserError
from dlrun.locks import is_held
from dlrun.runfolder import RunFolder

State = Literal["pending", "running", "done", "pruned", "failed", "interrupted"]
ENDED: tuple[State, ...] = ("done", "pruned")  # nothing is left to do
STATES: dict[str, State] = {
    "finished": "done",
    "stopped_early": "done",
    "pruned": "pruned",
    "failed": "failed",
    "preempted": "interrupted",
}


def state_of(run: RunFolder) -> State:
    """`running` is what a living process holds the folder of; a run that was killed is `interrupted`."""
    try:
        status = run.read_summary()["status"]
    except (UserError, KeyError):
        return "pending"
    if status == "running" or status not in STATES:
        return "running" if is_held(run.lock) else "interrupted"
    return "running" if status == "preempted" and is_held(run.lock) else STATES[status]
