"""A job's process, with all that it starts, and waiting for the end of any."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TypeVar

from dlrun.sweep.launchers.parent import PARENT

Event = TypeVar("Event")
POLL = 0.05  # seconds between two looks, where no signal can tell


class Process:
    """A command in a session of its own: Ctrl-C on the terminal isn't for it, and its children can be killed with it.

    What it prints is added to the file `console`, as is where it was when it crashed. Raises OSError if it can't begin.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], console: Path):
        console.parent.mkdir(parents=True, exist_ok=True)
        own = {PARENT: str(os.getpid()), "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}
        with console.open("ab") as file:
            self.popen = subprocess.Popen(
                command,
                env={**os.environ, **own, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """The exit code, a signal's number with a minus, once it has ended; what it has left behind ends with it."""
        code = self.popen.poll()
        if code is not None:
            self._kill_group()
        return code

    def terminate(self) -> None:
        """Ask it to save and end: it alone, whose business its children are."""
        self.popen.terminate()

    def kill(self) -> None:
        """End it and what it has started."""
        if self.popen.poll() is None:
            self._kill_group()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says so of zombies in its own way
            os.killpg(self.popen.pid, signal.SIGKILL)


class Bell:
    """Rings when a child process ends, and when a signal comes that this process wants to know of.

    The system writes the number of each signal with a handler of Python's into a pipe. Outside of the main thread,
    which alone gets signals, there is nothing to hear, and one has to look every so often.
    """

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        for end in (self.reader, self.writer):
            os.set_blocking(end, False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.reader, selectors.EVENT_READ)
        try:
            self.before = signal.signal(signal.SIGCHLD, _heard)
            self.earlier = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
            self.hears = True
        except ValueError:
            self.hears = False

    def wait(self, happened: Callable[[], list[Event]], seconds: float) -> list[Event]:
        """What has `happened`: as soon as there is something; nothing after `seconds`, or when a signal has come."""
        deadline = time.monotonic() + seconds
        while True:
            asked = self._asked()  # first: what happens after that rings again
            found, left = happened(), deadline - time.monotonic()
            if found or asked or left <= 0:
                return found
            self.selector.select(left if self.hears else min(left, POLL))

    def _asked(self) -> bool:
        try:
            return any(number != signal.SIGCHLD for number in os.read(self.reader, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        if self.hears:
            signal.set_wakeup_fd(self.earlier)
            signal.signal(signal.SIGCHLD, self.before)
        self.selector.close()
        os.close(self.reader)
        os.close(self.writer)


def _heard(number: int, frame: FrameType | None) -> None:
    """Without a handler of Python's a signal isn't told to anybody."""
