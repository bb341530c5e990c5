"""Every path inside one run, and the summary that tells how it went."""

from __future__ import annotations

import json
import os
import platform
import secrets
import string
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from dlrun import __version__
from dlrun.atomic import atomic_write
from dlrun.errors import UserError

FORMAT = 1  # of summary.json


class RunFolder:
    """The folder of one run. `RunFolder(path)` only names the paths; `claim` makes it this process's own."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.log = path / "dlrun.log"
        self.metrics = path / "metrics.csv"
        self.summary = path / "summary.json"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.pt"
        self.last = self.checkpoints / "last.pt"

    def claim(self, run_id: str) -> None:
        """Begin the summary, once: a folder that already holds a run is refused."""
        try:
            with self.summary.open("x") as file:
                json.dump({"format": FORMAT, "run_id": run_id, "status": "running"}, file)
        except FileExistsError:
            raise UserError(f"hydra.run.dir: {self.path} already holds a run; choose another folder") from None
        self.checkpoints.mkdir(exist_ok=True)

    def update_summary(self, **changes: Any) -> dict[str, Any]:
        """Replace `changes` in summary.json, atomically; returns the whole of it."""
        summary = self.read_summary() | changes
        with atomic_write(self.summary) as file:
            file.write(json.dumps(_finite(summary), indent=2, ensure_ascii=False).encode() + b"\n")
        return summary

    def read_summary(self) -> dict[str, Any]:
        return dict(json.loads(self.summary.read_text(encoding="utf-8")))


def new_run_id() -> str:
    """Eight random characters, as W&B's own ids have: one in 2.8 million million."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def _finite(value: Any) -> Any:
    """JSON has no NaN: what isn't finite becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def versions() -> dict[str, str]:
    """What a result depends on beside the config; asks for metadata, imports nothing."""
    found = {"dlrun": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in ("torch", "torchvision", "hydra-core", "albumentations", "numpy", "wandb"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit and uncommitted changes of the working directory; None where there is no repository."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None
