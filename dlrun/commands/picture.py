"""How every command that draws ends: a picture, a JSON with the numbers in it, and a word of where they are."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun import reporting
from dlrun.errors import UserError
from dlrun.viz import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlrun.loading import LoadedRun

log = logging.getLogger("dlrun")

MOST_NUMBERS = 200_000  # in a JSON
HERE = Path("plots")  # of what isn't of a run


def model_name(run: LoadedRun) -> str:
    """With the architecture, of torchvision's and timm's."""
    return " ".join(str(part) for part in (run.config.model.name, run.config.model.options.get("arch")) if part)


def place(out: Path | None, default: Path) -> Path:
    """Where the picture goes. Raises UserError for a name that is no PNG's."""
    path = out or default
    if path.suffix.lower() != ".png" or path.is_dir():
        raise UserError(f"out: expected a file that ends in .png, got '{path}'")
    return path


def leave(path: Path, draw: Callable[[], Figure], content: Mapping[str, Any], run: LoadedRun | None = None) -> int:
    """Write both and say so; returns the exit code, 1 if the picture couldn't be drawn."""
    numbers = path.with_suffix(".json")
    why = pictures.put(path, draw)
    reporting.write(numbers, run, content)
    for written in (path, numbers)[why is not None :]:
        print(f"written {os.path.relpath(written)}")
    if why is not None:
        log.error("no picture: %s", why)
    return 0 if why is None else 1


def plain(values: np.ndarray) -> Any:
    """An array for a JSON: six digits of each number, or null where there are too many."""
    if values.size > MOST_NUMBERS:
        return None
    return _short(values.tolist())


def _short(value: Any) -> Any:
    return [_short(v) for v in value] if isinstance(value, list) else float(f"{value:.6g}")
