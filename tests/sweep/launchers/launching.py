"""Stand-ins for jobs: the launcher's processes are real, and what runs in them is a line of Python, not a training."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.launchers import Ended
from dlrun.sweep.launchers.devices import _installed
from dlrun.sweep.launchers.local import Local

PATIENCE = 30  # seconds, before something is taken to hang


def job(number: int, script: str = "", **config: Any) -> FrozenJob:
    """Job `number`, whose process runs `script` in its own folder."""
    config = {"device": "auto", "trainer": {"num_threads": None}, "script": script} | config
    return FrozenJob(
        number=number,
        key=str(number),
        run_id=f"job{number}",
        folder=str(number),
        overrides=[],
        choices={},
        config=config,
    )


class Scripts(Local):
    """The launcher with another command."""

    def command(self, job: FrozenJob) -> list[str]:
        words = [
            sys.executable,
            "-c",
            f"import os\nos.chdir({str(self.folder.run(job).path)!r})\n{job.config['script']}",
        ]
        elastic = [sys.executable, "-m", "dlrun.sweep.launchers.elastic", str(self.processes)]
        return words if self.processes == 1 else [*elastic, *words]


@contextmanager
def launcher(path: Path, frozen: Sequence[FrozenJob], **options: Any) -> Iterator[Scripts]:
    folder = SweepFolder(path)
    path.mkdir(exist_ok=True)
    folder.append(frozen)
    made = Scripts(folder, **options)
    try:
        yield made
    finally:
        made.close()


def run_all(launcher: Local, jobs: Sequence[FrozenJob]) -> dict[int, Ended]:
    """All jobs, as many at a time as the launcher says."""
    waiting, running, ended = list(jobs), 0, dict[int, Ended]()
    deadline = time.monotonic() + PATIENCE
    while waiting or running:
        while waiting and running < launcher.slots:
            launcher.start(waiting.pop(0))
            running += 1
        for one in launcher.wait(1):
            ended[one.number] = one
            running -= 1
        assert time.monotonic() < deadline
    return ended


def until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie, whose parent hasn't asked for it, does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, folder: Path, rows: Sequence[str], code: int = 0) -> None:
    """A program in the place of nvidia-smi that says there are these."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{row}'\n" for row in rows) + f"exit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    _installed.cache_clear()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
