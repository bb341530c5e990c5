"""metrics.csv as others find it: whole, half written, damaged."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from dlrun.history import History, better_end, finite, read

ROWS = """\
epoch,step,lr,train/loss,val/loss,val/acc
1,21,0.1,1.5,1.25,0.5
2,42,0.1,nan,inf,0.75
3,63,0.01,0.5,,0.75
"""


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.csv"
    path.write_text(ROWS)
    return path


def test_columns_are_those_of_the_csv_module(metrics: Path) -> None:
    history, rows = read(metrics), list(csv.DictReader(ROWS.splitlines()))
    assert history.epochs == [1, 2, 3] == [int(row["epoch"]) for row in rows]
    assert history.steps == [21, 42, 63]
    assert history.column("val/acc") == [float(row["val/acc"]) for row in rows]
    assert history.column("val/loss") == [1.25, math.inf, None]
    assert math.isnan(history.column("train/loss")[1] or 0)
    assert history.column("gradient") == [None] * 3
    assert history.metrics() == ["loss", "acc"]
    assert [math.isnan(value) for value in finite(history.column("val/loss"))] == [False, True, True]


def test_the_best_is_finite_and_the_last_of_equals(metrics: Path) -> None:
    history = read(metrics)
    assert history.best("val/acc", "max") == 2
    assert history.best("val/loss", "max") == 0
    assert history.best("lr", "min") == 2
    assert history.best("nothing", "min") is None


@pytest.mark.parametrize(
    "end", ["4,84,0.01,0.4,0.", "4,84,0.01,0.4\n", "x,84,0.01,0.4,0.3,0.8\n", "-1,1,1,1,1,1\n", "\0\n"]
)
def test_a_row_that_is_none_is_left_out(metrics: Path, end: str) -> None:
    metrics.write_text(ROWS + end)
    assert read(metrics).epochs == [1, 2, 3]


def test_of_a_repeated_epoch_the_last_row_counts(metrics: Path) -> None:
    metrics.write_text(ROWS + "2,42,0.1,1.0,1.0,0.6\n")
    history = read(metrics)
    assert history.epochs == [1, 2, 3]
    assert history.column("val/acc") == [0.5, 0.6, 0.75]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00junk", b"epoch,step\n", b"a,b\n1,2\n", b'epoch,step\n"1,2\n3'])
def test_junk_is_no_rows(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    assert len(read(path)) == 0
    assert len(read(tmp_path / "none")) == 0 == len(History())


def test_which_end_of_a_metric_is_better() -> None:
    assert {better_end(name) for name in ("val/loss", "test/ece", "train/aux_loss")} == {"min"}
    assert better_end("val/acc") == better_end("val/acc", "neither") == better_end("val/loss", "max") == "max"
    assert better_end("val/mae", "min") == "min"
