"""How every command that draws a run ends: a picture, the numbers that are in it, and a word of where they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun import reporting
from dlrun.errors import UserError
from dlrun.loading import LoadedRun
from dlrun.runfolder import finite
from dlrun.viz import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERS = 200_000  # in a JSON


def model_name(run: LoadedRun) -> str:
    """With the architecture, of torchvision's and timm's."""
    return " ".join(str(part) for part in (run.config.model.name, run.config.model.options.get("arch")) if part)


def target(out: Path | None, default: Path) -> Path:
    """Where the picture goes. Raises UserError for what isn't a PNG's name in a folder that there is."""
    if out is None:
        return default
    if out.suffix.lower() != ".png":
        raise UserError(f"out: expected a file that ends in .png, got '{out}'")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UserError(f"out: expected a file in a folder that there is, got '{out}'")
    return out


def leave(path: Path, draw: Callable[[], Figure], content: Mapping[str, Any], run: LoadedRun | None = None) -> None:
    """Write the picture and its JSON, and say so. Raises UserError if there is no picture."""
    numbers = path.with_suffix(".json")
    reason = pictures.put(path, draw)
    if reason is not None:
        raise UserError(f"{path.name}: {reason}")
    if run is None:
        reporting.put(numbers, reporting.readable(finite(dict(content))).encode() + b"\n")
    else:
        reporting.write(numbers, run, content)
    for file in (path, numbers):
        print(f"written {os.path.relpath(file)}")


def plain(values: np.ndarray) -> Any:
    """An array for a JSON: six digits of each number, or null where there are too many."""
    if values.size > MOST_NUMBERS:
        return None
    return _short(values.tolist())


def _short(value: Any) -> Any:
    return [_short(v) for v in value] if isinstance(value, list) else float(f"{value:.6g}")
