"""Jobs of a sweep that fail as they are told to, and what became of them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from dlrun.sweep.folder import SweepFolder

# As long as the file `armed` exists, what a job is fated to happens in its third training step. The first job also
# edits the YAML that all of them were made from.
FRAGILE = '''
import ctypes, os, signal
from pathlib import Path
from torch import nn
from dlrun.registry import Count, models

class Fragile(nn.Linear):
    def __init__(self, width, fate):
        super().__init__(width, 10)
        self.fate, self.steps = fate, 0

    def forward(self, x):
        self.steps += self.training
        if self.steps == 3 and Path("armed").exists():
            Path("mine/model/fragile.yaml").write_text("name: fragile\\nwidth: 5\\nno_such_option: 1\\n")
            if self.fate == "raise":
                raise ValueError("as fated")
            if self.fate == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fate == "crash":
                ctypes.string_at(0)
        return super().forward(x)

@models.register("fragile")
def fragile(spec, *, width: Count = 8, fate: str = "none"):
    """Has a fate."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), Fragile(width, fate))
'''
TINY = ["tracking=none", "data.limit=200", "augment=none", "trainer.max_epochs=2", "trainer.enable_progress_bar=false"]


def events(folder: SweepFolder, kind: str) -> Counter[int]:
    return Counter(event["job"] for event in folder.read_events() if event["event"] == kind)


def summaries(folder: SweepFolder) -> dict[str, dict[str, Any]]:
    return {job.folder: json.loads(folder.run(job).summary.read_text()) for job in folder.read_jobs()}
