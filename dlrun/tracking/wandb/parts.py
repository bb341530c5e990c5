"""What W&B leaves on disk: a folder per part of a run, in each a file of all that was told.

`wandb` (0.31) has no reader in Python. A `.wandb` file is a LevelDB log of protobuf records after seven bytes of its
own: blocks of 32 KiB, in them pieces of records, each behind a header of checksum, length and kind
(github.com/google/leveldb, doc/log_format.md).
"""

from __future__ import annotations

import json
import os
import shlex
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

PREAMBLE, BLOCK = 7, 32 * 1024
HEADER = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
BEGUN = "%Y%m%d_%H%M%S"


@dataclass(frozen=True)
class Part:
    """What one process, or one attempt at being online, has told of a run."""

    file: Path

    @property
    def offline(self) -> bool:
        return self.file.parent.name.startswith("offline-")

    @property
    def begun(self) -> str:
        """When, as W&B has it in the folder's name: to the second."""
        return self.file.parent.name.removeprefix("offline-").split("-")[1]

    @property
    def age(self) -> float:
        """Seconds since something was written to it."""
        return time.time() - self.file.stat().st_mtime

    @property
    def uploaded(self) -> bool:
        return self._mark.exists()

    def mark_uploaded(self) -> None:
        """As `wandb sync` does it, which then leaves the part out; W&B itself doesn't mark what was online."""
        self._mark.touch()

    @property
    def _mark(self) -> Path:
        return self.file.with_name(self.file.name + ".synced")

    @property
    def tells_something(self) -> bool:
        """An attempt at being online that failed leaves a file that doesn't."""
        return any(record.HasField("history") or record.HasField("exit") for record, _ in records(self.file))

    @property
    def ended(self) -> bool:
        return any(record.HasField("exit") for record, _ in records(self.file))

    def rows(self) -> dict[int, Any]:
        """Undecoded, under their `_step`. What a killed process has half written is cut off: for W&B it is an error."""
        found, whole = {}, PREAMBLE
        for record, whole in records(self.file):  # noqa: B007
            if record.HasField("history"):
                found[record.history.step.num] = record.history
        if self.file.stat().st_size > whole:
            os.truncate(self.file, whole)
        return found


def parts(folder: Path, run_id: str) -> list[Part]:
    """All parts of a run, the oldest first."""
    files = [file for start in ("", "offline-") for file in folder.glob(f"wandb/{start}run-*-{run_id}/*.wandb")]
    return [Part(file) for file in sorted(files, key=lambda file: file.parent.name.removeprefix("offline-"))]


def upload_command(parts: Sequence[Part]) -> str:
    """Uploads what isn't there yet; W&B joins the parts, and leaves out what was begun online if not told otherwise."""
    # The last one is being written; what it tells may not be in its file yet.
    waiting = [part for part in parts if not part.uploaded and (part is parts[-1] or part.tells_something)]
    option = ["--include-online"] if any(not part.offline for part in waiting) else []
    return shlex.join(["wandb", "sync", *option, *(os.path.relpath(part.file.parent) for part in waiting)])


def numbers(history: Any) -> dict[str, Any]:
    """A row as it was logged, as far as it is numbers; W&B's own (`_step`, `_runtime`, a picture's width) left out."""
    flat = [item for item in history.item if len(item.nested_key) < 2]
    row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in flat}
    return {name: value for name, value in row.items() if isinstance(value, int | float) and not name.startswith("_")}


def records(file: Path) -> Iterator[tuple[Any, int]]:
    """Each record that is whole, and where it ends."""
    protobuf: Any = import_module("wandb.proto.wandb_internal_pb2")  # its types are made when it is imported
    data, position, pieces = file.read_bytes(), PREAMBLE, b""
    while position + HEADER.size <= len(data):
        if (room := BLOCK - position % BLOCK) < HEADER.size:
            position += room  # no header fits into the rest of a block
            continue
        _, length, kind = HEADER.unpack_from(data, position)
        begin, position = position + HEADER.size, position + HEADER.size + length
        if position > len(data) or kind not in (FULL, FIRST, MIDDLE, LAST):
            return
        pieces = data[begin:position] if kind in (FULL, FIRST) else pieces + data[begin:position]
        if kind in (FULL, LAST):
            yield protobuf.Record.FromString(pieces), position
