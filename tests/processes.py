"""`dlrun WORDS` in a process of its own, for what is about processes: signals, locks, limits.

It is forked from one that has imported torch already, which takes four seconds less each time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from command_line import undrawn

from dlrun.cli import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["dlrun.launch", "dlrun.train", "pytest"])  # pytest for the functions in test files
PATIENCE = 120  # seconds, before something is taken to hang


class Process:
    """A function, or the command line, in a child process; what it prints comes through a pipe."""

    def __init__(self, target: Callable[..., None], *arguments: Any):
        reader, writer = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=_printing, args=(writer, target, *arguments))
        self.process.start()
        writer.close()
        self.printed: list[bytes] = []
        self.thread = threading.Thread(target=self._read, args=(reader,), daemon=True)
        self.thread.start()

    def _read(self, reader: Connection) -> None:
        while data := os.read(reader.fileno(), 1 << 16):
            self.printed.append(data)

    @property
    def output(self) -> str:
        return b"".join(self.printed).decode()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def until(self, happened: Callable[[], Any]) -> None:
        """Wait until something has happened, while the process lives."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.is_alive(), self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.01)

    def until_printed(self, text: str) -> None:
        self.until(lambda: text in self.output)

    def wait(self) -> int:
        """The exit code, as a shell counts it: 128 more than the signal that killed it."""
        self.process.join(PATIENCE)
        code = self.process.exitcode
        assert code is not None, self.output
        self.thread.join(PATIENCE)
        return code if code >= 0 else 128 - code

    def kill(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join(PATIENCE)


class Dlrun(Process):
    """`dlrun WORDS` in `folder`. A variable of `environment` that is None is taken away."""

    def __init__(self, folder: Path, *words: str, environment: Mapping[str, str | None] = {}):
        super().__init__(_dlrun, folder, undrawn(words), dict(environment))


def _printing(writer: Connection, target: Callable[..., None], *arguments: Any) -> None:
    for stream in (1, 2):
        os.dup2(writer.fileno(), stream)
    writer.close()
    # What the parent left in these is of another file.
    sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))  # noqa: SIM115
    target(*arguments)


def _dlrun(folder: Path, words: list[str], environment: dict[str, str | None]) -> None:
    os.chdir(folder)
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    sys.argv = ["dlrun", *words]
    main()
