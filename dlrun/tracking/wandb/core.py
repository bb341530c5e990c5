"""wandb-core, the process that writes and uploads for W&B, and that W&B only ever ends with the server's consent."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import Any


def core() -> Any:
    """Its Popen; None when there is none, or when someone else has started it (WANDB_SERVICE)."""
    from wandb.sdk import wandb_setup

    try:
        return wandb_setup._singleton._connection._proc._process  # type: ignore[union-attr]
    except AttributeError:
        return None


def core_is_dead() -> bool:
    if (process := core()) is None:
        return False
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.05)  # its connection ends a moment before it does
    return process.returncode is not None


def kill_core() -> None:
    if (process := core()) is not None:
        process.kill()
        process.wait()
