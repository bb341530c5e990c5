"""Who stops a hopeless trial: Optuna's pruners, by short names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner

from dlrun.errors import UserError
from dlrun.sweep.search.options import check_signature, named

PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "asha": "SuccessiveHalvingPruner",  # Li et al. 2020, https://arxiv.org/abs/1810.05934
    "hyperband": "HyperbandPruner",  # Li et al. 2018, https://arxiv.org/abs/1603.06560
    "patient": "PatientPruner",
    "threshold": "ThresholdPruner",
}
KEY = "hydra.sweeper.pruner"


def check_pruner(given: Any, max_epochs: int | None, objectives: int, key: str = KEY) -> dict[str, Any] | None:
    """The pruner's name and options as one node, ready for `build_pruner`; None for none.

    `max_epochs` is how far a trial can go: Hyperband shares that out among its brackets. Raises UserError for an
    unknown name or option, and for several objectives.
    """
    if given is None:
        return None
    name, options = named(given, key, PRUNERS)
    if objectives > 1:
        raise UserError(f"{key}: {name} looks at one objective, got {objectives}; set it to null")
    wrapped = options.pop("wrapped_pruner", None) if name == "patient" else None
    check_signature(getattr(optuna.pruners, PRUNERS[name]), name, options, key)
    node: dict[str, Any] = {"name": name, **options}
    if name == "patient":
        if wrapped == "patient" or (isinstance(wrapped, Mapping) and wrapped.get("name") == "patient"):
            raise UserError(f"{key}.wrapped_pruner: expected another pruner, or null, got 'patient'")
        node["wrapped_pruner"] = check_pruner(wrapped, max_epochs, objectives, f"{key}.wrapped_pruner")
    if name == "hyperband":
        node.setdefault("max_resource", max_epochs or "auto")  # without epochs, what the first trial comes to
    if name == "asha":
        node.setdefault("min_resource", 1)
    _build(node, key)
    return node


def build_pruner(node: Mapping[str, Any] | None) -> BasePruner:
    """The pruner that `check_pruner` let through."""
    return optuna.pruners.NopPruner() if node is None else _build(node, KEY)


def _build(node: Mapping[str, Any], key: str) -> BasePruner:
    options = {name: value for name, value in node.items() if name != "name"}
    if node["name"] == "patient":
        wrapped = options["wrapped_pruner"]
        options["wrapped_pruner"] = None if wrapped is None else _build(wrapped, key)
    try:
        pruner: BasePruner = getattr(optuna.pruners, PRUNERS[node["name"]])(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}: {' '.join(str(error).split())}") from None
    return pruner
