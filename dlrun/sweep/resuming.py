"""`dlrun sweep resume`: what is missing, failed or interrupted in a sweep is run, and nothing else."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from dlrun.compose import compose, parse_arguments, parse_overrides
from dlrun.errors import UserError
from dlrun.logs import configure_terminal
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.policy import policy
from dlrun.sweep.running import run
from dlrun.sweep.starting import plain_node
from dlrun.sweep.surroundings import check_sweep_plugins

MAY_CHANGE = ("hydra/launcher", "hydra.launcher", "sweep.on_error", "sweep.max_retries")
MAY_CHANGE_IN_A_SEARCH = ("hydra.sweeper.n_trials", "hydra.sweeper.n_jobs")


def resume(folder: SweepFolder, words: Sequence[str]) -> int:
    """Go on with a sweep; `words` may change how it is run, not what. Returns the exit code. Raises UserError."""
    configure_terminal()
    facts = folder.read()
    searches = facts["kind"] == "search"
    check_sweep_plugins((job.config for job in folder.read_jobs()), words)
    words = [word for word in words if not word.startswith("plugins=")]
    changes = _changes(facts, words, (*MAY_CHANGE, *(MAY_CHANGE_IN_A_SEARCH if searches else ())))
    if searches:
        from dlrun.sweep.search.starting import resume_search

        return resume_search(folder, changes)
    folder.update(**changes)
    return run(folder)


def arguments(facts: dict[str, Any], words: Sequence[str] = ()) -> Namespace:
    """The sweep's command line once more, with other words instead of its own."""
    args = parse_arguments(list(words))
    for name, value in facts["flags"].items():
        setattr(args, name, value)
    args.multirun = True
    return args


def _changes(facts: dict[str, Any], words: Sequence[str], allowed: Sequence[str]) -> dict[str, Any]:
    """What the words change in sweep.json."""
    for override in parse_overrides(words):
        key = override.key_or_group
        if key not in allowed and not key.startswith("hydra.launcher."):
            raise UserError(
                f"{key}: can't change in a sweep that was begun; its jobs are frozen. What can: {', '.join(allowed)}; "
                "dlrun sweep extend adds values"
            )
    changes: dict[str, Any] = {}
    if any(word.startswith("hydra/launcher") for word in words):  # another one, from its own file
        cfg = compose(arguments(facts, [word for word in words if word.startswith("hydra")]))
        return {"launcher": plain_node(cfg.hydra.launcher)} | _put(facts, words, ("sweep", "hydra.sweeper"))
    changes |= _put(facts, words, ("hydra.launcher", "sweep", "hydra.sweeper"))
    return changes


def _put(facts: dict[str, Any], words: Sequence[str], places: Sequence[str]) -> dict[str, Any]:
    """Values into the nodes of sweep.json that were Hydra's; each checked by whoever reads it."""
    names = {"hydra.launcher": "launcher", "hydra.sweeper": "sweeper", "sweep": "policy"}
    changes: dict[str, Any] = {}
    for override in parse_overrides(words):
        place, _, name = override.key_or_group.rpartition(".")
        if place in places:
            changes.setdefault(names[place], dict(facts[names[place]]))[name] = override.value()
    if "policy" in changes:
        policy(OmegaConf.create({"sweep": changes["policy"]}))
    return changes
