"""From a job's words to its config, without asking Hydra a thousand times for what is the same each time.

Hydra finds files by the choices among config groups, merges them, and puts values in last. So it composes once for each
combination of choices that occurs, and the values are put into a copy, by Hydra's own code. These bases are kept with
the sweep: what is made later, by a search or an extension, comes from them, and no longer from conf/.
"""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from dlrun.changes import check_frozen_plugins
from dlrun.compose import (
    HYDRA_VERSION,
    MISTAKES,
    NOT_OF_A_RUN,
    config_loader,
    defaults,
    explained,
    load,
    parse_overrides,
    register_run_id,
    resolved,
)
from dlrun.differences import Defaults
from dlrun.errors import UserError


@dataclass(frozen=True)
class Base:
    """What one combination of choices comes to."""

    config: bytes  # without Hydra's node, unresolved and pickled
    choices: dict[str, Any]
    defaults: Defaults | None  # None where the names alone can't be composed, or nobody has noted it


class Composer:
    """Composes jobs' configs. `args` are the sweep's, `bases` what an earlier sweep has kept.

    Which keys are config groups is kept with the bases: with those nothing is read from conf/ for what they have.
    `words` are of whoever goes on with that sweep, which may be a stranger's: a config with plugins needs them.
    """

    def __init__(self, args: Namespace, bases: Sequence[Mapping[str, Any]] = (), words: Sequence[str] | None = None):
        self.args, self.words = args, words
        # Hydra's own words may bring in other folders with more groups: hydra.searchpath.
        self.hydra = [word for word in args.overrides if _is_hydras(_parsed(word))]
        self._is_group: dict[str, bool] = {}
        self._loader: ConfigLoaderImpl | None = None
        self._repository: Any = None
        self._bases: dict[tuple[str, ...], Base] = {}
        for base in bases:
            usual = base.get("defaults")
            self._bases[tuple(base["words"])] = Base(
                _closed(OmegaConf.create(base["config"])), dict(base["choices"]), Defaults(**usual) if usual else None
            )
            self._is_group |= base["groups"]

    @property
    def bases(self) -> list[dict[str, Any]]:
        return [
            {
                "words": list(words),
                "config": OmegaConf.to_container(pickle.loads(base.config), resolve=False),
                "choices": base.choices,
                "defaults": asdict(base.defaults) if base.defaults else None,
                "groups": dict(self._is_group),
            }
            for words, base in self._bases.items()
        ]

    def compose(self, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The resolved config that Hydra would make of `overrides`, and the choices. Raises UserError."""
        config, base = self.composed(overrides)
        return config, base.choices

    def composed(self, overrides: Sequence[str]) -> tuple[dict[str, Any], Base]:
        """As `compose`, with what it was made from."""
        try:
            words = [word for word in overrides if not _is_hydras(_parsed(word))]
            chosen = tuple(word for word in words if self.is_group(_parsed(word)))
            base = self._base(chosen)
            config = pickle.loads(base.config)  # a sixth of what a deepcopy takes
            values = [_parsed(word) for word in words if word not in chosen]
            ConfigLoaderImpl._apply_overrides_to_config(values, config)
            whole = resolved(config)
        except MISTAKES as error:
            raise explained(error) from error
        if self.words is not None:
            check_frozen_plugins(whole, self.words)
        return whole, base

    def is_group(self, override: Override) -> bool:
        """Whether it chooses from a config group, as Hydra tells."""
        key = override.key_or_group
        if isinstance(override.value(), dict):
            return False
        if key not in self._is_group:
            self._is_group[key] = self._sources().group_exists(key)
        return self._is_group[key]

    def _base(self, chosen: tuple[str, ...]) -> Base:
        if chosen not in self._bases:
            self._sources()
            assert self._loader is not None
            whole = load(self._loader, self.args, [*self.hydra, *chosen])
            config = OmegaConf.masked_copy(whole, [str(key) for key in whole if key not in NOT_OF_A_RUN])
            choices = dict(whole.hydra.runtime.choices)
            self._bases[chosen] = Base(_closed(config), choices, self._defaults(choices))
        return self._bases[chosen]

    def _defaults(self, choices: Mapping[str, Any]) -> Defaults | None:
        assert self._loader is not None
        try:
            return defaults(self._loader, self.args, choices, self.hydra)
        except (UserError, *MISTAKES):
            return None

    def _sources(self) -> Any:
        """Hydra's view of all folders with configs."""
        if self._repository is None:
            register_run_id()
            version.setbase(HYDRA_VERSION)
            self._loader = config_loader(self.args)
            name = self.args.config_name or "config"
            _, self._repository = self._loader._parse_overrides_and_create_caching_repo(name, self.hydra)
        return self._repository


def _closed(config: DictConfig) -> bytes:
    """No key comes in without a +."""
    OmegaConf.set_struct(config, True)
    return pickle.dumps(config)


@lru_cache(maxsize=100_000)
def _parsed(word: str) -> Override:
    return parse_overrides([word])[0]


def _is_hydras(override: Override) -> bool:
    """Words about Hydra itself, and about the sweep: they aren't of a job."""
    key = override.key_or_group
    return key.partition(".")[0] in NOT_OF_A_RUN or key.startswith("hydra/")


def job_words(overrides: Sequence[str]) -> list[str]:
    """The words that are a job's."""
    return [word for word in overrides if not _is_hydras(_parsed(word))]


def subdir(pattern: str, naming: Mapping[str, Any], number: int, overrides: Sequence[str]) -> str:
    """The name of a job's folder, as `hydra.sweep.subdir` has it. Raises UserError for one that can't be a name.

    `naming` has what `hydra.job.config.override_dirname` says.
    """
    if pattern == "${hydra.job.num}":  # 0.2 ms less
        return str(number)
    task = [_parsed(word) for word in overrides]
    dirname = get_overrides_dirname(task, list(naming["exclude_keys"]), naming["item_sep"], naming["kv_sep"])
    job = {"num": number, "override_dirname": dirname, "name": "dlrun", "id": str(number)}
    try:
        name = str(OmegaConf.create({"hydra": {"job": job, "sweep": {"subdir": pattern}}}).hydra.sweep.subdir)
    except MISTAKES as error:
        raise explained(error) from error
    if not name or name.startswith(("/", ".")) or ".." in name.split("/"):
        raise UserError(f"hydra.sweep.subdir: expected the name of a folder inside the sweep's, got '{name}'")
    return name
