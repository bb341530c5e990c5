"""Accuracy, latency and memory of all that could be opened; what fails leaves, and says why."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from dlrun.benching import latency
from dlrun.benching.artifacts import ALL, Artifact
from dlrun.comparison.footprint import footprint
from dlrun.comparison.inputs import prepared, raw_batches
from dlrun.comparison.subjects import Opened, Opener
from dlrun.data.loader import Batches
from dlrun.errors import UserError, printable, shortened
from dlrun.loading import LoadedRun

log = logging.getLogger("dlrun")

Figures = dict[str, Any]


class Comparison:
    """What was measured of each artifact, by its name.

    `asked` are the names that somebody said: an artifact that can hold code is opened only if it is among them, and
    "all" names none, whatever a file is called.
    The run itself has to work; of the others, what can't be opened or evaluated has a reason in `reasons`.
    """

    def __init__(self, run: LoadedRun, threads: int, overrides: Sequence[str], asked: Sequence[str]):
        self.opener = Opener(run, threads, overrides)
        self.run, self.asked = run, [name for name in asked if name != ALL]
        self.itself = ""
        self.opened: dict[str, Opened] = {}
        self.reasons: dict[str, str] = {}
        self.notes: list[str] = []
        self.accuracy: dict[str, dict[str, float]] = {}
        self.latency: dict[str, dict[str, Figures]] = {}
        self.memory: dict[str, dict[str, int | None]] = {}
        self.test: Batches | None = None  # None where the data is gone

    def open(self, artifacts: Sequence[Artifact]) -> None:
        """Load them all, the run itself first, and the test split."""
        self.itself = artifacts[0].name
        for artifact in artifacts:
            if artifact.reason is not None:
                self.reasons[artifact.name] = artifact.reason
                continue
            try:
                self.opened[artifact.name] = self.opener.open(artifact, self._is_asked(artifact))
            except Exception as error:  # runtimes have their own, for files that are damaged
                self._drop(artifact.name, error)
        try:
            self.test = self.run.batches("test")
        except UserError as error:
            self.notes.append(f"random inputs and no accuracy: the run's data can't be read ({error})")

    def judge(self) -> None:
        """Loss and accuracy on the whole test split, if it is there."""
        if self.test is None:
            return
        for name, subject in list(self.opened.items()):
            try:
                self.accuracy[name] = subject.evaluate(self.test)
            except Exception as error:
                self._drop(name, error)
        self.close()  # nothing else shall run while calls are timed

    def time(self, batch_sizes: Sequence[int], effort: latency.Effort) -> None:
        """Percentiles and throughput for each batch size; all subjects in turn, on the same samples."""
        synchronize = torch.cuda.synchronize if self.run.device.type == "cuda" else lambda: None
        self.latency = {name: {} for name in self.opened}
        for size in batch_sizes:
            inputs = prepared(self.opened, raw_batches(self.run.spec, self.test, size))
            subjects = {name: latency.Subject(opened.call, inputs[name]) for name, opened in self.opened.items()}
            for name, timing in latency.measure(subjects, effort, synchronize).items():
                if timing.error is None:
                    self.latency[name][str(size)] = latency.figures(timing.nanoseconds, size)
                else:
                    self.latency[name][str(size)] = {"error": said(timing.error)}
                    self.notes.append(f"{name}, batches of {size}: {said(timing.error)}")

    def weigh(self, batch_size: int) -> None:
        """Peak memory, two processes at a time: they mostly import, and nothing is timed."""
        raw = raw_batches(self.run.spec, self.test, batch_size)[0]

        def ask(name: str) -> dict[str, int | None] | str:
            subject = self.opened[name]
            try:
                return footprint(self.opener, subject, subject.prepare(raw.clone()), self._is_asked(subject.artifact))
            except (RuntimeError, OSError, ValueError, IndexError) as error:
                return said(error)

        pool = ThreadPoolExecutor(2)
        try:
            for name, answer in zip(self.opened, pool.map(ask, self.opened), strict=True):
                if isinstance(answer, str):
                    self.notes.append(f"{name}: no figure for memory: {answer}")
                else:
                    self.memory[name] = answer
        finally:  # on Ctrl-C no further process is begun
            pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """End the processes that read the data."""
        if self.test is not None:
            self.test.close()

    def _is_asked(self, artifact: Artifact) -> bool:
        return artifact.name in self.asked or artifact.folder_name in self.asked

    def _drop(self, name: str, error: Exception) -> None:
        if name == self.itself:
            raise error
        self.opened.pop(name, None)
        self.reasons[name] = said(error)


def said(error: Exception) -> str:
    """An error as one short line."""
    text = shortened(printable(" ".join(str(error).split())))
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
