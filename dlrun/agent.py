"""`wandb agent`: it starts a command for each run of a W&B sweep, and says by the environment which run that is."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlrun.errors import UserError, shortened

log = logging.getLogger("dlrun")

SWEEP, RUN, PARAMETERS = "WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"


def present() -> bool:
    return bool(os.environ.get(SWEEP) and os.environ.get(RUN))


def run_id() -> str | None:
    """The W&B run that the agent waits for; None without an agent. Raises UserError for what can't name a folder."""
    if not present():
        return None
    if re.fullmatch("[A-Za-z0-9_-]{1,64}", name := os.environ[RUN]) is None:
        raise UserError(f"{RUN}: expected letters, digits, - and _ (at most 64), got '{shortened(name)}'")
    return name


def asked_for(name: str) -> bool:
    """Whether the run of that id is the agent's; any other that begins in its environment is no part of its sweep."""
    return present() and os.environ[RUN] == name


def forget() -> None:
    """From here on W&B takes no run for the agent's; it would give each of them the agent's id."""
    for variable in (SWEEP, RUN, PARAMETERS):
        os.environ.pop(variable, None)


def compare(**configured: str | None) -> None:
    """Say so where a sweep belongs to another project or entity than the config's: its runs go where it is."""
    for name, ours in configured.items():
        theirs = os.environ.get(f"WANDB_{name.upper()}")
        if ours and theirs and theirs != ours:
            log.info("W&B     this sweep's %s is %s; tracking.wandb.%s=%s doesn't count", name, theirs, name, ours)


def parameters() -> list[str]:
    """The keys that the sweep chose values for. W&B puts them into the run's config as they are, dots included."""
    import yaml

    try:
        found = yaml.safe_load(Path(os.environ[PARAMETERS]).read_text(encoding="utf-8"))
    except (KeyError, OSError, ValueError, yaml.YAMLError):
        return []
    return [str(key) for key in found if key != "wandb_version"] if isinstance(found, Mapping) else []


def beside_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` so that W&B loses nothing of it: `model: mlp`, a choice of the sweep, would replace the group.

    What such a group holds gets keys with dots, which W&B shows as it shows what is nested.
    """
    apart: dict[str, Any] = dict(config)
    for key in parameters():
        if isinstance(inside := apart.get(key), Mapping):
            del apart[key]
            apart |= {f"{key}.{name}": value for name, value in inside.items()}
    return apart


def leave(exit_code: int) -> None:
    """End the process; after SIGTERM and under an agent as one that doesn't know that signal: a shell sees 143, too.

    The agent stops runs that look hopeless with SIGTERM; an exit code above 0 it counts as a failure, and after five of
    them (wandb 0.31: `Agent.is_failing`) it ends itself.
    """
    if exit_code == 128 + signal.SIGTERM and present():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    os._exit(exit_code)
