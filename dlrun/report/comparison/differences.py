"""The config keys in which runs differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlrun.identity import matters

NEVER = ("tags", "notes", "tracking")  # a sweep's jobs all differ in their tags: those are its words again


@dataclass(frozen=True)
class Difference:
    """One key that isn't the same in all runs."""

    key: str
    implied: bool  # a choice of its group says it already: the CNN's channels, where one run is an MLP

    @property
    def title(self) -> str:
        """As it is chosen on the command line: `model`, not `model.name`."""
        return self.key.removesuffix(".name")


def differences(configs: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Keys with at least two values, one of which may be that it isn't there; in the order of the configs.

    `configs` are flat. What is chosen comes first, then what it is told, and the seed at last.
    """
    keys = list(dict.fromkeys(key for config in configs for key in config))
    known = [key for key in keys if not any(key == never or key.startswith(f"{never}.") for never in NEVER)]
    differing = [key for key in known if len({word(config, key) for config in configs}) > 1]
    found = [Difference(key, not matters(key) or _is_implied(configs, key)) for key in differing]
    return sorted(found, key=lambda d: (d.key == "seed", not d.key.endswith(".name")))


def _is_implied(configs: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether runs with the same choice in the key's group have the same value of the key."""
    group, dot, last = key.partition(".")
    choice = f"{group}.name"
    if not dot or last == "name" or not any(choice in config for config in configs):
        return False
    values: dict[str, set[str]] = {}
    for config in configs:
        values.setdefault(word(config, choice), set()).add(word(config, key))
    return len(values) > 1 and all(len(found) == 1 for found in values.values())


def word(config: Mapping[str, Any], key: str) -> str:
    """The value, as something that can be compared: 1 and 1.0 are the same, 1 and true, null and nothing aren't."""
    if key not in config:
        return ""
    value = config[key]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, default=str)
