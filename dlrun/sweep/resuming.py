"""`dlrun sweep resume`: what is missing, failed or interrupted in a sweep is run, and nothing else."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from omegaconf import OmegaConf

from dlrun.compose import compose, parse_arguments, parse_overrides
from dlrun.errors import UserError
from dlrun.logs import configure_terminal
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.launchers import build as build_launcher
from dlrun.sweep.policy import policy
from dlrun.sweep.running import run
from dlrun.sweep.starting import plain_node
from dlrun.sweep.surroundings import check_commands, check_sweep_plugins

MAY_CHANGE = ("hydra/launcher", "hydra.launcher.*", "sweep.on_error", "sweep.max_retries")
MAY_CHANGE_IN_A_SEARCH = ("hydra.sweeper.n_trials", "hydra.sweeper.n_jobs")
NODES = {"hydra.launcher": "launcher", "hydra.sweeper": "sweeper", "sweep": "policy"}  # their names in sweep.json


def resume(folder: SweepFolder, words: Sequence[str]) -> int:
    """Go on with a sweep; `words` may change how it is run, not what. Returns the exit code. Raises UserError."""
    configure_terminal()
    with folder.held():
        facts = folder.read()
        searches = facts["kind"] == "search"
        check_sweep_plugins(folder, words)
        check_commands(facts["launcher"], words)
        said = [word for word in words if not word.startswith("plugins=")]
        changed = changes(facts, said, (*MAY_CHANGE, *(MAY_CHANGE_IN_A_SEARCH if searches else ())))
        if searches:
            from dlrun.sweep.search.starting import resume_search

            return resume_search(folder, changed, words)
        launcher = build_launcher(changed.get("launcher", facts["launcher"]), folder)
        folder.update(**changed)
        return run(folder, launcher)


def arguments(facts: dict[str, Any], words: Sequence[str] = ()) -> Namespace:
    """The sweep's command line once more, with other words instead of its own."""
    args = parse_arguments(list(words))
    for name, value in facts["flags"].items():
        setattr(args, name, value)
    args.multirun = True
    return args


def changes(facts: dict[str, Any], words: Sequence[str], allowed: Sequence[str]) -> dict[str, Any]:
    """What the words change in sweep.json; a launcher is for `build_launcher` to check. Raises UserError."""
    launchers = [word for word in words if word.startswith(("hydra/launcher=", "hydra.launcher."))]
    changed: dict[str, Any] = {}
    if any(word.startswith("hydra/") for word in launchers):  # another one, from its own file
        changed["launcher"] = plain_node(compose(arguments(facts, launchers)).hydra.launcher)
        words = [word for word in words if word not in launchers]
    for override in parse_overrides(words):
        key, word = override.key_or_group, override.input_line
        if key not in allowed and not key.startswith("hydra.launcher."):
            raise UserError(
                f"{key}: can't change in a sweep that was begun; its jobs are frozen. What can: {', '.join(allowed)}; "
                "dlrun sweep extend adds values"
            )
        if override.is_delete() or override.is_add() or override.is_sweep_override() or override.package is not None:
            raise UserError(f"'{word}': expected {key}=VALUE")
        node = next(node for node in NODES if key.startswith(f"{node}."))
        place = changed.setdefault(NODES[node], deepcopy(facts[NODES[node]]))
        *groups, name = key.removeprefix(f"{node}.").split(".")
        for group in groups:
            place = place.get(group)
            if not isinstance(place, dict):
                raise UserError(f"{key}: this sweep's launcher has no {group}")
        place[name] = override.value()
    if "policy" in changed:
        policy(OmegaConf.create({"sweep": changed["policy"]}))
    return changed
