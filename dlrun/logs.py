"""Where log lines go: to the terminal, and into the folder of a run that is trained."""

from __future__ import annotations

import logging.config

import yaml

from dlrun.conffolder import conf_folder
from dlrun.runfolder import RunFolder


def configure(folder: RunFolder) -> None:
    """The terminal and dlrun.log, as in a run that Hydra starts; never as the folder would have it."""
    config = yaml.safe_load((conf_folder() / "hydra/job_logging/dlrun.yaml").read_text())
    config["handlers"]["file"]["filename"] = str(folder.log)
    logging.config.dictConfig(config)


def silence() -> None:
    """For a process that another one speaks for."""
    nowhere = {"class": "logging.NullHandler"}
    root = {"level": "CRITICAL", "handlers": ["nowhere"]}
    logging.config.dictConfig(
        {"version": 1, "handlers": {"nowhere": nowhere}, "root": root, "disable_existing_loggers": False}
    )


def configure_terminal() -> None:
    """For a command that only looks into a run: the terminal alone, on stderr, since its answer may go into a pipe."""
    config = yaml.safe_load((conf_folder() / "hydra/job_logging/dlrun.yaml").read_text())
    del config["handlers"]["file"]
    config["handlers"]["console"]["stream"] = "ext://sys.stderr"
    config["root"]["handlers"] = ["console"]
    logging.config.dictConfig(config)
