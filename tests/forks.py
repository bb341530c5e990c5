"""Real processes that run dlrun and can be killed, without the time to import torch.

A server imports everything once and forks a process for each command. It kills that process after a time, or the
process kills itself at a chosen point: just before one of the system calls that make a file, or with half of a write
done. Where a process was when it died stands in memory that it shares with the server.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parent.parent
PHASES = ("starting", "restoring", "training", "evaluating", "testing", "closing")
PHASE, WRITING, POINTS, NAME = 0, 1, slice(2, 6), slice(6, 106)  # places in the shared memory
HALVES = {1, 8, 64, 512}  # writes to a file that are points
LONGEST = 120.0  # seconds


@dataclass
class Part:
    """How a process ended, and where it was."""

    code: int  # -9 if it was killed
    phase: str
    writing: bool  # a checkpoint was on its way to disk
    points: int  # that it passed
    point: str  # the last of them
    seconds: float


class Forks:
    """The server, seen from the test: `run` is one process."""

    def __init__(self, folder: Path):
        self.output = folder / "output.txt"  # of all processes
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        self._server = subprocess.Popen(
            [sys.executable, __file__, str(self.output)],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, kill_after: float | None = None, kill_at: int | None = None) -> Part:
        """Run `dlrun WORDS`; kill it after some seconds, or at the point of that number."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([words, kill_after, kill_at]) + "\n")
        self._server.stdin.flush()
        return Part(**json.loads(self._server.stdout.readline()))

    def close(self) -> None:
        self._server.communicate(timeout=60)


def serve(output: str) -> None:
    """One command a line, one answer a line, until there are no more."""
    import albumentations  # noqa: F401

    import dlrun.launch
    import dlrun.train  # noqa: F401
    from dlrun.registry import datasets, models

    for registry in (datasets, models):
        assert all(registry[name] for name in registry.names())
    answers = os.fdopen(os.dup(1), "w")
    os.set_inheritable(answers.fileno(), False)
    for line in sys.stdin:
        words, kill_after, kill_at = json.loads(line)
        shared = mmap.mmap(-1, 4096)
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            os.close(answers.fileno())
            _be_dlrun(words, output, shared, kill_at)
        deadline = began + (LONGEST if kill_after is None else kill_after)
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() >= deadline:
                os.kill(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.001)
        answer = {
            "code": os.waitstatus_to_exitcode(ended[1]),
            "phase": PHASES[shared[PHASE]],
            "writing": bool(shared[WRITING]),
            "points": int.from_bytes(shared[POINTS], "little"),
            "point": bytes(shared[NAME]).rstrip(b"\0").decode(),
            "seconds": time.monotonic() - began,
        }
        print(json.dumps(answer), file=answers, flush=True)


def _be_dlrun(words: list[str], output: str, shared: mmap.mmap, kill_at: int | None) -> None:
    """The forked process: from here on it is `dlrun WORDS`, and it never returns."""
    from dlrun.cli import main

    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
        print("$ dlrun", *words, flush=True)
        _mark_phases(shared)
        _mark_points(shared, kill_at)
        sys.argv = ["dlrun", *words]
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _mark_phases(shared: mmap.mmap) -> None:
    from dlrun import train
    from dlrun.session import Session
    from dlrun.trainer import Trainer
    from dlrun.writer import CheckpointWriter

    for owner, name, phase in (
        (train, "restore", "restoring"),
        (Trainer, "fit", "training"),
        (Trainer, "_end_epoch", "evaluating"),
        (train, "evaluate_best", "testing"),
        (Session, "close", "closing"),
    ):
        _during(owner, name, shared, PHASE, PHASES.index(phase))
    _during(CheckpointWriter, "_write", shared, WRITING, 1)


def _during(owner: Any, name: str, shared: mmap.mmap, place: int, value: int) -> None:
    """Note in the shared memory that `owner.name` is running."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def marked(*args: Any, **options: Any) -> Any:
        before, shared[place] = shared[place], value
        try:
            return original(*args, **options)
        finally:
            shared[place] = before

    setattr(owner, name, marked)


def _mark_points(shared: mmap.mmap, kill_at: int | None) -> None:
    """Count the points at which a file is half made, and die at one of them."""

    def point(call: str, path: Any) -> bool:
        """Whether this is the point to die at."""
        passed = int.from_bytes(shared[POINTS], "little") + 1
        shared[POINTS] = passed.to_bytes(4, "little")
        name = ".".join(part for part in Path(path).name.split(".") if part and not part.isdecimal())
        shared[NAME] = f"{call} {name}".encode().ljust(100, b"\0")[:100]
        return passed == kill_at

    def watched(call: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def before(*args: Any, **options: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{args[0]}") if isinstance(args[0], int) else args[0]
            if point(call, path):
                _die()
            return original(*args, **options)

        return before

    for call in ("fsync", "link", "replace"):
        setattr(os, call, watched(call, getattr(os, call)))
    open_path = Path.open

    def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = open_path(path, mode, *args, **options)
        return _Halved(file, path, point) if mode[0] in "wax" else file

    Path.open = opened  # type: ignore[assignment, method-assign]


class _Halved:
    """A file; some of its writes are points, and to die there is to die with half of it written."""

    def __init__(self, file: Any, path: Path, point: Callable[[str, Any], bool]):
        self.file, self.path, self.point, self.writes = file, path, point, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _Halved:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: Any) -> int:
        self.writes += 1
        if self.writes in HALVES and self.point(f"write {self.writes} to", self.path):
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            _die()
        return int(self.file.write(data))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


if __name__ == "__main__":
    serve(sys.argv[1])
