"""What Hydra lets one say about the process around a job, and a sweep's jobs can't have.

They are begun and resumed by other commands than the one that made them, from a folder that may have come from
somebody else: nothing in it is executed, set or imported on its own word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from dlrun.atomic import atomic_write
from dlrun.changes import check_frozen_plugins
from dlrun.conffolder import conf_folder
from dlrun.errors import UserError
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.state import ENDED, state_of

ENVIRONMENT = "jobs have the environment of the command that runs them; set it there"
SHELL = ("setup", "srun_args", "additional_parameters")  # options of submitit_slurm
REFUSED: dict[str, tuple[Any, str]] = {
    "hydra.job.env_set": ({}, ENVIRONMENT),
    "hydra.job.env_copy": ([], ENVIRONMENT),
    "hydra.job.chdir": (None, "jobs stay in the folder where the sweep was begun"),
    "hydra.callbacks": ({}, "a sweep calls none; set ~hydra.callbacks"),
    "hydra.verbose": (False, "each job logs into its own dlrun.log"),
}


def check_surroundings(cfg: DictConfig) -> None:
    """Raises UserError for what a sweep can't honour."""
    for key, (default, reason) in REFUSED.items():
        value = OmegaConf.select(cfg, key)
        value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if value != default and value not in (None, False):
            raise UserError(f"{key}: isn't for sweeps: {reason}")
    usual = yaml.safe_load((conf_folder() / "hydra/job_logging/dlrun.yaml").read_text())
    if OmegaConf.to_container(cfg.hydra.job_logging, resolve=False) != usual:
        raise UserError("hydra/job_logging: isn't for sweeps: each job logs into its own dlrun.log")


def check_sweep_plugins(folder: SweepFolder, words: Sequence[str]) -> None:
    """A sweep that imports the user's modules is resumed with the user's word for them, as a run is.

    A job that was begun goes on with its own config.yaml, so that has no other say.
    """
    for job in folder.read_jobs():
        check_frozen_plugins(job.config, words)
        run = folder.run(job)
        if run.config.exists() and state_of(run) not in ENDED:
            check_frozen_plugins(run.read_config(), words)


def check_commands(launcher: Mapping[str, Any], words: Sequence[str]) -> None:
    """What a sweep's launcher says to a shell needs the word of whoever resumes it, as plugins do. Raises UserError."""
    for name in SHELL:
        given = ("hydra/launcher=", f"hydra.launcher.{name}=")
        if launcher.get(name) and not any(word.startswith(given) for word in words):
            raise UserError(
                f"hydra.launcher.{name}: this sweep's own goes to a shell; if you trust whoever made the folder, "
                f"say it again (it is {launcher[name]})"
            )


def write_hydras(folder: Path, name: str | None, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """`.hydra/`, as Hydra leaves it in a job's folder, for tools that look there."""
    if name is None:
        return
    (folder / name).mkdir(exist_ok=True)
    for file, content in (("config.yaml", dict(config)), ("overrides.yaml", list(overrides))):
        with atomic_write(folder / name / file) as stream:
            stream.write(yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())
