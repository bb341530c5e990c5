"""Hopeless trials end early: as Optuna itself would have it, and in a real training."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import optuna
import pytest
from command_line import CommandLine
from searches import TWO, again, begin, peak

from dlrun.sweep.search.pruners import build_pruner
from dlrun.sweep.search.pruning import judge
from dlrun.sweep.search.samplers import Anew, build_sampler

EPOCHS = 9
PRUNERS = [
    "{name:median,n_startup_trials:2}",
    "{name:percentile,percentile:40.0,n_startup_trials:2}",
    "hyperband",
    "{name:asha,reduction_factor:2}",
    "{name:patient,patience:1,wrapped_pruner:{name:median,n_startup_trials:2}}",
    "{name:threshold,lower:-0.5}",
]


def curve(score: float, epoch: int) -> float:
    """Rises to `score`; what is best at the end isn't at first."""
    return score * (1 - 0.5 ** (epoch / 2)) - abs(score) ** 0.5 / epoch


@pytest.mark.parametrize("pruner", PRUNERS)
def test_trials_end_where_optunas_own_loop_ends_them(tmp_path: Path, pruner: str) -> None:
    words = (*TWO, f"hydra.sweeper.pruner={pruner}", "hydra.sweeper.n_trials=15", f"trainer.max_epochs={EPOCHS}")
    search = begin(tmp_path / "a", *words)
    while (job := search.next()) is not None:
        hopeless = judge(search.folder, job)
        assert hopeless is not None
        best, pruned = -100.0, False
        for epoch in range(1, EPOCHS + 1):
            value = curve(peak(job.config), epoch)
            best, row = max(best, value), {"epoch": epoch, "val/acc": value}
            if epoch == 3:  # resumed there: the same is reported again, by another process
                hopeless = judge(search.folder, job)
            if pruned := hopeless(row):
                break
        search.ended(job, "pruned" if pruned else "done", {"best": {"val/acc": best}})

    def objective(trial: optuna.Trial) -> float:
        given = search.space.suggest(trial)
        config = {"optimizer": {key.partition(".")[2]: value for key, value in given.items()}}
        values = []
        for epoch in range(1, EPOCHS + 1):
            values.append(curve(peak(config), epoch))
            trial.report(values[-1], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return max(values)

    plan = search.folder.read()["study"]
    reference = optuna.create_study(
        study_name="search",  # which Hyperband's brackets depend on
        direction="maximize",
        sampler=Anew(build_sampler("tpe", {}, search.space, 0)),
        pruner=build_pruner(plan["pruner"]),
    )
    reference.optimize(objective, n_trials=15)
    ours, theirs = (
        [(t.state, t.params, t.value, t.last_step) for t in study.get_trials()] for study in (search.study, reference)
    )
    assert ours == theirs
    assert {state.name for state, *_ in ours} == {"PRUNED", "COMPLETE"}


def test_no_pruner_asks_nobody(tmp_path: Path) -> None:
    search = begin(tmp_path / "a", *TWO)
    assert judge(search.folder, search.next()) is None


def test_a_study_that_is_lost_costs_the_pruning_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    search = begin(tmp_path / "a", *TWO, "hydra.sweeper.pruner={name:threshold,lower:2.0,n_warmup_steps:2}")
    job = search.next()
    asks = judge(search.folder, job)
    assert asks is not None
    assert not asks({"epoch": 1, "val/acc": 0.1})
    search.folder.journal.unlink()
    search.folder.journal.mkdir()
    with caplog.at_level(logging.WARNING):
        for epoch in (2, 3):
            assert not asks({"epoch": epoch, "val/acc": 0.1})
        late = judge(search.folder, job)
        assert late is not None
        assert not late({"epoch": 2, "val/acc": 0.1})
    assert len(caplog.messages) == 2
    assert all("no pruning from here on" in message for message in caplog.messages)


def test_hyperband_shares_out_the_epochs(tmp_path: Path) -> None:
    search = begin(tmp_path / "a", *TWO, "hydra.sweeper.pruner=hyperband", "trainer.max_epochs=27")
    assert search.folder.read()["study"]["pruner"] == {"name": "hyperband", "max_resource": 27}
    search = begin(tmp_path / "b", *TWO, "hydra.sweeper.pruner=hyperband", "trainer.max_epochs=int(interval(3,81))")
    assert search.folder.read()["study"]["pruner"]["max_resource"] == 81


def test_a_pruned_job_ends_well_and_keeps_its_folder(dlrun: CommandLine) -> None:
    result = dlrun(
        *(
            "-m",
            "hydra/sweeper=optuna",
            "tracking=none",
            "model=mlp",
            "model.hidden_sizes=[16]",
            "trainer.max_epochs=5",
        ),
        *("hydra.sweeper.pruner={name:threshold,lower:2.0,n_warmup_steps:2}", "hydra.sweeper.n_trials=1"),
        *(TWO[0], "hydra.sweep.dir=sweep", "sweep.check=config"),
    )
    assert result.code == 0, result.err
    summary = json.loads((dlrun.folder / "sweep/0/summary.json").read_text())
    assert (summary["status"], summary["exit_code"], summary["epochs"]) == ("pruned", 0, 2)
    assert summary.get("test") is None
    assert (dlrun.folder / "sweep/0/checkpoints/last.pt").exists()
    trial = again(dlrun.folder / "sweep").study.get_trials()[0]
    assert trial.state.name == "PRUNED"
    assert list(trial.intermediate_values) == [1, 2]


def spent(folder: Path) -> tuple[int, float]:
    """Epochs of all runs of a sweep, and the best of what they reached."""
    summaries: list[dict[str, Any]] = [json.loads(path.read_text()) for path in folder.glob("*/summary.json")]
    assert len(summaries) == 20
    return sum(s["epochs"] for s in summaries), max(s["best"]["val/acc"] for s in summaries if s["status"] != "pruned")


@pytest.mark.slow
def test_hyperband_spends_half_the_epochs_and_finds_as_good(dlrun: CommandLine) -> None:
    for name, pruner in (("whole", "null"), ("hyperband", "hyperband")):
        result = dlrun("-m", "experiment=search_digits", f"hydra.sweeper.pruner={pruner}", f"hydra.sweep.dir={name}")
        assert result.code == 0, result.err
    (all_epochs, best), (epochs, found) = spent(dlrun.folder / "whole"), spent(dlrun.folder / "hyperband")
    assert epochs <= all_epochs / 2
    assert found >= best - 0.005
