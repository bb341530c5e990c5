"""metrics.csv: a row per epoch, in the file as soon as the epoch is over."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrun.atomic import atomic_write
from dlrun.tracking import Quiet

log = logging.getLogger("dlrun")


class MetricsFile(Quiet):
    """Appends rows; the first row's keys are the header. Rows that a full disk refuses are kept for the next time."""

    def __init__(self, path: Path):
        self.path = path
        self.waiting: list[Mapping[str, Any]] = []

    def rewind(self, epoch: int, step: int, rollbacks: int) -> None:
        """Drop the rows after `epoch`, and one that was cut off in the middle."""
        self.waiting = [row for row in self.waiting if row["epoch"] <= epoch]
        if not self.path.exists():
            if epoch:
                log.warning("%s is missing, with the rows of %d epochs", self.path.name, epoch)
            return
        try:
            header, rows = self._read()
        except (ValueError, csv.Error) as error:
            aside = self.path.replace(self.path.with_suffix(".damaged"))
            log.error("%s can't be read (%s); it is now %s, and a new one begins", self.path.name, error, aside.name)
            return
        kept = [
            row for row in rows if row["epoch"].isdecimal() and int(row["epoch"]) <= epoch and None not in row.values()
        ]
        if len(kept) < epoch:
            log.warning("%s has %d of the %d rows that it had", self.path.name, len(kept), epoch)
        self._replace(header, kept)

    def epoch(self, row: dict[str, float | None]) -> None:
        self.waiting.append({key: format(v, ".6g") if isinstance(v, float) else v for key, v in row.items()})
        self._write()

    def finish(self, summary: dict[str, Any]) -> None:
        if self.waiting:
            self._write()

    def _write(self) -> None:
        try:
            header = list(self.waiting[-1])
            size = self.path.stat().st_size if self.path.exists() else 0
            if size and (known := self._read())[0] != header:  # a resumed run may note more than it did
                self._replace(header, [*known[1], *self.waiting])
            else:
                self._append(_lines(header, self.waiting, with_header=size == 0), size)
            self.waiting = []
        except OSError as error:
            log.error("%s couldn't be written: %s; its rows are kept for the next time", self.path, error)

    def _append(self, text: str, size: int) -> None:
        rest = memoryview(text.encode())
        with self.path.open("ab", buffering=0) as file:  # a buffer would write its half row after all, in closing
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(size)  # no half rows
                raise

    def _read(self) -> tuple[list[str], list[dict[str, Any]]]:
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            return list(reader.fieldnames or []), rows

    def _replace(self, header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        with atomic_write(self.path) as file:
            file.write(_lines(header, rows, with_header=True).encode())


def _lines(header: Sequence[str], rows: Sequence[Mapping[str, Any]], with_header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=header, lineterminator="\n", extrasaction="ignore")
    if with_header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
