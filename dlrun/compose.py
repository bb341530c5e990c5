"""Hydra: from the words of a command line to a config, and its errors in our words."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from dlrun.config import conf_folder
from dlrun.errors import UserError, choices

HYDRA_VERSION = "1.3"  # the behaviour we ask of Hydra, whichever version is installed
MISTAKES = (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError, AssertionError)  # in composing


def parse_arguments(words: Sequence[str]) -> Namespace:
    """Hydra's own flags and the overrides, in any order. Raises UserError for a wrong flag."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message} (see dlrun --help and --hydra-help)")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_intermixed_args(list(words))


def compose(args: Namespace) -> DictConfig:
    """The config, Hydra's own node included. Raises UserError for what can't be composed."""
    register_run_id()
    version.setbase(HYDRA_VERSION)
    try:
        search_path = create_config_search_path(str(args.config_path or conf_folder()))
        if args.config_dir is not None:
            extra = Path(args.config_dir).absolute()
            if not extra.is_dir():
                raise UserError(f"--config-dir: no folder {extra}")
            search_path.prepend("command-line", f"file://{extra}", SearchPathQuery(provider="schema"))
        GlobalHydra.instance().clear()
        loader = Hydra.create_main_hydra2("dlrun", search_path).config_loader
        cfg = loader.load_configuration(
            config_name=args.config_name or "config",
            overrides=args.overrides,
            run_mode=RunMode.RUN,
            validate_sweep_overrides=False,
        )
        if cfg.hydra.mode is None and not args.multirun:
            parsed = parse_overrides(args.overrides)
            swept = [override for override in parsed if override.is_sweep_override()]
            if swept:
                raise UserError(f"'{swept[0].input_line}' has several values; add -m to run one job for each")
        return cfg
    except MISTAKES as error:
        raise explained(error) from error


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config without Hydra's node, resolved, as plain values. Raises UserError for a dangling interpolation."""
    try:
        job = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        whole = OmegaConf.to_container(job, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise explained(error) from error
    return {str(key): value for key, value in whole.items()}  # type: ignore[union-attr]


def register_run_id(run_id: str = "") -> None:
    """What `${run_id:}` stands for in the config."""
    OmegaConf.register_new_resolver("run_id", lambda: run_id, replace=True)


def parse_overrides(words: Sequence[str]) -> list[Any]:
    """Hydra's `Override`s. Raises UserError for a word that is none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        return OverridesParser.create().parse_overrides(list(words))
    except HydraException as error:
        raise explained(error) from error


def explained(error: Exception) -> UserError:
    """What Hydra or OmegaConf has to say, as one line with the nearest match."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group:
            return UserError(f"unknown {group} '{name}'{choices(name, error.options)}")
    cause: Any = error.__cause__ or error
    if isinstance(error, OverrideParseException):
        return UserError(f"can't read '{error.override}': {_one_line(error)}")
    if isinstance(error, MissingMandatoryValue):
        return UserError(f"{error.full_key}: is missing; say {error.full_key}=…")
    parent, key = getattr(cause, "parent_node", None), getattr(cause, "key", None)
    if "is not in struct" in str(cause) or "not in '" in str(cause):
        known = [str(k) for k in parent if k != "hydra"] if isinstance(parent, DictConfig) else []
        return UserError(f"unknown option '{getattr(cause, 'full_key', None) or key}'{choices(str(key), known)}")
    if "Could not override" in str(error) and "No match in the defaults list" in str(error):
        return UserError(_one_line(error).replace(" No match in the defaults list.", ": there is no such config group"))
    return UserError(_one_line(error))


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [
        line
        for line in lines
        if not line.startswith(("See https", "full_key:", "object_type", "reference_type", "To append"))
    ]
    return " ".join(kept) or repr(error)
