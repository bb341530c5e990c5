"""What a command leaves that has no run folder to put it into: a picture, and a JSON with its numbers beside it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun import reporting
from dlrun.errors import UserError
from dlrun.runfolder import finite
from dlrun.viz import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("dlrun")


def place(out: Path | None, name: str) -> Path:
    """Where the picture goes: `out`, or plots/NAME.png. Raises UserError for a name that is no picture's."""
    path = out or Path("plots") / f"{name}.png"
    if path.suffix.lower() != ".png" or path.is_dir():
        raise UserError(f"out: expected the name of a .png file, got '{path}'")
    return path


def leave(path: Path, draw: Callable[[], Figure], content: Mapping[str, Any]) -> int:
    """Write both and say so; returns the exit code, 1 if the picture couldn't be drawn."""
    why = pictures.put(path, draw)
    origin = {
        "format": 1,
        "command": ["dlrun", *sys.argv[1:]],
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    numbers = path.with_suffix(".json")
    text = reporting.readable(finite({**origin, **content}))
    reporting.put(numbers, text.encode(errors="backslashreplace") + b"\n")
    for written in (path, numbers)[why is not None :]:
        print(f"written {os.path.relpath(written)}")
    if why is not None:
        log.error("no picture: %s", why)
    return 0 if why is None else 1
