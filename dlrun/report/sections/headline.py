"""What the run was, how it ended and what it reached, at a glance."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from markupsafe import Markup

from dlrun.report import wording
from dlrun.report.page import fragment
from dlrun.report.record import Record
from dlrun.wording import is_number

BADGES = {"finished": "good", "stopped_early": "good", "failed": "bad", "preempted": "warn", "pruned": "warn"}
BADGES |= {"running": "live", "interrupted": "warn"}
TOLD = {
    "preempted": "The run was stopped, and can go on: dlrun resume.",
    "interrupted": "The run says that it is running, but no process here holds its folder: it was killed, "
    "or it runs on another machine.",
    "pruned": "The search that it is part of gave it up.",
}


def body(record: Record) -> Markup:
    summary, status = record.summary, record.status
    return fragment(
        "run/headline.html.j2",
        title=record.title,
        run_id=record.run_id,
        status=status.replace("_", " "),
        badge=BADGES.get(status, "warn"),
        when=_when(summary.get("started")),
        error=summary.get("error") if status not in ("preempted", "finished") else None,
        told=_running(record) if status == "running" else TOLD.get(status),
        failed=status == "failed",
        notes=record.config.get("notes"),
        tags=[str(tag) for tag in record.config.get("tags") or ()],
        figures=_figures(record),
    )


def _running(record: Record) -> str:
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    done = record.history.epochs[-1] if len(record.history) else 0
    last = {0: "no epoch is", 1: "1 epoch is"}.get(done, f"{done:,} epochs are")
    return f"The run is going on: at {now}, {last} done. This page doesn't change; make it again."


def _when(started: Any) -> str | None:
    try:
        return datetime.fromisoformat(started).isoformat(sep=" ", timespec="minutes")
    except (TypeError, ValueError):
        return None


def _figures(record: Record) -> list[dict[str, str]]:
    """A handful of numbers, each with what it is."""
    summary, found = record.summary, []
    for name, value in record.part("test").items():
        if is_number(value) and name.count("/") == 1 and name.rpartition("/")[2] in ("loss", "acc"):
            found.append({"name": name.replace("/", " "), "value": wording.metric(value, name), "rank": "first"})
    found.sort(key=lambda figure: figure["name"])  # acc before loss
    row, value = record.best_row(), None
    if row is not None:
        value = record.history.column(record.monitor)[row]
    elif record.part("best"):
        value = record.part("best").get(record.monitor)
    if is_number(value):
        epoch = record.history.epochs[row] if row is not None else record.part("best").get("epoch")
        best = {"name": f"best {record.monitor.replace('/', ' ')}, epoch {epoch}"}
        found.append(best | {"value": wording.metric(value, record.monitor), "rank": "" if found else "first"})
    for name, key, write in (
        ("parameters", "parameters", wording.magnitude),
        ("epochs", "epochs", wording.number),
        ("time", "seconds", wording.duration),
        ("samples/s in training", "samples_per_second", wording.magnitude),
    ):
        if is_number(summary.get(key)):
            found.append({"name": name, "value": write(summary[key]), "rank": ""})
    return found
