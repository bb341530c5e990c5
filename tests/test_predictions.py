from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from dlrun.errors import UserError
from dlrun.predictions import WRITERS, Prediction, Row, best, written

NAMES = ["a", "b,", "ü"]


def rows(text: str | None = None) -> list[Row]:
    predictions = best(torch.tensor([[0.25, 0.5, 0.25], [1e-9, 0.0, 1 - 1e-9]]), NAMES, 5)
    return [Row(f"x{number}\n.png", prediction, text) for number, prediction in enumerate(predictions)]


def test_the_best_are_in_order_and_ties_in_that_of_the_classes() -> None:
    probabilities = torch.tensor([[0.25, 0.5, 0.25], [0.0, 0.125, 0.875]])
    assert best(probabilities, NAMES, 2) == [
        Prediction("b,", 0.5, 1, (("b,", 0.5), ("a", 0.25))),
        Prediction("ü", 0.875, 2, (("ü", 0.875), ("b,", 0.125))),
    ]
    assert [len(p.top) for p in best(probabilities, NAMES, 9)] == [3, 3]


@pytest.mark.parametrize("text", [None, 'two "lines",\nand ü'])
def test_what_is_written_can_be_read(tmp_path: Path, text: str | None) -> None:
    assert len(WRITERS) == 3
    for suffix in WRITERS:
        with written(tmp_path / f"x{suffix}") as write:
            for row in rows(text):
                write([row])
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == lines
    for one, other, row in zip(table, lines, rows(text), strict=True):
        assert one["input"] == other["input"] == row.input
        assert one.get("text") == other.get("text") == text
        assert one["prediction"] == other["prediction"] == row.prediction.class_name
        assert [(one[f"class_{i}"], float(one[f"probability_{i}"])) for i in (1, 2, 3)] == [
            (best["class"], best["probability"]) for best in other["top"]
        ]
        for (_, share), best_of in zip(row.prediction.top, other["top"], strict=True):
            assert best_of["probability"] == pytest.approx(share, rel=1e-5)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    def interrupted(path: Path) -> None:
        with written(path) as write:
            write(rows())
            assert not path.exists()
            raise KeyboardInterrupt

    def nothing(path: Path) -> None:
        with written(path) as write:
            write([])

    for suffix in WRITERS:
        with pytest.raises(KeyboardInterrupt):
            interrupted(tmp_path / f"x{suffix}")
        nothing(tmp_path / f"x{suffix}")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"out: can't write .*/nowhere/x.csv \("):
        interrupted(tmp_path / "no/nowhere/x.csv")
