"""Checkpoints on their way to disk: the training waits while its state is copied, and a thread writes the copy."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor

from dlrun import checkpoint
from dlrun.atomic import atomic_write
from dlrun.runfolder import RunFolder

log = logging.getLogger("dlrun")


class CheckpointWriter:
    """Keeps `last.pt`, the one before it, and `best.pt` of one run folder; at most one write is in flight.

    A write that fails is said at once and costs nothing but itself: the files that were there stay, and the next `put`
    tries again, for a best checkpoint too.
    """

    def __init__(self, folder: RunFolder, constant: Mapping[str, Any]):
        self.folder = folder
        self.constant = dict(constant)  # what every checkpoint of the run holds: config, spec, run_id, data
        self.error: Exception | None = None  # of the newest write
        self._thread: threading.Thread | None = None
        self._copy: dict[str, Any] = {}  # its memory is used again and again: fresh pages cost more than the copying
        self._best = False  # the copy is the best so far
        self._owed: dict[str, Any] | None = None  # a best state that couldn't be written

    @property
    def busy(self) -> bool:
        """Whether `put` would have to wait."""
        return self._thread is not None and self._thread.is_alive()

    def put(self, state: Mapping[str, Any], best: bool = False) -> None:
        """Copy `state` and write it as the last checkpoint, and as the best one; waits for a write in flight."""
        self.wait()
        self._copy = copied(state, None if self._copy is self._owed else self._copy)
        self._best = best
        # A daemon: whoever has to leave at once isn't held up. Who has time calls `close`.
        self._thread = threading.Thread(target=self._write, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def close(self) -> Exception | None:
        """Wait, try once more what couldn't be written; returns what is wrong if the last state isn't on disk."""
        self.wait()
        if self.error is not None:
            self._write()
        return self.error

    def latest(self) -> dict[str, Any] | None:
        """The newest whole checkpoint on disk, or None; raises UserError if there are some and none can be read."""
        self.wait()
        found = checkpoint.load_newest([self.folder.last, self.folder.previous])
        return None if found is None else found[0]

    def keep_batch(self, record: Mapping[str, Any]) -> None:
        """Note a batch that made numbers go wrong, for a replay."""
        try:
            with atomic_write(self.folder.bad_batch) as file:
                file.write(json.dumps(record, indent=2).encode() + b"\n")
            log.info("the samples of the step that did it: %s", self.folder.bad_batch)
        except OSError as error:  # no reason to end a run that can go back, nor to hide why it ends
            log.error("%s couldn't be written: %s", self.folder.bad_batch, error)

    def _write(self) -> None:
        folder = self.folder
        _yield_to_training()
        try:
            _flush(folder.metrics)  # a checkpoint that is on disk has its rows there too
            checkpoint.save(folder.last, {**self._copy, **self.constant}, keep=folder.previous)
            if self._best:
                with folder.last.open("rb") as source, atomic_write(folder.best) as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            elif self._owed is not None:
                checkpoint.save(folder.best, {**self._owed, **self.constant})
        except Exception as error:
            if self._best:
                self._owed = self._copy
            self.error = error
            log.error("the checkpoint couldn't be saved: %s; those before it stay", error)
        else:
            self._owed, self.error = None, None


def copied(value: Any, memory: Any = None, seen: dict[Any, Tensor] | None = None) -> Any:
    """A copy on the CPU of nested dicts, lists and tensors; tensors go into those of `memory` where they fit.

    Names of one tensor, such as tied weights, stay names of one; `seen` has what was copied already.
    """
    seen = {} if seen is None else seen
    if isinstance(value, Tensor):
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if place in seen and value.numel():
            return seen[place]
        fits = isinstance(memory, Tensor) and memory.shape == value.shape and memory.dtype == value.dtype
        seen[place] = memory.copy_(value.detach()) if fits else value.detach().to("cpu", copy=True)
        return seen[place]
    if isinstance(value, Mapping):
        named = memory if isinstance(memory, Mapping) else {}
        return {key: copied(v, named.get(key), seen) for key, v in value.items()}
    if isinstance(value, list | tuple):
        known = memory if isinstance(memory, list | tuple) and len(memory) == len(value) else [None] * len(value)
        return type(value)(copied(v, m, seen) for v, m in zip(value, known, strict=True))
    return value


def _yield_to_training() -> None:
    """On Linux a thread has a priority of its own; the training's threads come first."""
    if sys.platform == "linux" and threading.current_thread() is not threading.main_thread():
        with suppress(OSError):  # under `nice -n 19` it has less already, and may not have more
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _flush(path: Any) -> None:
    if path.exists():
        with path.open("rb") as file:
            os.fsync(file.fileno())
