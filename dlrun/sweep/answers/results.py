"""What came of each job of a sweep: out of its manifest, its events and its run folders. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dlrun.errors import UserError, printable
from dlrun.signals import name_of
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.state import State, state_of

ERROR = 300  # characters of a job's error in the tables


@dataclass(frozen=True)
class Objective:
    """A metric, and which of its ends is the better one."""

    name: str
    mode: Literal["min", "max"]

    @property
    def sign(self) -> int:
        """What makes more of it better."""
        return 1 if self.mode == "max" else -1

    @property
    def test(self) -> str:
        """The same of the test split."""
        return f"test/{self.name.rpartition('/')[2]}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """One job, and what became of it."""

    job: FrozenJob
    state: State
    values: Mapping[str, Any]  # swept key → value; a key that a conditional space didn't ask for isn't there
    objectives: Mapping[str, float]  # of the best epoch; what isn't there or isn't finite is missing
    best_epoch: int | None = None
    test: Mapping[str, float]
    epochs: int | None = None
    seconds: float | None = None
    samples_per_second: float | None = None
    parameters: int | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Results:
    """A sweep, and its jobs in the order of their numbers."""

    folder: SweepFolder
    sweep: Mapping[str, Any]  # sweep.json
    swept: tuple[str, ...]
    objectives: tuple[Objective, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def is_search(self) -> bool:
        return self.sweep.get("kind") == "search"

    @property
    def parameters(self) -> tuple[str, ...]:
        """What is swept, but for the seed."""
        return tuple(key for key in self.swept if key != "seed")

    def count(self, *states: State) -> int:
        return sum(outcome.state in states for outcome in self.outcomes)


def gather(path: Path) -> Results:
    """Read the sweep in `path`. Raises UserError if it isn't one, or its manifest can't be read."""
    folder = SweepFolder(path)
    sweep, jobs = folder.read(), folder.read_jobs()
    swept, objectives = tuple(sweep["swept"]), _objectives(sweep)
    ends = {event["job"]: event for event in folder.read_events() if event.get("event") == "ended"}
    of_search = sweep.get("kind") == "search"
    outcomes = [_outcome(folder, job, swept, of_search, objectives, ends.get(job.number)) for job in jobs]
    return Results(folder=folder, sweep=sweep, swept=swept, objectives=objectives, outcomes=tuple(outcomes))


def _objectives(sweep: Mapping[str, Any]) -> tuple[Objective, ...]:
    """Those of the study, if it is a search; else the monitored metric."""
    study = sweep.get("study") or {}
    if study.get("objectives"):
        pairs = zip(study["objectives"], study["directions"], strict=True)
        return tuple(Objective(name, "min" if direction == "minimize" else "max") for name, direction in pairs)
    return (Objective(sweep["monitor"], sweep["mode"]),)


def _outcome(
    folder: SweepFolder,
    job: FrozenJob,
    swept: Sequence[str],
    of_search: bool,
    objectives: Sequence[Objective],
    end: Mapping[str, Any] | None,
) -> Outcome:
    run = folder.run(job)
    state = state_of(run)
    try:
        summary = run.read_summary()
    except UserError:
        summary = {}
        if state == "pending" and end is not None and end.get("state") == "failed":
            state = "failed"  # its process ended before it had a folder
    best, test = summary.get("best") or {}, summary.get("test") or {}
    # Of the epoch that was best by trainer.monitor; `parameters` or `seconds` are of the run.
    found = {o.name: (best if "/" in o.name else summary).get(o.name) for o in objectives}
    return Outcome(
        job=job,
        state=state,
        values=_values(job, swept, of_search),
        objectives={name: float(value) for name, value in found.items() if value is not None and _is_number(value)},
        best_epoch=best.get("epoch"),
        test={name: value for name, value in test.items() if _is_number(value)},
        epochs=summary.get("epochs"),
        seconds=summary.get("seconds"),
        samples_per_second=summary.get("samples_per_second"),
        parameters=summary.get("parameters"),
        error=_error(summary, end) if state == "failed" else None,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _values(job: FrozenJob, swept: Sequence[str], of_search: bool) -> dict[str, Any]:
    """What the job has at each swept key. A trial has those alone that its part of the search space asks for."""
    said = {word.partition("=")[0].lstrip("+") for word in job.overrides}
    values = {}
    for key in swept:
        if of_search and key not in said:
            continue
        if job.choices.get(key) is not None:
            values[key] = job.choices[key]
            continue
        place: Any = job.config
        for part in key.split("."):
            if not isinstance(place, Mapping) or part not in place:
                break
            place = place[part]
        else:
            values[key] = place
    return values


def _error(summary: Mapping[str, Any], end: Mapping[str, Any] | None) -> str:
    """One line, whatever it was."""
    code = None if end is None else end.get("code")
    said = summary.get("error") or (end or {}).get("error")
    if not said and isinstance(code, int) and code < 0:
        said = f"killed by {name_of(-code)}"
    elif not said:
        said = "it left no error" if code is None else f"its process ended with exit code {code}"
    line = printable(" ".join(str(said).split()))
    return line if len(line) <= ERROR else f"{line[: ERROR - 1]}…"
