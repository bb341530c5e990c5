"""Which run folder is meant by `run=…`."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from dlrun.errors import UserError, choices
from dlrun.runfolder import RunFolder

TOPS = ("outputs", "multirun")  # where `last` looks


def find(name: str) -> Path:
    """The run folder that `name` is, or that `last` stands for: the one that was begun last. Raises UserError."""
    if name != "last":
        path = Path(os.path.expanduser(name))  # the shell doesn't, after an equals sign
        if not os.path.isdir(path):  # where Path.is_dir raises, for a name that is too long, this is False
            if os.path.exists(path):
                raise UserError(f"run: {name} is a file; give the run's folder")
            siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if os.path.isdir(path.parent) else []
            raise UserError(f"run: no folder '{name}'{choices(path.name, siblings).partition(' (choose')[0]}")
        return path
    found = [path.parent for top in TOPS for path in Path(top).glob("**/summary.json")]
    if not found:
        raise UserError(f"run=last: there is no run in {' or '.join(TOPS)}")
    return max(found, key=_begun)


def refuse_sweep(path: Path, verb: str) -> None:
    """Raise UserError if the folder is of a sweep, which has runs in it but is none."""
    if ((path / "multirun.yaml").exists() or (path / "sweep.json").exists()) and not RunFolder(path).summary.exists():
        jobs = sorted(job.parent.name for job in path.glob("*/summary.json"))
        raise UserError(f"run: {path} is a sweep; {verb} one of its jobs, run={path}/… ({', '.join(jobs)})")


def _begun(path: Path) -> float:
    try:
        return datetime.fromisoformat(RunFolder(path).read_summary()["started"]).timestamp()
    except (UserError, KeyError, TypeError, ValueError):
        return 0.0
