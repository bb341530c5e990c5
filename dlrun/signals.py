"""Being asked to stop: once is a request, a second Ctrl-C an order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from dlrun.errors import StopSignal
from dlrun.torchrun import follows

# SIGUSR1 is what SLURM sends ahead of its time limit (--signal=USR1@90), and stands for SIGTERM.
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}


_asked: BaseException | None = None  # what the last signal raised


def stop_as_exit() -> None:
    """Outside of a training signals end the process as an exception, which cleans up on its way."""
    global _asked
    _asked = None
    for number in EXIT_CODES:
        signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    global _asked
    name = signal.Signals(number).name
    _asked = KeyboardInterrupt() if number == signal.SIGINT else StopSignal(name, EXIT_CODES[signal.Signals(number)])
    raise _asked


def asked_to_stop() -> BaseException | None:
    """What a signal raised: in the middle of an import, somebody's code may swallow it or make another of it."""
    return _asked


def name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


@contextmanager
def stop_signals(ask: Callable[[], None], leave: Callable[[], None]) -> Iterator[list[signal.Signals]]:
    """While the block runs, signals are collected in the list it gets, and `ask` is called for each.

    A second Ctrl-C calls `leave` and ends the process there and then: no clean-up, no waiting for anybody.
    """
    received: list[signal.Signals] = []

    def stop(number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT and signal.SIGINT in received
        received.append(signal.Signals(number))
        if again:
            try:
                leave()
            finally:
                os._exit(EXIT_CODES[signal.SIGINT])
        ask()
        if number == signal.SIGINT and not follows():
            # Not by print: the signal may have come in the middle of one.
            os.write(2, b"\nstopping after this step, with a checkpoint; Ctrl-C again leaves at once\n")

    before = {}
    try:
        for signum in EXIT_CODES:
            before[signum] = signal.signal(signum, stop)
    except ValueError:  # not in the main thread: whoever started the thread deals with signals
        pass
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
