"""What a run says otherwise than the defaults is what was typed, and what a recipe's file says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dlrun.compose import compose, config_loader, defaults, parse_arguments, plain
from dlrun.conffolder import conf_folder
from dlrun.differences import changed, changed_since, chosen_words, flat
from dlrun.sweep.composition import Composer
from dlrun.sweep.freezing import freeze


def differing(*words: str) -> dict[str, Any]:
    args = parse_arguments(words)
    cfg = compose(args)
    choices = dict(cfg.hydra.runtime.choices)
    return changed(plain(cfg), choices, defaults(config_loader(args), args, choices))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], {}),
        (["optimizer.lr=0.5", "seed=3"], {"seed": 0, "optimizer.lr": 0.003}),
        (["trainer.max_epochs=20"], {}),  # what it is anyway
        (["optimizer=sgd"], {"optimizer": "adamw"}),  # its other options are that one's defaults
        (["data=cifar10"], {"data": "digits"}),  # with the augmentation that it brings
        (["data=cifar10", "augment=none"], {"augment": "standard", "data": "digits"}),
        (["tags=[a]", "tracking=none"], {"tracking": "wandb", "tags": []}),
        (["++model.extra=1", "+model.other=null"], {"model.extra": None}),
        (["trainer.patience=3", "trainer.compile=true"], {"trainer.patience": None, "trainer.compile": False}),
    ],
)
def test_what_was_typed(words: list[str], found: dict[str, Any]) -> None:
    assert differing(*words) == found


def test_what_a_recipe_says_counts() -> None:
    recipe = yaml.safe_load((conf_folder() / "experiment" / "digits_cnn.yaml").read_text())
    said = flat({key: value for key, value in recipe.items() if key != "defaults"})
    usual = flat(plain(compose(parse_arguments(["model=cnn", "data=digits"]))))
    expected = {key: usual[key] for key, value in said.items() if usual[key] != value}
    assert len(expected) > 4
    assert differing("experiment=digits_cnn") == {"experiment": None, **expected}


def test_a_sweeps_jobs_know_it_too_and_so_do_those_from_its_bases() -> None:
    words = ["experiment=digits_cnn", "optimizer.lr=0.25"]
    composer = Composer(parse_arguments(["-m"]))
    naming = {"subdir": "${hydra.job.num}", "override_dirname": {}}
    expected = differing(*words)
    assert freeze(composer, words, 0, ["optimizer.lr"], naming).changed == expected
    kept = json.loads(json.dumps(composer.bases))
    assert freeze(Composer(parse_arguments(["-m"]), bases=kept), words, 0, [], naming).changed == expected


def test_a_resume_changes_what_differs() -> None:
    before = {"trainer": {"max_epochs": 5, "max_steps": None}, "notes": None}
    longer = {"trainer": {"max_epochs": 20, "max_steps": None}, "notes": "on"}
    already = {"model": "cnn", "trainer.max_epochs": 20}
    assert changed_since(already, before, before) == already
    assert changed_since(already, before, longer) == {"model": "cnn", "notes": None}  # 20 is the default


def test_words_as_they_would_be_typed() -> None:
    config = {"trainer": {"max_epochs": 5, "patience": None, "compile": True}, "betas": [0.9, {"a": 1}]}
    choices = {"data": "digits", "model": "mlp", "debug": None, "tracking": ["wandb", "tensorboard"], "hydra/env": "x"}
    differs = {"tracking": "wandb", **dict.fromkeys(flat(config), 0)}
    assert chosen_words(config, choices, differs) == [
        *("model=mlp", "data=digits", "tracking=[wandb,tensorboard]"),
        *("trainer.max_epochs=5", "trainer.patience=null", "trainer.compile=true", "betas=[0.9,{a:1}]"),
    ]
    assert chosen_words(config, choices, None) == ["model=mlp", "data=digits", "tracking=[wandb,tensorboard]"]


def test_a_run_tells_and_keeps_it(dlrun: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shown = dlrun(*("model=mlp", "tracking=none", "trainer.max_epochs=1", "data.limit=64", f"hydra.run.dir={folder}"))
    first = shown.out.splitlines()[0]
    assert first == "model=mlp  data=digits  tracking=none  plots=false  data.limit=64  trainer.max_epochs=1"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["choices"]["optimizer"] == "adamw"
    assert summary["changed"] == {
        "model": "cnn", "tracking": "wandb", "plots": True, "data.limit": None, "trainer.max_epochs": 20
    }  # fmt: skip
