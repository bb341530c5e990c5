"""TensorBoard: scalars per step and per epoch, mistakes and pictures at the end, in the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dlrun.errors import UserError, shortened
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
        self.last_step = 0

    def rewind(self, epoch: int, step: int, rollbacks: int) -> None:
        """TensorBoard leaves out what earlier files say of steps from `purge_step` on."""
        self.last_step = step
        self.writer.close()
        self.writer = self.open(self.folder, purge_step=step + 1)

    def step(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(f"{name}_step", value, step)

    def epoch(self, row: dict[str, float | None]) -> None:
        self.last_step = step = int(row["step"] or 0)
        for name, value in row.items():
            if value is not None and name != "step":
                self.writer.add_scalar(name, value, step)

    def predictions(self, predictions: Predictions) -> None:
        """The worst mistakes, as a table; what is a picture is in plots/mistakes."""
        head, line = "| index | truth | guess | probability | loss | text |", "|---|---|---|---|---|---|"
        rows = [
            f"| {m.index} | {_cell(m.truth)} | {_cell(m.guess)} | {m.probability:.3f} | {m.loss:.3f} "
            f"| {_cell(m.sample) if isinstance(m.sample, str) else ''} |"
            for m in predictions.mistakes
        ]
        self.writer.add_text(f"{predictions.name}/mistakes", "\n".join([head, line, *rows]), self.last_step)

    def plots(self, paths: Sequence[Path]) -> None:
        for path in paths:
            _add_picture(self.writer, path, self.last_step)

    def finish(self, summary: dict[str, Any]) -> None:
        for name, value in (summary.get("test") or {}).items():
            self.writer.add_scalar(name, value, summary["steps"])
        self.writer.close()


def tell(folder: Path, values: Mapping[str, float], plots: Sequence[Path], step: int) -> None:
    """What was found out after the training, in a file of its own beside the run's."""
    check_installed()
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        for path in plots:
            _add_picture(writer, path, step)


def _add_picture(writer: Any, path: Path, step: int) -> None:
    """The PNG as it is, by `plots/name`; one that isn't there, or can't be read, is left out."""
    import numpy as np
    from PIL import Image

    with suppress(OSError), Image.open(path) as picture:
        writer.add_image(f"plots/{path.stem}", np.asarray(picture.convert("RGB")), step, dataformats="HWC")


def _cell(text: str) -> str:
    """In a table of Markdown's: on one line, no bar, no tag, not endless."""
    line = shortened(" ".join(text.split()), 300)
    return line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
