"""Loader processes: what they are deaf to, how their errors arrive, how they end, and what it means when one dies."""

from __future__ import annotations

import atexit
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import active_children, connection
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from dlrun.errors import TrainingError, UserError

# Ctrl-C in a terminal and SLURM send these to the whole process group. They are for the main process, which wants the
# batches that are left to its next step boundary.
DEAF_TO = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
NATIVE = "code that isn't Python crashed while it read or augmented the data; data.num_workers=0 shows where"
MEANINGS = {
    signal.SIGKILL: "most likely the memory ran out; fewer data.num_workers or a smaller data.batch_size need less",
    signal.SIGBUS: (
        "shared memory is full or a file it read was cut off; fewer data.num_workers or a smaller data.batch_size need "
        "less of it, df -h /dev/shm shows what there is, and a container gets more by --shm-size"
    ),
    **dict.fromkeys((signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE), NATIVE),
}
RESUME = "dlrun resume goes on from the last checkpoint, with another data.num_workers if you like"


class Workers:
    """The processes that fetch `dataset[key]` for each of `keys`, in order; iterate once, then `close`.

    What a fetch raises is raised here with its own type, and the worker's traceback as a note. Raises TrainingError if
    a process dies or shared memory runs out.
    """

    def __init__(self, dataset: Dataset[Any], keys: Sequence[Any], number: int, pin_memory: bool):
        loader: DataLoader[Any] = DataLoader(
            _Posted(dataset),
            batch_size=None,  # a key is a whole batch already
            sampler=keys,  # type: ignore[arg-type]
            num_workers=number,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # or it draws a number from the global one, and dropout sees others
            worker_init_fn=_turn_deaf,
        )
        try:
            with _undisturbed():
                self._start(loader)
        except OSError as error:
            self._kill()
            message = f"data.num_workers: can't start {number} processes ({error.strerror}); lower it ({RESUME})"
            raise TrainingError(message) from error

    def _start(self, loader: DataLoader[Any]) -> None:
        others = active_children()
        try:
            self.batches = iter(loader)
        finally:
            self.processes = [process for process in active_children() if process not in others]
            for process in self.processes:
                # torch ends what hangs by SIGTERM, and Python, when it exits, what is left: neither would succeed.
                process.terminate = process.kill  # type: ignore[method-assign]
            atexit.register(self._kill)  # runs before Python's own, which was registered earlier

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                fetched = next(self.batches)
            except StopIteration:
                return
            except Exception as error:
                raise self._death() or error from error.__cause__
            if isinstance(fetched, Exception):
                raise fetched
            yield fetched

    def close(self) -> None:
        """End the processes; one in the middle of a batch gets torch's five seconds."""
        del self.batches
        self._kill()
        atexit.unregister(self._kill)

    def _kill(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(timeout=1)  # not for ever: what waits for a dead disk can't even be killed

    def _death(self) -> TrainingError | None:
        """What a broken connection to the workers means, if one of them has died."""
        ends = connection.wait([process.sentinel for process in self.processes], timeout=1)  # it may be at it still
        dead = [process for process in self.processes if process.sentinel in ends]
        for process in dead:
            process.join()  # first its connections close, then it dies
        if not dead:
            return None
        code = dead[0].exitcode or 0
        numbers = ", ".join(str(process.pid) for process in dead if process.exitcode == code)
        which = f"data: loader process{'es' if ',' in numbers else ''} {numbers}"
        if code >= 0:
            cause = f"ended with exit code {code}: something that reads or augments the data left Python"
            return TrainingError(f"{which} {cause}; data.num_workers=0 shows where ({RESUME})")
        meaning = MEANINGS.get(-code, "somebody or something sent it")  # type: ignore[call-overload]
        return TrainingError(f"{which} ended by {_signal_name(-code)}: {meaning} ({RESUME})")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Start processes in here: a signal for the main process waits, and the new ones don't get it.

    torch notices a worker's death in a handler of SIGCHLD, and raises from it on whatever line the main process is at:
    in an optimizer's step half of the weights would be new. Without it the loader notices by itself, five seconds
    later, when a batch doesn't come.
    """
    on_death = signal.getsignal(signal.SIGCHLD)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF_TO)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, on_death or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _turn_deaf(worker: int) -> None:
    for number in DEAF_TO:
        signal.signal(number, signal.SIG_IGN)


class _Posted(Dataset[Any]):
    """A worker's side: tensors are put where the main process sees them, exceptions become values."""

    def __init__(self, dataset: Dataset[Any]):
        self.dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            tensors = self.dataset[key]
        except Exception as error:
            return _portable(error)
        try:
            for tensor in tensors:
                tensor.share_memory_()  # left to torch, a thread does it, whose errors nobody hears of: it would hang
        except RuntimeError as error:
            reason = str(error).rpartition(": ")[2]
            return TrainingError(f"data: no shared memory for a batch ({reason}): {MEANINGS[signal.SIGBUS]} ({RESUME})")
        return tensors


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note: tracebacks don't go from process to process, and some errors don't."""
    if isinstance(error, UserError):
        return error
    report = "".join(traceback.format_exception(error))
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = RuntimeError(f"{type(error).__qualname__}: {error}")
    copy.add_note(f"in a loader process:\n{report}")
    return copy
