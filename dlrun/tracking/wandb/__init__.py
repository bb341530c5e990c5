"""Weights & Biases: online with credentials, offline without, never a question, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dlrun import agent
from dlrun.errors import UserError, shortened
from dlrun.tracking import Predictions
from dlrun.tracking.wandb.session import Session

LONGEST_TAG = 64  # characters; W&B refuses the run for a longer one, and for an empty one
MOST_CLASSES = 100  # a chart takes a table of 10,000 rows, and a confusion matrix has a row for each pair


class WandB:
    """One W&B run. A server that can't be reached makes it offline, and the end says how to upload it.

    W&B drops a row whose `_step` isn't above the last one. So each row has a number that a resumed run would give it
    too, and what is told again isn't there twice: three for each step, of which its metrics, the row of the epoch that
    it ends and what the test says of it take one each. After a return to a checkpoint the numbers go on above all
    that there were.
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
        group: str | None,
        job_type: str,
        tags: Sequence[str],
        notes: str | None,
        name: str,
        max_steps: int,
        resumes: bool = False,
    ):
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
        self.last_step = self.rollbacks = 0
        self.session = Session(folder.absolute(), options, mode, init_timeout, resumes)
        self.session.start()

    def rewind(self, epoch: int, step: int, rollbacks: int) -> None:
        self.last_step, self.rollbacks = step, rollbacks

    def step(self, metrics: dict[str, float], step: int) -> None:
        self._log(step, 0, {"step": step} | {f"step/{name}": value for name, value in metrics.items()})

    def epoch(self, row: dict[str, float | None]) -> None:
        self._log(int(row["step"] or 0), 1, {name: value for name, value in row.items() if value is not None})

    def predictions(self, predictions: Predictions) -> None:
        """A confusion matrix and a table of the worst mistakes."""
        number = self._number(self.last_step, 2)
        self.session.put(number, lambda run, place: run.log(pictures(predictions), step=place, commit=True))

    def model(self, path: Path) -> None:
        """Upload the best checkpoint as a model artifact, if that was asked for."""
        if self.log_model:
            self.session.put(None, lambda run, _: run.log_model(str(path), name=f"model-{self.run_id}"))

    def plots(self, paths: Sequence[Path]) -> None: ...

    def finish(self, summary: dict[str, Any]) -> None:
        best = summary.get("best") or {}
        values = {f"best/{name}": value for name, value in best.items()}
        if self.agent:  # what a W&B sweep looks at is the summary, in which W&B has the last value, not the best
            values |= {name: value for name, value in best.items() if "/" in name}
        values |= summary.get("test") or {}
        values |= {key: summary[key] for key in ("status", "error", "seconds", "parameters") if key in summary}
        self.session.put(None, lambda run, _: run.summary.update(values))
        self.session.end(summary["exit_code"])
        self.session.report()

    def _log(self, step: int, which: int, row: dict[str, Any]) -> None:
        self.last_step = step
        number = self._number(step, which)
        # commit: else W&B keeps the row until the next one comes, and a kill would take it.
        self.session.put(number, lambda run, place: run.log(row, step=place, commit=True))

    def _number(self, step: int, which: int) -> int:
        return 3 * (step + self.rollbacks * (self.max_steps + 1)) + which


def fitting(tags: Sequence[str]) -> list[str]:
    """Those that W&B takes, each once: a long one loses its middle."""
    taken = (tag if len(tag) <= LONGEST_TAG else shortened(tag, LONGEST_TAG - 3) for tag in tags if tag)
    return list(dict.fromkeys(taken))


def pictures(predictions: Predictions) -> dict[str, Any]:
    """As W&B shows it: a confusion matrix, of as many classes as it draws, and a table of the worst mistakes."""
    import wandb

    table = wandb.Table(columns=["index", "sample", "truth", "guess", "probability", "loss"])
    for m in predictions.mistakes:
        table.add_data(m.index, _shown(m.sample), m.truth, m.guess, m.probability, m.loss)
    shown = {f"{predictions.name}/mistakes": table}
    if len(predictions.class_names) > MOST_CLASSES:
        return shown
    matrix = wandb.plot.confusion_matrix(
        y_true=list(predictions.truths),
        preds=list(predictions.guesses),
        class_names=list(predictions.class_names),
        title=f"{predictions.name}/confusion_matrix",
    )
    return {f"{predictions.name}/confusion_matrix": matrix} | shown


def _shown(sample: Any) -> Any:
    if isinstance(sample, np.ndarray) and sample.ndim == 3:
        import wandb

        return wandb.Image(sample)
    return sample if isinstance(sample, str) else ", ".join(f"{value:.3g}" for value in sample)
