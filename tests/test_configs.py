"""Every YAML of conf/ composes, fits its builder's signature, and has every value read."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dlrun.config import DataConfig, SchedulerConfig, TrainerConfig, parse
from dlrun.registry import REGISTRIES, check_options

CONF = Path(__file__).resolve().parent.parent / "conf"
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml") if path.parent.parent.name != "hydra")
BUILT = [path for path in FILES if path.parent.name in REGISTRIES]
SHARED = {"data": DataConfig, "scheduler": SchedulerConfig}
REQUIRED = {"data/text_csv": ["data.file=reviews.csv"]}


def test_the_walk_is_complete() -> None:
    counts = {group: sum(path.parent.name == group for path in FILES) for group in REGISTRIES}
    assert counts == {"model": 9, "data": 11, "task": 1, "optimizer": 10, "scheduler": 10, "precision": 5}
    for group, registry in REGISTRIES.items():
        assert {path.stem for path in FILES if path.parent.name == group} == set(registry.names())


@pytest.mark.parametrize("path", FILES, ids=str)
def test_composes_and_is_accepted(path: Path, compose_config: Callable[..., dict[str, Any]]) -> None:
    group, name = path.parent.name, path.stem
    overrides = [] if path.name == "config.yaml" else [f"{group}={name}", *REQUIRED.get(f"{group}/{name}", [])]
    config = compose_config(*overrides)
    typed = parse(config)
    for kind, named in (("model", typed.model), ("data", typed.dataset), ("task", typed.task)):
        check_options(REGISTRIES[kind][named.name], named.options, kind)
    for kind, named in (("optimizer", typed.optimizer), ("scheduler", typed.scheduler), ("precision", typed.precision)):
        check_options(REGISTRIES[kind][named.name], named.options, kind)


@pytest.mark.parametrize("path", BUILT, ids=str)
def test_file_shows_every_option_with_the_builders_own_default(path: Path) -> None:
    group, name = path.parent.name, path.stem
    shown = yaml.safe_load((CONF / path).read_text())
    shown.pop("defaults", None)
    assert shown.pop("name") == name
    shared = set(SHARED[group].__dataclass_fields__) if group in SHARED else set()
    own = {key: value for key, value in shown.items() if key not in shared}
    parameters = inspect.signature(REGISTRIES[group][name]).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert own.keys() == options.keys()
    for key, default in options.items():
        if default is not inspect.Parameter.empty:
            # YAML 1.1, which this reader speaks, takes 1e-3 for a text; OmegaConf takes it for a number.
            value = float(own[key]) if isinstance(default, float) else own[key]
            assert value == default, key


def test_trainer_file_shows_every_option() -> None:
    shown = yaml.safe_load((CONF / "trainer/default.yaml").read_text())
    assert shown.keys() == TrainerConfig.__dataclass_fields__.keys()


def test_every_recipe_says_its_command_and_its_result() -> None:
    recipes = sorted((CONF / "experiment").glob("*.yaml"))
    assert len(recipes) >= 8
    for path in recipes:
        header = [line for line in path.read_text().splitlines() if line.startswith("#")]
        begin = "dlrun -m" if path.stem.startswith("search_") else "dlrun"
        assert any(f"{begin} experiment={path.stem}" in line for line in header), path
        assert any("accuracy" in line and "seeds 0–4" in line for line in header), path
