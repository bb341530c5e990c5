"""The words of a command that needs no run: options of its own, and overrides of the config that a training takes."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml

from dlrun.compose import parse_arguments
from dlrun.conffolder import conf_folder
from dlrun.errors import UserError, choices
from dlrun.options import read

Options = TypeVar("Options")


def divided(words: Sequence[str], cls: type[Options], command: str) -> tuple[Options, Namespace]:
    """What the words say of the command, as a `cls`, and what they say of the config, for `compose`.

    Raises UserError for a word that is neither, with the nearest match of both, and for flags that make no sense here.
    """
    args = parse_arguments(words)
    if args.cfg or args.info or args.multirun or args.hydra_help or args.shell_completion:
        raise UserError(f"{command} takes KEY=VALUE, --config-dir and --config-name, and no other flags")
    own = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    known = _of_the_config(args)
    for word in args.overrides:
        key = word.partition("=")[0].lstrip("+~")
        if key not in own and "." not in key and key.partition("/")[0].partition("@")[0] not in known:
            raise UserError(f"{key}: unknown option of dlrun {command}{choices(key, own | known)}")
    options, overrides = read([w for w in args.overrides if w.partition("=")[0] in own], cls, command)
    args.overrides = [w for w in args.overrides if w.partition("=")[0] not in own] + overrides
    return options, args


def _of_the_config(args: Namespace) -> set[str]:
    """Groups and keys at the top of the config, plain ones and those of the user's own folder."""
    folders = [conf_folder()] + ([Path(args.config_dir)] if args.config_dir else [])
    groups = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()}
    top = yaml.safe_load((conf_folder() / "config.yaml").read_text(encoding="utf-8"))
    return (groups | set(top)) - {"defaults", "hydra", "sweep"}
