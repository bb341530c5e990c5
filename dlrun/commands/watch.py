"""dlrun watch [run=DIR|last]: a run on the terminal, while it is trained or afterwards

  dlrun watch                      the run begun last
  dlrun watch run=DIR              on another machine too, if the folder is there
  dlrun watch run=DIR once=true    as it is now, and no more; so do a pipe and a file, in plain lines

  every=SECONDS      between two looks at the folder; 1 if not said
  once=true          show it once

Curves, speed, time left and what that is judged by, the best epoch, the last checkpoint's age, the test, the end of
the log; and whether the run is trained, has ended, or was killed. It reads and nothing else: nothing is written, no
lock is taken. When the run has ended it shows how, and ends; q or Ctrl-C end it before.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from dlrun.errors import UserError
from dlrun.options import read
from dlrun.runs import find, refuse_sweep


@dataclass(frozen=True, kw_only=True)
class Options:
    run: str = "last"
    every: Annotated[float, Ge(0.1), Le(3600)] = 1.0
    once: bool = False


def run(words: Sequence[str]) -> int:
    """The command; returns its exit code. Raises UserError if there is no run to see."""
    options, _ = read(words, Options, "watch")
    path = find(options.run)
    refuse_sweep(path, f"see dlrun sweep status run={path}, or watch")
    from rich.console import Console

    from dlrun.watch.following import follow, look, show
    from dlrun.watch.observation import Observer

    observer, console = Observer(path), Console(highlight=False)
    if not observer.folder.summary.exists() and not observer.folder.metrics.exists():
        raise UserError(f"run: no run in {path}: it has neither summary.json nor metrics.csv")
    if options.once or not sys.stdout.isatty() or console.is_dumb_terminal:
        show(look(observer), console)
        return 0
    return follow(observer, console, options.every)
