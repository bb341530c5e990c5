"""What makes two jobs the same run: their configs, less what leaves a result what it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

# Where it is told, how it is watched, and who does the work.
BESIDE = {
    *("tracking", "tags", "notes", "plots", "device"),
    *("data.num_workers", "data.cache"),
    *(f"trainer.{name}" for name in ("num_threads", "profile", "enable_progress_bar", "log_every_n_steps")),
    *(f"trainer.{name}" for name in ("checkpoint_every", "checkpoint_every_n_steps")),
}


def key(config: Mapping[str, Any], swept: Iterable[str] = ()) -> str:
    """Sixteen hex digits of a digest of `config`; what is swept over matters, whatever it is."""
    asked = set(swept)
    beside = {name for name in BESIDE if not any(s == name or s.startswith(f"{name}.") for s in asked)}
    text = json.dumps(_without(config, beside), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def matters(name: str) -> bool:
    """Whether two jobs that differ in the key `name` are two."""
    return not any(name == beside or name.startswith(f"{beside}.") for beside in BESIDE)


def _without(config: Mapping[str, Any], beside: set[str], path: str = "") -> dict[str, Any]:
    kept = {}
    for name, value in config.items():
        place = f"{path}{name}"
        if place not in beside:
            kept[str(name)] = _without(value, beside, f"{place}.") if isinstance(value, Mapping) else value
    return kept


def differences(one: Mapping[str, Any], other: Mapping[str, Any], path: str = "") -> list[str]:
    """Dotted keys at which two configs differ."""
    found = []
    for name in [*one, *(name for name in other if name not in one)]:
        pair, place = (one.get(name), other.get(name)), f"{path}{name}"
        if isinstance(pair[0], Mapping) and isinstance(pair[1], Mapping):
            found += differences(pair[0], pair[1], f"{place}.")
        elif pair[0] != pair[1] or (name in one) != (name in other):
            found.append(place)
    return found
