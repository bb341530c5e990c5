"""Loader processes as the main process sees them: begun once, told what to fetch, ended, and what a death means."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, count
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from dlrun.data.slabs import Part, Receiver
from dlrun.data.worker import DEAF_TO, NO_SHARED_MEMORY, RESUME, Batch, Key, Source, Task, serve
from dlrun.errors import TrainingError
from dlrun.signals import name_of

log = logging.getLogger("dlrun")

AHEAD = 2  # batches under way per process: one that it works on, and the next
PATIENCE = 5  # seconds that a process gets to end the batch that it is at
NATIVE = "code that isn't Python crashed while it read or augmented the data; data.num_workers=0 shows where"
MEANINGS = {
    signal.SIGKILL: "most likely the memory ran out; fewer data.num_workers or a smaller data.batch_size need less",
    signal.SIGBUS: NO_SHARED_MEMORY,
    **dict.fromkeys((signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE), NATIVE),
}
_pipes: set[Connection] = set()  # the main process's ends of all there are


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    slabs: Receiver = field(default_factory=Receiver)
    busy: int = 0  # tasks that it hasn't answered


@dataclass(eq=False)
class _Job:
    """A batch that somebody waits for."""

    key: Key
    serial: int
    worker: _Worker | None = None


class Workers:
    """Up to `number` processes that fetch batches, for as many epochs as it takes; they begin when they are needed.

    `number` may be changed at any time, in the middle of an epoch too. A process that dies, or can't be started, or
    finds no shared memory, is a TrainingError, unless `fallback` says which number to go back to.
    """

    def __init__(self, number: int = 0):
        self.number = number
        self.fallback: int | None = None
        self._sources: list[weakref.ref[Source]] = []
        self._crew: list[_Worker] = []
        self._serials = count()
        self._wanted: set[int] = set()  # what somebody still waits for
        self._arrived: dict[int, list[Part] | Exception] = {}
        self._end_all = weakref.finalize(self, _end_at_once, self._crew, os.getpid())
        self._end_all.atexit = False  # but by ours, which is registered later than multiprocessing's and runs before it

    def add(self, source: Source) -> None:
        """From here on `fetched` may be asked for batches of `source`; processes that know nothing of it end."""
        self.close()
        self._sources.append(weakref.ref(source))  # it has us, and the last to know of us ends the processes

    def fetched(self, source: Source, keys: Iterable[Key]) -> Generator[Batch]:
        """`source.fetch(key)` for each of `keys`, in order; in this process while `number` is 0.

        What a fetch raises is raised here with its own type, and the worker's traceback as a note.
        """
        which = next(number for number, known in enumerate(self._sources) if known() is source)
        keys, jobs = iter(keys), deque[_Job]()
        try:
            while True:
                try:
                    self._send_ahead(which, keys, jobs)
                    batch = self._received(jobs[0]) if jobs else None
                except TrainingError as error:
                    keys = chain([job.key for job in jobs], keys)
                    self._forget(jobs)
                    self._fall_back(error)
                    continue
                if batch is not None:
                    jobs.popleft()
                elif (key := next(keys, None)) is not None:
                    batch = source.fetch(key)
                else:
                    return
                yield batch
                del batch  # or its slab would be in use for one batch longer
        except GeneratorExit:  # left in the middle: what is under way comes later, for nobody
            raise
        except BaseException:
            self.close()
            raise
        finally:
            self._forget(jobs)

    def close(self) -> None:
        """End the processes; one in the middle of a batch gets a few seconds. New ones begin when they are needed."""
        _end(self._crew, PATIENCE)
        atexit.unregister(self._end_all)

    def _forget(self, jobs: deque[_Job]) -> None:
        for job in jobs:
            self._wanted.discard(job.serial)
            self._arrived.pop(job.serial, None)
        jobs.clear()

    def _fall_back(self, error: TrainingError) -> None:
        _end(self._crew, patience=0)
        if self.fallback is None:
            raise error
        log.warning("data.num_workers=auto: not %d (%s)", self.number, error)
        self.number, self.fallback = self.fallback, None

    def _send_ahead(self, which: int, keys: Iterator[Key], jobs: deque[_Job]) -> None:
        """See to it that every process has something to do, and one that is too many ends."""
        for worker in [worker for worker in self._crew[self.number :] if worker.busy == 0]:
            self._crew.remove(worker)
            _end([worker], PATIENCE)
        while len(jobs) < AHEAD * self.number and (key := next(keys, None)) is not None:
            job = _Job(key, next(self._serials))
            jobs.append(job)  # first: should there be nobody to do it, it mustn't be lost
            self._wanted.add(job.serial)
            self._send(which, job)

    def _send(self, which: int, job: _Job) -> None:
        worker = min(self._crew[: self.number], key=lambda worker: worker.busy, default=None)
        if worker is None or (worker.busy > 0 and len(self._crew) < self.number):
            worker = self._begin()
        task: Task = (job.serial, which, job.key, worker.slabs.to_give_back())
        try:
            worker.pipe.send(task)  # so small that it never waits for the worker, who may wait for us
        except OSError as error:
            error.__traceback__ = None  # it would keep the pickled task, which Python 3.13 can't free in a cycle
            raise self._death() or error from None
        worker.busy += 1
        job.worker = worker

    def _received(self, job: _Job) -> Batch:
        worker = job.worker
        assert worker is not None
        while job.serial not in self._arrived:
            try:
                serial, result = worker.pipe.recv()
            except (EOFError, OSError) as error:
                raise self._death() or error from None
            worker.busy -= 1
            if serial in self._wanted:
                self._arrived[serial] = result
            elif not isinstance(result, Exception):
                worker.slabs.refuse(result)
        self._wanted.remove(job.serial)
        result = self._arrived.pop(job.serial)
        if isinstance(result, Exception):
            raise result
        inputs, targets = (worker.slabs.take(part) for part in result)
        return inputs, targets

    def _begin(self) -> _Worker:
        """One more process."""
        atexit.register(self._end_all)
        try:
            ours, theirs = multiprocessing.Pipe()
            _pipes.add(ours)
            with _undisturbed():
                # Forked, it has our ends of all pipes too; begun in another way, it has none of them.
                others = _pipes if multiprocessing.get_start_method() == "fork" else ()
                sources = [source() for source in self._sources]
                process = multiprocessing.Process(
                    target=serve, args=(theirs, others, sources, len(self._crew)), daemon=True
                )
                process.start()
        except OSError as error:
            message = f"data.num_workers: can't start {self.number} processes ({error.strerror}); lower it ({RESUME})"
            raise TrainingError(message) from error
        theirs.close()
        self._crew.append(_Worker(process, ours))
        return self._crew[-1]

    def _death(self) -> TrainingError | None:
        """What a broken pipe to the workers means, if one of them has died."""
        processes = [worker.process for worker in self._crew]
        ends = connection.wait([process.sentinel for process in processes], timeout=1)  # it may be at it still
        dead = [process for process in processes if process.sentinel in ends]
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
        return TrainingError(f"{which} ended by {name_of(-code)}: {meaning} ({RESUME})")


def _end(crew: list[_Worker], patience: float) -> None:
    """A process sees that its pipe is closed when it wants to answer; one that takes longer is killed."""
    for worker in crew:
        _pipes.discard(worker.pipe)
        worker.pipe.close()
    deadline = time.monotonic() + patience
    for worker in crew:
        worker.process.join(max(deadline - time.monotonic(), 0))
    for worker in crew:
        worker.process.kill()  # not by SIGTERM, to which it is deaf
    for worker in crew:
        worker.process.join(timeout=1)  # not for ever: what waits for a dead disk can't even be killed
    crew.clear()


def _end_at_once(crew: list[_Worker], owner: int) -> None:
    if os.getpid() == owner:  # a forked process has the same objects
        _end(crew, patience=0)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Start processes in here: a signal for the main process waits, and the new ones don't get it."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF_TO)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
