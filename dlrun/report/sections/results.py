"""What the run reached: the best epoch, the last, the test; and per class, if it was evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from dlrun.report import wording
from dlrun.report.page import fragment
from dlrun.report.record import Record, mapping
from dlrun.wording import is_number

SCORES = ("precision", "recall", "f1")


def body(record: Record) -> Markup | None:
    evaluated = record.evaluation()
    columns, rows = _epochs(record)
    return fragment(
        "run/results.html.j2",
        columns=columns,
        rows=rows,
        nothing=None if rows else _nothing(record),
        skipped=record.summary.get("skipped_steps"),
        split=evaluated.get("split"),
        figures=[
            {"name": str(name).rpartition("/")[2].replace("_", " "), "value": wording.metric(value, str(name))}
            for name, value in mapping(evaluated.get("metrics")).items()
        ],
        classes=_classes(evaluated),
    )


def _nothing(record: Record) -> str:
    if record.status == "failed":
        return "The run failed before an epoch was over."
    return "No epoch is over yet." if record.status == "running" else "No epoch was finished."


def _epochs(record: Record) -> tuple[list[dict[str, str]], list[list[Any]]]:
    """Best, last and test, by metrics."""
    history, best = record.history, record.best_row()
    tested = record.part("test")
    names = [f"{split}/{metric}" for metric in history.metrics() for split in ("train", "val")]
    names = [name for name in names if name in history.columns]
    last = [str(name).rpartition("/")[2] for name in tested]
    tests = [f"test/{metric}" for metric in dict.fromkeys([*history.metrics(), *last]) if f"test/{metric}" in tested]
    columns = [{"title": "", "kind": "text"}, {"title": "epoch", "kind": "number"}]
    columns += [{"title": name.replace("/", " "), "kind": "number"} for name in [*names, *tests]]
    rows = []
    shown = {"best": best, "last": len(history) - 1 if len(history) else None}
    for what, row in shown.items():
        if row is None or (what == "last" and row == best):
            continue
        label = "best and last" if what == "best" and row == len(history) - 1 else what
        values = [wording.metric(history.column(name)[row], name) for name in names]
        tests_of = [_tested(tested, name) if what == "best" else wording.NOTHING for name in tests]
        rows.append([label, history.epochs[row], *values, *tests_of])
    if not rows and tests:
        rows.append(["tested", wording.NOTHING, *(_tested(tested, name) for name in tests)])
    return columns, rows


def _tested(tested: Mapping[str, Any], name: str) -> str:
    return wording.metric(tested.get(name), name)


def _classes(evaluated: Mapping[str, Any]) -> list[list[Any]]:
    found = evaluated.get("per_class")
    rows: list[list[Any]] = []
    for entry in found if isinstance(found, list) else []:
        scores = [{"text": wording.percent(entry.get(score)), "sort": _sort(entry.get(score))} for score in SCORES]
        rows.append([str(entry.get("class")), *scores, _count(entry.get("support")), _count(entry.get("predicted"))])
    return rows


def _count(value: Any) -> dict[str, Any]:
    return {"text": wording.number(value), "sort": _sort(value)}


def _sort(value: Any) -> float | None:
    return value if is_number(value) else None
