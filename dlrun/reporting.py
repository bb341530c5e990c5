"""What a command leaves of its work: a JSON in the run's folder, and a word to the run's trackers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dlrun.atomic import atomic_write
from dlrun.errors import UserError
from dlrun.loading import LoadedRun
from dlrun.runfolder import finite, versions
from dlrun.trackers import tell_afterwards
from dlrun.tracking import Predictions

LONGEST = 160  # characters of a line of JSON, but for rows of numbers


def write(path: Path, run: LoadedRun | None, content: Mapping[str, Any]) -> None:
    """`content` as JSON, with what it is of: the file is whole or it isn't there. Raises UserError if it can't be."""
    origin: dict[str, Any] = {"format": 1}
    if run is not None:
        origin |= {"run_id": run.run_id, "checkpoint": run.checkpoint.stem, "epoch": run.progress.get("epoch")}
    origin["command"] = ["dlrun", *sys.argv[1:]]
    origin["time"] = datetime.now().astimezone().isoformat(timespec="seconds")
    if run is not None:
        origin |= {"device": run.device.type, "versions": versions()}
    text = readable(finite({**origin, **content}))
    put(path, text.encode(errors="backslashreplace") + b"\n")  # names of files may have bytes that aren't UTF-8


def readable(value: Any, indent: str = "") -> str:
    """JSON for people: on one line what is short and holds no further lists or mappings, and a matrix's rows."""
    line = json.dumps(value, ensure_ascii=False)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    if not any(isinstance(item, dict | list | tuple) for item in items) and (
        not items
        or len(line) <= LONGEST
        or (isinstance(value, list) and all(isinstance(v, int | float) for v in value))
    ):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(str(key), ensure_ascii=False)}: {readable(v, inner)}" for key, v in value.items()]
    else:
        lines = [inner + readable(item, inner) for item in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return first + "\n" + ",\n".join(lines) + f"\n{indent}{last}"


def put(path: Path, content: bytes) -> None:
    """A file in the run's folder, whole or not there. Raises UserError if it can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"can't write {path} ({error.strerror})") from error


def tell(
    run: LoadedRun,
    values: Mapping[str, float],
    predictions: Predictions | None = None,
    plots: Sequence[Path] = (),
) -> None:
    """What a command found out about the run, and pictures that it drew, to the run's own trackers.

    See `trackers.tell_afterwards`: it takes a second, and nothing is raised.
    """
    step = run.progress["step"]
    tell_afterwards(run.folder, run.config.tracking, step=step, values=values, predictions=predictions, plots=plots)
