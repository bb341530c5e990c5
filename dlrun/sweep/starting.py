"""`dlrun -m …`: from the words to a sweep that runs. Nothing is written before every job is known to be a good one."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dlrun.errors import UserError, choices
from dlrun.logs import configure_terminal
from dlrun.runfolder import RunFolder, git_state, new_run_id, versions
from dlrun.sweep.composition import Composer
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.freezing import freeze
from dlrun.sweep.grid import axes, combinations, swept
from dlrun.sweep.launchers import build as build_launcher
from dlrun.sweep.policy import Policy, policy
from dlrun.sweep.running import run
from dlrun.sweep.surroundings import check_surroundings

log = logging.getLogger("dlrun")
GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"  # Hydra's own name for what is a grid here


def start(args: Namespace, cfg: DictConfig) -> int:
    """Begin a sweep; returns its exit code. Raises UserError before any job has begun."""
    configure_terminal()
    HydraConfig.instance().set_config(cfg)  # ${hydra:…} in the names of folders
    check_surroundings(cfg)
    asked = policy(cfg)
    if asked.extend is not None:
        from dlrun.sweep.extending import add

        return add(asked.extend, axes(args.overrides, _sweeper(cfg).get("params")), args)
    sweeper = _sweeper(cfg)
    folder = SweepFolder(Path(str(cfg.hydra.sweep.dir)))
    named = any(word.lstrip("+").startswith("hydra.sweep.dir=") for word in args.overrides)
    if sweeper.get("name") == "optuna":
        from dlrun.sweep.search.starting import start_search

        return start_search(args, cfg, folder, named)
    launcher = build_launcher(plain_node(cfg.hydra.launcher), folder)
    given = axes(args.overrides, sweeper.get("params"))
    names = naming(cfg)
    composer = Composer(args)
    jobs, mode = prepare(composer, combinations(given), swept(given), names, asked, launcher.elsewhere)
    build_launcher(plain_node(cfg.hydra.launcher), folder, jobs)
    folder = make_folder(folder, named)
    facts = describe(args, cfg, asked, jobs[0].config, mode) | {"kind": "grid", "swept": swept(given)}
    facts |= {"axes": given, "jobs": len(jobs)}
    OmegaConf.save(cfg, folder.path / "multirun.yaml")  # as Hydra leaves it
    folder.write_bases(composer.bases)
    folder.append(jobs)
    folder.begin(facts)  # last: before it the folder isn't a sweep's, and after it the sweep is whole
    return run(folder, launcher=build_launcher(plain_node(cfg.hydra.launcher), folder))


def prepare(
    composer: Composer,
    words: Sequence[Sequence[str]],
    over: Sequence[str],
    names: Mapping[str, Any],
    asked: Policy,
    elsewhere: bool,
    first: int = 0,
    known: Iterable[str] = (),
) -> tuple[list[FrozenJob], str]:
    """Compose, freeze and check a job for each of `words`, but for those whose key is `known`.

    Returns them and which end of the metric that the first one monitors is the better one. Raises UserError for the
    first job that can't be trained.
    """
    from dlrun.rehearsal import Rehearsal

    rehearsal = Rehearsal(asked.check, elsewhere)
    jobs: list[FrozenJob] = []
    keys, same, modes = set(known), 0, list[str]()
    for place, overrides in enumerate(words, 1):
        job = freeze(composer, overrides, first + len(jobs), over, names)
        if job.key in keys:
            same += 1
            continue
        keys.add(job.key)
        try:
            modes.append(rehearsal.check(job.config))
        except UserError as error:
            if not over:
                raise
            which = ", ".join(word for word in overrides if word.partition("=")[0].lstrip("+") in over)
            raise UserError(f"{error} (job {place} of {len(words)}: {which}; nothing was started)") from error
        jobs.append(job)
    if same and not known:
        log.warning("%d of the %d jobs are the same as another one; they run once", same, len(words))
    if len({job.folder for job in jobs}) < len(jobs):
        raise UserError("hydra.sweep.subdir: several jobs would have one folder; let ${hydra.job.num} be part of it")
    return jobs, modes[0] if modes else "max"


def describe(args: Namespace, cfg: DictConfig, asked: Policy, config: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """What sweep.json says of any sweep."""
    return {
        "command": ["dlrun", *sys.argv[1:]],
        "words": list(args.overrides),
        "flags": {name: getattr(args, name) for name in ("config_dir", "config_name", "config_path")},
        "monitor": config["trainer"]["monitor"],
        "mode": mode,
        "policy": {"on_error": asked.on_error, "max_retries": asked.max_retries, "check": asked.check},
        "naming": naming(cfg),
        "launcher": plain_node(cfg.hydra.launcher),
        "sweeper": plain_node(cfg.hydra.sweeper),
        "versions": versions(),
        "git": git_state(),
    }


def naming(cfg: DictConfig) -> dict[str, Any]:
    """How jobs' folders are called; the pattern unresolved, as it is filled in for each."""
    return {
        "subdir": str(OmegaConf.to_container(cfg.hydra.sweep, resolve=False)["subdir"]),  # type: ignore[call-overload, index]
        "override_dirname": plain_node(cfg.hydra.job.config.override_dirname),
        "output_subdir": cfg.hydra.output_subdir,
    }


def make_folder(folder: SweepFolder, named: bool) -> SweepFolder:
    """Make the folder, this sweep's alone; one that the user `named` may be there already, if nothing of ours is in it.

    Raises UserError.
    """
    path = folder.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                path.mkdir()
            except FileExistsError:
                if not named:
                    path = folder.path.with_name(f"{folder.path.name}-{new_run_id()}")
                    continue
                if not path.is_dir():
                    raise UserError(f"hydra.sweep.dir: {path} is a file") from None
                if (
                    SweepFolder(path).sweep.exists()
                    or RunFolder(path).summary.exists()
                    or any(file.name != ".lock" for file in path.iterdir())
                ):
                    raise UserError(
                        f"hydra.sweep.dir: {path} isn't empty; choose another folder, or go on with the sweep that is "
                        f"in it: dlrun sweep resume run={path}"
                    ) from None
            made = SweepFolder(path)
            made.hold()  # of two that come for one folder, one gets past here
            return made
    except OSError as error:
        raise UserError(f"hydra.sweep.dir: can't write to {path} ({error.strerror})") from error


def plain_node(node: Any) -> dict[str, Any]:
    content = OmegaConf.to_container(node, resolve=True)
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def _sweeper(cfg: DictConfig) -> dict[str, Any]:
    node = plain_node(cfg.hydra.sweeper)
    if node.get("name") == "optuna":
        return node
    if node.get("_target_") != GRID:
        name = str(cfg.hydra.runtime.choices.get("hydra/sweeper"))
        raise UserError(f"hydra/sweeper: unknown sweeper '{name}'{choices(name, ['basic', 'optuna'])}")
    if node.get("max_batch_size") is not None:
        raise UserError(
            f"hydra.sweeper.max_batch_size: a grid is made whole before it starts; expected null, got "
            f"{node['max_batch_size']}; hydra.launcher.jobs says how many run at a time"
        )
    return node
