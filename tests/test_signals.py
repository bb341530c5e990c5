"""Real signals to real processes, at every stage of a run, under SLURM and without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGINT, SIGTERM, SIGUSR1
from typing import Any

import pytest
from processes import Dlrun

from dlrun import checkpoint

WORDS = ["tracking=none", "model=perceptron", "data=breast_cancer", "augment=none", "scheduler=none"]
LONG, SHORT = [*WORDS, "trainer.max_epochs=1000000"], [*WORDS, "trainer.max_epochs=3"]

SLOW = '''
import os
import time
from pathlib import Path

from torch import nn

from dlrun.registry import models


class Slow(nn.Linear):
    """Sleeps in a pass of the kind that SLOW names, and says so in a file."""

    passes = 0

    def forward(self, x):
        kind = "training" if self.training else "evaluation" if len(x) < 100 else "test"  # which has more samples
        self.passes += kind == "training"
        if kind == os.environ.get("SLOW") and (kind != "training" or self.passes > 10):
            Path("sleeping").touch()
            time.sleep(float(os.environ["SECONDS"]))
        return super().forward(x)


if os.environ.get("SLOW") == "ending":
    import dlrun.session

    def wait(*told):
        Path("sleeping").touch()
        time.sleep(60)

    dlrun.session.farewell = wait

if os.environ.get("SLOW") == "import":
    Path("sleeping").touch()
    time.sleep(60)


@models.register("slow")
def slow(spec):
    """A perceptron that takes its time."""
    if os.environ.get("SLOW") == "building":
        Path("sleeping").touch()
        time.sleep(60)
    return Slow(*spec.shape, spec.num_outputs)
'''
SLOWLY = ["model.name=slow", "plugins=[slow]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Dlrun]]:
    """start("model=mlp", SLURM_JOB_ID="7"); nothing outlives the test."""
    begun: list[Dlrun] = []
    (tmp_path / "slow.py").write_text(SLOW)

    def started(*words: str, **environment: str) -> Dlrun:
        begun.append(Dlrun(tmp_path, *words, environment={"SLURM_JOB_ID": None, **environment}))
        return begun[-1]

    yield started
    for process in begun:
        process.kill()


def summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text()))


def sleeping(process: Dlrun, folder: Path) -> None:
    process.until((folder / "sleeping").exists)
    (folder / "sleeping").unlink()


@pytest.mark.parametrize(("number", "code"), [(SIGTERM, 143), (SIGUSR1, 143), (SIGINT, 130)])
def test_a_signal_ends_a_run_with_a_checkpoint(
    start: Callable[..., Dlrun], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run = tmp_path / "run"
    process = start(*LONG, "hydra.run.dir=run")
    process.until((run / "checkpoints/last.pt").exists)
    process.send(number)
    assert process.wait() == code, process.output
    told = summary(run)
    assert (told["status"], told["exit_code"], told["error"]) == ("preempted", code, number.name)
    assert checkpoint.load(run / "checkpoints/last.pt")["progress"]["step"] == told["steps"] > 0
    assert "to go on: dlrun resume run=run" in process.output
    assert ("Ctrl-C again leaves at once" in process.output) == (number == SIGINT)
    assert "Traceback" not in process.output


def test_a_second_ctrl_c_leaves_at_once(start: Callable[..., Dlrun], tmp_path: Path) -> None:
    process = start(*LONG, *SLOWLY, "hydra.run.dir=run", SLOW="training", SECONDS="600")
    sleeping(process, tmp_path)
    process.send(SIGINT)
    process.until_printed("Ctrl-C again leaves at once")
    assert process.process.is_alive()
    process.send(SIGINT)
    assert process.wait() == 130  # long before the ten minutes are over
    told = summary(tmp_path / "run")
    assert (told["status"], told["exit_code"], told["error"]) == ("preempted", 130, "SIGINT, twice")
    assert "Traceback" not in process.output
    again = start("resume", "run=run", "plugins=[slow]", "trainer.max_epochs=3")
    assert again.wait() == 0, again.output
    assert (summary(tmp_path / "run")["status"], summary(tmp_path / "run")["steps"]) == ("finished", 21)


def test_a_second_ctrl_c_after_the_end_takes_nothing_back(start: Callable[..., Dlrun], tmp_path: Path) -> None:
    """Pictures are being drawn, say, or W&B is waited for."""
    process = start(*SHORT, *SLOWLY, "hydra.run.dir=run", SLOW="ending")
    sleeping(process, tmp_path)
    process.send(SIGINT)
    process.until_printed("Ctrl-C again leaves at once")
    process.send(SIGINT)
    assert process.wait() == 130
    told = summary(tmp_path / "run")
    assert (told["status"], told["exit_code"], told["error"], told["epochs"]) == ("finished", 0, None, 3)


@pytest.mark.parametrize("number", [SIGTERM, SIGINT, SIGUSR1])
@pytest.mark.parametrize("stage", ["import", "building"])
def test_a_signal_before_the_run_begins_leaves_nothing(
    start: Callable[..., Dlrun], tmp_path: Path, stage: str, number: signal.Signals
) -> None:
    process = start(*LONG, *SLOWLY, SLOW=stage)
    sleeping(process, tmp_path)
    process.send(number)
    assert process.wait() == (130 if number == SIGINT else 143), process.output
    assert "Traceback" not in process.output
    assert {path.name for path in tmp_path.iterdir()} <= {"slow.py", "__pycache__"}


def test_a_signal_while_torch_is_imported_leaves_nothing(tmp_path: Path) -> None:
    """In a process that really imports it, at several moments."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    for delay in (0.3, 1.2):
        folder = tmp_path / str(delay)
        folder.mkdir()
        words = [sys.executable, "-m", "dlrun", *LONG]
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=-1, stderr=-2, text=True)
        deadline = time.monotonic() + 60
        while not list(folder.glob("outputs/*/*/summary.json")) and time.monotonic() < deadline:
            time.sleep(0.005)  # by then the signal is waited for, and torch is still to come
        time.sleep(delay)
        process.send_signal(SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 143, output
        assert "Traceback" not in output
        left = list(folder.glob("outputs/*/*/summary.json"))
        if left:  # the training had begun: then it is one that can be resumed
            assert summary(left[0].parent)["status"] == "preempted"
        else:
            assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("stage", "size"), [("evaluation", 10), ("test", 150)])
def test_a_signal_in_an_evaluation_or_the_test_costs_that_alone(
    start: Callable[..., Dlrun], tmp_path: Path, stage: str, size: int
) -> None:
    options = ["data.test_fraction=0.4", f"data.eval_batch_size={size}", "trainer.max_epochs=3", *SLOWLY]
    process = start(*WORDS, *options, "hydra.run.dir=run", SLOW=stage, SECONDS="1")
    sleeping(process, tmp_path)
    process.send(SIGTERM)
    assert process.wait() == 143, process.output
    told = summary(tmp_path / "run")
    assert (told["status"], told["error"], told.get("test")) == ("preempted", "SIGTERM", None)
    assert told["epochs"] == (0 if stage == "evaluation" else 3)

    resumed, fresh = start("resume", "run=run", "plugins=[slow]"), start(*WORDS, *options, "hydra.run.dir=fresh")
    assert (resumed.wait(), fresh.wait()) == (0, 0), resumed.output
    one, other = summary(tmp_path / "run"), summary(tmp_path / "fresh")
    assert one["test"] == other["test"] is not None
    assert (one["status"], one["steps"]) == ("finished", other["steps"])


# ---- SLURM


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a SLURM job whose `scontrol` notes what it is asked for, and how the run stands then."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin/scontrol"
    scontrol.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ngrep -h \'"status"\' {tmp_path}/outputs/*/*/summary.json >> '
        f'{tmp_path}/asked\nif [ -e {tmp_path}/down ]; then echo "slurm_update error: Invalid job id" >&2; exit 1; fi\n'
    )
    scontrol.chmod(0o755)
    return {"SLURM_JOB_ID": "4242", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}


def runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("outputs/*/*/summary.json"))


def test_a_job_that_is_requeued_goes_on_in_its_folder(
    start: Callable[..., Dlrun], tmp_path: Path, slurm: dict[str, str]
) -> None:
    words = [*SHORT, *SLOWLY]
    first = start(*words, **slurm, SLOW="training", SECONDS="1")
    sleeping(first, tmp_path)
    first.send(SIGUSR1)
    assert first.wait() == 143, first.output
    (folder,) = runs(tmp_path)
    assert "SLURM job 4242 is queued again" in first.output
    requeued, status = (tmp_path / "asked").read_text().splitlines()
    assert (requeued, status.strip()) == ("requeue 4242", '"status": "preempted",')
    assert summary(folder)["steps"] < 21

    second = start(*words, **slurm, SLURM_RESTART_COUNT="1")
    assert second.wait() == 0, second.output
    assert runs(tmp_path) == [folder]
    told = summary(folder)
    assert (told["status"], told["steps"], told["exit_code"]) == ("finished", 21, 0)
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3"]

    third = start(*words, **slurm, SLURM_RESTART_COUNT="2")  # requeued once more, by an administrator
    assert third.wait() == 0, third.output
    assert "nothing left to do" in third.output
    other = start(*words, "seed=1", **slurm, SLURM_RESTART_COUNT="1")  # another line of the same batch script
    assert other.wait() == 0, other.output
    assert len(runs(tmp_path)) == 2
    assert (tmp_path / "asked").read_text().count("requeue") == 1


def test_sigterm_is_the_end_of_a_job(start: Callable[..., Dlrun], tmp_path: Path, slurm: dict[str, str]) -> None:
    process = start(*LONG, **slurm)
    process.until(lambda: list(tmp_path.glob("outputs/*/*/checkpoints/last.pt")))
    process.send(SIGTERM)
    assert process.wait() == 143
    assert not (tmp_path / "asked").exists()


def test_a_requeue_that_slurm_refuses_is_one_line(
    start: Callable[..., Dlrun], tmp_path: Path, slurm: dict[str, str]
) -> None:
    (tmp_path / "down").touch()
    process = start(*LONG, **slurm)
    process.until(lambda: list(tmp_path.glob("outputs/*/*/checkpoints/last.pt")))
    process.send(SIGUSR1)
    assert process.wait() == 143
    assert "SLURM didn't requeue job 4242: slurm_update error: Invalid job id\n" in process.output
    assert "Traceback" not in process.output
    assert summary(runs(tmp_path)[0])["status"] == "preempted"
