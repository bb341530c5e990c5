"""A frozen job in a process of its own, on whatever machine a cluster gives: python -m … PARENT SWEEP_FOLDER NUMBER."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from dlrun.sweep.folder import SweepFolder


def start(
    path: Path, number: int, deaf: Iterable[signal.Signals] = (), place: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start job `number` of the sweep in `path`, in the folder `place`; what it prints goes to its console.log.

    The process ends with the one that calls this, however that ends, and doesn't hear the signals `deaf`, which are
    for the caller alone. SIGTERM asks it to save and end.
    """
    folder = SweepFolder(path)
    run = folder.run(folder.read_job(number))
    run.path.mkdir(parents=True, exist_ok=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, deaf)  # the child inherits that; for us they wait
    try:
        with (run.path / "console.log").open("ab") as console:
            return subprocess.Popen(
                [sys.executable, "-m", __name__, str(os.getpid()), str(path), str(number)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd=place,
                start_new_session=True,  # Ctrl-C goes to whoever drives the sweep
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with(parent: int) -> None:
    """Have this process killed when its parent ends (on Linux; elsewhere it trains on to its end)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it was quicker
            os.kill(os.getpid(), signal.SIGKILL)


def _main() -> None:
    from dlrun.sweep.job import main

    parent = int(sys.argv.pop(1))
    die_with(parent)
    main()


if __name__ == "__main__":
    from dlrun.ending import run_to_end

    run_to_end(_main)
