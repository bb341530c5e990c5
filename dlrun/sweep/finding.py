"""Which sweep is meant by `run=…`."""

from __future__ import annotations

from pathlib import Path

from dlrun.errors import UserError
from dlrun.runs import find as find_folder
from dlrun.sweep.folder import SweepFolder

TOP = "multirun"  # where `last` looks


def find(name: str) -> SweepFolder:
    """The sweep that `name` is the folder of, or the one begun last for `last`. Raises UserError."""
    if name == "last":
        found = [path.parent for path in Path(TOP).glob("**/sweep.json")]
        if not found:
            raise UserError(f"run=last: there is no sweep in {TOP}")
        return max(map(SweepFolder, found), key=lambda sweep: str(sweep.read().get("created")))
    sweep = SweepFolder(find_folder(name))
    sweep.read()
    return sweep
