"""The user's own code: modules that register models, datasets, optimizers, … when they are imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from dlrun.errors import StopSignal, UserError


def load_plugins(names: Sequence[str]) -> None:
    """Import the user's modules, and those that installed packages offer under the entry point `dlrun.plugins`."""
    # As with `python script.py`, what lies in the working directory can be imported.
    if names and "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for name in names:
        try:
            importlib.import_module(name)
        except StopSignal:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(f"plugins: can't import '{name}': {_one_line(error)}") from error
    for entry in metadata.entry_points(group="dlrun.plugins"):
        try:
            entry.load()
        except StopSignal:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(f"plugins: entry point '{entry.name}': {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
