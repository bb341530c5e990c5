"""Pictures are drawn where they make sense, and say why where they don't; importance is Optuna's."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

import pytest
from made_sweeps import grid, make, scored
from PIL import Image

from dlrun.sweep.answers.configurations import configurations, rank
from dlrun.sweep.answers.pictures import Subject, draw_all
from dlrun.sweep.answers.pictures.importance import importances
from dlrun.sweep.answers.pictures.scale import scale, ticks
from dlrun.sweep.answers.results import gather

CURVE = [0.1, 0.3, 0.5]


def subject(path: Path) -> Subject:
    results = gather(path)
    return Subject(results, rank(configurations(results), results.objectives))


def drawn(path: Path) -> dict[str, str | None]:
    """Name → why it was left out, None of those that are there."""
    found = subject(path)
    pictures = {p.name: p.left_out for p in draw_all(found.results, found.ranking)}
    files = {file.stem for file in (path / "plots").glob("*.png")}
    assert files == {name for name, reason in pictures.items() if reason is None}
    for file in (path / "plots").glob("*"):
        with Image.open(file) as picture:
            picture.load()
            assert min(picture.size) > 100
            assert len(set(picture.convert("L").resize((60, 60)).get_flattened_data())) > 3, "something is drawn"
    return pictures


def accuracy(values, number) -> float:
    return 0.9 - 0.02 * (math.log10(values["optimizer.lr"]) + 2.5) ** 2 - 0.05 * (values["model"] == "mlp")


def test_a_grid(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    jobs = grid(model=["mlp", "cnn", "名前 $x$ | _y_"], optimizer__lr=[1e-4, 1e-3, 1e-2], seed=[0, 1])
    make(tmp_path / "s", jobs, lambda v, i: scored(accuracy(v, i) + i / 1e4, curve=CURVE))
    assert drawn(tmp_path / "s") == {
        "heat_map": None,
        "parallel_coordinates": None,
        "importance": None,
        "history": "the jobs of a grid come in no order that means anything",
        "learning_curves": None,
    }


def test_a_search_with_pruned_and_failed_trials_and_two_objectives(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    chance = random.Random(0)
    jobs = [{"optimizer.lr": 10 ** chance.uniform(-5, -1), "model": chance.choice(["mlp", "cnn"])} for _ in range(40)]
    states = ["finished", "pruned", "finished", "failed"]
    study = {"objectives": ["val/acc", "parameters"], "directions": ["maximize", "minimize"]}

    def came_to(values, i):
        status = states[i % 4]
        if status == "failed":
            return scored(None, status=status, error="nan")
        return scored(accuracy(values, i), status=status, curve=CURVE, parameters=1000 + i)

    make(tmp_path / "s", jobs, came_to, kind="search", study=study)
    assert set(drawn(tmp_path / "s").values()) == {None}


def test_what_makes_no_sense_is_left_out_with_its_reason(tmp_path: Path) -> None:
    make(tmp_path / "s", grid(seed=[0, 1, 2]), lambda v, i: scored(0.5 + i / 10))
    (tmp_path / "s" / "plots").mkdir()
    (tmp_path / "s" / "plots" / "heat_map.png").write_text("of an earlier report")
    found = drawn(tmp_path / "s")
    two = "it needs two parameters beside the seed"
    assert all(reason and reason.startswith(two) for name, reason in list(found.items())[:3])
    assert found["learning_curves"] == "no configuration that is done has val/acc in its metrics.csv"


def test_without_optuna_one_picture_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    make(tmp_path / "s", grid(model=["a", "b"], optimizer__lr=[0.1, 0.2]), lambda v, i: scored(i / 10, curve=CURVE))
    found = drawn(tmp_path / "s")
    assert found["importance"] == "it needs optuna: pip install 'dlrun[optuna]'"
    assert [name for name, reason in found.items() if reason is None] == [
        "heat_map",
        "parallel_coordinates",
        "learning_curves",
    ]


def test_a_picture_that_fails_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "s", grid(model=["a", "b"], optimizer__lr=[0.1, 0.2]), lambda v, i: scored(i / 10, curve=CURVE))
    monkeypatch.setattr("dlrun.sweep.answers.pictures.parallel.draw", lambda subject: 1 / 0)
    found = drawn(tmp_path / "s")
    assert found["parallel_coordinates"] == "it couldn't be drawn (ZeroDivisionError: division by zero)"
    assert found["learning_curves"] is None


def test_importance_is_optunas_own_of_the_same_trials(tmp_path: Path) -> None:
    """A search of Optuna's, and the same trials as a sweep."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial):
        lr, kind = (
            trial.suggest_float("optimizer.lr", 1e-5, 1e-1, log=True),
            trial.suggest_categorical("model", ["a", "b"]),
        )
        return math.log10(lr) + 0.5 * (kind == "a")

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize")
    study.optimize(objective, n_trials=60)
    values = [trial.value for trial in study.trials]
    space = {"optimizer.lr": "tag(log,interval(1e-05,0.1))", "model": "choice(a,b)"}
    described = {"objectives": ["val/acc"], "directions": ["maximize"], "space": space}
    make(
        tmp_path / "s", [t.params for t in study.trials], lambda v, i: scored(values[i]), kind="search", study=described
    )
    evaluator = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0)
    wanted = optuna.importance.get_param_importances(study, evaluator=evaluator)
    found = importances(subject(tmp_path / "s"))
    assert found == pytest.approx(wanted, abs=0.02)  # ends of the interval are those drawn, not those allowed
    assert list(found) == ["optimizer.lr", "model"]


def test_importance_of_a_grid_comes_to_the_shares_of_the_variance(tmp_path: Path) -> None:
    """Of a sum of independent terms: lr -1, 0, 1 (variance 2/3), width 0 or 1 (1/4), seed nothing."""
    pytest.importorskip("optuna")
    jobs = grid(optimizer__lr=[1e-3, 1e-2, 1e-1], model__width=[8, 16], model__act=["x", "y"], seed=range(5))
    make(
        tmp_path / "s",
        jobs,
        lambda v, i: scored(math.log10(v["optimizer.lr"]) + 2 + (v["model.width"] == 16)),
    )
    found = importances(subject(tmp_path / "s"))
    assert found == pytest.approx(
        {"optimizer.lr": 8 / 11, "model.width": 3 / 11, "model.act": 0}, abs=0.04
    )  # a forest is of chance


def test_scales() -> None:
    assert scale("x", [1e-4, 1e-3, 1e-2]).log
    assert scale("x", [16, 32, 64, 128]).log
    assert not scale("x", [1, 2, 3, 4]).log
    assert not scale("x", [0.1, 0.2]).log
    assert not scale("x", [0.0, 1e-3, 1e-1]).log
    assert not scale("x", [1e-3, 0.2, 0.45, 0.7, 0.9]).log, "what is drawn evenly"
    assert scale("x", [0.1, 0.5], "tag(log,interval(0.1,1.0))").log
    assert not scale("x", [1e-4, 1e-3, 1e-2], "interval(0.0,1.0)").log
    logarithmic, names = scale("x", [1e-2, 1e-4]), scale("x", ["b", "a", "c"])
    assert [logarithmic.share(v) for v in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 0.5, 1])
    assert [names.share(v) for v in "bac"] == [0, 0.5, 1]
    assert scale("x", [1, 1.0, True]).distinct == (1.0, True)
    assert not scale("x", [1, True]).numeric
    assert [text for _, text in ticks(scale("x", range(100)))] == ["0", "20", "40", "60", "80"]
