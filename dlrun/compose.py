"""Hydra: from the words of a command line to a config, and its errors in our words."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from antlr4.error.Errors import LexerNoViableAltException, RecognitionException
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import GroupDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from dlrun.conffolder import conf_folder
from dlrun.differences import BRINGS_OTHERS, Defaults, flat, words
from dlrun.errors import UserError, choices, shortened

HYDRA_VERSION = "1.3"  # the behaviour we ask of Hydra, whichever version is installed
# What composing raises for a wrong word.
MISTAKES = (
    *(HydraException, OmegaConfBaseException, YAMLError, OSError),
    *(ValueError, TypeError, KeyError, AttributeError, AssertionError, RecursionError),
)


NOT_OF_A_RUN = ("hydra", "sweep")  # what the config says beside what one run is


def parse_arguments(words: Sequence[str]) -> Namespace:
    """Hydra's own flags and the overrides, in any order. Raises UserError for a wrong flag."""
    parser = get_args_parser()
    parser.allow_abbrev = False  # `--hel` would be taken for --help here, and by nobody after that

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message} (see dlrun --help and --hydra-help)")

    parser.error = refuse  # type: ignore[method-assign]
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:  # how Python hands on bytes that are no text
            raise UserError(f"can't read '{shortened(word)}': it isn't UTF-8") from None
    return parser.parse_intermixed_args(list(words))


def compose(args: Namespace) -> DictConfig:
    """The config, Hydra's own node included. Raises UserError for what can't be composed."""
    register_run_id()
    version.setbase(HYDRA_VERSION)
    try:
        parsed = parse_overrides(args.overrides)
        loader = config_loader(args)
        for override in parsed:
            _check_choice(override, loader.get_group_options(override.key_or_group))
        cfg = load(loader, args, args.overrides)
        if cfg.hydra.mode is None and not args.multirun:
            _refuse_sweeps(parsed)
        return cfg
    except MISTAKES as error:
        raise explained(error) from error


def config_loader(args: Namespace) -> ConfigLoaderImpl:
    """What finds and merges the files of conf/ and of the folders that the user names."""
    search_path = create_config_search_path(str(args.config_path or conf_folder()))
    if args.config_dir is not None:
        extra = Path(args.config_dir).absolute()
        if not extra.is_dir():
            raise UserError(f"--config-dir: no folder {extra}")
        search_path.prepend("command-line", f"file://{extra}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    loader = Hydra.create_main_hydra2("dlrun", search_path).config_loader
    assert isinstance(loader, ConfigLoaderImpl)
    # Were Hydra's plugin of that name installed, its schema would be laid over our file, and refuse what is ours.
    schemas = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for file in (conf_folder() / "hydra" / "launcher").glob("*.yaml"):
        schemas.pop(file.name, None)
    return loader


def load(loader: ConfigLoaderImpl, args: Namespace, overrides: Sequence[str]) -> DictConfig:
    return loader.load_configuration(
        config_name=args.config_name or "config",
        overrides=list(overrides),
        run_mode=RunMode.RUN,
        validate_sweep_overrides=False,
    )


def defaults(
    loader: ConfigLoader, args: Namespace, choices: Mapping[str, Any], hydra_words: Sequence[str] = ()
) -> Defaults:
    """What the names that were chosen come to without any value said, and which of them nobody had to choose."""
    assert isinstance(loader, ConfigLoaderImpl)
    top = args.config_name or "config"
    _, files = loader._parse_overrides_and_create_caching_repo(top, list(hydra_words))
    usual: dict[str, Any] = {}
    for name in (top, *(f"{group}/{choices[group]}" for group in BRINGS_OTHERS if group in choices)):
        found = files.load_config(name)
        for default in (found.defaults_list if found is not None else None) or ():
            if isinstance(default, GroupDefault) and (name == top or default.override):
                usual[str(default.group).lstrip("/")] = default.value
    return Defaults(flat(plain(load(loader, args, [*hydra_words, *words(choices)]))), usual)


def _refuse_sweeps(parsed: Sequence[Override]) -> None:
    for override in parsed:
        if override.is_sweep_override():
            raise UserError(f"'{override.input_line}' has several values; add -m to run one job for each")
        if override.key_or_group.partition(".")[0] == "sweep":
            raise UserError(f"{override.key_or_group}: is for sweeps; add -m")


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config without Hydra's node, resolved, as plain values. Raises UserError for a dangling interpolation."""
    try:
        return resolved(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in NOT_OF_A_RUN]))
    except (OmegaConfBaseException, RecursionError) as error:
        raise explained(error) from error


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Every ${reference} filled in."""
    whole = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in whole.items()}  # type: ignore[union-attr]


def register_run_id(run_id: str = "") -> None:
    """What `${run_id:}` stands for in the config."""
    OmegaConf.register_new_resolver("run_id", lambda: run_id, replace=True)


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """Hydra's `Override`s. Raises UserError for a word that is none."""
    parser, parsed = OverridesParser.create(), []
    for word in words:
        try:
            parsed.append(parser.parse_override(word))
        except RecursionError:
            raise UserError(f"can't read '{shortened(word)}': its brackets are nested too deeply") from None
        except (HydraException, ValueError) as error:
            raise UserError(f"can't read '{shortened(word)}': {_why_unreadable(word, error)}") from None
        if not parsed[-1].key_or_group:
            raise UserError(f"can't read '{shortened(word)}': there is no key; expected key=value")
    return parsed


def _why_unreadable(word: str, error: Exception) -> str:
    """Hydra's parser in our words: what it stumbles over, and where."""
    cause: Any = error.__cause__
    if isinstance(cause, LexerNoViableAltException):
        place = cause.startIndex
        hint = "; a text with special characters needs quotes" if "=" in word[:place] else ""
        return f"unexpected {word[place : place + 1]!r} at character {place + 1}{hint}"
    if cause is not None and not isinstance(cause, RecognitionException):  # from a function, such as range(…)
        return _one_line(cause)
    message = _one_line(error)
    if "missing EQUAL" in message:
        return "there is no '='; expected key=value"
    stumbled = re.search("input '(.*?)'( expecting .*)?$", message)
    if stumbled is None:
        return message
    if stumbled[1] == "<EOF>":
        return "it ends too early"
    return (
        f"can't make sense of '{shortened(stumbled[1])}'"
        if "alternative" in message
        else f"unexpected '{shortened(stumbled[1])}'"
    )


def _check_choice(override: Override, options: Sequence[str]) -> None:
    """A config group takes names; Hydra says so too, but not of which group."""
    value = override.value()
    names = value if isinstance(value, list) else [value]
    if options and not override.is_delete() and not override.is_sweep_override():
        for name in names:
            written = name.text if isinstance(name, QuotedString) else name
            missing = isinstance(value, list) and written not in options and "$" not in str(written)
            if not isinstance(written, str) or missing:
                written = "null" if written is None else written
                raise UserError(f"unknown {override.key_or_group} '{written}'{choices(str(written), options)}")


def explained(error: Exception) -> UserError:
    """What Hydra or OmegaConf has to say, as one line with the nearest match."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group:
            return UserError(f"unknown {group} '{name}'{choices(name, error.options)}")
    cause: Any = error.__cause__ or error
    if isinstance(error, RecursionError):
        return UserError("the config is nested too deeply")
    if isinstance(error, AssertionError | AttributeError):
        return UserError("Hydra can't work with this config, and doesn't say why; look at what begins with hydra.")
    if type(error) is KeyError:
        return UserError(f"hydra.job.env_copy: no environment variable {error}")
    if isinstance(error, MissingMandatoryValue):
        return UserError(f"{error.full_key}: is missing; say {error.full_key}=…")
    parent, key = getattr(cause, "parent_node", None), getattr(cause, "key", None)
    if "is not in struct" in str(cause) or "not in '" in str(cause):
        known = [str(k) for k in parent if k != "hydra"] if isinstance(parent, DictConfig) else []
        return UserError(f"unknown option '{getattr(cause, 'full_key', None) or key}'{choices(str(key), known)}")
    if "Could not override" in str(error) and "No match in the defaults list" in str(error):
        return UserError(_one_line(error).replace(" No match in the defaults list.", ": there is no such config group"))
    if str(error).startswith("Error merging override ") and error.__cause__ is not None:
        return UserError(f"{str(error).removeprefix('Error merging override ')}: {_one_line(error.__cause__)}")
    place = getattr(error, "full_key", None)
    return UserError(f"{place}: {_one_line(error)}" if place else _one_line(error))


def _one_line(error: BaseException) -> str:
    if not str(error) and error.__cause__ is not None:
        return _one_line(error.__cause__)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = " ".join(
        line
        for line in lines
        if not line.startswith(("See https", "full_key:", "object_type", "reference_type", "To append"))
    )
    kept = re.sub(
        r"^\w+ (raised )?while resolving interpolation: (\S+<lambda>\(\) )?", "can't fill in the ${…}: ", kept
    )
    return kept or type(error).__name__
