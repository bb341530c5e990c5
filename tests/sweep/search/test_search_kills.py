"""A search in real processes, killed with SIGKILL: as many trials as were asked for, none twice, the same ones."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest
from processes import Dlrun
from searches import study_of

from dlrun.sweep.folder import SweepFolder

WORDS = (
    *("-m", "hydra/sweeper=optuna", "tracking=none", "model=mlp", "model.hidden_sizes=[32]", "trainer.num_threads=1"),
    *("optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.dropout=interval(0,0.5)", "sweep.check=config"),
    "hydra.sweeper.sampler={name:tpe,n_startup_trials:4}",
)


def process_of(run: Path) -> int | None:
    """The number of the process that trains in a folder."""
    try:
        words = (run / ".lock").read_text().split()
    except OSError:
        return None
    return int(words[1]) if len(words) == 4 else None


def killed(folder: Path, words: tuple[str, ...], job: int, job_too: bool) -> None:
    """`dlrun WORDS`, killed while it runs its `job`th job, with that job or alone."""
    sweep = folder / "sweep"
    process = Dlrun(folder, *words)
    metrics = sweep / str(job) / "metrics.csv"
    process.until(lambda: metrics.exists() and process_of(sweep / str(job)) is not None)
    number = process_of(sweep / str(job))
    process.kill()
    if job_too and number is not None:
        os.kill(number, signal.SIGKILL)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("trials", "epochs", "first", "second"), [(2, 3, 0, 1), pytest.param(20, 10, 5, 13, marks=pytest.mark.slow)]
)
def test_killed_twice(tmp_path: Path, trials: int, epochs: int, first: int, second: int) -> None:
    words = (*WORDS, f"hydra.sweeper.n_trials={trials}", f"trainer.max_epochs={epochs}")
    resumed = ("sweep", "resume", "run=sweep")
    killed(tmp_path, (*words, "hydra.sweep.dir=sweep"), first, job_too=True)
    killed(tmp_path, resumed, second, job_too=False)
    process = Dlrun(tmp_path, *resumed)
    process.process.join(600)
    assert process.wait() == 0, process.output
    sweep = SweepFolder(tmp_path / "sweep")
    found = [(t.number, t.state.name, t.params, t.value) for t in study_of(sweep).get_trials()]
    assert [number for number, *_ in found] == list(range(trials))
    assert {state for _, state, *_ in found} == {"COMPLETE"}
    jobs = sweep.read_jobs()
    assert [job.trial for job in jobs] == list(range(trials))
    for job in jobs:
        assert sweep.run(job).read_summary()["status"] == "finished"
        with sweep.run(job).metrics.open() as file:
            assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(1, epochs + 1))
    if trials == 20:
        undisturbed = Dlrun(tmp_path, *words, "hydra.sweep.dir=other")
        undisturbed.process.join(600)  # longer than `wait` has patience
        assert undisturbed.wait() == 0, undisturbed.output
        other = study_of(SweepFolder(tmp_path / "other")).get_trials()
        assert found == [(t.number, t.state.name, t.params, t.value) for t in other]
