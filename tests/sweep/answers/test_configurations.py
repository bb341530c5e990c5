"""Means, deviations, intervals and ranks against numpy and scipy, and what doesn't get a rank."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from made_sweeps import grid, make, scored
from scipy import stats

from dlrun.sweep.answers.configurations import configurations, rank, sample
from dlrun.sweep.answers.results import gather


def ranking_of(path: Path):
    results = gather(path)
    return rank(configurations(results), results.objectives)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_students(n: int) -> None:
    values = np.random.default_rng(n).normal(0.9, 0.01, n).tolist()
    found = sample(values)
    low, high = stats.t.interval(0.95, n - 1, np.mean(values), stats.sem(values))
    assert found is not None
    assert found.interval is not None
    assert (found.n, found.mean, found.sd) == (n, pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert found.interval == pytest.approx((low, high), rel=1e-9)


def test_one_seed_has_no_deviation_and_none_nothing() -> None:
    assert sample([]) is None
    found = sample([0.5])
    assert (found.mean, found.sd, found.interval) == (0.5, None, None)


def test_ranked_by_the_mean_over_seeds(tmp_path: Path) -> None:
    chance, jobs = random.Random(0), grid(model=["mlp", "cnn", "lstm"], optimizer__lr=[0.1, 0.01], seed=[0, 1, 2, 3])
    acc = [chance.random() for _ in jobs]
    make(tmp_path / "s", jobs, lambda values, i: scored(acc[i]))
    ranking = ranking_of(tmp_path / "s")
    means = np.asarray(acc).reshape(6, 4).mean(axis=1)
    assert [c.number // 4 for _, c in ranking.ranked] == np.argsort(-means).tolist()
    assert [place for place, _ in ranking.ranked] == [1, 2, 3, 4, 5, 6]
    assert [c.sample("val/acc").mean for _, c in ranking.ranked] == pytest.approx(sorted(means, reverse=True))


def test_the_lowest_loss_is_first(tmp_path: Path) -> None:
    make(tmp_path / "s", grid(model=["a", "b"]), lambda v, i: scored([0.2, 0.8][i]), monitor="val/loss", mode="min")
    assert [c.values["model"] for _, c in ranking_of(tmp_path / "s").ranked] == ["b", "a"]


def test_equal_means_share_a_rank(tmp_path: Path) -> None:
    accuracies = [0.1, 0.2, 0.3, 0.3, 0.1, 0.2, 0.05, 0.05, 0.9, 0.9]  # means of pairs: a tie in another order of sums
    jobs = grid(model=list("abcde"), seed=[0, 1])
    order = [0, 1, 2, 3, 5, 4, 6, 7, 8, 9]
    make(tmp_path / "s", jobs, lambda values, i: scored(accuracies[order[i]]))
    ranked = [(place, c.values["model"]) for place, c in ranking_of(tmp_path / "s").ranked]
    assert ranked == [(1, "e"), (2, "b"), (3, "a"), (3, "c"), (5, "d")]


def test_a_failed_seed_keeps_its_configuration_out_of_the_ranking(tmp_path: Path) -> None:
    def came_to(values, i):
        if values["model"] == "lucky" and values["seed"] > 2:
            return scored(None, status="failed", error="no luck")
        if values["model"] == "nan":
            return scored(None)
        if values["model"] == "pruned":
            return scored(0.99, status="pruned")
        return None if values["model"] == "missing" else scored(0.95 if values["model"] == "lucky" else 0.9)

    jobs = grid(model=["lucky", "plain", "nan", "pruned", "missing"], seed=range(5))
    make(tmp_path / "s", jobs, came_to)
    results, ranking = gather(tmp_path / "s"), ranking_of(tmp_path / "s")
    assert [(place, c.values["model"]) for place, c in ranking.ranked] == [(1, "plain")]
    assert {c.values["model"]: c.lacks(results.objectives) for c in [*ranking.incomplete, *ranking.without]} == {
        "lucky": "2 failed of 5 seeds",
        "nan": "5 without a value of 5 seeds",
        "pruned": "5 pruned of 5 seeds",
        "missing": "5 pending of 5 seeds",
    }
    assert ranking.incomplete[0].sample("val/acc").n == 3


def test_a_job_that_was_there_already_counts_once(tmp_path: Path) -> None:
    jobs = [{"model": "a", "seed": 0}, {"model": "a", "seed": 1}, {"model": "a", "seed": 0}, {"model": "a", "seed": 1}]
    failed = scored(None, status="failed", error="killed")
    make(tmp_path / "s", jobs, lambda values, i: failed if i == 1 else scored([0.8, 0, 0.8, 0.9][i]))
    ((place, only),) = ranking_of(tmp_path / "s").ranked
    assert (place, [o.job.number for o in only.outcomes], [o.job.number for o in only.repeats]) == (1, [0, 3], [2, 1])
    assert only.sample("val/acc").n == 2


def test_the_front_of_several_objectives(tmp_path: Path) -> None:
    points = np.random.default_rng(0).random((40, 2))
    study = {"objectives": ["val/acc", "parameters"], "directions": ["maximize", "minimize"]}
    jobs = [{"optimizer.lr": float(i)} for i in range(40)]
    make(
        tmp_path / "s",
        jobs,
        lambda v, i: scored(points[i, 0]) | {"parameters": points[i, 1]},
        kind="search",
        study=study,
    )
    optuna = pytest.importorskip("optuna")
    reference = optuna.create_study(directions=study["directions"])
    for x, y in points:
        reference.add_trial(optuna.trial.create_trial(values=[float(x), float(y)]))
    wanted = sorted(trial.number for trial in reference.best_trials)
    ranking = ranking_of(tmp_path / "s")
    assert sorted(c.number for place, c in ranking.ranked if place == 1) == wanted
    assert len(ranking.ranked) == 40


def test_values_are_those_that_the_job_was_asked_for(tmp_path: Path) -> None:
    jobs = [{"model": "mlp", "model.dropout": 0.5}, {"model": "cnn"}]
    grid_made = make(tmp_path / "grid", jobs, lambda v, i: scored(0.5))
    search = make(tmp_path / "search", jobs, lambda v, i: scored(0.5), kind="search")
    assert gather(search.path).outcomes[1].values == {"model": "cnn"}
    assert gather(grid_made.path).outcomes[0].values["model"] == "mlp"


def test_a_process_that_died_before_it_had_a_folder(tmp_path: Path) -> None:
    folder = make(tmp_path / "s", grid(seed=[0, 1]), lambda v, i: scored(0.5) if i else None)
    folder.note(0, "ended", state="failed", code=-9, seconds=1.0, error=None)
    first = gather(folder.path).outcomes[0]
    assert (first.state, first.error) == ("failed", "killed by SIGKILL")
