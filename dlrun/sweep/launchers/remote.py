"""A frozen job in a process of its own, on whatever machine a cluster gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.launchers.parent import PARENT


def start(
    path: Path, number: int, deaf: Iterable[signal.Signals] = (), place: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start job `number` of the sweep in `path`, in the folder `place`; what it prints goes to its console.log.

    The process saves and ends when the one that calls this has ended, however that was, and doesn't hear the signals
    `deaf`, which are for the caller alone. SIGTERM asks it to save and end.
    """
    folder = SweepFolder(path)
    run = folder.run(folder.read_job(number))
    run.path.mkdir(parents=True, exist_ok=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, deaf)  # the child inherits that; for us they wait
    try:
        with (run.path / "console.log").open("ab") as console:
            return subprocess.Popen(
                [sys.executable, "-m", "dlrun.sweep.job", str(path), str(number)],
                env={**os.environ, PARENT: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd=place,
                start_new_session=True,  # Ctrl-C goes to whoever drives the sweep
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
