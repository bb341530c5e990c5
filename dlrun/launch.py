"""Jobs: from a composed config to a run in a folder of its own.

`hydra.main` composes twice, makes the job's folder before anything is checked, and doesn't mind if two runs share one.
So a single run is driven here, out of Hydra's own parts; a multirun by sweep/; and --cfg, --info and completion by
`hydra.main` as it is.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from dlrun import agent, slurm
from dlrun.compose import HYDRA_VERSION, MISTAKES, compose, defaults, explained, parse_arguments, plain, register_run_id
from dlrun.conffolder import conf_folder
from dlrun.differences import changed
from dlrun.distributed import Ranks, agreed, begin, telling
from dlrun.errors import RunFailed, UserError
from dlrun.logs import silence
from dlrun.runfolder import RunFolder, new_run_id
from dlrun.torchrun import refuse_several

# What a run that never began may have put into its folder.
OURS = (".hydra", ".lock", "checkpoints", "dlrun.log", "config.yaml", "summary.json")


def run(words: Sequence[str]) -> int:
    """`dlrun train`: one run, a sweep, or one of Hydra's own flags. Returns the exit code."""
    args = parse_arguments(words)
    # Hydra's own parser wants the flags together.
    words = [word for word in words if word not in args.overrides] + args.overrides
    if args.cfg or args.info or args.hydra_help or args.shell_completion or args.experimental_rerun:
        refuse_several("what only prints")
        _hydra_main(words)
        return 0
    cfg = compose(args)
    if args.multirun or cfg.hydra.mode == RunMode.MULTIRUN:
        refuse_several("-m")
        from dlrun.sweep.starting import start

        return start(args, cfg)
    ranks = begin()
    with telling(ranks):
        _single(args, cfg, ranks)
    return 0


def _single(args: Namespace, cfg: DictConfig, ranks: Ranks | None) -> None:
    if slurm.restarted() and (earlier := agreed(ranks, lambda: _begun_by_this_job(cfg))) is not None:
        from dlrun.resume import resume

        resume(earlier, [word for word in cfg.hydra.overrides.task if word.startswith("plugins=")], ranks)
        return
    run_id, path, made = agreed(ranks, lambda: _make_folder(cfg))
    if ranks is not None and not ranks.leads:
        _follow(cfg, run_id, path, ranks)
        return
    try:
        _run_job(cfg, run_id, ranks, _changed(args, cfg))
    except BaseException as error:
        # What failed with a traceback keeps its folder; what was refused or interrupted before it began leaves nothing.
        begun = "parameters" in RunFolder(path).read_summary() or isinstance(error, RunFailed)
        if isinstance(error, UserError | OmegaConfBaseException) or not begun:
            logging.shutdown()
            logging.getLogger().handlers.clear()  # the log goes with the folder
            _remove(path, made)
        if isinstance(error, OSError) and not begun:  # the disk is full, most likely
            raise UserError(f"hydra.run.dir: can't write to {path} ({error.strerror})") from error
        raise
    finally:
        RunFolder(path).release()


def _follow(cfg: DictConfig, run_id: str, path: Path, ranks: Ranks) -> None:
    """The part of a process that rank 0 speaks and writes for."""
    register_run_id(run_id)
    with read_write(cfg), open_dict(cfg):
        cfg.hydra.run.dir = str(path)
        cfg.hydra.output_subdir = None
        cfg.hydra.callbacks = {}
    silence()
    _run_job(cfg, run_id, ranks)


def _changed(args: Namespace, cfg: DictConfig) -> dict[str, Any] | None:
    """What the run does otherwise than by default; composing a second time takes some 50 ms.

    None where names alone can't be composed: a value names what an added file needs, say.
    """
    choices, asked = dict(cfg.hydra.runtime.choices), cfg.hydra.overrides
    try:
        usual = defaults(GlobalHydra.instance().config_loader(), args, choices, list(asked.hydra))
        return changed(plain(cfg), choices, usual)
    except (UserError, *MISTAKES):
        return None


def _run_job(cfg: DictConfig, run_id: str, ranks: Ranks | None, changed: Mapping[str, Any] | None = None) -> None:
    """What `hydra.main` does around a job: its callbacks, `.hydra/`, logging."""
    cfg.hydra.mode = RunMode.RUN
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=cfg.hydra.job.config_name)
    loader = GlobalHydra.instance().config_loader()
    try:
        result = run_job(
            hydra_context=HydraContext(config_loader=loader, callbacks=callbacks),
            task_function=partial(_train, run_id, ranks, changed),
            config=cfg,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
            configure_logging=ranks is None or ranks.leads,
        )
    except OSError:
        raise
    except MISTAKES as error:  # what the job raises is in the result: this is about hydra.job_logging and the like
        raise explained(error) from error
    callbacks.on_run_end(config=cfg, config_name=cfg.hydra.job.config_name, job_return=result)
    if isinstance(result._return_value, BaseException):  # `return_value` would print a line of its own
        raise result._return_value


def _begun_by_this_job(cfg: DictConfig) -> Path | None:
    """The run that this very command of this SLURM job began before the job was requeued."""
    pattern = str(OmegaConf.to_container(cfg.hydra.run, resolve=False)["dir"])  # type: ignore[call-overload, index]
    fixed = Path(pattern.partition("${")[0])
    top = fixed if fixed.is_dir() else fixed.parent
    command = ["dlrun", *sys.argv[1:]]
    for config in top.glob("**/config.yaml"):
        folder = RunFolder(config.parent)
        with suppress(UserError):  # other people's files may have that name too
            summary = folder.read_summary()
            if summary.get("slurm_job") == slurm.job() and summary.get("command") == command:
                return folder.path
    return None


def _make_folder(cfg: DictConfig) -> tuple[str, Path, list[Path]]:
    """Make the run's folder, this process's alone, and write its literal name into `cfg`.

    Returns the run's id, that name, and the folders that were made, top first.
    """
    while True:
        run_id = agent.run_id() or new_run_id()
        register_run_id(run_id)
        path = Path(str(cfg.hydra.run.dir))
        if run_id not in path.name:
            _refuse_used(path)
        made = [folder for folder in [*reversed(path.parents), path] if not folder.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(exist_ok=run_id not in path.name)  # a folder that the user names may be there already
            RunFolder(path).claim(
                run_id, ["dlrun", *sys.argv[1:]]
            )  # of several that come for one folder, one gets past here
        except FileExistsError:
            if not path.is_dir():
                raise UserError(f"hydra.run.dir: {path} is a file") from None
            if agent.present():  # it gives the id, and gives it again
                raise UserError(f"hydra.run.dir: {path} already holds a run; choose another folder") from None
            continue  # taken in the same second with the same id
        except OSError as error:
            _remove(path, made)
            raise UserError(f"hydra.run.dir: can't write to {path} ({error.strerror})") from error
        with read_write(cfg), open_dict(cfg):
            cfg.hydra.run.dir = str(path)
        return run_id, path, made


def _refuse_used(path: Path) -> None:
    """A folder that the user names may hold other things, but nothing that a run writes: we would overwrite it."""
    if RunFolder(path).summary.exists():
        raise UserError(f"hydra.run.dir: {path} already holds a run; choose another folder")
    for name in OURS:
        if (path / name).exists():
            raise UserError(f"hydra.run.dir: {path} already holds {name}; choose another folder")


def _remove(path: Path, made: list[Path]) -> None:
    """Leave nothing of a run that never began: our files, then the folders that were made for it, if they are empty."""
    for name in OURS:
        shutil.rmtree(path / name, ignore_errors=True) if (path / name).is_dir() else (path / name).unlink(
            missing_ok=True
        )
    for folder in reversed(made):
        try:
            folder.rmdir()
        except OSError:  # not there, or another run's by now
            break


def _hydra_main(words: Sequence[str]) -> None:
    register_run_id()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to us, who print them
    sys.argv[1:] = list(words)
    GlobalHydra.instance().clear()
    try:
        hydra.main(version_base=HYDRA_VERSION, config_path=str(conf_folder()), config_name="config")(_never)()
    except MISTAKES as error:
        raise explained(error) from error


def _never(cfg: DictConfig) -> None:
    """For Hydra's flags, which run nothing."""


def _train(run_id: str, ranks: Ranks | None, changed: Mapping[str, Any] | None, cfg: DictConfig) -> float | None:
    """What Hydra runs: everything heavy is imported here."""
    hydra_cfg = HydraConfig.get()
    path, chosen = Path(hydra_cfg.runtime.output_dir), dict(hydra_cfg.runtime.choices)
    config = agreed(ranks, lambda: plain(cfg))
    if ranks is None or ranks.leads:
        RunFolder(path).write_config(config)  # from here on the run can be resumed, wherever it is killed
    from dlrun.train import Job, train

    logging.captureWarnings(True)
    return train(config, Job(path, run_id, chosen, changed, ranks=ranks))
