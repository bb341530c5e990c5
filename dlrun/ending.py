"""How a process of dlrun begins and ends quickly."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from dlrun.barriers import spin_briefly
from dlrun.garbage import look_rarely


def run_to_end(main: Callable[[], object], leave: Callable[[int], None] = os._exit) -> None:
    """Run `main`, which ends in SystemExit, and end the process with its code, by `leave`.

    When torch was imported, Python takes 1.5 s and more to take itself apart, in which Ctrl-C ends in a traceback. All
    is written and closed by then, so the process just goes, after what was registered for its exit.
    """
    code: object = 0
    look_rarely()
    spin_briefly()
    try:
        main()
    except SystemExit as error:
        code = error.code
    number = code if isinstance(code, int) else int(code is not None)
    if isinstance(code, str):
        print(code, file=sys.stderr)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, lambda *_: os._exit(number))
    atexit._run_exitfuncs()
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    leave(number)
