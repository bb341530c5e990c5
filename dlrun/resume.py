"""`dlrun resume`: from a run folder to the run that goes on in it."""

from __future__ import annotations

import copy
import logging
import logging.config
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from dlrun.compose import parse_overrides
from dlrun.conffolder import conf_folder
from dlrun.config import MAY_CHANGE, may_change
from dlrun.errors import UserError, choices
from dlrun.runfolder import RunFolder

log = logging.getLogger("dlrun")

TOPS = ("outputs", "multirun")  # where `last` looks


def run(words: Sequence[str]) -> int:
    """`dlrun resume run=DIR|last [KEY=VALUE …]`; returns the exit code. Raises UserError, RunFailed."""
    given = [word.partition("=")[2] for word in words if word.startswith("run=")]
    if len(given) != 1 or not given[0]:
        raise UserError("resume: say which run: dlrun resume run=DIR (or run=last)")
    resume(find(given[0]), [word for word in words if not word.startswith("run=")])
    return 0


def find(name: str) -> Path:
    """The run folder that `name` is, or that `last` stands for: the one that was begun last."""
    if name != "last":
        path = Path(name).expanduser()  # the shell doesn't, after an equals sign
        if not path.is_dir():
            if path.exists():
                raise UserError(f"run: {name} is a file; give the run's folder")
            siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
            raise UserError(f"run: no folder '{name}'{choices(path.name, siblings).partition(' (choose')[0]}")
        return path
    found = [path.parent for top in TOPS for path in Path(top).glob("**/summary.json")]
    if not found:
        raise UserError(f"run=last: there is no run in {' or '.join(TOPS)}")
    return max(found, key=_begun)


def _begun(path: Path) -> float:
    try:
        return datetime.fromisoformat(RunFolder(path).read_summary()["started"]).timestamp()
    except (UserError, KeyError, TypeError, ValueError):
        return 0.0


def resume(path: Path, overrides: Sequence[str]) -> None:
    """Go on with the run in `path`. Raises UserError if that can't be, RunFailed as `train`."""
    folder = RunFolder(path)
    if (path / "multirun.yaml").exists() and not folder.summary.exists():
        jobs = sorted(job.parent.name for job in path.glob("*/summary.json"))
        raise UserError(f"run: {path} is a sweep; resume one of its jobs, run={path}/… ({', '.join(jobs)})")
    summary, before = folder.read_summary(), folder.read_config()
    config = changed(before, overrides)
    _check_plugins(before, overrides)
    try:
        folder.reopen()
    except OSError as error:
        raise UserError(f"run: can't write to {path} ({error.strerror})") from error
    try:
        configure_logging(folder)
        if summary["status"] in ("finished", "stopped_early") and config == before:
            limit = "trainer.max_epochs (or trainer.max_steps)"
            if summary["status"] == "stopped_early":
                limit = "trainer.max_time" if summary.get("out_of_time") else "trainer.patience"
            log.info("nothing left to do: %s is at the end of its %s; with more of that it goes on", path, limit)
            return
        from dlrun.restoration import Resumption
        from dlrun.train import Job, train

        logging.captureWarnings(True)
        names = {
            group: options["name"]
            for group, options in config.items()
            if isinstance(options, dict) and "name" in options
        }
        command = ["dlrun", "resume", f"run={path}", *overrides]
        train(config, Job(path, summary["run_id"], names, resumes=Resumption(before, command)))
    finally:
        folder.release()


def changed(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`config` with `overrides` in it. Raises UserError for what can't change in the middle of a run."""
    new = copy.deepcopy(dict(config))
    for override in parse_overrides(overrides):
        key, word, value = override.key_or_group, override.input_line, override.value()
        if key == "tracking" and value in (None, "none"):
            new["tracking"] = {}
            continue
        if override.is_delete() or override.is_add() or override.is_sweep_override() or override.package is not None:
            raise UserError(f"resume: '{word}' isn't KEY=VALUE")
        *groups, name = key.split(".")
        place: Any = new
        for group in groups:
            place = place.get(group)
            if not isinstance(place, dict):
                raise UserError(f"{key}: this run has no {group}")
        if not may_change(key) and not (name in place and place[name] == value):
            near = choices(key, MAY_CHANGE).partition(" (choose")[0] if groups else ""
            raise UserError(
                f"{key}: can't change in the middle of a run{near}; dlrun resume --help lists what can, and "
                "init_from=DIR begins a new run with its weights"
            )
        place[name] = value
    return new


def _check_plugins(config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """A folder may come from a stranger, and plugins are code: they need the word of who runs them."""
    plugins = config.get("plugins")
    if plugins and not any(word.startswith("plugins=") for word in overrides):
        names = ",".join(map(str, plugins))
        raise UserError(
            f"plugins: this run imports Python modules of yours or of whoever made the folder; if you trust them, "
            f"say so: plugins=[{names}]"
        )


def configure_logging(folder: RunFolder) -> None:
    """The terminal and dlrun.log, as in a run that Hydra starts; never as the folder would have it."""
    config = yaml.safe_load((conf_folder() / "hydra/job_logging/dlrun.yaml").read_text())
    config["handlers"]["file"]["filename"] = str(folder.log)
    logging.config.dictConfig(config)
