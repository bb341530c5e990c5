"""What the report of a run says, read back from its HTML and held against the run's own files."""

from __future__ import annotations

import csv
import json
import math
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import plotly.graph_objects as go
import pytest
from pages import Page
from told_runs import BINS, CELLS, COMMIT, NAMES, TEXT, change, copied, picture, put, told_in_full
from trained import train_each_kind

from dlrun.cli import main
from dlrun.report.sections.mistakes import picture as checked_picture
from dlrun.report.sections.mistakes import pieces
from dlrun.report.sections.speed import parts_of
from dlrun.runfolder import CUT_OFF

HOLDING = """if True:
    import sys, time
    from pathlib import Path
    from dlrun.locks import hold

    hold(Path(sys.argv[1]))
    print(flush=True)
    time.sleep(60)
"""


def report(run: Path, *words: str) -> Page:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["dlrun", "report", f"run={run}", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    return Page(run / "report.html")


@pytest.fixture(scope="module")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fewer of them than the session has."""
    folder = tmp_path_factory.mktemp("runs")
    train_each_kind(folder, ["digits", "pydocs", "cancer"])
    return folder


@pytest.fixture(scope="module")
def digits(small_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return told_in_full(small_runs / "digits", tmp_path_factory.mktemp("report") / "digits")


@pytest.fixture(scope="module")
def page(digits: Path) -> Page:
    return report(digits)


@pytest.fixture(scope="module")
def rows(digits: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((digits / "metrics.csv").open()))


def test_curves_are_what_metrics_csv_says(page: Page, rows: list[dict[str, str]]):
    assert len(rows) == 4
    assert page.charts["curve-lr"]["layout"]["yaxis"]["exponentformat"] == "e"  # 1.2e−4, not 120µ
    for name, columns, factor in (
        ("curve-loss", ["train/loss", "val/loss"], 1),
        ("curve-acc", ["train/acc", "val/acc"], 100),
        ("curve-lr", ["lr"], 1),
        ("curve-samples-per-second", ["samples_per_second"], 1),
    ):
        chart = page.charts[name]
        lines = [trace for trace in chart["data"] if trace["mode"] != "markers"]
        assert [trace["x"] for trace in lines] == [[1, 2, 3, 4]] * len(columns)
        for trace, column in zip(lines, columns, strict=True):
            assert trace["y"] == pytest.approx([factor * float(row[column]) for row in rows])
        steps = [trace["x"] for trace in chart["views"]["by"]["step"]["data"]][: len(columns)]
        assert steps == [[int(row["step"]) for row in rows]] * len(columns)
        assert chart["layout"]["xaxis"]["title"]["text"] == "epoch"
        assert chart["views"]["by"]["step"]["layout"]["xaxis"]["title"]["text"] == "optimizer step"
        assert chart["layout"]["yaxis"]["title"]["text"]


def test_the_best_epoch_is_marked_where_the_run_says(page: Page, digits: Path, rows: list[dict[str, str]]):
    best = json.loads((digits / "summary.json").read_text())["best"]
    chart = page.charts["curve-acc"]
    assert {shape["x0"] for shape in chart["layout"]["shapes"]} == {best["epoch"]}
    (star,) = [trace for trace in chart["data"] if trace["mode"] == "markers"]
    assert star["x"] == [best["epoch"]]
    assert star["y"] == pytest.approx([100 * float(rows[best["epoch"] - 1]["val/acc"])])


def test_every_chart_is_one_that_plotly_takes(page: Page):
    assert len(page.charts) == 10
    for chart in page.charts.values():
        go.Figure({"data": chart["data"], "layout": chart["layout"]})  # refuses unknown names and values
        for choices in chart["views"].values():
            for view in choices.values():
                go.Figure({"layout": view.get("layout", {})})


def test_confusion_matrix(page: Page):
    wrong, right = page.charts["confusion-map"]["data"]
    support = {truth: sum(n for t, _, n in CELLS if t == truth) for truth, _, _ in CELLS}
    for truth, guess, n in CELLS:
        own, other = (right, wrong) if truth == guess else (wrong, right)
        assert own["z"][truth][guess] == pytest.approx(100 * n / support[truth])
        assert own["text"][truth][guess] == str(n)
        assert other["z"][truth][guess] is None
    assert sum(value is not None for trace in (wrong, right) for row in trace["z"] for value in row) == len(CELLS)
    assert f"{NAMES[3]} {NAMES[0]} 7" in page.text("confusion")


def test_calibration_and_time(page: Page):
    bars = page.charts["calibration-reliability"]["data"][0]
    assert bars["y"] == pytest.approx([100 * each["accuracy"] for each in BINS if each["samples"]])
    assert page.charts["calibration-samples"]["data"][0]["y"] == [9, 18, 27, 36]
    spent = {trace["name"]: trace["x"][0] for trace in page.charts["speed-time"]["data"]}
    assert spent["training steps"] == 6.0  # of 10 s, 4 were waited
    assert sum(spent.values()) == 20.0  # what nobody measured is the rest


def test_config_results_and_command(page: Page, digits: Path):
    summary = json.loads((digits / "summary.json").read_text())
    assert "trainer.max_epochs 4 20" in page.text("setup")
    assert "marked: not the default" in page.text("setup")
    assert f"{100 * summary['test']['test/acc']:.2f} %" in page.text("results")
    assert page.title.startswith("mlp on digits")
    command = page.text("again")
    words = [word for word in summary["command"] if not word.startswith("hydra.run.dir=")]
    assert shlex.join(words) in command
    assert f"git checkout {COMMIT}" in command
    assert f'git -C "$(git rev-parse --show-toplevel)" apply {digits}/uncommitted.diff' in command
    assert "with uncommitted changes" in page.text("environment")
    assert "-<script>old</script>" in page.text("environment")
    assert "onnx onnx.onnx 679 kB equal 3.0e-07 100.00 % 98.06 %" in page.text("artifacts")


def test_a_diff_that_was_cut_off_is_applied_by_nobody_and_no_password_is_shown(digits: Path, tmp_path: Path):
    again = shutil.copytree(digits, tmp_path / "run")
    lines = ["-where = 'https://me:secret@host/'", "+where = 1", f"{CUT_OFF}: there are more than 1,000,000 bytes"]
    (again / "uncommitted.diff").write_text("\n".join(lines) + "\n")
    made = report(again)
    assert "git apply" not in made.text("again")
    assert "of which the folder has a part only" in made.text("again")
    assert "-where = 'https://me:***@host/'" in made.text("environment")


def test_nothing_of_a_run_is_taken_for_html(page: Page):
    assert [attributes.get("type") for attributes in page.all("script")].count(None) == 2  # Plotly and ours
    assert all("onerror" not in attributes and "onclick" not in attributes for _, attributes in page.tags)
    assert {image["src"] for image in page.all("img")} == {picture()}
    assert all(str(link["href"]).startswith("#") for link in page.all("a"))
    assert TEXT.replace(" ", "") in page.text("mistakes").replace(" ", "")
    for name in (NAMES[0], NAMES[1], NAMES[3]):
        assert name in page.text("confusion")


def test_the_page_forbids_requests_and_scripts_that_are_not_ours(page: Page):
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in str(policy)
    assert "unsafe-inline" not in str(policy).partition("style-src")[0]


def test_a_failed_run_tells_its_error_and_says_that_there_are_no_epochs(small_runs: Path, tmp_path: Path):
    error = "TrainingError: the loss is nan <at> step 3"
    run = copied(small_runs / "digits", tmp_path / "run", status="failed", error=error, test=None, best={})
    (run / "metrics.csv").unlink()
    page = report(run)
    assert error in page.text()
    assert "failed before an epoch" in page.text("results")
    assert "no rows" in page.text("curves")
    assert not page.texts.keys() & {"confusion", "mistakes", "calibration"}


def test_gaps_where_a_loss_is_not_a_number(small_runs: Path, tmp_path: Path):
    run = copied(small_runs / "digits", tmp_path / "run")
    header, *lines = (run / "metrics.csv").read_text().splitlines()
    place = header.split(",").index("val/loss")
    cells = [line.split(",") for line in lines]
    cells[1][place], cells[2][place] = "nan", "inf"
    (run / "metrics.csv").write_text("\n".join([header, *map(",".join, cells)]) + "\n")
    values = report(run).charts["curve-loss"]["data"][1]["y"]
    assert [value is None for value in values] == [False, True, True, False]


def test_what_is_damaged_is_named_and_the_rest_is_shown(digits: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(digits, run)
    put(run, "plots/mistakes.json", '{"mistakes": [{"tru')
    put(run, "plots/confusion.json", {"class_names": 3, "cells": [[0, 0, 1]]})
    put(run, "summary.json", "[]")
    page = report(run)
    for name in ("summary.json", "plots/mistakes.json", "plots/confusion.json"):
        assert name in page.text()
    assert page.charts.keys() >= {"curve-loss", "calibration-reliability"}
    assert "confusion-map" not in page.charts
    (run / "config.yaml").write_text("a: [")
    assert "config.yaml" in report(run).text()


def test_a_run_that_says_it_runs_while_nobody_holds_it(small_runs: Path, tmp_path: Path):
    run = copied(small_runs / "digits", tmp_path / "run", status="running")
    assert "interrupted" in report(run).text()
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(run / ".lock")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        text = report(run).text()
    finally:
        process.kill()
        process.wait()
    assert "The run is going on" in text
    assert "4 epochs are done" in text


def test_a_killed_run_draws_no_time_that_it_never_told(small_runs: Path, tmp_path: Path):
    page = report(copied(small_runs / "digits", tmp_path / "run", status="running", seconds=None, time={"starting": 1}))
    assert "speed-time" not in page.charts
    assert "training. This run doesn't say where its time went" in page.text("speed")


def test_what_was_said_when_it_was_resumed_is_said_again(small_runs: Path, tmp_path: Path):
    alone, longer = ["dlrun", "resume", "run=a"], ["dlrun", "resume", "run=a", "trainer.max_epochs=9"]
    resumed = [{"step": 4, "command": alone}, {"step": 8, "command": longer}, "damaged"]
    text = report(copied(small_runs / "digits", tmp_path / "run", resumed=resumed)).text("again")
    assert "dlrun resume run=last trainer.max_epochs=9" in text
    assert text.count("dlrun resume") == 1


def test_what_git_knew_nothing_of_is_said_beside_the_command(small_runs: Path, tmp_path: Path):
    git = {"commit": COMMIT, "dirty": False, "untracked": ["conf/mine.yaml", "<b>new.py"]}
    page = report(copied(small_runs / "digits", tmp_path / "run", git=git))
    assert "Git knew nothing of conf/mine.yaml , <b>new.py : the run may need" in page.text("again")


@pytest.mark.parametrize("name", ["pydocs", "cancer"])
def test_runs_of_other_data_of_before_and_of_one_epoch(name: str, small_runs: Path, tmp_path: Path):
    run = copied(small_runs / name, tmp_path / name)
    summary = json.loads((run / "summary.json").read_text())
    for key in ("changed", "time", "choices", "machine", "git"):
        summary.pop(key, None)
    put(run, "summary.json", summary)
    page = report(run)
    assert "doesn't say what of its config differs" in page.text("setup")
    assert "doesn't say where its time went" in page.text("speed")
    assert len(page.charts["curve-loss"]["data"][0]["y"]) == summary["epochs"]
    assert "Not all could be read" not in page.text()


def test_a_hundred_classes_and_a_thousand(digits: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(digits, run)
    for classes, shown in ((100, 100), (1000, 150)):
        names = [f"class {i}" for i in range(classes)]
        cells = [[i, j, 1 + i] for i in range(classes) for j in {i, (i * 7 + 1) % classes}]
        put(run, "plots/confusion.json", {"class_names": names, "cells": cells, "split": "test"})
        page = report(run)
        wrong, right = page.charts["confusion-map"]["data"]
        assert len(right["z"]) == len(right["z"][0]) == shown
        assert len(page.charts["confusion-map"]["layout"]["xaxis"]["ticktext"]) <= 26
        assert "text" not in wrong
        assert ("850 classes with the fewest mistakes are left out" in page.text("confusion")) == (classes == 1000)


def test_what_is_asked_wrongly_is_one_line(small_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for words, said in (
        (["run=nothing"], "run: no folder 'nothing'"),
        (["run=" + str(tmp_path)], "no run in"),
        (["run=" + str(small_runs / "digits"), "colour=red"], "colour: unknown option of report"),
        (["run=" + str(small_runs / "digits"), "runs=*"], "give one of them"),
        (["run=" + str(small_runs / "digits"), f"out={tmp_path}"], "out: can't write"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["dlrun", "report", *words])
            with pytest.raises(SystemExit) as ended:
                main()
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


def test_it_starts_without_the_heavy_libraries(digits: Path, tmp_path: Path):
    script = "import sys\nfrom dlrun.cli import main\ntry: main()\nexcept SystemExit as e: print(e.code, *sys.modules)"
    words = ["report", f"run={digits}", f"out={tmp_path / 'sub' / 'page.html'}"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    written, last = done.stdout.splitlines()
    assert written == f"written {tmp_path / 'sub' / 'page.html'}"
    code, *modules = last.split()
    assert code == "0"
    assert not {"torch", "numpy", "plotly", "matplotlib", "hydra", "pandas"} & set(modules)


def test_marks_part_a_text_and_nothing_of_it_is_lost():
    text = "abcdefghij"
    found = pieces(text, [[2, 4, 0.5], [3, 6, -2.0], [8, 99, math.nan], [5, 3, 1.0]])
    assert [(piece["text"], piece["weight"]) for piece in found] == [
        ("ab", 0.0), ("cd", 0.5), ("ef", -1.0), ("ghij", 0.0),
    ]  # fmt: skip


def test_only_pictures_are_pictures():
    assert checked_picture(picture()) == picture()
    for address in ("http://x.invalid/a.png", "javascript:alert(1)", 'data:image/png;base64,"onerror="x', None, 3):
        assert checked_picture(address) is None
    assert checked_picture("data:image/svg+xml;base64,AAAA") is None


def test_time_is_parted_into_what_adds_up():
    assert parts_of({}, 5.0) == {}
    parts = parts_of({"training": 5.0, "waiting_for_data": 2.0, "test": 1.0, "nonsense": 9.0, "saving": None}, 8.0)
    assert parts == {"computing": 3.0, "waiting_for_data": 2.0, "test": 1.0, "rest": 2.0}


def test_an_older_state_of_the_summary_changes_nothing_else(digits: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(digits, run)
    change(run, best="nonsense", test=[1], changed=[], versions=None, command="dlrun", resumed=3, started=5, tags="x")
    page = report(run)
    assert page.charts.keys() >= {"curve-loss", "confusion-map"}
