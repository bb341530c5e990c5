"""What a person sees: a bar while an epoch runs, a line when it is over."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from tqdm import tqdm

from dlrun.tracking import Quiet

log = logging.getLogger("dlrun")


class Console(logging.StreamHandler):  # type: ignore[type-arg]
    """Lines for people; that nobody reads them any more (`dlrun … | head`) is no reason to stop a training."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


class LogFile(logging.FileHandler):
    """dlrun.log; that the disk is full is said once, and no reason to stop either."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.failed:
            self.failed = True
            print(f"dlrun: {self.baseFilename} couldn't be written: {error}", file=sys.stderr)


class Terminal(Quiet):
    """One tqdm bar per epoch on a terminal, plain lines anywhere else."""

    def __init__(self, epochs: int, show_bar: bool = True, processes: int = 1):
        self.processes = processes  # that share a batch; the bar counts the samples of one
        self.epochs, self.width = epochs, len(str(epochs))
        self.show_bar = show_bar and sys.stderr.isatty()
        self.bar: Any = None
        self.last_postfix = 0.0

    def start_epoch(self, epoch: int, samples: int, done: int) -> Any:
        """The bar of `epoch` (counted from 1), to be told by `update(n)` of every n samples."""
        self.bar = tqdm(
            desc=self._place(epoch),
            total=-(-samples // self.processes),
            initial=done // self.processes,
            unit=" samples" if self.processes == 1 else f" samples in each of {self.processes} processes",
            leave=False,
            dynamic_ncols=True,
            mininterval=0.1,
            disable=not self.show_bar,
        )
        return self.bar

    def step(self, metrics: dict[str, float], step: int) -> None:
        now = time.monotonic()
        if self.bar is not None and self.show_bar and now - self.last_postfix > 0.1:
            self.last_postfix = now
            self.bar.set_postfix_str(_words(metrics, ("train/loss", "train/acc", "lr")), refresh=False)

    def epoch(self, row: dict[str, float | None]) -> None:
        if self.bar is not None:
            self.bar.close()
        known = {key: value for key, value in row.items() if value is not None}
        train, val = (_words(known, (f"{split}/loss", f"{split}/acc")) for split in ("train", "val"))
        parts = [
            self._place(int(known["epoch"])),
            f"train {train}",
            f"val {val}" if val else "",
        ]
        rate = f"{known['samples_per_second']:,.0f} samples/s"
        parts += [f"lr {known['lr']:.2e}", rate, f"data {known['data_wait']:.0%}".replace("%", " %")]
        log.info("  ".join(part for part in parts if part))

    def finish(self, summary: dict[str, Any]) -> None:
        if self.bar is not None:
            self.bar.close()

    def _place(self, epoch: int) -> str:
        # A run whose last epoch was cut off, and that was then extended, has one more.
        return f"epoch {epoch:>{self.width}}/{max(self.epochs, epoch)}"


def _words(metrics: dict[str, float], names: tuple[str, ...]) -> str:
    """`loss 0.5123  acc 98.61 %`; fractions become per cent here and nowhere else."""
    shown = []
    for name in names:
        if name in metrics:
            value, short = metrics[name], name.rpartition("/")[2]
            shown.append(
                f"acc {value:6.2%}".replace("%", " %")
                if short == "acc"
                else f"{short} {value:.4f}"
                if short == "loss"
                else f"{short} {value:.2e}"
            )
    return "  ".join(shown)
