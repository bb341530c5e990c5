"""What a loader process does: it reads and augments the batches that it is told to, and ends with its main process."""

from __future__ import annotations

import pickle
import random
import signal
import sys
import traceback
from collections.abc import Collection, Sequence
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dlrun.data.slabs import Part, Sender
from dlrun.errors import TrainingError, UserError, shortened

# Ctrl-C in a terminal and SLURM send these to the whole process group. They are for the main process, which wants the
# batches that are left to its next step boundary.
DEAF_TO = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
NO_SHARED_MEMORY = (
    "shared memory is full or a file it read was cut off; fewer data.num_workers or a smaller data.batch_size need "
    "less of it, df -h /dev/shm shows what there is, and a container gets more by --shm-size"
)
RESUME = "dlrun resume goes on from the last checkpoint, with another data.num_workers if you like"
LONGEST = 20_000  # characters of a traceback

Key = tuple[int, int]  # epoch, number of the batch in it
Batch = tuple[Tensor, Tensor]  # inputs, targets
Task = tuple[int, int, Key, list[int]]  # serial number, which of the sources, its key, slabs that are free again


class Source(Protocol):
    """Where batches come from; no batch depends on the one before."""

    def fetch(self, key: Key) -> Batch: ...


def serve(connection: Connection, others: Collection[Connection], sources: Sequence[Source | None], seed: int) -> None:
    """Do one task after the other, until `connection` is closed; `others` are the main process's ends of all pipes."""
    for number in DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    for other in others:  # a copy of them, kept open here, would hide from a sibling that the main process has gone
        other.close()
    _stay_small(seed)
    slabs = Sender()
    try:
        while True:
            serial, which, key, free = connection.recv()
            slabs.take_back(free)
            connection.send((serial, _done(sources[which], key, slabs)))
    except (EOFError, OSError):
        return


def _stay_small(seed: int) -> None:
    """One thread, since there is a process for each core. And a stream of numbers of its own, for code that draws from
    the global generators; what belongs to dlrun draws from none of them.
    """
    torch.set_num_threads(1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def _done(source: Source | None, key: Key, slabs: Sender) -> list[Part] | Exception:
    assert source is not None  # or nobody would ask for its batches
    try:
        tensors = source.fetch(key)
    except Exception as error:
        return _portable(error)
    try:
        return [slabs.put(tensor) for tensor in tensors]
    except RuntimeError as error:
        reason = str(error).rpartition(": ")[2]
        return TrainingError(f"data: no shared memory for a batch ({reason}): {NO_SHARED_MEMORY} ({RESUME})")


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note: tracebacks don't go from process to process, and some errors don't."""
    if isinstance(error, UserError):
        return error
    report = shortened("".join(traceback.format_exception(error)), LONGEST)
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = RuntimeError(f"{type(error).__qualname__}: {error}")
    copy.add_note(f"in a loader process:\n{report}")
    return copy
