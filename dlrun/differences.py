"""What a run's config says otherwise than the defaults: what a reader of it wants to know first.

The defaults are what the chosen names come to without any value said, and without a recipe (experiment, debug), so that
what a recipe says counts as said. Of a choice among names, the default is the one of config.yaml, or what the chosen
model or data set puts in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlrun.errors import shortened
from dlrun.wording import value_text

RECIPES = ("experiment", "debug")
BRINGS_OTHERS = ("model", "data")  # groups whose files choose from other groups, too: an augmentation that fits


@dataclass(frozen=True)
class Defaults:
    """The config that the chosen names alone come to, flat; and the names that nobody had to choose."""

    values: Mapping[str, Any]
    choices: Mapping[str, Any]


def flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """`{"optimizer.lr": 0.001, …}`: a list is a value, and an empty mapping says nothing."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


def changed(config: Mapping[str, Any], choices: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """What differs → what it would be: groups by their name first, then keys of the config in its order.

    A key that only this config has differs from null.
    """
    groups = {
        group: defaults.choices.get(group)
        for group, choice in sorted(own(choices).items())
        if choice != defaults.choices.get(group)
    }
    values = flat(config)
    return groups | {key: defaults.values.get(key) for key, v in values.items() if _differs(v, key, defaults.values)}


def _differs(value: Any, key: str, values: Mapping[str, Any]) -> bool:
    return (value is not None) if key not in values else (value != values[key] or type(value) is not type(values[key]))


def changed_since(already: Mapping[str, Any], before: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """`changed` of a run that goes on with `config` instead of `before`."""
    old, new = flat(before), flat(config)
    defaults = {key: already.get(key, old.get(key)) for key in new}
    differing = {key for key in new if (key in already or new[key] != old.get(key)) and new[key] != defaults[key]}
    kept = [key for key in already if key in differing or key not in new]  # groups, too
    return {key: already[key] for key in kept} | {
        key: defaults[key] for key in new if key in differing and key not in already
    }


def words(choices: Mapping[str, Any]) -> list[str]:
    """The words of a command line that choose the same names, recipes apart."""
    return [f"{group}={name(choice)}" for group, choice in own(choices).items() if group not in RECIPES]


def chosen_words(config: Mapping[str, Any], choices: Mapping[str, Any], differs: Mapping[str, Any] | None) -> list[str]:
    """Model and data, then whatever differs from the defaults, as it would be typed; all names if nobody knows that."""
    names = {group: choice for group, choice in own(choices).items() if choice is not None}
    first = [f"{group}={name(names.pop(group))}" for group in BRINGS_OTHERS if group in names]
    if differs is None:
        return [*first, *(f"{group}={name(choice)}" for group, choice in sorted(names.items()))]
    values = flat(config)
    said = [f"{group}={name(names[group])}" for group in differs if group in names]
    return [*first, *said, *(f"{key}={shortened(value_text(values[key]), 60)}" for key in differs if key in values)]


def name(choice: Any) -> str:
    """A choice as it is typed."""
    if choice is None:
        return "null"
    return choice if isinstance(choice, str) else "[" + ",".join(map(str, choice)) + "]"


def own(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are about the run, not about Hydra."""
    return {group: choice for group, choice in choices.items() if "/" not in group and "@" not in group}
