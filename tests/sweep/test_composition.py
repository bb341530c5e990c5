"""What the composer makes of words is what Hydra alone makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dlrun.compose import parse_arguments
from dlrun.errors import UserError
from dlrun.identity import differences, key
from dlrun.sweep.composition import Composer, subdir

NAMING = {"kv_sep": "=", "item_sep": ",", "exclude_keys": ["seed"]}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["seed=3", "optimizer.lr=1e-3"],
        ["model=lstm", "data=pydocs", "model.dropout=0.5"],
        ["experiment=digits_cnn", "optimizer.lr=0.1", "optimizer=sgd"],
        ["++model.dropout=0.25", "+model.depth=2", "model=mlp", "tracking=none", "~augment.mixup"],
        ["augment={transforms:[],mixup:0.1}", "tags=[a,b]", "notes='x=y, z'"],
        ["optimizer.lr=${seed}", "seed=2", "~experiment"],
        ["tracking=[wandb,tensorboard]", "debug=fast"],
        ["hydra.job.name=other", "seed=1"],
    ],
)
def test_as_hydra_composes(words: list[str], compose_config: Callable[..., dict[str, Any]]) -> None:
    composer = Composer(parse_arguments(["-m"]))
    composer.compose(["model=rnn", "seed=9"])  # what was composed before leaves no trace
    words = ["plots=false", *words]  # as all configs of the tests have it
    config, _ = composer.compose(words)
    assert config == compose_config(*words)
    again = Composer(parse_arguments(["-m"]), bases=composer.bases)
    assert again.compose(words)[0] == config, "and so it is from what is kept with a sweep"


def test_the_kept_bases_need_no_folder_of_configs() -> None:
    composer = Composer(parse_arguments(["-m"]))
    first, choices = composer.compose(["model=mlp", "seed=1"])
    args = parse_arguments(["-m", "--config-dir", "/nowhere"])
    again = Composer(args, bases=composer.bases)
    assert again.compose(["model=mlp", "seed=1"]) == (first, choices)
    with pytest.raises(UserError, match="--config-dir: no folder /nowhere"):
        again.compose(["model=cnn", "seed=1"])


def test_folders_are_named_as_hydra_names_them() -> None:
    assert subdir("${hydra.job.num}", NAMING, 3, []) == "3"
    words = ["seed=1", "optimizer.lr=0.1", "model=mlp"]
    assert subdir("${hydra.job.override_dirname}/${hydra.job.num}", NAMING, 3, words) == "model=mlp,optimizer.lr=0.1/3"
    for wrong in ("/tmp/x", "../x", "a/../../b", ""):
        with pytest.raises(UserError, match=r"hydra\.sweep\.subdir: expected the name of a folder"):
            subdir(wrong, NAMING, 0, [])


def test_a_key_is_of_what_matters() -> None:
    config = {"seed": 0, "tags": ["a"], "data": {"root": "x", "num_workers": 2}, "trainer": {"num_threads": 1}}
    beside = {"seed": 0, "tags": ["b"], "data": {"root": "x", "num_workers": 0}, "trainer": {"num_threads": 4}}
    other = {"seed": 1, "tags": ["a"], "data": {"root": "x", "num_workers": 2}, "trainer": {"num_threads": 1}}
    assert key(config) == key(beside) != key(other)
    assert key(config, ["trainer.num_threads"]) != key(beside, ["trainer.num_threads"]), "it is asked for"
    assert differences(config, beside) == ["tags", "data.num_workers", "trainer.num_threads"]
