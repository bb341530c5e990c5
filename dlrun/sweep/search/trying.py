"""Before a search begins: every combination of choices is composed and kept, and every parameter's bounds tried."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from dlrun.compose import parse_overrides
from dlrun.errors import UserError
from dlrun.identity import key
from dlrun.sweep.composition import Composer
from dlrun.sweep.search.space import Parameter, Space, Values

Config = dict[str, Any]


def try_out(space: Space, composer: Composer, check: Callable[[Mapping[str, Any]], Any]) -> list[Config]:
    """Compose and `check` the ends of every parameter in every combination of the choices among config groups.

    Returns a config for each combination; `composer` has all their bases then. Raises UserError for what can't be
    composed or trained, and for a parameter that changes nothing.
    """
    groups = {parameter.name for parameter in space.parameters if _is_group(parameter, composer)}
    swept = [parameter.name for parameter in space.parameters]
    seen: dict[str, Config] = {}
    idle = {parameter.name for parameter in space.parameters}
    firsts = []

    def config_of(given: Values) -> Config:
        words = space.words(given)
        place = json.dumps(words)
        if place not in seen:
            try:
                seen[place] = composer.compose(words)[0]
                check(seen[place])
            except UserError as error:
                drawn = " ".join(word for word in words if word not in space.fixed)
                hint = "; hydra.sweeper.when says for which choices a key is searched"
                hint = hint if "unknown option" in str(error) and groups else ""
                raise UserError(f"{error} (with {drawn}{hint}; nothing was started)") from error
        return seen[place]

    for combination in space.combinations(groups):
        first = space.with_values(combination)
        assert first is not None
        firsts.append(config_of(first))
        for name, places in space.probes(combination).items():
            if len({_effect(config_of(given), swept) for given in places}) > 1:
                idle.discard(name)
    for name in groups:  # two choices that come to the same config
        if len({_effect(config_of(given), swept) for given in space.probes({})[name]}) > 1:
            idle.discard(name)
    if idle:
        name = min(idle, key=swept.index)
        raise UserError(f"{name}: {space[name]} changes nothing in any run; search something else")
    return firsts


def _is_group(parameter: Parameter, composer: Composer) -> bool:
    word = f"{parameter.key}={parameter.domain.word(parameter.domain.ends[0])}"
    return composer.is_group(parse_overrides([word])[0])


def _effect(config: Config, swept: list[str]) -> str:
    """All of a config that a result, its time or its size may depend on."""
    return key({**config, "tags": [], "notes": None}, swept)
