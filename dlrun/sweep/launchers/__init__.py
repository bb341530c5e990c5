"""Launchers: who runs the jobs of a sweep, how many at a time, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dlrun.errors import UserError, choices
from dlrun.registry import check_options
from dlrun.sweep.folder import FrozenJob, SweepFolder

OURS = ("local",)
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # Hydra's own name for one after the other


@dataclass(frozen=True)
class Ended:
    """A job that runs no longer."""

    number: int
    code: int | None  # as subprocess has it: a negative one is a signal; None if nobody knows
    message: str = ""  # of whoever ran it


class Launcher(Protocol):
    """Runs jobs; each at once, or as soon as it can."""

    slots: int  # how many at a time
    elsewhere: bool  # whether on another machine

    def start(self, job: FrozenJob) -> None:
        """Take a job. Raises UserError if it can't be run at all."""

    def wait(self, seconds: float) -> list[Ended]:
        """The jobs that have ended since it was last asked: as soon as one has, or none after `seconds`."""

    def withdraw(self) -> None:
        """Take back the jobs that haven't begun, where they are queued somewhere; they are among those that ended."""

    def stop(self) -> None:
        """Ask all jobs to save and end; told again, end them."""

    def close(self) -> None:
        """Leave nothing behind."""


def build(node: Mapping[str, Any], folder: SweepFolder, known: Sequence[FrozenJob] | None = None) -> Launcher:
    """The launcher that `hydra.launcher` describes, for `folder`, or for the jobs that are `known` before it is made.

    Raises UserError for what can't be honoured.
    """
    target = str(node.get("_target_", ""))
    if target.startswith("hydra_plugins.hydra_submitit_launcher."):
        from dlrun.sweep.launchers import submitit

        return submitit.build(node, folder)
    if target == BASIC:
        from dlrun.sweep.launchers.inprocess import InProcess

        check_options(InProcess, {name: value for name, value in node.items() if name != "_target_"}, "hydra.launcher")
        return InProcess(folder)
    if target:
        from dlrun.sweep.launchers import plugin

        return plugin.build(node, folder)
    options = {str(name): value for name, value in node.items() if name != "name"}
    if node.get("name") == "local":
        from dlrun.sweep.launchers.local import Local

        check_options(Local, options, "hydra.launcher")
        return Local(folder, known, **options)
    raise UserError(f"hydra/launcher: unknown launcher '{node.get('name')}'{choices(str(node.get('name')), OURS)}")
