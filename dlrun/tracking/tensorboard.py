"""TensorBoard: scalars per step and per epoch, in the run folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dlrun.errors import UserError
from dlrun.tracking import Predictions, Quiet


def check_installed() -> None:
    """Raises UserError if TensorBoard isn't."""
    spec = find_spec("tensorboard")
    if spec is None or spec.origin is None:  # a folder of that name isn't it
        raise UserError("tracking=tensorboard needs TensorBoard: pip install 'dlrun[tensorboard]'")


class TensorBoard(Quiet):
    """Writes event files to `folder`; `tensorboard --logdir outputs` shows them."""

    def __init__(self, folder: Path):
        check_installed()
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self.open = str(folder), SummaryWriter
        self.writer = SummaryWriter(self.folder)

    def rewind(self, epoch: int, step: int, rollbacks: int) -> None:
        """TensorBoard leaves out what earlier files say of steps from `purge_step` on."""
        self.writer.close()
        self.writer = self.open(self.folder, purge_step=step + 1)

    def step(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(f"{name}_step", value, step)

    def epoch(self, row: dict[str, float | None]) -> None:
        step = row["step"]
        for name, value in row.items():
            if value is not None and name != "step":
                self.writer.add_scalar(name, value, step)

    def predictions(self, predictions: Predictions) -> None:
        rows = [f"| {m.truth} | {m.guess} | {m.probability:.3f} | {m.loss:.3f} |" for m in predictions.mistakes]
        table = "\n".join(["| truth | guess | probability | loss |", "|---|---|---|---|", *rows])
        self.writer.add_text("test/mistakes", table)

    def finish(self, summary: dict[str, Any]) -> None:
        for name, value in (summary.get("test") or {}).items():
            self.writer.add_scalar(name, value, summary["steps"])
        self.writer.close()
