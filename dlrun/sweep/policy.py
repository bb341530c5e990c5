"""The `sweep` node of the config: what all jobs of a sweep share, and no run has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import DictConfig, OmegaConf

from dlrun.errors import UserError
from dlrun.registry import Count, check_options


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What is done about jobs that fail, how closely all are looked at before, and what they are added to."""

    on_error: Literal["continue", "stop", "retry"] = "continue"
    max_retries: Count = 2
    check: Literal["config", "build", "batch"] = "build"
    extend: str | None = None


def policy(cfg: DictConfig) -> Policy:
    """Raises UserError for an unknown key or a wrong value."""
    options = OmegaConf.to_container(cfg.sweep, resolve=True) if "sweep" in cfg else {}
    if not isinstance(options, dict):
        raise UserError(f"sweep: expected a group of options, got {options!r}")
    given = {str(name): value for name, value in options.items()}
    check_options(Policy, given, "sweep")
    return Policy(**given)
