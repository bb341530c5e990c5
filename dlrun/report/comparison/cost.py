"""What a result cost: the metric against training time, parameters and latency, each with its Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dlrun.report.comparison.columns import Column, Mode, bench_rows, smallest
from dlrun.report.comparison.front import front
from dlrun.report.comparison.reading import Run
from dlrun.wording import is_number


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """One chart: a point for each run that has both figures, or for each artifact of a run."""

    name: str
    title: str
    x_title: str
    y_title: str
    runs: Sequence[int]  # whose point it is
    x: Sequence[float]
    y: Sequence[float]
    whole: Sequence[bool]  # of a run that ended well; the others are drawn, and aren't at the front
    names: Sequence[str] = field(default=())  # of artifacts
    mode: Mode = "max"
    note: str = ""

    @property
    def front(self) -> list[int]:
        """Places of the points that no other one beats."""
        there = [i for i, whole in enumerate(self.whole) if whole]
        return [there[i] for i in front([self.x[i] for i in there], [self.y[i] for i in there], self.mode)]

    def plain(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "xTitle": self.x_title,
            "yTitle": self.y_title,
            "runs": list(self.runs),
            "x": list(self.x),
            "y": list(self.y),
            "whole": list(self.whole),
            "names": list(self.names),
            "front": self.front,
            "log": bool(self.x) and min(self.x) > 0 and max(self.x) >= 20 * min(self.x),
        }


def tradeoffs(runs: Sequence[Run], metric: Column) -> list[Tradeoff]:
    """Those charts for which there are points."""
    assert metric.better is not None
    found = [
        _against(runs, metric, "time", "Training time", "training (s)", [run.training_seconds for run in runs]),
        _against(runs, metric, "parameters", "Parameters", "parameters", [run.number("parameters") for run in runs]),
        _latency(runs),
    ]
    return [chart for chart in found if chart is not None and chart.x]


def _against(
    runs: Sequence[Run], metric: Column, name: str, title: str, x_title: str, costs: Sequence[float | None]
) -> Tradeoff:
    there = [i for i, cost in enumerate(costs) if is_number(cost) and is_number(metric.values[i])]
    return Tradeoff(
        name=name,
        title=title,
        x_title=x_title,
        y_title=f"best {metric.key}" if not metric.key.startswith("test/") else metric.key,
        runs=there,
        x=[float(costs[i] or 0) for i in there],
        y=[float(metric.values[i] or 0) for i in there],
        whole=[runs[i].done for i in there],
        mode=metric.better or "max",
    )


def _latency(runs: Sequence[Run]) -> Tradeoff | None:
    """Each artifact that `dlrun bench` timed, by its own accuracy on the test split."""
    points = []
    circumstances = set()
    for place, run in enumerate(runs):
        for row in bench_rows(run):
            timed = smallest(row)
            acc = row.get("accuracy") if is_number(row.get("accuracy")) else None
            if acc is None and row is bench_rows(run)[0]:
                acc = run.test.get("test/acc")
            if timed and acc is not None:
                points.append((place, timed[0], float(acc), str(row.get("name")), timed[1]))
                circumstances.add((_cpu(run), str(run.bench.get("device")), str(run.bench.get("threads")), timed[1]))
    if not points:
        return None
    batches = {str(point[4]) for point in points}
    batch = f"batch of {batches.pop()}" if len(batches) == 1 else "smallest batch"
    note = "Not all were measured alike (machine, device, threads or batch): hold only like against like."
    return Tradeoff(
        name="latency",
        title="Latency",
        x_title=f"median latency, {batch} (ms)",
        y_title="test/acc",
        runs=[point[0] for point in points],
        x=[point[1] for point in points],
        y=[point[2] for point in points],
        names=[point[3] for point in points],
        whole=[runs[point[0]].done for point in points],
        note=note if len(circumstances) > 1 else "",
    )


def _cpu(run: Run) -> str:
    machine = run.bench.get("machine")
    return str(machine.get("cpu")) if isinstance(machine, dict) else ""
