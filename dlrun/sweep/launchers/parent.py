"""A job ends with the process that started it, however that one ended."""

from __future__ import annotations

import os
import signal
import threading
import time

PARENT = "DLRUN_PARENT"  # in the environment: the process id of whoever started this one
GRACE = "DLRUN_GRACE"  # and the seconds that this one has to save, should that one be gone
INTERVAL = 0.5  # seconds between two looks
SECONDS = 300.0  # to save, where nothing else is said


def end_with_parent() -> None:
    """From here on a process whose parent has gone asks itself to stop, as SIGTERM does; then it is killed.

    A killed parent can't tell its children, and they are in sessions of their own, so that a terminal doesn't either.
    Linux has a signal for it, which other systems don't have, and which comes when the parent's *thread* ends. A pipe
    from the parent would have to be kept from every other process that either of the two starts. Who is whose parent
    is known everywhere.
    """
    parent, grace = os.environ.pop(PARENT, None), float(os.environ.pop(GRACE, SECONDS))
    if parent is not None:
        watch(int(parent), grace)


def watch(parent: int, grace: float = SECONDS) -> None:
    """As soon as `parent` isn't this process's parent any more, ask this one to stop; after `grace` seconds kill it."""
    threading.Thread(target=_watch, args=(parent, grace), name="parent", daemon=True).start()


def _watch(parent: int, grace: float) -> None:
    while os.getppid() == parent:
        time.sleep(INTERVAL)
    if grace > 0:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # what it has started, too
    os.kill(os.getpid(), signal.SIGKILL)
