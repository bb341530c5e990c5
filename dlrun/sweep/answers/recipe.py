"""The config of one job as an experiment of conf/experiment/: what it chooses, and the values that this leaves open."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dlrun.errors import UserError
from dlrun.identity import differences
from dlrun.sweep.composition import Composer
from dlrun.sweep.folder import FrozenJob
from dlrun.sweep.resuming import arguments

ALWAYS = ("model", "data")  # are said, even if they are the default
NEVER = ("experiment", "debug", "tracking")  # what these two choose is said by its values; where it is told isn't said
BESIDE = ("tags", "tracking")


class _Dumper(yaml.SafeDumper):
    """As conf/ is written: a key per line, and a list of plain values on one."""

    def represent_list(self, data: Any) -> Any:
        flat = not any(isinstance(item, list | dict) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_Dumper.add_representer(list, _Dumper.represent_list)


def recipe(sweep: dict[str, Any], job: FrozenJob, words: Sequence[str]) -> str:
    """The YAML, with `words` as its first comment; composed once, to see that it comes to `job`'s config.

    The seed is left out if it was swept. Raises UserError for a config that no recipe can say.
    """
    seeds = [f"seed={job.config['seed']}"] if "seed" in sweep["swept"] else []
    composer = Composer(arguments(sweep, _folders(sweep)))
    _, usual = composer.compose([])
    chosen = {
        group: choice
        for group, choice in job.choices.items()
        if not group.startswith("hydra/") and group.partition("@")[0] not in NEVER
    }
    said = {g: c for g, c in chosen.items() if g in ALWAYS or g in sweep["swept"] or usual.get(g) != c}
    base, _ = composer.compose([*(f"{group}={_word(choice)}" for group, choice in said.items()), *seeds])
    values = _added(job.config, base, top=True)
    lines = ["# @package _global_", *(f"# {line}".replace("\n", " ") for line in words)]
    lines += ["defaults:", *(f"  - override /{group}: {_word(choice)}" for group, choice in said.items())]
    text = "\n".join(lines) + "\n"
    if values:
        text += "\n" + yaml.dump(
            values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=100
        )
    _check(sweep, job, text, seeds)
    return text


def _folders(sweep: Mapping[str, Any], more: str = "") -> list[str]:
    """Of Hydra's words those that bring in folders of configs. The others are about the sweep, not about a run."""
    key = "hydra.searchpath="
    said = [word.partition("=")[2].strip("[] ") for word in sweep["words"] if word.lstrip("+").startswith(key)]
    places = [*said[-1:], *([f"'file://{more}'"] if more else [])]
    return [f"{key}[{','.join(places)}]"] if places else []


def _word(choice: Any) -> str:
    if isinstance(choice, list | tuple):
        return f"[{','.join(map(str, choice))}]"
    return "null" if choice is None else str(choice)


def _added(config: Mapping[str, Any], base: Mapping[str, Any], top: bool = False) -> dict[str, Any]:
    """What `config` has that `base` doesn't have like that."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if top and key in BESIDE:
            continue
        if key in base and isinstance(value, Mapping) and isinstance(base[key], Mapping):
            inner = _added(value, base[key])
            if inner:
                found[key] = inner
        elif key not in base or base[key] != value:
            found[key] = value
    return found


def _check(sweep: dict[str, Any], job: FrozenJob, text: str, seeds: Sequence[str]) -> None:
    """Compose the recipe in a folder of its own. Raises UserError unless it is `job`'s config."""
    with tempfile.TemporaryDirectory() as folder:
        name = f"recipe_{secrets.token_hex(4)}"
        (Path(folder) / "experiment").mkdir()
        (Path(folder) / "experiment" / f"{name}.yaml").write_text(text, encoding="utf-8")
        args = arguments(sweep, _folders(sweep, folder))
        config, _ = Composer(args).compose([f"experiment={name}", *seeds])
    wrong = differences(_without(config), _without(job.config))
    if wrong:
        raise UserError(f"copy_to: a recipe can't say this config: it would differ in {', '.join(wrong[:5])}")


def _without(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in BESIDE}
