"""The tables of a sweep: every job, every configuration, every failure, whatever is in their names."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from made_sweeps import grid, make, scored

from dlrun.errors import UserError
from dlrun.sweep.answers.cells import escaped
from dlrun.sweep.answers.configurations import configurations, rank
from dlrun.sweep.answers.report import report
from dlrun.sweep.answers.results import gather
from dlrun.sweep.answers.terminal import table
from dlrun.sweep.verbs import run as sweep_command
from dlrun.wording import duration, fitted, value_text, width


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a test of their own."""
    monkeypatch.setattr("dlrun.sweep.answers.report.draw_all", lambda results, ranking: [])


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def rows_of(markdown: str, head: str) -> list[list[str]]:
    lines = markdown.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(head))
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    return [cells(line) for line in lines[start + 2 : end]]


def test_a_row_per_job_and_a_row_per_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = grid(model=["mlp", "cnn", "bad"], optimizer__lr=[1e-4, 1e-2], seed=[0, 1, 2])
    acc = np.random.default_rng(0).uniform(0.5, 0.9, len(jobs)).tolist()
    error = "ValueError: a | b\nsecond line"

    def came_to(values, i):
        if values["model"] == "bad":
            return scored(None, status="failed", error=error) if values["seed"] else scored(0.99)
        return scored(acc[i])

    folder = make(tmp_path / "s", jobs, came_to)
    report(folder.path)
    with folder.results_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert list(rows[0])[:6] == ["number", "folder", "state", "model", "optimizer.lr", "seed"]
    assert [float(row["val/acc"]) for row in rows[:12]] == acc[:12], "as exactly as they were"
    assert [float(row["test/acc"]) for row in rows[:12]] == [a - 0.01 for a in acc[:12]]
    assert [row["state"] for row in rows].count("failed") == 4
    assert rows[13]["error"] == "ValueError: a | b second line"
    assert rows[13]["val/acc"] == ""

    text = folder.results_md.read_text()
    means = np.asarray(acc[:12]).reshape(4, 3).mean(axis=1)
    table_rows = rows_of(text, "| rank")
    assert [float(row[3].partition(" ±")[0]) for row in table_rows] == sorted(np.round(means, 4), reverse=True)
    assert [float(row[3].partition("± ")[2]) for row in table_rows] == pytest.approx(
        np.asarray(acc[:12]).reshape(4, 3).std(axis=1, ddof=1)[np.argsort(-means)], abs=6e-5
    )
    assert [row[0] for row in table_rows] == ["1", "2", "3", "4"]
    assert "%" not in text.replace("95 %", "")
    left_out = rows_of(text, "| lacks")
    assert [row[0] for row in left_out] == ["2 failed of 3 seeds"] * 2
    assert len(rows_of(text, "| job | folder")) == 4
    assert "ValueError: a \\| b second line" in text
    assert "18 jobs: 14 done, 4 failed, 0 pruned." in text
    said = capsys.readouterr().out
    assert said.index("rank") < said.index("not ranked") < said.index("4 of 18 jobs failed")
    best = max(means)
    assert f"{100 * best:.2f} ±" in said


@pytest.mark.parametrize("columns", [30, 50, 80, 120, 200])
def test_the_terminals_table_is_as_wide_as_the_terminal(columns: int, tmp_path: Path) -> None:
    names = ["大きい名前のモデル", "e\u0301te\u0301", "x" * 80, "🙂🙂"]
    jobs = grid(model=names, data__root=["/a/path/" + "deep/" * 30, "."], seed=[0, 1])
    failed = scored(None, status="failed", error="the reason " * 40)
    ends = {3: failed, 8: failed, 9: None, 11: scored(None, status="preempted")}
    folder = make(tmp_path / "s", jobs, lambda v, i: ends.get(i, scored(0.5 + i / 100)))
    results = gather(folder.path)
    lines = table(results, rank(configurations(results), results.objectives), columns).splitlines()
    assert max(map(width, lines[:-1])) <= columns
    start = next(i for i, line in enumerate(lines) if line.startswith("rank"))
    ranked = lines[start : lines.index("", start)]
    assert len(ranked) == 6
    if columns >= 50:
        assert "2 of 16 jobs are left: 1 interrupted, 1 pending" in lines
    if columns >= 80:
        ends = {width(line[: line.index(" %")]) for line in ranked[1:]}
        assert len(ends) == 1, "numbers stand below each other"


def test_widths_are_those_of_a_terminal() -> None:
    for text in ("abc", "大きい", "e\u0301te\u0301", "🙂", "ｱ"):
        reference = sum(
            0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
        )
        assert width(text) == reference
    assert fitted("大きい名前", 7) == "大…名前"
    assert fitted("abcdefgh", 5) == "ab…gh"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-5, "1e-05"), (0.1, "0.1"), (True, "true"), (None, "null"), ([64, 32], "[64,32]"), ({"a": 1}, "{a:1}")],
)
def test_values_are_written_as_the_command_line_has_them(value, text) -> None:
    assert value_text(value) == text


def test_markdown_is_not_broken_by_names() -> None:
    assert escaped("a|b*c\nmodel.hidden_size [1](x) <b> _x_") == r"a\|b\*c model.hidden_size [1]\(x) \<b\> \_x\_"


def test_durations() -> None:
    said = [duration(seconds) for seconds in (2.23, 59.6, 200, 3600, 18_600, 183_600)]
    assert said == ["2.2 s", "1 min", "3 min 20 s", "1 h", "5 h 10 min", "2 d 3 h"]


def test_several_objectives_have_a_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = {"objectives": ["val/acc", "parameters"], "directions": ["maximize", "minimize"]}
    jobs = [{"model.width": w} for w in (1, 2, 3, 4)]
    sizes, accuracies = [100, 200, 300, 400], [0.5, 0.8, 0.7, 0.9]
    make(
        tmp_path / "s",
        jobs,
        lambda v, i: scored(accuracies[i], parameters=sizes[i]),
        kind="search",
        study=study,
    )
    assert sweep_command(["report", f"run={tmp_path / 's'}"]) == 0
    text = (tmp_path / "s" / "results.md").read_text()
    assert "## Pareto front" in text
    assert [row[:2] for row in rows_of(text, "| rank")] == [["1", "4"], ["1", "2"], ["1", "1"], ["", "3"]]
    assert "Pareto front: 3 of 4 configurations" in capsys.readouterr().out


def test_what_is_said_of_the_winner(tmp_path: Path) -> None:
    jobs = grid(model=["a", "b"], optimizer__lr=[0.1], seed=[0, 1])
    folder = make(tmp_path / "s", jobs, lambda v, i: scored([0.5, 0.6, 0.8, 0.9][i]))
    assert report(folder.path, draw=False) == pytest.approx(
        {
            "best/model": "b",
            "best/optimizer.lr": 0.1,
            "best/val/acc": 0.85,
            "best/val/acc/sd": np.std([0.8, 0.9], ddof=1),
            "best/test/acc": 0.84,
            "best/test/acc/sd": np.std([0.8, 0.9], ddof=1),
        }
    )


def test_a_sweep_in_which_everything_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = scored(None, status="failed", error="no")
    folder = make(tmp_path / "s", grid(model=["a", "b"]), lambda v, i: failed)
    report(folder.path)
    assert "nothing is ranked" in capsys.readouterr().out
    assert "nothing is ranked" in folder.results_md.read_text()


def test_a_folder_that_is_no_sweep(tmp_path: Path) -> None:
    for verb in ("report", "status", "best"):
        with pytest.raises(UserError, match=r"run: .* isn't a sweep"):
            sweep_command([verb, f"run={tmp_path}"])
