"""Launchers of Hydra's: `basic`, which is this process, and plugins, as far as they are installed."""

from __future__ import annotations

import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import CommandLine
from failing_jobs import FRAGILE, TINY, events, summaries
from processes import Dlrun

from dlrun.errors import UserError
from dlrun.sweep import launchers
from dlrun.sweep.folder import SweepFolder

# Leaves behind what it can, and notes what it found.
UNTIDY = '''
import logging, os, warnings
import torch
from torch import nn
from dlrun.registry import models

FOUND = []

@models.register("untidy")
def untidy(spec, *, leave: bool = False):
    """Leaves things behind."""
    if torch.initial_seed() == 1:
        raise ValueError("as fated")
    FOUND.append((os.environ.get("LEFT"), torch.are_deterministic_algorithms_enabled()))
    os.environ["LEFT"] = "yes"
    warnings.warn("look here")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
'''


def test_in_this_process_one_job_leaves_the_next_nothing(dlrun: CommandLine) -> None:
    (dlrun.folder / "my_models.py").write_text(UNTIDY)
    config = dlrun.folder / "mine/model/untidy.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("name: untidy\nleave: true\n")
    words = ["-m", "--config-dir", "mine", "plugins=[my_models]", *TINY, "model=untidy", "hydra/launcher=basic"]
    result = dlrun(*words, "sweep.check=config", "hydra.sweep.dir=sweep", "seed=0,1,2", "trainer.deterministic=true")
    assert result.code == 1, result.out + result.err
    folder = SweepFolder(dlrun.folder / "sweep")
    assert [summaries(folder)[name]["status"] for name in "012"] == ["finished", "failed", "finished"]
    assert summaries(folder)["1"]["error"] == "ValueError: as fated"
    import my_models

    assert [left for left, _ in my_models.FOUND] == [None, None]
    assert "LEFT" not in os.environ
    for name in "012":
        said = (folder.path / name / "dlrun.log").read_text()
        assert said.count("folder sweep/") == (name != "1"), "each has its own log, and only that"
        assert ("look here" in said) == (name != "1")
    assert not [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
    alone = dlrun(*words[1:6], *TINY, "model=untidy", "seed=2", "trainer.deterministic=true", "hydra.run.dir=alone")
    assert alone.code == 0, alone.err
    best = json.loads((dlrun.folder / "alone/summary.json").read_text())["best"]
    assert best["val/loss"] == summaries(folder)["2"]["best"]["val/loss"]


def test_in_this_process_ctrl_c_saves_the_job_and_ends_the_sweep(dlrun: CommandLine) -> None:
    words = ["-m", *TINY, "model=mlp", "model.hidden_sizes=[16]", "trainer.max_epochs=100000", "seed=0,1"]
    process = Dlrun(dlrun.folder, *words, "hydra/launcher=basic", "hydra.sweep.dir=sweep")
    metrics = dlrun.folder / "sweep/0/metrics.csv"
    process.until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 3)
    process.send(signal.SIGINT)
    assert process.wait() == 130, process.output
    folder = SweepFolder(dlrun.folder / "sweep")
    assert folder.read()["status"] == "interrupted"
    assert json.loads((folder.path / "0/summary.json").read_text())["status"] == "preempted"
    assert (folder.path / "0/checkpoints/last.pt").exists()
    assert not (folder.path / "1").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joblib", "ray"])
def test_a_plugin_runs_on_past_a_job_that_raises_and_one_that_is_killed(dlrun: CommandLine, name: str) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{name}_launcher")
    (dlrun.folder / "my_models.py").write_text(FRAGILE)
    config = dlrun.folder / "mine/model/fragile.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("name: fragile\nwidth: 8\nfate: none\n")
    (dlrun.folder / "armed").touch()
    process = Dlrun(  # of its own: when its Ray ends, a process may end with it
        dlrun.folder,
        *("-m", "--config-dir", "mine", "plugins=[my_models]", *TINY, "hydra.sweep.dir=sweep", "model=fragile"),
        *(f"hydra/launcher={name}", "model.fate=raise,kill,none"),
    )
    assert process.wait() == 1, process.output
    folder = SweepFolder(dlrun.folder / "sweep")
    ended = summaries(folder)
    assert [ended[name]["status"] for name in "012"] == ["failed", "failed", "finished"]
    assert ended["0"]["error"] == "ValueError: as fated"
    assert ended["1"]["error"].startswith("killed by SIGKILL")
    (dlrun.folder / "armed").unlink()
    process = Dlrun(dlrun.folder, "sweep", "resume", "run=sweep", "plugins=[my_models]")
    assert process.wait() == 0, process.output
    assert events(folder, "started") == {0: 2, 1: 2, 2: 1}
    configs = [yaml.safe_load((dlrun.folder / f"sweep/{name}/config.yaml").read_text()) for name in "012"]
    assert {config["model"]["width"] for config in configs} == {8}, "the YAML was edited in the middle"
    assert not (folder.path / ".launched").exists()


@pytest.mark.slow
def test_a_plugin_is_stopped_by_ctrl_c(dlrun: CommandLine) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["-m", *TINY, "model=mlp", "model.hidden_sizes=[16]", "trainer.max_epochs=100000", "seed=0,1"]
    process = Dlrun(dlrun.folder, *words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "hydra.sweep.dir=sweep")
    metrics = dlrun.folder / "sweep/0/metrics.csv"
    process.until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 3)
    process.send(signal.SIGINT)
    assert process.wait() == 130, process.output
    assert json.loads((dlrun.folder / "sweep/0/summary.json").read_text())["status"] == "preempted"
    assert not (dlrun.folder / "sweep/1").exists()


def test_a_plugin_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ray = yaml.safe_load((Path(__file__).resolve().parents[3] / "conf/hydra/launcher/ray.yaml").read_text())
    nodes: list[tuple[dict[str, Any], str]] = [
        ({"_target_": "hydra_plugins.no_such_launcher.NoSuch"}, "no plugin hydra_plugins.no_such_launcher.NoSuch"),
        ({"_target_": "os.system", "command": "true"}, "no plugin os.system"),
    ]
    try:
        import hydra_plugins.hydra_ray_launcher  # noqa: F401

        nodes.append((ray | {"rai": 1}, "hydra.launcher: "))
    except ImportError:
        nodes.append((ray, "hydra/launcher=ray needs Hydra's plugin for it: pip install 'dlrun[ray]'"))
    for node, message in nodes:
        with pytest.raises(UserError) as refused:
            launchers.build(node, SweepFolder(tmp_path))
        assert message in str(refused.value)
