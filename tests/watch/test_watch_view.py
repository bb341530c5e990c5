"""What is on the terminal, read back from it: numbers, curves, and that it fits."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from made_up_runs import made_up, row
from rich.cells import cell_len

from dlrun.watch.curves import DOT, Chart, Curve, charts, drawn
from dlrun.watch.facts import best, facts
from dlrun.watch.following import look
from dlrun.watch.observation import Observer
from dlrun.watch.view import plain, view

BRAILLE = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]  # bit → column and row in a character


def shown(path: Path, columns: int = 100, lines: int = 30, coloured: bool = True) -> list[str]:
    moment = look(Observer(path))
    return [line.plain for line in view(moment.seen, moment.status, moment.pace, columns, lines, coloured)]


def dots(lines: list[str]) -> tuple[set[tuple[int, int]], int, int]:
    """The dots of a chart's canvas, counted from its upper left corner, and how wide and high that is."""
    canvas = [line[1 + max(line.find("│"), line.find("┤")) :] for line in lines if "│" in line or "┤" in line]
    found = set()
    for y, line in enumerate(canvas):
        for x, character in enumerate(line):
            bits = ord(character) - 0x2800
            if 0 < bits < 256:
                found |= {(2 * x + dx, 4 * y + dy) for bit, (dx, dy) in enumerate(BRAILLE) if bits >> bit & 1}
    return found, 2 * len(canvas[0]), 4 * len(canvas)


def test_a_curve_goes_where_the_numbers_are() -> None:
    epochs = list(range(1, 41))
    values = [2.0 + math.cos(epoch / 5) for epoch in epochs]
    lines = [line.plain for line in drawn(Chart("loss", [Curve("train", values)]), epochs, 60, 16)]
    assert (len(lines), {len(line) for line in lines}) == (16, {60})
    assert lines[0].split() == ["loss", "━", "train", f"{values[-1]:.4f}"]
    found, width, height = dots(lines[1:])
    assert (width, height) > (90, 48)
    for epoch, value in zip(epochs, values, strict=True):
        x = (epoch - 1) / 39 * (width - 1)
        y = (max(values) - value) / (max(values) - min(values)) * (height - 1)
        assert min(abs(x - a) + abs(y - b) for a, b in found) <= 3, (epoch, value)
    assert len(found) < 5 * width, "a line, not an area"
    ticks = {line.partition("┤")[0].strip(): n for n, line in enumerate(lines[1:]) if "┤" in line}
    assert set(ticks) <= {"1.0", "1.5", "2.0", "2.5", "3.0"}
    assert abs(ticks["2.0"] - (max(values) - 2.0) / (max(values) - min(values)) * (height // 4 - 1)) <= 1
    assert lines[-1].split()[0] == "epoch"
    assert lines[-1].split()[-1] == "40"


def test_what_is_not_a_number_is_a_gap_and_what_was_not_evaluated_is_none() -> None:
    epochs = list(range(1, 31))
    holes = [1.0 if not 10 < epoch < 20 else math.nan for epoch in epochs]
    found, width, _ = dots([line.plain for line in drawn(Chart("loss", [Curve("train", holes)]), epochs, 50, 9)[1:]])
    columns = {round(x / (width - 1) * 29 + 1) for x, _ in found}
    assert columns >= {1, 5, 10, 20, 25, 30}
    assert not columns & set(range(12, 19))
    rare = [0.5 if epoch % 5 == 0 else None for epoch in epochs]
    found, width, _ = dots([line.plain for line in drawn(Chart("loss", [Curve("val", rare)]), epochs, 50, 9)[1:]])
    assert {round(x / (width - 1) * 29 + 1) for x, _ in found} >= set(range(6, 30)), "drawn through"


def test_a_wide_range_of_losses_is_logarithmic_and_nothing_finite_says_so() -> None:
    epochs, values = list(range(1, 11)), [10.0**-n for n in range(10)]
    lines = [line.plain for line in drawn(Chart("loss", [Curve("train", values)]), epochs, 60, 25)]
    found, width, height = dots(lines[1:])
    for n in range(10):  # a straight line
        assert any(abs(x / (width - 1) - n / 9) < 0.03 and abs(y / (height - 1) - n / 9) < 0.03 for x, y in found)
    labels = [line.partition("┤")[0].strip() for line in lines if "┤" in line]
    assert [math.log10(float(label)) % 1 for label in labels] == [0.0] * len(labels) != []
    nothing = drawn(Chart("loss", [Curve("train", [math.nan, math.inf])]), [1, 2], 60, 10)
    assert [line.plain.strip() for line in nothing[:3]] == ["loss  ━ train inf", "no finite number yet", ""]
    assert len(nothing) == 10


def test_two_curves_are_told_apart_by_colour_and_without_it_by_what_they_are_drawn_with() -> None:
    epochs = list(range(1, 31))
    chart = Chart("acc", [Curve("train", [n / 40 for n in epochs]), Curve("val", [1 - n / 40 for n in epochs])])
    coloured = drawn(chart, epochs, 60, 12)
    styles = {str(span.style) for line in coloured[1:] for span in line.spans}
    assert {style for style in styles if "#" in style} == {"#56b4e9", "#e69f00"}
    bare = drawn(chart, epochs, 60, 12, coloured=False)
    assert not [span for line in bare[1:-1] for span in line.spans]
    text = "\n".join(line.plain for line in bare)
    assert text.count(DOT) > 25 < sum(0x2800 < ord(c) < 0x2900 for c in text)
    assert bare[0].plain.split() == ["acc", "━", "train", "75.00", "%", DOT, "val", "25.00", "%"]
    assert " %┤" in text


@pytest.mark.parametrize("size", [(60, 16), (60, 20), (80, 24), (120, 40), (200, 60), (30, 5), (400, 100)])
def test_the_view_fits_and_says_what_is_in_the_files(size: tuple[int, int], tmp_path: Path) -> None:
    path = made_up(
        tmp_path / ("猫と犬-مرحبا-🎉-$x_y_z-<script>-" + "long" * 20),
        [row(n, 1 / n) for n in range(1, 13)],
        status="preempted",
        error="SIGTERM [bold]\x1b[31m" + "x" * 300,
        parameters=164_298,
        seconds=25.0,
        best={"epoch": 12, "val/acc": 0.62},
        test={"test/loss": 0.25, "test/acc": 0.75},
    )
    (path / "dlrun.log").write_text("2026-11-24 01:02:03,456 INFO     类别 [red]猫[/red] \x1b[2J\n" * 30)
    lines = shown(path, *size)
    assert len(lines) <= size[1]
    assert max(map(cell_len, lines)) <= size[0]
    text = "\n".join(lines)
    assert "\x1b" not in text
    assert "● preempted" in text
    if size >= (60, 16):
        assert "epoch 12 of 20, step 120 of 200, 60 %" in text
        assert "best       val/acc 62.00 % in epoch 12" in text
        assert "test/loss 0.2500  test/acc 75.00 %" in text
    if size >= (80, 24):
        assert "loss  ━ train 0.0833  ━ val 0.0917" in text
        assert "acc  ━ train 50.00 %  ━ val 62.00 %" in text
        assert "01:02:03  类别 [red]猫[/red]" in text
    assert ("learning rate  8.33e-05" in text) == (size[0] >= 120)


def test_the_numbers_of_a_real_run_are_those_of_its_files(small_runs: Path) -> None:
    path = small_runs / "digits"
    with (path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    text = "\n".join(shown(path, 200, 60))
    last = rows[-1]
    assert f"train {float(last['train/loss']):.4f}  ━ val {float(last['val/loss']):.4f}" in text
    assert f"train {float(last['train/acc']):.2%}".replace("%", " %") in text
    assert f"learning rate  {float(last['lr']):.2e}" in text
    assert f"{float(last['samples_per_second']):,.0f} samples/s" in text
    best_row = max(rows, key=lambda found: (float(found["val/acc"]), int(found["epoch"])))
    said = f"val/acc {float(best_row['val/acc']):.2%}".replace("%", " %") + f" in epoch {best_row['epoch']}"
    assert said in text
    assert "● finished" in text
    assert f"epoch 4 of 4, step {last['step']} of {last['step']}, 100 %" in text


def test_best_is_judged_as_the_run_judges_while_it_has_not_said(tmp_path: Path) -> None:
    def told(**trainer: str) -> str:
        return best(Observer(made_up(tmp_path, [row(n, v) for n, v in enumerate([3, 1, 2, 1], 1)], trainer)).look())

    assert told() == "val/acc 54.00 % in epoch 4"
    assert told(mode="min") == "val/acc 51.00 % in epoch 1"
    assert told(monitor="val/loss") == "val/loss 1.1000 in epoch 4", "of equals the last"
    assert told(monitor="val/top5") == ""


def test_a_run_without_epochs_without_validation_and_with_nan(tmp_path: Path) -> None:
    assert "no epoch has ended yet: there are no curves" in shown(made_up(tmp_path / "none"))
    moment = look(Observer(tmp_path / "none"))
    told = dict(facts(moment.seen, moment.status, moment.pace))
    assert (told["progress"], told["time left"], told["checkpoint"]) == (
        "epoch 0 of 20, step 0",
        "not known yet",
        "none yet",
    )
    unseen = made_up(tmp_path / "unseen", [[n, n, 0.1, 1 / n, 0.5, "", "", 10, n, 0.1] for n in (1, 2, 3)])
    assert [len(chart.curves) for chart in charts(Observer(unseen).look().history)] == [1, 1, 1]
    assert "loss  ━ train 0.3333" in "\n".join(shown(unseen))
    diverged = made_up(tmp_path / "diverged", [row(1, 0.5), row(2, math.nan), row(3, math.inf)])
    text = "\n".join(shown(diverged, 120, 40))
    assert "not finite train/loss 2, val/loss 2 of 3 epochs" in text
    assert "loss  ━ train inf  ━ val inf" in text


def test_a_pipe_gets_a_line_for_each_thing_without_colour(tmp_path: Path) -> None:
    failed = {"status": "failed", "error": "ValueError: no\nway", "seconds": 61}
    path = made_up(tmp_path / "run", [row(1, 0.5), row(2, 0.25)], **failed)
    moment = look(Observer(path))
    lines = plain(moment.seen, moment.status, moment.pace).splitlines()
    told = {line[:12].strip(): line[12:] for line in lines}
    assert told["status"] == "failed: ValueError: no way"
    assert told["took"] == "1 min 1 s"
    assert told["progress"] == "epoch 2 of 20, step 20 of 200, 10 %"
    assert told["what"] == "cnn on digits"
    assert told["best"] == "val/acc 52.00 % in epoch 2"
