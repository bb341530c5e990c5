"""Weights & Biases: online with credentials, offline without, never a question."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlrun.errors import UserError
from dlrun.tracking import Predictions

log = logging.getLogger("dlrun")
FINISH_TIMEOUT = 30.0  # seconds; without one `finish` waits for ever when the server has gone


class WandB:
    """One W&B run. Without credentials it is offline from the start, and says at the end how to upload it.

    Whatever W&B raises while a run goes on is said once and costs the run nothing but what W&B would have shown.
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
    ):
        try:
            import wandb
        except ImportError as error:
            raise UserError("tracking=wandb needs W&B: pip install wandb, or set tracking=none") from error
        self.wandb, self.log_model, self.failed = wandb, log_model, False
        # `silent` given to init comes too late for the lines about logging in.
        wandb.setup(wandb.Settings(silent=True))
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if _has_credentials(wandb) else "offline")
        options: dict[str, Any] = {
            "dir": str(folder.absolute()),
            "id": run_id,
            "name": name,
            "config": dict(config),
            "project": project,
            "entity": entity,
            "group": group,
            "job_type": job_type,
            "tags": list(tags),
            "notes": notes,
            "settings": wandb.Settings(
                silent=True, console="off", init_timeout=init_timeout, finish_timeout=FINISH_TIMEOUT
            ),
        }
        try:
            self.run = wandb.init(**options | {"mode": mode})
        except Exception as error:
            if mode != "online":
                raise
            log.warning("W&B can't be reached (%s); this run goes on offline", str(error).splitlines()[0])
            wandb.teardown()  # or it says that the id is in use
            wandb.setup(wandb.Settings(silent=True))
            mode = "offline"
            self.run = wandb.init(**options | {"mode": mode})
        self.offline = mode == "offline"
        self.run.define_metric("epoch")
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="epoch")
        self.run.define_metric("step/*", step_metric="step")

    def rewind(self, epoch: int, step: int, rollbacks: int) -> None: ...

    def step(self, metrics: dict[str, float], step: int) -> None:
        self._tell(lambda: self.run.log({"step": step} | {f"step/{name}": value for name, value in metrics.items()}))

    def epoch(self, row: dict[str, float | None]) -> None:
        self._tell(lambda: self.run.log({name: value for name, value in row.items() if value is not None}))

    def predictions(self, predictions: Predictions) -> None:
        """A confusion matrix and a table of the worst mistakes."""

        def tell() -> None:
            matrix = self.wandb.plot.confusion_matrix(
                y_true=list(predictions.truths),
                preds=list(predictions.guesses),
                class_names=list(predictions.class_names),
                title="test/confusion_matrix",
            )
            table = self.wandb.Table(columns=["index", "sample", "truth", "guess", "probability", "loss"])
            for m in predictions.mistakes:
                table.add_data(m.index, self._shown(m.sample), m.truth, m.guess, m.probability, m.loss)
            self.run.log({"test/confusion_matrix": matrix, "test/mistakes": table})

        self._tell(tell)

    def model(self, path: Path) -> None:
        """Upload the best checkpoint as a model artifact, if that was asked for."""
        if self.log_model:
            self._tell(lambda: self.run.log_model(str(path), name=f"model-{self.run.id}"))

    def finish(self, summary: dict[str, Any]) -> None:
        def tell() -> None:
            self.run.summary.update({f"best/{name}": value for name, value in (summary.get("best") or {}).items()})
            self.run.summary.update(summary.get("test") or {})
            self.run.summary.update(
                {key: summary[key] for key in ("status", "error", "seconds", "parameters") if key in summary}
            )

        self._tell(tell)
        folder, url = self.run.settings.sync_dir, self.run.url
        self._tell(lambda: self.run.finish(exit_code=summary["exit_code"]), always=True)
        if self.offline or self.failed:
            log.info("W&B     offline; to upload this run: wandb sync %s", os.path.relpath(folder))
        else:
            log.info("W&B     %s", url)

    def _tell(self, say: Callable[[], Any], always: bool = False) -> None:
        if self.failed and not always:
            return
        try:
            say()
        except Exception as error:
            if not self.failed:
                log.warning(
                    "W&B failed (%s: %s); the run goes on, its folder has everything", type(error).__name__, error
                )
            self.failed = True

    def _shown(self, sample: Any) -> Any:
        if isinstance(sample, np.ndarray) and sample.ndim == 3:
            return self.wandb.Image(sample)
        return sample if isinstance(sample, str) else ", ".join(f"{value:.3g}" for value in sample)


def _has_credentials(wandb: Any) -> bool:
    """Whether W&B could log in (environment, netrc, its settings); asks no question and sends no request."""
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except Exception as error:  # a key of the wrong length, say
        log.warning("W&B credentials can't be used (%s); this run is offline", str(error).splitlines()[0])
        return False
