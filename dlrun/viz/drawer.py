"""The process that draws a run's pictures while it trains: python -m dlrun.viz.drawer DIR MONITOR MODE TITLE [now].

A byte on its stdin asks for new curves, or with `END` for all pictures and an end; a stdin that closes says that the
run has gone. With `now` it draws all of them. While the run trains it draws in a thread that gives way to everybody; at
the end it doesn't. Its last line is what its log said, as JSON. It knows no torch.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.history import History, better_end, read

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEW, END = b".", b"!"
AT_ONCE = "now"
FOUND = ("confusion", "calibration", "mistakes")  # pictures of a test
LOOK = 0.5  # seconds between two looks at whether the run is there
SOON = 5.0  # seconds until the first drawing: a shorter run is drawn when it ends
APART = 15.0  # seconds between two at least
SHARE = 0.005  # of the time that passes, for drawing

log = logging.getLogger("dlrun")


class Collected(logging.Handler):
    """What is logged, for the run's own log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def main() -> None:
    """Draw until the run ends."""
    folder, monitor, mode, title = Path(sys.argv[1]), *sys.argv[2:5]
    at_once = AT_ONCE in sys.argv[5:]
    # A process that the run has started may hold our stdin open when it has gone.
    threading.Thread(target=_end_without, args=(os.getppid(),), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # a scheduler sends them to everybody; the run says when it ends
    collected = Collected()
    log.addHandler(collected)
    log.propagate = False

    def curves() -> None:
        _put(folder, "curves", lambda: _curves(folder, monitor, mode, title))

    import matplotlib.backends.backend_agg  # 0.4 s, beside the run's first steps
    import matplotlib.figure  # noqa: F401

    if at_once or wait(curves):
        curves()
        draw_found(folder / "plots")
        print(json.dumps(collected.lines), flush=True)


def wait(curves: Callable[[], None], source: int = 0) -> bool:
    """Draw `curves` whenever that is asked for, not more often than is decent; True at the end, False without a run."""
    due, asked = time.monotonic() + SOON, False
    while True:
        pause = max(0.0, due - time.monotonic()) if asked else None
        ready = select.select([source], [], [], pause)[0]
        if ready:
            words = os.read(source, 4096)
            if END in words:
                return True
            if not words:
                return False
            asked = True
        if asked and time.monotonic() >= due:
            due = time.monotonic() + max(APART, _gently(curves) / SHARE)
            asked = False


def _gently(draw: Callable[[], None]) -> float:
    """Draw in a thread that gives way to everybody: Linux has priorities by thread. Returns its CPU seconds."""
    taken = []

    def run() -> None:
        if hasattr(os, "SCHED_IDLE"):
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        draw()
        taken.append(time.thread_time())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return sum(taken)


def draw_found(plots: Path, prefix: str = "") -> None:
    """The pictures of what a test found, from the JSON files beside them; those without one are left out."""
    for name in FOUND:
        with suppress(FileNotFoundError):
            draw(plots / f"{prefix}{name}.png", name, json.loads((plots / f"{prefix}{name}.json").read_text("utf-8")))


def draw(path: Path, name: str, found: Mapping[str, Any]) -> None:
    """One of the pictures of a test, at `path`; a line in the log if it can't be drawn."""
    from dlrun.viz import calibration, confusion, mistakes
    from dlrun.viz.pictures import put

    if name == "mistakes" and not found["mistakes"]:
        path.unlink(missing_ok=True)
        return
    figure = {"confusion": confusion.figure, "calibration": calibration.figure, "mistakes": mistakes.figure}[name]
    if (why := put(path, lambda: figure(found))) is not None:
        log.warning("no %s: %s", path.name, why)


def _curves(folder: Path, monitor: str, mode: str, title: str) -> Figure:
    from dlrun.viz.curves import figure

    history = read(folder / "metrics.csv")
    return figure(history, monitor, _best(folder, history, monitor, mode), title)


def _best(folder: Path, history: History, monitor: str, mode: str) -> int | None:
    """What the summary calls the best epoch; as long as the run lasts the one that has it, of equals the last."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        if summary["status"] != "running":
            return int(summary["best"]["epoch"])
    row = history.best(monitor, better_end(monitor, mode))
    return None if row is None else history.epochs[row]


def _put(folder: Path, name: str, figure: Callable[[], Figure]) -> None:
    from dlrun.viz.pictures import put

    if not read(folder / "metrics.csv").epochs:
        return
    if (why := put(folder / "plots" / f"{name}.png", figure)) is not None:
        log.warning("no %s.png: %s", name, why)


def _end_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(0)


if __name__ == "__main__":
    main()
