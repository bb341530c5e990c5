"""A run's own config with other words in it: what a later command may change, and what it may not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlrun.compose import parse_overrides
from dlrun.config import MAY_CHANGE, may_change
from dlrun.errors import UserError, choices

RESUMING = (
    "can't change in the middle of a run{near}; dlrun resume --help lists what can, and init_from=DIR begins a new run "
    "with its weights"
)


def changed(
    config: Mapping[str, Any],
    overrides: Sequence[str],
    command: str = "resume",
    allowed: Callable[[str], bool] = may_change,
    refusal: str = RESUMING,
) -> dict[str, Any]:
    """`config` with `overrides` in it. Raises UserError for what isn't `allowed`: the key, and then `refusal`."""
    new = copy.deepcopy(dict(config))
    for override in parse_overrides(overrides):
        key, word, value = override.key_or_group, override.input_line, override.value()
        if key == "tracking" and value in (None, "none"):
            new["tracking"] = {}
            continue
        if override.is_delete() or override.is_add() or override.is_sweep_override() or override.package is not None:
            raise UserError(f"{command}: '{word}' isn't KEY=VALUE")
        *groups, name = key.split(".")
        place: Any = new
        for group in groups:
            place = place.get(group)
            if not isinstance(place, dict):
                raise UserError(f"{key}: this run has no {group}")
        if not allowed(key) and not (name in place and place[name] == value):
            near = choices(key, MAY_CHANGE).partition(" (choose")[0] if groups else ""
            raise UserError(f"{key}: {refusal.format(near=near)}")
        place[name] = value
    return new


def check_plugins(config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """A folder may come from a stranger, and plugins are code: they need the word of who runs them."""
    plugins = config.get("plugins")
    if plugins and not any(word.startswith("plugins=") for word in overrides):
        names = ",".join(map(str, plugins))
        raise UserError(
            f"plugins: this run imports Python modules of yours or of whoever made the folder; if you trust them, "
            f"say so: plugins=[{names}]"
        )


def check_frozen_plugins(config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """As `check_plugins`, for a config that the overrides don't change: they have to name all that it imports."""
    given: list[Any] = [o.value() for o in parse_overrides([word for word in overrides if word.startswith("plugins=")])]
    named = {str(name) for value in given if isinstance(value, list) for name in value}
    if not named.issuperset(map(str, config.get("plugins") or ())):
        check_plugins(config, ())
