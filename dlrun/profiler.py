"""Where the time goes: a trace for the browser and a table, from a few steps after a warm-up."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

log = logging.getLogger("dlrun")
WAIT, WARMUP, ACTIVE = 5, 5, 20  # optimizer steps


class Profiler:
    """Watches WARMUP + ACTIVE steps and writes trace.json (for ui.perfetto.dev) and profile.txt into `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
        self.profile = profile(
            activities=activities,
            schedule=schedule(wait=WAIT, warmup=WARMUP, active=ACTIVE, repeat=1),
            on_trace_ready=self._write,
        )
        self.written = False
        self.profile.start()

    def step(self) -> None:
        """Called after every optimizer step."""
        self.profile.step()

    def finish(self) -> None:
        self.profile.stop()
        if not self.written:
            log.warning("trainer.profile: nothing was recorded; it needs %d optimizer steps", WAIT + WARMUP + ACTIVE)

    def _write(self, recorded: profile) -> None:
        self.written = True
        self.folder.mkdir(exist_ok=True)
        recorded.export_chrome_trace(str(self.folder / "trace.json"))
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = recorded.key_averages().table(sort_by=order, row_limit=20)
        (self.folder / "profile.txt").write_text(table)
        log.info(
            "profile of %d steps in %s: trace.json (open it at ui.perfetto.dev) and profile.txt", ACTIVE, self.folder
        )
