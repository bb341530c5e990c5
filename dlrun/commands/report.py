"""dlrun report run=DIR|last [out=FILE] [log=true]: all that is known of a run in one HTML file
dlrun report runs='GLOB' [OPTION=VALUE …]: many runs compared

  dlrun report run=last                     writes report.html into the run's folder
  dlrun report run=DIR out=run.html
  dlrun report run=DIR log=true             and into the run's own W&B run, as an artifact and a page
  dlrun report runs='outputs/2026-11-2*/*'  writes ./report.html: table, curves, cost, means over seeds

The file needs nothing else: no network, no other file, nothing installed. It has what was run, and what of that differs
from the defaults; results, curves to hover over and zoom into, confusion matrix, mistakes, calibration; where the time
went; what compress, export and bench left; versions, commit and uncommitted changes; the command that makes the run
again. Dark or light, on a phone or printed. A run that is going on, has failed or is damaged shows what there is.

Of many runs it has those config values in which they differ beside what they came to, in a table that sorts, filters
(model=cnn lr>=1e-3 status!=failed) and selects; their curves; the metric against training time, parameters and the
latencies that dlrun bench measured, with the Pareto fronts; mean and deviation over seeds. What is damaged is listed.

  runs=PATTERN,DIR,…        run folders, sweeps, days: all runs below; last is the run begun last, or its sweep
  metric=val/acc            what they are compared by; the metric that most of them monitored if not said
  mode=max                  which end of it is the better one; by its name if not said
  out=report.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.errors import UserError
from dlrun.options import read, run_named
from dlrun.runfolder import RunFolder
from dlrun.runs import find, refuse_sweep

if TYPE_CHECKING:
    from dlrun.config import TrackingConfig


@dataclass(frozen=True, kw_only=True)
class Options:
    out: Path | None = None
    log: bool = False


def run(words: Sequence[str]) -> int:
    """Write the report; returns the exit code."""
    if any(word.startswith("runs=") for word in words):
        if any(word.startswith("run=") for word in words):
            raise UserError("report: run= is one run's report, runs= compares many; give one of them")
        from dlrun.report.comparison import run as compare

        return compare(words)
    name, rest = run_named(words, "report")
    options, _ = read(rest, Options, "report")
    path = find(name)
    refuse_sweep(path, f"compare its runs with dlrun report runs={path}, or report on")
    tracking = _told(RunFolder(path)) if options.log else None
    from dlrun.report import making

    out = making.write(path, options.out)
    print(f"written {out}")
    if tracking is not None:
        from dlrun.trackers import tell_afterwards

        folder = RunFolder(path)
        tell_afterwards(folder, tracking, step=folder.read_summary().get("steps") or 0, report=out)
    return 0


def _told(folder: RunFolder) -> TrackingConfig:
    """Raises UserError for a run that W&B doesn't know, or that goes on: its own process tells of it."""
    from dlrun.config import parse
    from dlrun.tracking.wandb.parts import parts

    tracking = parse(folder.read_config()).tracking
    summary = folder.read_summary()
    if tracking.wandb is None or not parts(folder.path.absolute(), summary["run_id"]):
        raise UserError(f"log: {folder.path} isn't in W&B (tracking); leave it out")
    if summary.get("status") == "running":
        raise UserError("log: the run goes on; tracking.wandb.log_report=true does it at its end")
    return replace(tracking, tensorboard=None)  # which has no pages
