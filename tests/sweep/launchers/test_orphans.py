"""A sweep that is killed takes its jobs with it: they save, and can be resumed. All of it with real trainings."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from processes import PATIENCE, Dlrun

LONG = ["tracking=none", "data.limit=200", "model=perceptron", "trainer.max_epochs=1000000"]
LOADERS = ["augment=light", "data.num_workers=1"]


def sessions(leaders: set[int]) -> dict[int, str]:
    """Processes, zombies aside, that belong to the session of one of these → their state."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(session) in leaders and state != "Z":
            found[int(path.parent.name)] = state
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's list of processes")
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_nothing_outlives_a_sweep(how: signal.Signals, tmp_path: Path) -> None:
    at = ("hydra.sweep.dir=sweep", "hydra.launcher.jobs=2")
    sweep = Dlrun(tmp_path, "-m", "seed=0,1", *LONG, *LOADERS, *at)
    runs = [tmp_path / "sweep" / name for name in "01"]
    try:
        sweep.until(lambda: all((run / "checkpoints/last.pt").exists() for run in runs))
        leaders = {int((run / ".lock").read_text().split()[1]) for run in runs}
        assert len(leaders) == 2
        assert len(sessions(leaders)) >= 4  # each has a loader process
        sweep.send(how)
        assert sweep.wait() == 128 + how
        deadline = time.monotonic() + PATIENCE
        while sessions(leaders):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        sweep.kill()
    for run in runs:
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["status"], summary["exit_code"]) == ("preempted", 143)
