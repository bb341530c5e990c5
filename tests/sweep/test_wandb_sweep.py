"""`dlrun wandb-sweep`: what it writes is what W&B reads, and what an agent makes of it is a run of the space."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from command_line import CommandLine
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

SPACE = [
    *("model=mlp,perceptron", "optimizer.lr=tag(log,interval(1e-5,1e-1))", "trainer.gradient_clip_val=null,0.5"),
    *("data.batch_size=tag(log,int(interval(16,256)))", "task.label_smoothing=interval(0,0.3)", "seed=range(5)"),
    *("trainer.max_epochs=range(4,13,4)", "trainer.deterministic=true,false", "trainer.tta='none','flip'"),
]
FIXED = ["data=fake", "data.limit=40", "sweep.check=config"]


def written(dlrun: CommandLine, *words: str) -> dict[str, Any]:
    result = dlrun("wandb-sweep", *words)
    assert result.code == 0, result.err
    return dict(yaml.safe_load((dlrun.folder / "wandb-sweep.yaml").read_text()))


def test_every_kind_of_parameter(dlrun: CommandLine) -> None:
    sweep = written(dlrun, *SPACE, *FIXED, "name=mine", "run_cap=30", "tracking.wandb.entity=us")
    assert sweep == {
        "program": "dlrun",
        "name": "mine",
        "project": "dlrun",
        "entity": "us",
        "method": "bayes",
        "metric": {"name": "val/acc", "goal": "maximize"},
        "run_cap": 30,
        "parameters": {
            "model": {"values": ["mlp", "perceptron"]},
            "optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
            "trainer.gradient_clip_val": {"values": ["null", 0.5]},
            "data.batch_size": {"distribution": "q_log_uniform_values", "min": 16, "max": 256, "q": 1},
            "task.label_smoothing": {"distribution": "uniform", "min": 0.0, "max": 0.3},
            "seed": {"distribution": "int_uniform", "min": 0, "max": 4},
            "trainer.max_epochs": {"values": [4, 8, 12]},
            "trainer.deterministic": {"values": [True, False]},
            "trainer.tta": {"values": ["'none'", "'flip'"]},
        },
        "command": ["${env}", "dlrun", "data=fake", "data.limit=40", "tracking.wandb.entity=us", "${args_no_hyphens}"],
    }


def test_an_agent_makes_runs_of_the_space_out_of_it(
    dlrun: CommandLine, compose_config: Callable[..., dict[str, Any]]
) -> None:
    """wandb's own code makes the command line, and Hydra reads it."""
    sweep = written(dlrun, *SPACE, *FIXED, "method=random")
    drawn = {"model": "perceptron", "optimizer.lr": 3.2e-05, "trainer.gradient_clip_val": "null", "seed": 3}
    drawn |= {"data.batch_size": 17, "task.label_smoothing": 0.1, "trainer.max_epochs": 8}
    drawn |= {"trainer.deterministic": True, "trainer.tta": "'flip'"}
    command = create_sweep_command(sweep["command"])
    words = create_sweep_command_args({"args": {key: {"value": value} for key, value in drawn.items()}})
    assert command[:2] == ["${env}", "dlrun"]
    config = compose_config(*command[2:-1], *words[command[-1][2:-1]])
    assert (config["model"]["name"], config["data"]["name"], config["data"]["limit"]) == ("perceptron", "fake", 40)
    assert (config["optimizer"]["lr"], config["seed"], config["data"]["batch_size"]) == (3.2e-05, 3, 17)
    assert config["trainer"]["gradient_clip_val"] is None
    assert config["trainer"]["deterministic"] is True
    assert config["trainer"]["tta"] == "flip"


def test_a_space_in_yaml_and_how_it_is_searched(dlrun: CommandLine) -> None:
    (dlrun.folder / "conf" / "experiment").mkdir(parents=True)
    (dlrun.folder / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/sweeper: optuna\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    sampler: random\n    n_trials: 7\n    pruner: median\n"
        "    params: {model: 'mlp,cnn', optimizer.lr: 'interval(0.1,0.2)', model.dropout: 'interval(0,0.5)'}\n"
        "    when: {model.dropout: model=mlp}\n"
    )
    words = ["--config-dir", "conf", "experiment=mine", "hydra.launcher.jobs=2", "hydra.run.dir=out/${run_id:}"]
    words += ["data=fake", "sweep.check=config", "early_terminate=hyperband", "trainer.max_epochs=11"]
    words += ["trainer.check_val_every_n_epoch=2", "trainer.monitor=val/loss"]
    refused = dlrun("wandb-sweep", *words)
    assert refused.code == 2
    assert "model.dropout is for model=mlp, but in a W&B sweep every run has every parameter; fix model" in refused.err
    sweep = written(dlrun, *words, "model=mlp")  # settles it
    assert list(sweep["parameters"]) == ["optimizer.lr", "model.dropout"]
    assert (sweep["method"], sweep["run_cap"]) == ("random", 7)
    assert sweep["early_terminate"] == {"type": "hyperband", "max_iter": 6, "s": 2, "eta": 3}
    assert sweep["metric"] == {"name": "val/loss", "goal": "minimize", "impute": "best"}
    alone = ["--config-dir", "conf", "hydra.run.dir=out/${run_id:}", "hydra.mode=RUN"]
    fixed = ["experiment=mine", "data=fake", *words[-3:], "model=mlp"]
    assert sweep["command"] == ["${env}", "dlrun", *alone, *fixed, "${args_no_hyphens}"]


def test_hyperband_goes_by_the_longest_run(dlrun: CommandLine) -> None:
    sweep = written(dlrun, "trainer.max_epochs=range(4,13,4)", *FIXED, "early_terminate=hyperband")
    assert sweep["early_terminate"]["max_iter"] == 12


def test_a_grid_has_its_last_value(dlrun: CommandLine) -> None:
    words = ["optimizer.lr=1e-3,1e-2", "seed=range(1,4)", "data.batch_size=int(interval(30,32))", "method=grid"]
    assert written(dlrun, *words, *FIXED)["parameters"] == {
        "optimizer.lr": {"values": [1e-3, 1e-2]},
        "seed": {"distribution": "int_uniform", "min": 1, "max": 3},  # both ends included
        "data.batch_size": {"values": [30, 31, 32]},
    }


LR = "optimizer.lr=interval(0.1,0.2)"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=fake"], "wandb-sweep: nothing to search; say, for example"),
        ([LR, "method=grid"], r"method: a grid has no end with optimizer.lr=interval\(0.1,0.2\); say its values, or"),
        (["optimizer.lr=interval(0.2,0.1)"], "optimizer.lr: expected the lower end of an interval first"),
        ([LR, "model=mlpp,cnn"], "unknown model 'mlpp'; did you mean 'mlp'"),
        ([LR, "tracking=none"], "tracking: a W&B sweep sees what W&B is told, and it is off"),
        ([LR, "tracking.wandb.mode=offline"], "tracking.wandb.mode: a W&B sweep sees what W&B is told; expected auto"),
        ([LR, "trainer.fast_dev_run=true"], "trainer.fast_dev_run: it tells W&B nothing"),
        ([LR, "early_terminate=median"], "early_terminate: expected one of 'hyperband' or null, got 'median'"),
        ([LR, "early_terminate=hyperband", "trainer.max_epochs=2"], "hyperband needs runs of at least 3 evaluations"),
        (
            [LR, "early_terminate=hyperband", "trainer.max_epochs=null", "trainer.max_steps=9"],
            "trainer.max_epochs, which",
        ),
        ([LR, "run_cap=0"], "run_cap: expected a whole number >= 1"),
        (
            [LR, "hydra/sweeper=optuna", "hydra.sweeper.sampler=cmaes"],
            "W&B has nothing like hydra.sweeper.sampler=cmaes",
        ),
        ([LR, "hydra/sweeper=optuna", "hydra.sweeper.objective=[val/acc,seconds]"], "a W&B sweep has one metric, got"),
        (["optimizer.lr=range(0,1,0.0001)"], "10000 values are too many to write down"),
        (["+augment@extra=light,strong"], "W&B doesn't take that name for a parameter"),
        ([LR, "out=taken.yaml"], "out: taken.yaml is there already, and isn't by dlrun wandb-sweep"),
    ],
)
def test_what_w_and_b_can_not_express_is_refused(dlrun: CommandLine, words: list[str], message: str) -> None:
    (dlrun.folder / "taken.yaml").write_text("mine: 1\n")
    result = dlrun("wandb-sweep", "sweep.check=config", *words)
    assert result.code == 2, result.out
    assert re.search(message, result.err), result.err
    assert not (dlrun.folder / "wandb-sweep.yaml").exists()
    assert (dlrun.folder / "taken.yaml").read_text() == "mine: 1\n"
