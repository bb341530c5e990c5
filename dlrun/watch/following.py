"""A run followed on the terminal until it has ended, or somebody has seen enough."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ScreenContext
from rich.text import Text

from dlrun.watch.observation import Observation, Observer
from dlrun.watch.pace import Pace, pace
from dlrun.watch.status import Status, judge
from dlrun.watch.view import plain, view

AGAIN = 0.3  # seconds after which a run that seems to be dead is looked at again: it may just be ending, or beginning
RESIZE = 0.2  # seconds between two looks at the terminal's size
TALLEST = 36  # lines of what stays on the terminal in the end


@dataclass(frozen=True)
class Moment:
    seen: Observation
    status: Status
    pace: Pace


def look(observer: Observer) -> Moment:
    """What there is to see now. That a run was killed is said only if two looks agree."""
    moment = _once(observer)
    if moment.status.word != "killed":
        return moment
    time.sleep(AGAIN)
    return _once(observer)


def _once(observer: Observer) -> Moment:
    seen = observer.look()
    place = pace(seen)
    return Moment(seen, judge(seen, place.seconds_per_epoch), place)


def show(moment: Moment, console: Console) -> None:
    """The view, where the terminal stands, or plain lines if there is none."""
    if not console.is_terminal or console.is_dumb_terminal:
        print(plain(moment.seen, moment.status, moment.pace))
        return
    lines = _view(moment, console, min(console.height - 1, TALLEST))
    console.print(Text("\n").join(lines), no_wrap=True, crop=True, highlight=False)


def follow(observer: Observer, console: Console, every: float) -> int:
    """Draw again and again, on a screen of its own; returns the exit code.

    When the run has ended, its end stays on the terminal. After `q` or Ctrl-C nothing does.
    """
    try:
        with _keys() as pressed, console.screen(hide_cursor=True) as screen:
            while not (moment := look(observer)).status.over:
                if not _shown(moment, console, screen, pressed, every):
                    return 0
    except KeyboardInterrupt:
        return 130
    show(moment, console)
    return 0


def _shown(
    moment: Moment, console: Console, screen: ScreenContext, pressed: Callable[[float], str], seconds: float
) -> bool:
    """Draw it, and again when the terminal gets another size, for so long; False as soon as somebody wants to go."""
    due, size = time.monotonic() + seconds, None
    while True:
        if console.size != size:
            size = console.size
            screen.update(Text("\n").join(_view(moment, console, size.height)))
        left = due - time.monotonic()
        if left <= 0:
            return True
        if "q" in pressed(min(left, RESIZE)).lower():
            return False


def _view(moment: Moment, console: Console, lines: int) -> list[Text]:
    coloured = console.color_system is not None and not console.no_color
    return view(moment.seen, moment.status, moment.pace, console.width, lines, coloured)


def _nothing(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """What is pressed within so many seconds, without Enter; the terminal is as before afterwards."""
    try:
        import termios
        import tty

        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (ImportError, OSError, ValueError, termios.error):  # no terminal to type on
        yield _nothing
        return
    try:
        tty.setcbreak(terminal)

        def pressed(seconds: float) -> str:
            ready, _, _ = select.select([terminal], [], [], seconds)
            typed = os.read(terminal, 64).decode(errors="replace") if ready else ""
            return typed or (_nothing(seconds) if ready else "")  # the end of the input is always ready

        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
