"""Where the time goes: a trace for the browser from a few steps, and a table by phase from those after them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from dlrun.atomic import atomic_write

log = logging.getLogger("dlrun")
WAIT, WARMUP, ACTIVE = 5, 5, 20  # optimizer steps
PHASES = ("data", "forward", "backward", "optimizer", "logging", "evaluation", "checkpoint")


class Unwatched:
    """The base: watches nothing, and costs next to nothing."""

    _nothing = nullcontext()

    def phase(self, name: str) -> AbstractContextManager[Any]:
        """Around a part of the training that has a name: one of PHASES."""
        return self._nothing

    def step(self) -> None:
        """Called after every optimizer step."""

    def finish(self) -> None:
        """Called once, when the training is over."""


class Profiler(Unwatched):
    """Writes trace.json (for ui.perfetto.dev) and profile.txt into `folder`.

    The operations of ACTIVE steps are traced, after WAIT + WARMUP others. The phases are timed from there to the end,
    when tracing doesn't slow them down any more; on a GPU each waits until the device is done, which the time is then
    that of.
    """

    def __init__(self, folder: Path, device: torch.device):
        self.folder = folder
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its library tells of itself on the terminal otherwise
        cuda = device.type == "cuda"
        self.profile = profile(
            activities=[ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else []),
            schedule=schedule(wait=WAIT, warmup=WARMUP, active=ACTIVE, repeat=1),
            on_trace_ready=self._write_trace,
        )
        self.cuda = cuda
        self.operations: str | None = None
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.calls = dict.fromkeys(PHASES, 0)
        self.steps, self.began = 0, 0.0
        self.profile.start()

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        with record_function(name):
            yield
            if self.cuda:
                torch.cuda.synchronize()
        self.seconds[name] += time.perf_counter() - began
        self.calls[name] += 1

    def phase(self, name: str) -> AbstractContextManager[Any]:
        return self._timed(name)

    def step(self) -> None:
        if self.operations is not None:
            self.steps += 1
            return
        self.profile.step()
        if self.operations is not None:  # the trace is written
            self.profile.stop()
            self.seconds, self.calls = dict.fromkeys(PHASES, 0.0), dict.fromkeys(PHASES, 0)
            self.began = time.perf_counter()

    def finish(self) -> None:
        if self.operations is None:
            self.profile.stop()  # writes what it has so far
        if self.operations is None:
            log.warning("trainer.profile: nothing was recorded; it needs more than %d optimizer steps", WAIT + WARMUP)
            return
        table = "phases: none, since the training ended with the trace; a longer training has them"
        if self.steps:
            table = self.table(time.perf_counter() - self.began)
        with atomic_write(self.folder / "profile.txt") as file:
            file.write(f"{table}\n\nOperations of up to {ACTIVE} steps before them\n{self.operations}\n".encode())
        where = "trace.json (open it at ui.perfetto.dev) and profile.txt"
        log.info("%s\nprofile of up to %d steps in %s: %s", table, ACTIVE, self.folder, where)

    def table(self, total: float) -> str:
        """A line for each phase: seconds, share of `total` seconds, how often, and the time of one."""
        lines = [f"{'phase':12}{'seconds':>10}{'share':>9}{'calls':>8}{'ms each':>10}   ({self.steps} optimizer steps)"]
        rest = total - sum(self.seconds.values())
        for name in PHASES:
            seconds, calls = self.seconds[name], self.calls[name]
            each = f"{1000 * seconds / calls:10.3f}" if calls else f"{'–':>10}"
            lines.append(f"{name:12}{seconds:10.3f}{seconds / total:9.1%}{calls:8}{each}")
        lines.append(f"{'all else':12}{rest:10.3f}{rest / total:9.1%}")
        return "\n".join([*lines, f"{'total':12}{total:10.3f}{1:9.1%}"])

    def _write_trace(self, recorded: profile) -> None:
        self.folder.mkdir(exist_ok=True)
        recorded.export_chrome_trace(str(self.folder / "trace.json"))
        order = "self_cuda_time_total" if self.cuda else "self_cpu_time_total"
        self.operations = recorded.key_averages().table(sort_by=order, row_limit=20)
