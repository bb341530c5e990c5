"""Jobs on this machine, each a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Literal

from dlrun.registry import Count
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.launchers import Ended


class Local:
    """A queue of processes."""

    elsewhere = False

    def __init__(self, folder: SweepFolder, *, jobs: Count | Literal["auto"] = "auto"):
        self.folder = folder
        self.slots = 1 if jobs == "auto" else jobs
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.asked = False

    def start(self, job: FrozenJob) -> None:
        path = self.folder.path / job.folder
        path.mkdir(parents=True, exist_ok=True)
        with (path / "console.log").open("ab") as console:
            self.running[job.number] = subprocess.Popen(
                [sys.executable, "-m", "dlrun.sweep.job", str(self.folder.path), str(job.number)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def wait(self, seconds: float) -> list[Ended]:
        until = time.monotonic() + seconds
        while True:
            ended = [number for number, process in self.running.items() if process.poll() is not None]
            if ended or time.monotonic() >= until:
                return [Ended(number, self.running.pop(number).returncode) for number in ended]
            time.sleep(0.02)

    def stop(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGKILL if self.asked else signal.SIGTERM)
        self.asked = True

    def close(self) -> None:
        pass
