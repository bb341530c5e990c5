"""What there is to see of runs, as panels of W&B's: by section, for a report as for a workspace.

Needs the package wandb-workspaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import wandb_workspaces.reports.v2 as wr

from dlrun.wandb_report.subject import Subject

WIDTH = 24  # of a row, in W&B's units
HEIGHT = 8
SURE = "probability of its answer, mean of a bin"
NAMES = {"acc": "accuracy", "top5": "top-5 accuracy", "loss": "loss"}


def sections(subject: Subject) -> Iterator[tuple[str, list[Any]]]:
    """A heading, and its panels, placed. What makes no sense of a single run is left out."""
    yield "Curves", placed(_curves(subject), 2)
    yield "Results", placed(_results(subject), 2)
    if not subject.single and subject.keys:
        yield "What matters", placed(_search(subject), 1)
    if not subject.single:
        yield "What it costs", placed(_costs(subject), 2)
    yield "Answers on the test split", placed(_answers(subject), 2)
    yield "Pictures", placed(_pictures(), 1, HEIGHT + 4)
    if not subject.single:
        yield "Differences", placed([wr.RunComparer(diff_only="split")], 1)


def placed(panels: list[Any], columns: int, height: int = HEIGHT) -> list[Any]:
    """In rows of `columns`."""
    width = WIDTH // columns
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        panel.layout = wr.Layout(x=column * width, y=row * height, w=width, h=height)
    return panels


def best(subject: Subject) -> str:
    """The summary's key of the best value of what was monitored."""
    return f"best/{subject.monitor}"


def columns(subject: Subject) -> list[str]:
    """Of the table of runs: results first, then what they cost, then in what they differ."""
    results = [f"summary:{best(subject)}", "summary:best/epoch", *(f"summary:test/{m}" for m in subject.metrics)]
    cost = ["summary:seconds", "summary:parameters", "summary:status"]
    return ["run:displayName", *results, *cost, *map(_column, subject.keys)]


def _column(key: str) -> str:
    first, *rest = key.split(".")
    return ".".join([f"config:{first}", "value", *rest])


def _curves(subject: Subject) -> list[Any]:
    """By epoch: both splits in one plot of a single run, in two of several, which would be told apart by colour."""
    together = [("train", "val")] if subject.single else [("train",), ("val",)]
    plots = [
        wr.LinePlot(
            title=f"{NAMES.get(metric, metric)} ({' and '.join(splits)})",
            x="epoch",
            y=[f"{split}/{metric}" for split in splits],
            title_x="epoch",
            title_y=NAMES.get(metric, metric),
            log_y=metric == "loss" or None,
        )
        for metric in subject.metrics
        for splits in together
    ]
    by_step = {"step/train/loss": "loss of a step", "step/train/grad_norm": "gradient norm", "step/lr": "learning rate"}
    for key, name in by_step.items():
        plots.append(wr.LinePlot(title=name, x="step", y=[key], title_x="optimizer step", title_y=name, log_y=True))
    speed = "samples per second"
    plots.append(wr.LinePlot(title=speed, x="epoch", y=["samples_per_second"], title_x="epoch", title_y=speed))
    return plots


def _results(subject: Subject) -> list[Any]:
    monitored = f"best {subject.monitor}"
    if subject.single:
        keys = {best(subject): monitored, **{f"test/{m}": f"test/{m}" for m in subject.metrics}}
        keys |= {"best/epoch": "best epoch", "seconds": "seconds", "parameters": "parameters"}
        return [wr.ScalarChart(title=name, metric=key) for key, name in keys.items()]
    keys = {best(subject): monitored, **{f"test/{m}": f"test {NAMES.get(m, m)}" for m in subject.metrics}}
    return [wr.BarPlot(title=name, metrics=[key], orientation="h") for key, name in keys.items()]


def _search(subject: Subject) -> list[Any]:
    axes = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), log=key.endswith("lr") or None) for key in subject.keys]
    goal = wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(best(subject)), inverted=subject.minimize or None)
    return [
        wr.ParameterImportancePlot(with_respect_to=best(subject)),
        wr.ParallelCoordinatesPlot(title=f"choices and {best(subject)}", columns=[*axes, goal]),
    ]


def _costs(subject: Subject) -> list[Any]:
    costs = {"seconds": "training time (s)", "parameters": "parameters"}
    return [
        wr.ScatterPlot(
            title=f"{best(subject)} against {name}",
            x=wr.SummaryMetric(key),
            y=wr.SummaryMetric(best(subject)),
            log_x=True,
        )
        for key, name in costs.items()
    ]


def _answers(subject: Subject) -> list[Any]:
    """The charts and tables that a run logs of its test; a panel whose table no run has is empty."""
    area = "wandb/area-under-curve/v0"
    recall = {"x": "recall", "y": "precision", "class": "class"}
    rates = {"x": "false positive rate", "y": "true positive rate", "class": "class"}
    matrix = {"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"}
    lines = {"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"}
    return [
        _chart("test/confusion_matrix", "wandb/confusion_matrix/v1", matrix, "confusion matrix"),
        _chart("test/calibration", "wandb/lineseries/v0", lines, "calibration: share of right answers", SURE),
        _chart("test/precision_recall", area, recall, "precision at each recall", recall["x"], recall["y"]),
        _chart("test/roc", area, rates, "ROC", rates["x"], rates["y"]),
        wr.WeavePanelSummaryTable(table_name="test/mistakes"),
        wr.WeavePanelSummaryTable(table_name="test/predictions"),
    ]


def _chart(key: str, kind: str, fields: dict[str, str], title: str, x: str = "", y: str = "") -> Any:
    """One of W&B's custom charts, of the table that is logged beside it."""
    axes = {"xname": x} if kind == "wandb/lineseries/v0" else {"x-axis-title": x, "y-axis-title": y}
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"{key}_table"}},
        chart_name=kind,
        chart_fields=fields,
        chart_strings={"title": title, **{name: text for name, text in axes.items() if text}},
    )


def _pictures() -> list[Any]:
    keys = [f"plots/{name}" for name in ("curves", "confusion", "calibration", "mistakes")]
    return [wr.MediaBrowser(title="plots of the run", media_keys=keys, num_columns=2)]
