"""One run of a comparison: what its folder says, as far as that can be read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlrun import history
from dlrun.differences import flat
from dlrun.errors import UserError, printable, shortened
from dlrun.history import History
from dlrun.report.record import is_unreadable, read_json, status_of
from dlrun.runfolder import RunFolder
from dlrun.wording import is_number

DONE = ("finished", "stopped_early")  # what came of such a run can be held against others
ERROR = 300  # characters


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What is known of one run; what can't be read is empty, and `problems` says why."""

    path: Path
    summary: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)  # dotted key → value
    history: History = field(default_factory=History)
    bench: Mapping[str, Any] = field(default_factory=dict)  # bench.json
    problems: tuple[str, ...] = ()

    @property
    def is_there(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.summary or len(self.history))

    @property
    def status(self) -> str:
        """That of its summary; `interrupted` of one that says it runs while no process does."""
        return status_of(self.summary, RunFolder(self.path))

    @property
    def done(self) -> bool:
        return self.status in DONE

    @property
    def error(self) -> str | None:
        said = self.summary.get("error")
        return shortened(printable(" ".join(str(said).split())), ERROR) if said else None

    @property
    def monitor(self) -> str | None:
        said = self.config.get("trainer.monitor")
        return said if isinstance(said, str) else None

    @property
    def test(self) -> dict[str, float]:
        """Of the test split, what is a number."""
        test = self.summary.get("test")
        return {str(k): v for k, v in test.items() if is_number(v)} if isinstance(test, Mapping) else {}

    def number(self, name: str) -> float | None:
        """A number of the summary, by its name."""
        value = self.summary.get(name)
        return value if is_number(value) else None

    def best(self, metric: str, mode: str) -> dict[str, float | None]:
        """All that is known of the epoch with the best `metric`.

        Of the metric that the run monitored it is the epoch that the run itself says, since its checkpoint is of that.
        """
        best = self.summary.get("best")
        if metric == self.monitor and isinstance(best, Mapping) and is_number(best.get(metric)):
            return {str(name): value if is_number(value) else None for name, value in best.items()}
        row = self.history.best(metric, "min" if mode == "min" else "max")
        if row is None:
            return {}
        values = {name: finite(column[row]) for name, column in self.history.columns.items()}
        return {"epoch": self.history.epochs[row], "step": self.history.steps[row], **values}

    @property
    def training_seconds(self) -> float | None:
        """Seconds in the loop, evaluation included, over all parts of the run; without starting and testing."""
        times = [value for value in self.history.column("seconds") if finite(value) is not None]
        return times[-1] if times else self.number("seconds")


def read(path: Path) -> Run:
    """The run in `path`. Raises nothing: what is wrong is said in `problems`."""
    folder, problems = RunFolder(path), []
    summary: dict[str, Any] = {}
    config: dict[str, Any] = {}
    try:
        summary = folder.read_summary()
    except UserError as error:
        problems.append(_said(error, path))
    try:
        config = flat(folder.read_config())
    except UserError as error:
        problems.append(_said(error, path))
    rows = history.read(folder.metrics)
    if not len(rows) and (config or summary) and is_unreadable(folder.metrics):
        problems.append("metrics.csv has no row that can be read")
    bench = read_json(path / "bench" / "bench.json", problems, path)
    run = Run(path=path, summary=summary, config=config, history=rows, bench=bench, problems=tuple(problems))
    if not run.is_there and not config:
        return Run(path=path, problems=("there is nothing of a run in it",) if _is_empty(folder) else tuple(problems))
    return run


def _is_empty(folder: RunFolder) -> bool:
    return not any(path.exists() for path in (folder.summary, folder.config, folder.metrics))


def _said(error: UserError, path: Path) -> str:
    """Its folder is said beside it."""
    said = str(error).removesuffix(": nothing to go on with").replace(f"{path}/", "").replace(f"{path} has", "it has")
    return shortened(said.removeprefix(f"no run in {path}: "), ERROR)


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
