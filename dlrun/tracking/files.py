"""metrics.csv: a row per epoch, on disk as soon as the epoch is over."""

from __future__ import annotations

import csv
from pathlib import Path

from dlrun.tracking import Quiet


class MetricsFile(Quiet):
    """Appends rows; the first row's keys are the header."""

    def __init__(self, path: Path):
        self.path = path

    def epoch(self, row: dict[str, float | None]) -> None:
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow({key: format(v, ".6g") if isinstance(v, float) else v for key, v in row.items()})
