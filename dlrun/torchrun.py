"""What torchrun tells each process that it starts, by its environment. Imports no torch."""

from __future__ import annotations

import os

from dlrun.errors import UserError


def world_size() -> int:
    """Number of processes of this training, as torchrun tells it."""
    return number("WORLD_SIZE", 1)


def local_size() -> int:
    """How many of them share this machine."""
    return number("LOCAL_WORLD_SIZE", 1)


def follows() -> bool:
    """Whether this is a process that rank 0 speaks for."""
    return world_size() > 1 and number("RANK", 0) > 0


def refuse_several(command: str) -> None:
    """For what several processes would do several times; say so rather than do it."""
    if world_size() > 1:
        raise UserError(f"{command}: runs in one process, and torchrun started {world_size()}; start it without")


def number(name: str, default: int) -> int:
    given = os.environ.get(name, str(default))
    if not given.isdecimal():
        raise UserError(f"{name}: expected a whole number, as torchrun sets it, got {given!r}")
    return int(given)
