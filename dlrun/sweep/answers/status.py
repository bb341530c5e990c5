"""`dlrun sweep status`: how far a sweep has come, asked from any terminal, while it runs or after its end."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from dlrun.locks import is_held
from dlrun.options import read
from dlrun.sweep.answers.results import Outcome, Results, gather
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.state import ENDED, State
from dlrun.wording import duration, fitted, width

MOST = 20  # rows of each kind
OVER = ("finished", "failed")  # statuses of a sweep that has come to its end
ORDER: tuple[State, ...] = ("done", "running", "failed", "pruned", "interrupted", "pending")


@dataclass(frozen=True, kw_only=True)
class Options:
    format: Literal["text", "json"] = "text"


def run(folder: SweepFolder, words: Sequence[str]) -> int:
    """The command; returns its exit code. Raises UserError."""
    options, _ = read(words, Options, "sweep status")
    found = look(folder.path)
    print(json.dumps(found, indent=2, ensure_ascii=False) if options.format == "json" else text(found))
    return 0


def status(path: Path) -> str:
    """What `dlrun sweep status` prints. Raises UserError if it isn't a sweep."""
    return text(look(path))


def look(path: Path) -> dict[str, Any]:
    """Counts, what runs, what failed, and the seconds that are left, as far as known. Raises UserError."""
    results = gather(path)
    events = results.folder.read_events()
    lives = is_held(results.folder.lock)
    study = results.sweep.get("study") or {}
    shared = study.get("storage") is not None and results.sweep["status"] in OVER and not lives  # others had the rest
    total = max(len(results.outcomes), 0 if shared else study.get("n_trials") or 0)
    counts: dict[str, int] = {state: results.count(state) for state in ORDER}
    counts["pending"] = total - sum(counts[state] for state in ORDER if state != "pending")
    running = [_running(results, o, events) for o in results.outcomes if o.state == "running"]
    return {
        "path": str(path),
        "kind": results.sweep.get("kind"),
        "status": "running" if lives else _over(results, counts, total),
        "total": total,
        "counts": counts,
        "running": running,
        "failed": [_named(o.job) | {"error": o.error} for o in results.outcomes if o.state == "failed"],
        **_time(events, running, counts, lives),
    }


def go_on(path: Path, searched: bool) -> str:
    """How a sweep that isn't done is gone on with; one that has `searched` all it should doesn't repeat a trial."""
    command = f"dlrun sweep resume run={path}"
    return f"more trials: {command} hydra.sweeper.n_trials=…" if searched else f"to go on: {command}"


def _over(results: Results, counts: Mapping[str, int], total: int) -> str:
    """A sweep that was killed couldn't say so."""
    said = str(results.sweep["status"])
    ended = counts["done"] + counts["pruned"] + counts["failed"] == total
    return "interrupted" if said == "running" and not (ended and total) else said


def _named(job: FrozenJob) -> dict[str, Any]:
    return {"job": job.number, "folder": job.folder, "label": job.label}


def _running(results: Results, outcome: Outcome, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    job = outcome.job
    started = [event for event in events if event.get("job") == job.number and event.get("event") == "started"]
    last: Mapping[str, Any] = started[-1] if started else {}
    since = _seconds_since(last["time"]) if "time" in last else None
    device = last.get("devices", last.get("device"))
    trainer = job.config.get("trainer") or {}
    facts = {"epoch": _epoch(results.folder.run(job).metrics), "epochs": trainer.get("max_epochs")}
    return _named(job) | facts | {"seconds": since, "device": device}


def _seconds_since(time: str) -> float:
    return round((datetime.now().astimezone() - datetime.fromisoformat(time)).total_seconds(), 1)


def _epoch(metrics: Path) -> int:
    """The last one that is over."""
    try:
        with metrics.open(newline="", encoding="utf-8") as file:
            epochs = [row["epoch"] for row in csv.DictReader(file) if row.get("epoch")]
        return int(epochs[-1]) if epochs else 0
    except (OSError, ValueError, KeyError, csv.Error):
        return 0


def _time(
    events: Sequence[Mapping[str, Any]], running: Sequence[Mapping[str, Any]], counts: Mapping[str, int], lives: bool
) -> dict[str, Any]:
    """The mean of the jobs that ended well, and what the others take at that pace, so many at a time as run now.

    Before the first one has ended, the epochs of those that run say what a job will take.
    """
    took = [e["seconds"] for e in events if e.get("event") == "ended" and e.get("state") in ENDED and "seconds" in e]
    if not took:
        took = [j["seconds"] / j["epoch"] * j["epochs"] for j in running if j["seconds"] and j["epoch"] and j["epochs"]]
    mean = sum(took) / len(took) if took else None
    left = None
    if lives and mean is not None:
        waiting = counts["pending"] + counts["interrupted"]
        under_way = sum(max(mean - (job["seconds"] or 0.0), 0.0) for job in running)
        left = round((waiting * mean + under_way) / max(len(running), 1), 1)
    return {"seconds_per_job": None if mean is None else round(mean, 3), "at_once": len(running), "seconds_left": left}


def text(found: Mapping[str, Any], columns: int | None = None) -> str:
    """As a person reads it, at most `columns` wide."""
    columns = columns or shutil.get_terminal_size((100, 24)).columns
    return "\n".join(fitted(line, columns) for line in _lines(found, columns))


def _lines(found: Mapping[str, Any], columns: int) -> Iterator[str]:
    counts = found["counts"]
    yield f"sweep {found['path']}: {found['status']}"
    total, states = found["total"], "  ".join(f"{n:,} {state}" for state, n in counts.items() if n)
    yield f"{total:,} job{'s' * (total != 1)}: {states}"
    for job in found["running"][:MOST]:
        of = "" if job["epochs"] is None else f"/{job['epochs']}"
        end = f"  epoch {job['epoch']}{of}  {duration(job['seconds'])}"
        end += "" if job["device"] is None else f"  on {job['device']}"
        begin = f"running {job['folder']}  "
        yield begin + fitted(job["label"], max(columns - width(begin + end), 10)) + end
    for job in found["failed"][:MOST]:
        yield f"failed {job['folder']}  {fitted(job['label'], max(columns // 3, 10))}  {job['error']}"
    for kind in ("running", "failed"):
        if len(found[kind]) > MOST:
            yield f"… and {len(found[kind]) - MOST:,} more {kind}"
    if found["seconds_left"] is not None:
        pace = f"{duration(found['seconds_per_job'])} a job, {max(found['at_once'], 1)} at a time"
        yield f"about {duration(found['seconds_left'])} left ({pace})"
    elif found["status"] != "running" and any(counts[state] for state in ("failed", "interrupted", "pending")):
        left = counts["interrupted"] + counts["pending"]
        yield go_on(Path(found["path"]), found["kind"] == "search" and not left)
