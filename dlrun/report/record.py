"""What the folder of a run says, as far as it can be read: what is damaged is named and left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dlrun import history
from dlrun.errors import UserError, printable
from dlrun.history import History, better_end
from dlrun.locks import is_held
from dlrun.runfolder import RunFolder

LARGEST = 50_000_000  # bytes of a JSON that is read: none of ours comes near
HEADER = 300  # bytes of a metrics.csv, below which it may be one that has no rows yet
SPLITS = ("test", "val", "train")


@dataclass
class Record:
    """Of one run. What isn't there is empty, whatever its kind."""

    folder: RunFolder
    summary: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)
    damaged: list[str] = field(default_factory=list)  # what couldn't be read, and why
    asked: list[str] = field(default_factory=list)  # JSONs that were read since somebody emptied it

    @property
    def status(self) -> str:
        """That of its summary; `interrupted` of one that says it runs while no process does."""
        return status_of(self.summary, self.folder)

    @property
    def title(self) -> str:
        """What was trained on what."""
        names = [self.part("choices").get(group) or self.group(group).get("name") for group in ("model", "data")]
        return " on ".join(str(name) for name in names if name) or f"run {self.run_id}"

    @property
    def run_id(self) -> str:
        return str(self.summary.get("run_id") or self.folder.path.resolve().name)

    def part(self, name: str) -> Mapping[str, Any]:
        """What the summary has under a name, if that is a mapping."""
        return mapping(self.summary.get(name))

    def group(self, name: str) -> Mapping[str, Any]:
        """A group of the config."""
        return mapping(self.config.get(name))

    @property
    def monitor(self) -> str:
        return str(self.group("trainer").get("monitor") or "val/acc")

    @property
    def mode(self) -> Literal["min", "max"]:
        """Which end of the monitored metric is the better, as the trainer takes it."""
        return better_end(self.monitor, self.group("trainer").get("mode"))

    def best_row(self) -> int | None:
        """The row of the history with the epoch whose checkpoint is the best: the summary knows, once it is told."""
        epoch = self.part("best").get("epoch")
        if epoch in self.history.epochs:
            return self.history.epochs.index(epoch)
        return self.history.best(self.monitor, self.mode)

    def json(self, *place: str) -> Mapping[str, Any]:
        """A JSON of the folder; empty if there is none, and noted if it is damaged."""
        found = read_json(self.folder.path.joinpath(*place), self.damaged, self.folder.path)
        self.asked += ["/".join(place)] if found else []
        return found

    def jsons(self, *place: str) -> dict[str, Mapping[str, Any]]:
        """All of a folder that can be read, by their names without .json."""
        found = sorted(self.folder.path.joinpath(*place).glob("*.json"))
        return {path.stem: content for path in found if (content := read_json(path, self.damaged, self.folder.path))}

    def evaluation(self) -> Mapping[str, Any]:
        """What `dlrun eval` left of the best checkpoint on the run's own data: of the test split, else of another."""
        return next((found for split in SPLITS if (found := self.json("eval", f"{split}-best.json"))), {})


def status_of(summary: Mapping[str, Any], folder: RunFolder) -> str:
    """That of a run's summary; `interrupted` of one that says it runs while no process does, `unknown` without one."""
    found = summary.get("status")
    if not isinstance(found, str) or not found:
        return "unknown"
    return "interrupted" if found == "running" and not is_held(folder.lock) else found


def read(path: Path) -> Record:
    """The run in `path`. Raises UserError if there is nothing of a run in it."""
    folder = RunFolder(path)
    record = Record(folder, history=history.read(folder.metrics))
    if not any(file.exists() for file in (folder.summary, folder.config, folder.metrics)):
        raise UserError(f"run: no run in {path}: it has no summary.json")
    record.summary = record.json("summary.json")
    if not folder.summary.exists():
        record.damaged.append("summary.json: is missing")
    try:
        record.config = folder.read_config()
    except (UserError, RecursionError) as error:
        record.damaged.append(f"config.yaml: {said(error)}" if folder.config.exists() else "config.yaml: is missing")
    if not len(record.history) and is_unreadable(folder.metrics):
        record.damaged.append("metrics.csv: has no row that can be read")
    return record


def is_unreadable(metrics: Path) -> bool:
    """Of a metrics.csv without rows: whether there is more in it than the header of one that has none yet."""
    try:
        return metrics.stat().st_size > HEADER
    except OSError:
        return False


def read_json(path: Path, damaged: list[str], top: Path) -> Mapping[str, Any]:
    """The mapping in a file; empty if there is none. What is wrong with it goes into `damaged`."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"larger than {LARGEST // 1_000_000} MB")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, Mapping):
            raise ValueError(f"expected a mapping, got {type(content).__name__}")
        return content
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        note = f"{path.relative_to(top)}: {said(error)}"
        if note not in damaged:
            damaged.append(note)
        return {}


def said(error: BaseException) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return printable(" ".join((reason or str(error) or type(error).__name__).split()))


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is one, else an empty one."""
    return value if isinstance(value, Mapping) else {}
