"""dlrun report run=DIR|last [out=FILE]: all that is known of a run in one HTML file
dlrun report runs='GLOB' [OPTION=VALUE …]: many runs compared

  dlrun report run=last                     writes report.html into the run's folder
  dlrun report run=DIR out=run.html

The file needs nothing else: no network, no other file, nothing installed. It has what was run, and what of that differs
from the defaults; results, curves to hover over and zoom into, confusion matrix, mistakes, calibration; where the time
went; what compress, export and bench left; versions, commit and uncommitted changes; the command that makes the run
again. Dark or light, on a phone or printed. A run that is going on, has failed or is damaged shows what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlrun.errors import UserError
from dlrun.options import read, run_named
from dlrun.runs import find, refuse_sweep


@dataclass(frozen=True, kw_only=True)
class Options:
    out: Path | None = None


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
    refuse_sweep(path, "report on")
    from dlrun.report import making, page

    out = options.out or path / "report.html"
    page.write(out, making.make(path))
    print(f"written {out}")
    return 0
