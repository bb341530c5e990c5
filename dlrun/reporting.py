"""What a command leaves of its work: a JSON in the run's folder, and a word to the run's trackers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from dlrun.atomic import atomic_write
from dlrun.errors import UserError
from dlrun.loading import LoadedRun
from dlrun.runfolder import finite, versions


def write(path: Path, run: LoadedRun, content: Mapping[str, Any]) -> None:
    """`content` as JSON, with what it is of: the file is whole or it isn't there. Raises UserError if it can't be."""
    origin = {
        "format": 1,
        "run_id": run.run_id,
        "checkpoint": run.checkpoint.stem,
        "epoch": run.progress.get("epoch"),
        "command": ["dlrun", *sys.argv[1:]],
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": run.device.type,
        "versions": versions(),
    }
    text = json.dumps(finite({**origin, **content}), indent=2, ensure_ascii=False)
    put(path, text.encode() + b"\n")


def put(path: Path, content: bytes) -> None:
    """A file in the run's folder, whole or not there. Raises UserError if it can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"can't write {path} ({error.strerror})") from error
