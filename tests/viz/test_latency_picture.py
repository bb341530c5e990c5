"""The picture's numbers, read back from what was drawn; and that nothing lies on anything else."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from bench_reports import NAMES, made_up
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from dlrun.viz.latency import RUNTIMES, figure
from dlrun.viz.pictures import png


def test_bars_and_points_have_the_figures_values() -> None:
    report = made_up(NAMES[:6])
    accuracy, latency, throughput, size = figure(report).axes
    assert [label.get_text() for label in accuracy.get_yticklabels()] == NAMES[:6]
    points = [(*line.get_xdata(), *line.get_ydata()) for line in accuracy.lines if line.get_marker() == "o"]
    assert points == [(pytest.approx(99.1 - 0.2 * i), i) for i in range(6)]
    slower = [1 + i / 10 for i in range(6)]
    assert [bar.get_width() for bar in latency.patches] == pytest.approx(slower), "of batch size 1"
    assert [text.get_text() for text in latency.texts][:2] == ["1.00, 2.00", "1.10, 2.20"]
    assert [bar.get_width() for bar in throughput.patches] == pytest.approx([1000 / s for s in slower])
    assert [bar.get_width() for bar in size.patches] == pytest.approx([666_666 * s / 2**20 for s in slower], rel=1e-5)
    for axis, words in zip((accuracy, latency, throughput, size), ("%", "ms", "samples/s", "MiB"), strict=True):
        assert words in axis.get_xlabel()
    assert "batch 1:" in latency.get_xlabel()
    assert "batch 64:" in throughput.get_xlabel()


def test_colours_say_the_runtime() -> None:
    report = made_up(NAMES[:5])
    drawn = figure(report)
    bars = [to_hex(bar.get_facecolor()) for bar in drawn.axes[1].patches]
    assert bars == [RUNTIMES[row["runtime"]].lower() for row in report["rows"]]
    legend = {text.get_text(): patch for text, patch in zip(*_legend(drawn), strict=True)}
    assert {name: to_hex(patch.get_facecolor()) for name, patch in legend.items()} == {
        row["runtime"]: colour for row, colour in zip(report["rows"], bars, strict=True)
    }


def _legend(drawn: Any) -> tuple[list[Any], list[Any]]:
    [legend] = drawn.legends
    return legend.get_texts(), legend.get_patches()


@pytest.mark.parametrize("number", [1, 2, 6, 15])
@pytest.mark.parametrize("accuracy", [True, False])
def test_no_text_lies_on_another(number: int, accuracy: bool) -> None:
    drawn = figure(made_up([*NAMES[:-1], "x" * 200][-number:], accuracy=accuracy))
    FigureCanvasAgg(drawn).draw()
    texts = [text for axis in drawn.axes for text in axis.texts]
    assert len(texts) == number * (4 if accuracy else 3)
    texts += [label for axis in drawn.axes for label in axis.get_xticklabels() if _seen(axis, label)]
    texts += [axis.xaxis.label for axis in drawn.axes]
    texts += [*drawn.axes[0].get_yticklabels(), *drawn.legends[0].get_texts(), *drawn.texts]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), f"{one!r} lies on {other!r}"
    inside = drawn.bbox
    assert all(box.x0 >= 0 and box.x1 <= inside.x1 and box.y0 >= 0 and box.y1 <= inside.y1 for _, box in boxes)


def _seen(axis: Any, label: Any) -> bool:
    low, high = axis.get_xlim()
    return bool(low <= label.get_position()[0] <= high)


def test_what_was_left_out_or_failed_at_a_size_is_no_bar() -> None:
    report = made_up(NAMES[:3])
    report["rows"][1]["latency"]["1"] = {"error": "no"}
    report["rows"].append({**report["rows"][2], "status": "left out"})
    drawn = figure(report)
    assert len(drawn.axes[0].get_yticklabels()) == 3
    assert [bar.get_y() + bar.get_height() / 2 for bar in drawn.axes[1].patches] == pytest.approx([0, 2])
    assert png(lambda: figure(report)).startswith(b"\x89PNG")
