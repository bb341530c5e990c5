"""What a comparison computes: differing keys, fronts, deviations, shares of variance, and which folders are meant."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import config, curve, make
from scipy.stats import f_oneway

from dlrun.differences import flat
from dlrun.errors import UserError
from dlrun.report.comparison.curves import curves, kept
from dlrun.report.comparison.differences import differences
from dlrun.report.comparison.finding import folders
from dlrun.report.comparison.front import front
from dlrun.report.comparison.mattering import share
from dlrun.report.comparison.reading import read
from dlrun.report.comparison.seeds import Sample, configurations, sample


def test_only_keys_that_differ() -> None:
    made = [config(), config(lr=1.0), config(lr=1, data__num_workers=4), config(seed=2, model__dropout=None)]
    found = {d.key: d for d in differences([flat(one) for one in made])}
    # 1 and 1.0 are the same, null isn't the same as nothing, and tags say again what differs
    assert list(found) == ["data.num_workers", "optimizer.lr", "model.dropout", "seed"]
    assert [d.key for d in found.values() if d.implied] == ["data.num_workers"]  # it changes no result
    assert differences([flat(made[1]), flat({**config(lr=1), "tags": ["other"]})]) == []


def test_a_choice_says_what_it_brings_along() -> None:
    made = [
        config("mlp", model__sizes=[8]),
        config("cnn", model__channels=[4]),
        config("cnn", model__channels=[4], lr=1),
    ]
    found = differences([flat(one) for one in made])
    assert {(d.title, d.implied) for d in found} == {
        *(("model", False), ("model.sizes", True), ("optimizer.lr", False), ("model.channels", True)),
    }
    assert found[0].title == "model"
    made.append(config("cnn", model__channels=[9]))  # and now one has to look
    assert not next(d for d in differences([flat(one) for one in made]) if d.key == "model.channels").implied


@pytest.mark.parametrize("mode", ["min", "max"])
def test_front_is_what_nobody_beats(mode: str) -> None:
    draw = random.Random(0)
    sign = 1 if mode == "max" else -1
    for n in [0, 1, 2, *[20] * 100]:
        points = [(float(draw.randrange(8)), float(draw.randrange(8))) for _ in range(n)]

        def beaten(i: int, points: list[tuple[float, float]] = points) -> bool:
            cost, value = points[i]
            return any(c <= cost and sign * v >= sign * value and (c, v) != (cost, value) for c, v in points)

        found = front([c for c, _ in points], [v for _, v in points], mode)  # type: ignore[arg-type]
        assert sorted(found) == [i for i in range(n) if not beaten(i)]
        assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def test_deviation_is_that_of_the_sample() -> None:
    values = (0.91, 0.93, 0.9, 0.955)
    assert Sample(values).mean == pytest.approx(statistics.mean(values), rel=1e-15)
    assert Sample(values).sd == pytest.approx(statistics.stdev(values), rel=1e-12)
    assert Sample((0.5,)).sd is None


def test_share_of_variance_is_the_adjusted_one_of_an_analysis_of_variance() -> None:
    groups = {"a": [0.1, 0.2, 0.4], "b": [0.5, 0.7], "c": [0.2, 0.9, 0.8, 0.6]}
    n, k = sum(map(len, groups.values())), len(groups)
    f = f_oneway(*groups.values()).statistic
    eta = f * (k - 1) / (f * (k - 1) + n - k)
    names = [name for name, values in groups.items() for _ in values]
    values = [value for found in groups.values() for value in found]
    assert share([*names, "a"], [*values, None]) == pytest.approx(1 - (1 - eta) * (n - 1) / (n - k))
    assert share(["a", "a"], [1.0, 2.0]) == 0.0


def test_seeds_of_one_config(tmp_path: Path) -> None:
    made = [
        make(tmp_path / "0", config(seed=0), curve([0.9])),
        make(tmp_path / "1", config(seed=1), curve([0.8]), status="failed", error="ValueError: x"),
        make(tmp_path / "2", config(seed=1, device="cuda"), curve([0.7])),  # where it ran is no other config
        make(tmp_path / "3", config(seed=0), curve([0.95]), status="stopped_early"),
        make(tmp_path / "4", config(seed=0, lr=0.5), curve([0.6])),
    ]
    runs = [read(path) for path in made]
    both, alone = configurations(runs)
    assert both.runs == (3, 2)  # of the same seed, the later one that ended well
    assert both.repeats == (0, 1)
    found = sample(both, runs, lambda i: runs[i].best("val/acc", "max")["val/acc"])
    assert found is not None
    assert found.values == (0.95, 0.7)
    assert alone.runs == (4,)


def test_which_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    day = Path("outputs/2026-11-24")
    for name in ("a", "b", "c,d"):
        make(day / name, config(), curve([0.5]))
    (day / "a" / "compress" / "inner").mkdir(parents=True)
    make(day / "a" / "compress" / "inner" / "x", config(), [])
    for number in (2, 10):
        make(Path(f"multirun/s/{number}"), config(), curve([0.5]))
    Path("multirun/s/11").mkdir()  # a job that came to nothing
    Path("multirun/s/sweep.json").write_text("{}")
    names = {"a": day / "a", "b": day / "b", "c": day / "c,d"}
    assert folders([str(day)]) == [*names.values()] == folders(["outputs/*/*"]) == folders(["outputs"])
    assert folders([f"{day}/a,{day}/b", str(day / "b")]) == [names["a"], names["b"]]
    assert folders([str(day / "c,d")]) == [names["c"]]
    assert folders([f"{day}/[ab]"]) == folders([f"[{day}/a,{day}/b]"]) == [names["a"], names["b"]]
    assert folders(["multirun/*"]) == [Path(f"multirun/s/{n}") for n in (2, 10, 11)]
    summary = json.loads(Path("multirun/s/10/summary.json").read_text())
    Path("multirun/s/10/summary.json").write_text(json.dumps(summary | {"started": "2027-01-01T00:00:00+00:00"}))
    assert folders(["last"]) == folders(["multirun/s"])  # the newest run's sweep
    for word, said in (("outputs/x*", "no folder matches 'outputs/x\\*'"), ("output", "did you mean 'outputs'")):
        with pytest.raises(UserError, match=said):
            folders([word])
    with pytest.raises(UserError, match=r"summary\.json is a file"):
        folders([str(day / "a" / "summary.json")])


def test_curves_that_are_too_many_are_thinned(tmp_path: Path) -> None:
    assert kept(5, None) == [0, 1, 2, 3, 4]
    assert kept(101, 11) == list(range(0, 101, 10))
    run = read(make(tmp_path / "0", config(), curve([0.5, float("nan"), 0.75])))
    small = curves([run])
    assert small["thinned"] is None
    assert small["runs"][0]["val/acc"] == [0.5, None, 0.75]
    assert small["runs"][0]["step"] == [10, 20, 30]
    long = read(make(tmp_path / "1", config(), curve([0.5] * 700)))
    many = curves([long] * 100)
    assert many["thinned"] == 600
    assert many["runs"][0]["epoch"][0] == 1
    assert many["runs"][0]["epoch"][-1] == 700
    assert len(many["runs"][0]["epoch"]) == len(many["runs"][0]["lr"]) == 600


def test_no_library_of_weight_is_imported(tmp_path: Path) -> None:
    make(tmp_path / "0", config(), curve([0.5]))
    code = f"""import sys
from dlrun.cli import dispatch
dispatch(["report", "runs={tmp_path}", "out={tmp_path}/report.html"])
print(sorted({{"torch", "numpy", "scipy", "matplotlib", "plotly", "hydra", "wandb"}} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
