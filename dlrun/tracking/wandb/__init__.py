"""Weights & Biases: online with credentials, offline without, never a question, and nobody waits for it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dlrun import agent
from dlrun.errors import UserError, shortened
from dlrun.history import read
from dlrun.tracking import Predictions
from dlrun.tracking.wandb.charts import charts, images
from dlrun.tracking.wandb.pages import page, send_report
from dlrun.tracking.wandb.session import Session

log = logging.getLogger("dlrun")

LONGEST_TAG = 64  # characters; W&B refuses the run for a longer one, and for an empty one
METRICS, EPOCH, TEST, PLOTS, REPORT = range(5)  # rows of a step
ROWS = 5
OF_THE_RUN = ("status", "error", "seconds", "samples_per_second", "epochs", "steps", "parameters")


class WandB:
    """One W&B run. A server that can't be reached makes it offline, and the end says how to upload it.

    W&B drops a row whose `_step` isn't above the last one. So each row has a number that a resumed run would give it
    too, and what is told again isn't there twice: ROWS for each step, of which its metrics, the row of the epoch that
    it ends, what the test says of it, the pictures and the report take one each. After a return to a checkpoint the
    numbers go on above all that there were.

    The summary has the best epoch as `best/…` while the run goes on. That is kept here, since what W&B itself can keep
    (`define_metric(summary="max")`) begins anew in each part of a run that is resumed.
    """

    def __init__(
        self,
        folder: Path,
        run_id: str,
        config: Mapping[str, Any],
        *,
        project: str,
        entity: str | None,
        mode: str,
        init_timeout: float,
        log_model: bool,
        log_report: bool,
        group: str | None,
        job_type: str,
        tags: Sequence[str],
        notes: str | None,
        name: str,
        max_steps: int,
        monitor: str,
        maximize: bool,
        report: Callable[[Path], Path] | None = None,
        resumes: bool = False,
    ):
        """`report` makes the run's report.html and is asked at the end, if `log_report` is true."""
        spec = find_spec("wandb")
        if spec is None or spec.origin is None:  # a folder of that name isn't it
            raise UserError("tracking=wandb needs W&B: pip install wandb, or set tracking=none")
        self.agent = agent.asked_for(run_id)
        if self.agent:
            agent.compare(project=project, entity=entity)
        options: dict[str, Any] = {
            "dir": str(folder.absolute()),
            "id": run_id,
            "name": name,
            "config": deepcopy(agent.beside_parameters(config) if self.agent else dict(config)),
            "project": project,
            "entity": entity,
            "group": group,
            "job_type": "sweep" if self.agent else job_type,
            "tags": fitting(tags),
            "notes": notes,
        }
        self.log_model, self.run_id, self.max_steps = log_model, run_id, max_steps
        self.report = report if log_report else None
        self.monitor, self.sign = monitor, 1 if maximize else -1
        self.best: Mapping[str, float | None] = {}  # the row of the best epoch
        self.folder = folder
        self.last_step = self.rollbacks = 0
        self.session = Session(folder.absolute(), options, mode, init_timeout, resumes)
        self.session.start()

    def rewind(self, epoch: int, step: int, rollbacks: int) -> None:
        self.last_step, self.rollbacks = step, rollbacks
        self.best = {}
        known = read(self.folder / "metrics.csv")  # of which the rows after that epoch are gone by now
        for number, at in enumerate(known.epochs):
            row = {name: column[number] for name, column in known.columns.items()}
            self._better({"epoch": at, "step": known.steps[number], **row})

    def step(self, metrics: dict[str, float], step: int) -> None:
        self._log(step, METRICS, {"step": step} | {f"step/{name}": value for name, value in metrics.items()})

    def epoch(self, row: dict[str, float | None]) -> None:
        self._log(int(row["step"] or 0), EPOCH, {name: value for name, value in row.items() if value is not None})
        if self._better(row):
            best = {f"best/{name}": value for name, value in row.items() if value is not None}
            self.session.put(None, lambda run, _: run.summary.update(best))

    def predictions(self, predictions: Predictions) -> None:
        """Confusion, calibration, curves, and tables of the worst mistakes and of some of all predictions."""
        self._show(TEST, lambda: charts(predictions))

    def model(self, path: Path) -> None:
        """Upload the best checkpoint as a model artifact, if that was asked for."""
        if self.log_model:
            self.session.put(None, lambda run, _: run.log_model(str(path), name=f"model-{self.run_id}"))

    def plots(self, paths: Sequence[Path]) -> None:
        """What is in the run's plots/, as pictures."""
        if paths:
            self._show(PLOTS, lambda: images(paths))

    def finish(self, summary: dict[str, Any]) -> None:
        best = summary.get("best") or {}
        values = {f"best/{name}": value for name, value in best.items()}
        if self.agent:  # what a W&B sweep looks at is the summary, in which W&B has the last value, not the best
            values |= {name: value for name, value in best.items() if "/" in name}
        values |= summary.get("test") or {}
        values |= {f"time/{name}": value for name, value in (summary.get("time") or {}).items()}
        values |= {key: summary[key] for key in OF_THE_RUN if key in summary}
        self.session.put(None, lambda run, _: run.summary.update(values))
        if self.report is not None:
            self._log_report(self.report)
        self.session.end(summary["exit_code"])
        self.session.report()

    def _log_report(self, report: Callable[[Path], Path]) -> None:
        """Made here and now, before the end of the run waits for W&B; one that can't be made is a line."""
        try:
            made = report(self.folder)
        except Exception as error:
            log.debug("report", exc_info=True)
            log.warning("W&B gets no report of the run: %s: %s", type(error).__name__, error)
            return
        self._show(REPORT, lambda: page(made))
        self.session.put(None, lambda run, _: send_report(run, made))

    def _better(self, row: Mapping[str, float | None]) -> bool:
        """Whether that epoch is the best so far: of equals the later one, as the checkpoints have it."""
        value, best = row.get(self.monitor), self.best.get(self.monitor)
        if value is None or not math.isfinite(value) or (best is not None and self.sign * (value - best) < 0):
            return False
        self.best = row
        return True

    def _log(self, step: int, which: int, row: dict[str, Any]) -> None:
        self.last_step = step
        number = self._number(step, which)
        # commit: else W&B keeps the row until the next one comes, and a kill would take it.
        self.session.put(number, lambda run, place: run.log(row, step=place, commit=True))

    def _show(self, which: int, make: Callable[[], dict[str, Any]]) -> None:
        """A row of W&B's own objects, which are made by the thread that tells of them."""
        number = self._number(self.last_step, which)

        def say(run: Any, place: int | None) -> None:
            if shown := make():
                run.log(shown, step=place, commit=True)

        self.session.put(number, say)

    def _number(self, step: int, which: int) -> int:
        return ROWS * (step + self.rollbacks * (self.max_steps + 1)) + which


def fitting(tags: Sequence[str]) -> list[str]:
    """Those that W&B takes, each once: a long one loses its middle."""
    taken = (tag if len(tag) <= LONGEST_TAG else shortened(tag, LONGEST_TAG - 3) for tag in tags if tag)
    return list(dict.fromkeys(taken))
