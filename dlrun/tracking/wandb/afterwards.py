"""What is found out about a run when its training is over goes to its own W&B run, above all rows that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrun.tracking import Predictions
from dlrun.tracking.wandb.charts import charts, images
from dlrun.tracking.wandb.pages import page, send_report
from dlrun.tracking.wandb.parts import parts
from dlrun.tracking.wandb.session import AFTERWARDS, LAST, Session


def tell(
    folder: Path,
    run_id: str,
    config: Mapping[str, Any],
    values: Mapping[str, float],
    predictions: Predictions | None,
    plots: Sequence[Path] = (),
    report: Path | None = None,
    *,
    step: int,
    exit_code: int,
    project: str,
    entity: str | None,
    mode: str,
    init_timeout: float,
) -> None:
    """A row of `values`, and of what W&B shows of `predictions`, of pictures and of a report.html.

    The values go into the run's summary, too.
    `step` is that of the checkpoint they are of, `exit_code` how the training ended: W&B takes it for the run's state.
    Does nothing for a run that W&B doesn't know. Name, tags and notes stay what they are. Waits as a training does at
    its end: while the server answers, else until the values are in a file; what is wrong is logged, nothing is raised.
    """
    if not parts(folder.absolute(), run_id):
        return
    options = {"dir": str(folder.absolute()), "id": run_id, "config": dict(config), "project": project}
    session = Session(folder.absolute(), options | {"entity": entity}, mode, init_timeout, resumes=True)

    def say(run: Any, number: int | None) -> None:
        shown = {} if predictions is None else charts(predictions)
        shown |= images(plots) | ({} if report is None else page(report))
        run.log({AFTERWARDS: step, **values, **shown}, step=number, commit=True)
        run.summary.update(dict(values))
        if report is not None:
            send_report(run, report)

    session.start()
    session.put(LAST, say)
    session.end(exit_code)
    session.report()
