"""The page of a comparison, in the command line and in a browser: what it says, against the files by hand."""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import DESKTOP, PHONE, chromium, opened
from command_line import CommandLine
from made_runs import config, curve, make

from dlrun.report.comparison.command import compare
from dlrun.report.comparison.content import html
from dlrun.report.comparison.finding import folders

browser = pytest.fixture(scope="module")(chromium)
EVIL = '<script>alert("x")</script>'
UNICODE = "名前 اسم 🦊 $a_b$"


def grid(top: Path) -> Path:
    """Twelve runs: two models, two rates, three seeds; rates that text would put in another order."""
    accs = iter(range(12))
    for model in ("mlp", "cnn"):
        for lr in (0.9, 10.0):
            for seed in range(3):
                i = next(accs)
                made = config(model, lr, seed, **({"model__channels": [4]} if model == "cnn" else {}))
                rows = curve([0.3, 0.5 + 0.03 * i, 0.4], seconds=12 - i)
                make(top / f"r{i}", made, rows, parameters=1000 * (i + 1))
    return top


def damage(top: Path) -> None:
    make(top / "half", config(), curve([0.5])).joinpath("summary.json").write_text('{"run_id": "x", "sta')
    (make(top / "unnamed", config(), curve([0.6])) / "config.yaml").unlink()
    (top / "empty").mkdir()
    junk = top / "junk"
    junk.mkdir()
    for name in ("summary.json", "config.yaml", "metrics.csv"):
        (junk / name).write_bytes(bytes(range(256)) * 20)
    make(top / "young", config(lr=3), [], status="running")
    make(top / "nan", config(lr=4), curve([float("nan"), 0.41, float("nan")]), best={})
    make(top / "evil", config(EVIL), curve([0.45]), status="failed", error=f"RuntimeError: {EVIL}\nmore")
    make(top / UNICODE, config(UNICODE), curve([0.44]))
    odd = {"best": 5, "test": "no", "parameters": "many", "seconds": None, "error": ["x"], "status": 7}
    make(top / "odd", config(lr=6), curve([0.43]), **odd)


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'id="comparison-data">(.*?)</script>', page, re.S)
    assert found
    return dict(json.loads(found[1]))


def column(page: str, key: str) -> dict[str, Any]:
    data = data_of(page)
    values = next(column["values"] for column in data["columns"] if column["key"] == key)
    return {run["name"]: value for run, value in zip(data["runs"], values, strict=True)}


def test_the_table_says_what_the_files_say(dlrun: CommandLine) -> None:
    grid(dlrun.folder / "runs")
    result = dlrun("report", "runs=runs/*")
    assert (result.code, result.out) == (0, "written report.html\n")
    page = (dlrun.folder / "report.html").read_text()
    assert [c["key"] for c in data_of(page)["columns"] if c["group"] == "config"] == [
        *("model.name", "optimizer.lr", "model.channels", "seed"),
    ]
    for folder in (dlrun.folder / "runs").iterdir():
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        summary = json.loads((folder / "summary.json").read_text())
        rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
        best = max(rows, key=lambda row: float(row["val/acc"]))
        expected = {
            "optimizer.lr": settings["optimizer"]["lr"],
            "val/acc": float(best["val/acc"]),
            "val/loss": float(best["val/loss"]),
            "best epoch": int(best["epoch"]),
            "test/acc": summary["test"]["test/acc"],
            "training": float(rows[-1]["seconds"]),
            "parameters": summary["parameters"],
        }
        assert {key: column(page, key)[folder.name] for key in expected} == expected
    # By this metric the last epoch but one isn't the best any more: its values are those of another row.
    assert dlrun("report", "runs=runs/r0,runs/r1", "metric=train/loss", "mode=max", "out=x/y.html").code == 0
    other = (dlrun.folder / "x" / "y.html").read_text()
    assert column(other, "train/loss") == {"r0": pytest.approx(0.8), "r1": pytest.approx(0.8)}
    assert column(other, "best epoch") == {"r0": 1, "r1": 1}
    assert "stopped and tested by val/acc" in other


def test_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    page = html(compare(folders([str(grid(tmp_path / "runs"))])))
    rows = re.findall(r"<tr>.*?</tr>", page[page.index('id="seeds-table"') :], re.S)[1:]
    cells = [[re.sub("<.*?>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.S)] for row in rows]
    assert [row[:3] for row in cells] == [
        ["cnn", "10", "3"],
        ["cnn", "0.9", "3"],
        ["mlp", "10", "3"],
        ["mlp", "0.9", "3"],
    ]
    for place, row in enumerate(reversed(cells)):
        accs = [0.5 + 0.03 * i for i in range(3 * place, 3 * place + 3)]
        assert row[3] == f"{statistics.mean(accs):.4f} ± {statistics.stdev(accs):.4f}"


def test_what_is_damaged_is_listed_and_the_rest_shown(dlrun: CommandLine) -> None:
    grid(dlrun.folder / "runs")
    damage(top := dlrun.folder / "runs")
    make(top / "deep", config(), curve([0.42])).joinpath("summary.json").write_text('{"a":' * 100_000)
    make(top / "rowless", config(), curve([0.47])).joinpath("metrics.csv").write_bytes(bytes(range(256)) * 20)
    assert dlrun("report", "runs=runs/*").code == 0
    page = (dlrun.folder / "report.html").read_text()
    status = {run["name"]: run["status"] for run in data_of(page)["runs"]}
    assert len(status) == 12 + 9  # but empty and junk
    assert {"half": "unknown", "odd": "unknown", "young": "interrupted", "evil": "failed"}.items() <= status.items()
    found = {"half": 0.5, "unnamed": 0.6, "young": None, "nan": 0.41, "evil": 0.45, UNICODE: 0.44, "odd": 0.43}
    assert {name: column(page, "val/acc")[name] for name in found} == found
    assert column(page, "best epoch")["nan"] == 2
    listed = page[page.index('id="damaged-table"') :]
    rows = [re.sub("<.*?>", " ", row).split() for row in re.findall(r"<tr>.*?</tr>", listed, re.S)[1:]]
    assert {row[0] for row in rows} == {"half", "unnamed", "empty", "junk", "deep", "rowless"}
    assert {row[0] for row in rows if row[-1] == "out"} == {"empty", "junk"}
    assert "there is nothing of a run in it" in listed
    assert "it has no config.yaml" in listed
    assert EVIL not in page


def test_nothing_to_show_is_one_line(dlrun: CommandLine) -> None:
    (dlrun.folder / "empty").mkdir()
    make(dlrun.folder / "one", config(), curve([0.5]))
    for words, said in (
        (["runs=empty"], "runs: none of 1 can be shown: empty: there is nothing of a run in it"),
        (["runs=nowhere/*"], "runs: no folder matches 'nowhere/*'"),
        (["runs=one", "metric=val/ac"], "metric: no run has 'val/ac'; did you mean 'val/acc'?"),
        (["runs=one", "mode=most"], "mode: expected"),
        (["runs=one", "colour=red"], "colour: unknown option of report"),
        (["runs=one", "out=empty"], "out: "),
    ):
        result = dlrun("report", *words)
        assert result.code == 2
        assert said in result.err
        assert len(result.err.splitlines()) == 1


def test_a_shell_may_expand_the_pattern(dlrun: CommandLine) -> None:
    grid(dlrun.folder / "runs")
    assert dlrun("report", "runs=runs/r1", "runs/r2", "runs=runs/r3,runs/r4", "out=o.html").code == 0
    assert set(column((dlrun.folder / "o.html").read_text(), "seed")) == {"r1", "r2", "r3", "r4"}


def test_mixed_monitors_and_data_are_told(tmp_path: Path) -> None:
    for i in range(3):
        made = config(seed=i, trainer={"monitor": "val/loss" if i else "val/acc"}, data={"name": f"d{i}"})
        make(tmp_path / str(i), made, curve([0.4, 0.6]))
    comparison = compare(folders([str(tmp_path)]))
    assert (comparison.metric, comparison.mode) == ("val/loss", "min")
    assert "different metrics: val/loss (2), val/acc (1)" in comparison.notes[0]
    assert "different data: d0 (1), d1 (1), d2 (1)" in comparison.notes[1]
    assert compare(folders([str(tmp_path)]), "val/acc").mode == "max"


def test_which_end_is_better_is_what_the_runs_say(tmp_path: Path) -> None:
    made = config(trainer={"monitor": "val/mae", "mode": "min"})
    make(tmp_path / "run", made, curve([0.4, 0.6]))
    assert compare([tmp_path / "run"]).mode == "min"
    assert compare([tmp_path / "run"], mode="max").mode == "max"


def test_latency_is_that_of_dlrun_bench(tmp_path: Path) -> None:
    for i in range(2):
        run = make(tmp_path / str(i), config(seed=i), curve([0.5]))
        latency = {"64": {"p50_ms": 9.0}, "1": {"p50_ms": 2.0 + i}}
        names = [("pytorch", 0.48, 1.0), ("onnx", 0.47, 0.25), ("left", None, 1.0)]
        rows = [
            {"name": n, "status": "measured" if a else "left out", "accuracy": a, "bytes": 5000, "flops_per_sample": 7}
            | {"latency": {size: {"p50_ms": f["p50_ms"] * factor} for size, f in latency.items()}}
            for n, a, factor in names
        ]
        (run / "bench").mkdir()
        bench = {"rows": rows, "device": "cpu", "threads": 1 + i, "machine": {"cpu": "x"}}
        (run / "bench" / "bench.json").write_text(json.dumps(bench))
    page = html(compare(folders([str(tmp_path)])))
    assert column(page, "latency") == {"0": 2.0, "1": 3.0}
    assert column(page, "bytes") == {"0": 5000, "1": 5000}
    chart = next(chart for chart in data_of(page)["tradeoffs"] if chart["name"] == "latency")
    assert chart["x"] == [2.0, 0.5, 3.0, 0.75]
    assert chart["y"] == [0.48, 0.47, 0.48, 0.47]
    assert chart["front"] == [1, 0]  # the faster file, and the better net
    assert chart["xTitle"] == "median latency, batch of 1 (ms)"
    assert "Not all were measured alike" in page


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and damaged runs on one page."""
    top = tmp_path_factory.mktemp("compared")
    damage(grid(top / "runs"))
    (top / "report.html").write_text(html(compare(folders([str(top / "runs")]))))
    return top / "report.html"


Read = Callable[[str], list[str]]


def reader(page: Any) -> Read:
    """The texts of a column's cells that are shown, from top to bottom; `run` is the names."""

    def read(title: str) -> list[str]:
        code = """title => {
            const table = document.getElementById('comparison-table');
            const at = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === title);
            const seen = [...table.tBodies[0].rows].filter(row => !row.hidden);
            return seen.map(row => row.cells[at].textContent.trim()); }"""
        return list(page.evaluate(code, title))

    return read


def heading(page: Any, title: str) -> Any:
    return page.locator("#comparison-table thead th", has_text=re.compile(f"^{re.escape(title)}$"))


def test_sorting_filtering_selecting(browser: Any, everything: Path) -> None:
    with opened(browser, everything, DESKTOP) as visit:
        page, read = visit.page, reader(visit.page)
        assert read("run")[:3] == ["r11", "r10", "r9"]  # the best first
        assert read("run")[-1] == "young"
        heading(page, "optimizer.lr").click()
        rates = [float(text) for text in read("optimizer.lr") if text != "–"]
        assert rates == sorted(rates)  # 10 isn't before 3
        assert read("optimizer.lr")[-1] == "–"  # the run without a config
        heading(page, "optimizer.lr").click()
        assert [float(text) for text in read("optimizer.lr") if text != "–"] == rates[::-1]
        assert read("optimizer.lr")[-1] == "–"
        heading(page, "test/acc").click()
        assert read("run")[0] == "r11"  # the better end first
        heading(page, "training").click()
        assert read("training")[:2] == ["1.0 s", "1.0 s"]  # 10.0 s isn't before 2.0 s
        box = page.locator("#filter")
        for words, expected in (
            ("model=cnn lr>=1", {"r9", "r10", "r11"}),
            ("status=failed", {"evil"}),
            ("val/acc>75% seed=0|1", {"r9", "r10"}),
            ("名前", {UNICODE}),
            ("model~<script>", {"evil"}),
            ("run~r1", {"r1", "r10", "r11"}),
        ):
            box.fill(words)
            page.wait_for_timeout(80)
            assert set(read("run")) == expected, words
        box.fill("lrr>1")
        page.wait_for_timeout(80)
        assert page.locator("#filter-wrong").text_content() == "there is no column lrr"
        box.fill("")
        page.locator("#comparison-table tr[data-run]", has_text="r11").first.click()
        page.wait_for_timeout(80)
        assert page.locator("#run-count").text_content() == "19 runs, 1 selected"
        page.locator("#only-selected").check()
        page.wait_for_timeout(80)
        assert read("run") == ["r11"]
        page.locator("#select-none").click()
        page.locator("#columns summary").click()
        page.locator("#columns label", has_text="test/acc").locator("input").uncheck()
        assert heading(page, "test/acc").is_hidden()
        with page.expect_download() as download:
            page.locator("#csv").click()
        lines = list(csv.reader(Path(download.value.path()).read_text().splitlines()))
        assert "test/acc" not in lines[0]
        assert {line[0] for line in lines[1:]} == set(read("run"))
        assert visit.said == []
        assert visit.asked == [everything.resolve().as_uri()]


def test_curves_and_points_tell_their_run(browser: Any, everything: Path) -> None:
    with opened(browser, everything, DESKTOP) as visit:
        page = visit.page
        visit.scroll_through()
        page.locator("#curves").scroll_into_view_if_needed()
        page.wait_for_selector("#curves-1 .scatterlayer path", state="attached")
        traces = "document.querySelector('#curves-1 .plot').data"
        drawn = page.evaluate(f"[...new Set({traces}.flatMap(trace => trace.customdata))].length")
        assert drawn == 19
        lines = page.evaluate(f"{traces}.filter(trace => trace.mode === 'lines').length")
        assert lines < 19  # runs of one colour are one trace
        page.locator("#filter").fill("run=r11")
        page.wait_for_timeout(400)
        points = page.evaluate(f"{traces}.flatMap(trace => trace.y)")
        assert [y for y in points if y is not None] == [0.3, 0.83, 0.4]
        page.locator("#curves-1").scroll_into_view_if_needed()
        place = """() => {
            const plot = document.querySelector('#curves-1 .plot');
            const box = plot.getBoundingClientRect();
            const { xaxis, yaxis } = plot._fullLayout;
            return [box.left + xaxis._offset + xaxis.d2p(2), box.top + yaxis._offset + yaxis.d2p(0.83)]; }"""
        x, y = page.evaluate(place)
        page.mouse.move(x - 30, y + 30)
        page.mouse.move(x, y + 2, steps=5)
        page.wait_for_selector("#curves-1 .hoverlayer .hovertext")
        said = page.locator("#curves-1 .hoverlayer .hovertext").text_content()
        assert "r11" in said
        assert "model=cnn" in said
        assert page.locator("tr.looked-at").get_attribute("data-run") is not None
        assert page.locator("#curves-1 .over path").count() == 2
        page.mouse.click(x, y + 2)
        page.wait_for_timeout(150)
        assert page.locator("#run-count").text_content() == "1 of 19 runs, 1 selected"
        for key in (" run", "seed", "parameters"):  # by the result, some values, a scale
            page.locator(".colour-by").first.select_option(key)
            page.wait_for_timeout(50)
        assert visit.said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser: Any, everything: Path, scheme: str) -> None:
    with opened(browser, everything, PHONE, color_scheme=scheme, has_touch=True) as visit:
        visit.scroll_through()
        assert visit.overflow() == 0
        assert visit.said == []
        assert visit.asked == [everything.resolve().as_uri()]
        assert visit.page.locator(".plot .main-svg").count() > 0


def test_runs_without_an_epoch_or_a_finite_value(tmp_path: Path, browser: Any) -> None:
    make(tmp_path / "young" / "0", config(), [], status="running")
    page = html(compare(folders([str(tmp_path / "young")])))
    assert "None of the runs has noted an epoch yet." in page
    assert column(page, "val/acc") == {"0": None}
    for i in range(2):
        make(tmp_path / "nan" / str(i), config(seed=i), curve([float("nan")] * 3), best={}, test=None)
    (tmp_path / "nan.html").write_text(html(compare(folders([str(tmp_path / "nan")]))))
    with opened(browser, tmp_path / "nan.html") as visit:
        visit.scroll_through()
        visit.page.wait_for_selector("#curves-2 .annotation-text")
        assert visit.page.locator("#curves-1 .annotation-text").text_content() == "no finite values"
        assert visit.said == []
