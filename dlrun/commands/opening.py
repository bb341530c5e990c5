"""How every command on a trained run begins: its words, and the run that they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from dlrun.loading import Checkpoint, LoadedRun, load_run, overridable
from dlrun.logs import configure_terminal
from dlrun.machine import settle
from dlrun.options import read, run_named


class HasCheckpoint(Protocol):
    @property
    def checkpoint(self) -> Checkpoint: ...


Options = TypeVar("Options", bound=HasCheckpoint)


def opened(
    words: Sequence[str], cls: type[Options], command: str, more: Callable[[str], bool] = overridable
) -> tuple[LoadedRun, Options, list[str]]:
    """The run of `run=…` on the machine as its config wants it, the command's options, and the words for the config.

    `cls` is a dataclass of the options, as `options.read` takes it; one of them is `checkpoint`. `more` says which
    config keys the command takes; those that a run isn't loaded with are the command's own business. Raises UserError.
    """
    configure_terminal()
    name, rest = run_named(words, command)
    options, overrides = read(rest, cls, command, more)
    mine = [word for word in overrides if overridable(word.partition("=")[0])]
    run = load_run(name, options.checkpoint, mine)
    settle(run.device.type, run.config.trainer.num_threads)
    return run, options, overrides
