"""What a grid is begun with."""

from __future__ import annotations

import json

from command_line import CommandLine

from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.grid import axes

TINY = ["tracking=none", "data=breast_cancer", "model=perceptron", "augment=none", "trainer.max_epochs=1"]
TINY += ["trainer.enable_progress_bar=false", "hydra/launcher=basic"]  # in this process


def test_the_metric_that_ranks_and_its_better_end_are_of_one_job(dlrun: CommandLine) -> None:
    assert dlrun("-m", *TINY, "trainer.monitor=val/acc,val/loss", "hydra.sweep.dir=sweep").code == 0
    facts = json.loads((dlrun.folder / "sweep/sweep.json").read_text())
    assert (facts["monitor"], facts["mode"]) == ("val/acc", "max")


def test_glob_finds_config_groups(dlrun: CommandLine) -> None:
    result = dlrun("-m", *TINY, "model=glob(*tron)", "seed=0,1", "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    assert [job.choices["model"] for job in SweepFolder(dlrun.folder / "sweep").read_jobs()] == ["perceptron"] * 2


def test_null_in_a_files_space_stays_null() -> None:
    assert axes([], {"trainer.patience": None, "seed": "1,2"}) == {
        "trainer.patience": ["trainer.patience=null"],
        "seed": ["seed=1", "seed=2"],
    }
